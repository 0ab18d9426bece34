"""How well gold answers are split into components, on real chapters: python benchmarks/decompose.py

Needs fastbook/fastbook-benchmark.json in the data folder (agentfastbook.books.download.get_fastbook downloads it) and, for one row,
agentfastbook/evals-haiku-3.5.json. Prints Markdown tables: baselines and granularities with 95% bootstrap intervals by
question, paired differences, what each rule is worth, what happens when the rules are chosen without the chapter that
they are tested on, and what an oracle would reach. Takes about a minute.
"""
import argparse,itertools,json,os,re,sys
from pathlib import Path

import numpy as np

from agentfastbook.engines import decompose as d
from agentfastbook.books.questions import load_benchmark
from agentfastbook.text.spans import sentences
from agentfastbook.stats.matching import decomposition_sums,drop_duplicates
from agentfastbook.stats.bootstrap import interval,paired_interval

REJECTED = { # classes of openers that were tried and left out
    'pronoun': 'it|they',
    'demonstrative': 'this|these|those|such',
    'contrast': 'however|but|instead',
    'addition': 'and|also|additionally|moreover|furthermore',
    'circumstance': 'as|since|because|although|before|after|while|by|in|without|with|to|for',
}
LEVELS = {'standard':True, 'fine':False} # is cohesion used?
CLAUSE = re.compile(r',\s+(?=(?:and|but|where|which|while|whereas|because|as|so)\s)')

# data and scores

def read_questions(data):
    path = Path(data)/'fastbook'/'fastbook-benchmark.json'
    if not path.is_file():
        sys.exit(f"{path} is not there; give the folder that holds fastbook/fastbook-benchmark.json with --data or "
                 "AFB_DATA, or download the file with agentfastbook.books.download.get_fastbook")
    return [q for q in load_benchmark(path) if q.components]

def pieces(component, question):
    "A component as the texts of its spans, which is what a person marked."
    return [s.of(question.gold_answer) for s in component.spans] or [component.text]

def gold(question): return [pieces(c, question) for c in question.components]

def score(questions, split):
    "Numerators and denominators of soft F1, (questions, 2); `split` maps a question to spans or texts."
    def texts(q): return [x if isinstance(x, str) else x.of(q.gold_answer) for x in split(q)]
    return np.array(decomposition_sums([(q.gold_answer, gold(q), texts(q)) for q in questions])['soft_f1']).T

def ratio(sums): return sums[:,0].sum()/sums[:,1].sum() if len(sums) else float('nan')

class Groups:
    "The questions over which figures are reported."
    def __init__(self, questions):
        self.chapters = np.array([q.chapter for q in questions])
        self.multi = np.array([len(drop_duplicates(gold(q))) > 1 for q in questions])
        self.names = ['all', 'several components', *(f'chapter {c}' for c in sorted(set(self.chapters)))]

    def __getitem__(self, name):
        if name == 'all': return np.ones(len(self.chapters), bool)
        return self.multi if name == 'several components' else self.chapters == int(name.split()[1])

    def ratios(self, sums): return [ratio(sums[self[name]]) for name in self.names]

# ways to split

def named(granularity): return lambda q: d.decompose_spans(q.gold_answer, granularity)

def rules(openers=tuple(d.OPENERS), cohesion=True, min_words=d.MIN_WORDS, units=d.answer_units):
    return lambda q: d.glue_units(q.gold_answer, units(q.gold_answer), openers, cohesion, min_words)

def clauses(text):
    "Units cut further before coordinated and relative clauses."
    res = []
    for u in d.answer_units(text):
        start = u.start
        for m in CLAUSE.finditer(text, u.start, u.end):
            res.append(d.Span(start, m.start()))
            start = m.end()
        res.append(d.Span(start, u.end))
    return res

def patched(name, replacement, call):
    "`call`, while a private name of the module stands for something else."
    def patched_call(x):
        kept = getattr(d, name)
        setattr(d, name, replacement)
        try: return call(x)
        finally: setattr(d, name, kept)
    return patched_call

def same_word(letters, start):
    "The rules with another idea of what a repeated word is."
    pattern = re.compile(d._TERM.pattern.replace('{4,}', f'{{{letters},}}'))
    return patched('_terms', lambda text: {m.group()[:start].lower() for m in pattern.finditer(text)}, rules())

def short_whole(limit):
    "The rules, but answers of at most `limit` words stay whole."
    return lambda q: d.decompose_spans(q.gold_answer, 'whole' if d._count_words(q.gold_answer) <= limit else 'standard')

def variants():
    "Name, level and split for each single change of the rules."
    for level,cohesion in LEVELS.items():
        for o in d.OPENERS: yield f'without openers: {o}',level,rules([x for x in d.OPENERS if x != o], cohesion)
        for o,words in REJECTED.items(): yield f'with openers: {o}',level,rules([*d.OPENERS, words], cohesion)
        for n in (1,4,8,10,12): yield f'at least {n} words a unit',level,rules(cohesion=cohesion, min_words=n)
        yield 'cuts at clauses, too',level,rules(cohesion=cohesion, units=clauses)
    yield 'without cohesion','standard',rules(cohesion=False)
    yield 'without openers','standard',rules(())
    yield 'without gluing','standard',rules((), False, 1)
    yield 'lists cut at line ends','standard',rules(units=patched('_is_list', lambda block: False, d.answer_units))
    yield 'no cuts at semicolons and a)','standard',rules(units=patched('_MARK', re.compile('(?!)'), d.answer_units))
    for n in (20,30,40): yield f'answers of up to {n} words whole','standard',short_whole(n)
    for n,k in ((3,5),(4,4),(4,6),(4,99),(5,5)):
        yield f'words of {n} letters or more compared by the first {k}','standard',same_word(n, k)

# tables

def print_table(title, header, rows):
    print(f'\n{title}\n\n| {" | ".join(header)} |\n|{"---|"*len(header)}')
    for row in rows: print(f'| {" | ".join(x if isinstance(x, str) else f"{x:.3f}" for x in row)} |')

def row_with_interval(name, sums, groups, seed): return [name, str(interval(*sums.T, seed=seed)), *groups.ratios(sums)[1:]]

def print_systems(systems, groups, seed):
    rows = [row_with_interval(name, sums, groups, seed) for name,sums in systems.items()]
    print_table('Soft F1 by granularity', ['split','all [95% interval]',*groups.names[1:]], rows)

def print_differences(systems, groups, seed):
    pairs = [*itertools.product(LEVELS, ('whole','sentences and lines')), ('standard','fine')]
    def difference(a, b, name):
        first,second = (systems[x][groups[name]].T for x in (a,b))
        return str(paired_interval(first, second, seed=seed))
    rows = [[f'{a} minus {b}', *(difference(a, b, name) for name in groups.names[:2])] for a,b in pairs]
    print_table('Paired differences in soft F1', ['', *groups.names[:2]], rows)

def print_models(questions, data, seed):
    "Chapter 4: published figures of two models, and the components of one of them measured again."
    four = [q for q in questions if q.chapter == 4]
    rows = [[f'rules, {g}', str(interval(*score(four, named(g)).T, seed=seed)), 'measured'] for g in d.GRANULARITIES]
    path = Path(data)/'agentfastbook'/'evals-haiku-3.5.json'
    if path.is_file():
        replies = {e['question_number']:e['haiku_components'] for e in json.loads(path.read_text(encoding='utf-8'))}
        both = [q for q in four if q.number in replies]
        ours,theirs = score(both, named('standard')),score(both, lambda q: replies[q.number])
        difference = paired_interval(ours.T, theirs.T, seed=seed)
        rows += [[f'Claude 3.5 Haiku, {len(both)} answers', str(interval(*theirs.T, seed=seed)), 'measured'],
                 ['rules, standard minus Claude 3.5 Haiku', str(difference), 'measured, paired']]
    rows.append(['Claude Sonnet 4', '0.392', 'published'])
    print_table('Chapter 4 beside two language models (soft F1)', ['split','chapter 4','source'], rows)

def print_ablations(questions, systems, groups):
    "One rule changed at a time, with the number of questions whose score changes."
    rows = []
    for name,level,split in variants():
        sums,base = score(questions, split),systems[level]
        changed = np.abs(sums[:,0]/sums[:,1] - base[:,0]/base[:,1]) > 1e-9
        gains = np.subtract(groups.ratios(sums), groups.ratios(base))
        rows.append([f'{level}, {name}', str(changed.sum()), *(f'{x:+.3f}' for x in gains)])
    print_table('What each rule is worth: change in soft F1', ['variant','questions changed',*groups.names], rows)

def leave_one_out(questions, groups, objective):
    "Sums with, for each chapter, the rules that are best by `objective` on the other chapters; and which those are."
    classes = {**d.OPENERS, **REJECTED}
    names = [*classes, 'cohesion']
    subsets = [s for n in range(len(names)+1) for s in itertools.combinations(names, n)]
    cache = {}
    def one(q, subset):
        spans = tuple(rules([classes[c] for c in subset if c in classes], 'cohesion' in subset)(q))
        if (q.id, spans) not in cache: cache[q.id, spans] = score([q], lambda q: spans)[0]
        return cache[q.id, spans]
    sums = {s:np.array([one(q, s) for q in questions]) for s in subsets}
    res,chosen = np.zeros((len(questions), 2)),{}
    for c in sorted(set(groups.chapters)):
        out = groups.chapters == c
        chosen[c] = max(subsets, key=lambda s: objective(sums[s], ~out, groups))
        res[out] = sums[chosen[c]][out]
    return res,chosen

def mean_of_chapters(sums, kept, groups):
    return np.mean([ratio(sums[groups.chapters == c]) for c in set(groups.chapters[kept])])

def with_several(sums, kept, groups): return ratio(sums[kept & groups.multi])

def print_leave_one_out(questions, groups, seed):
    rows,lines = [],[]
    objectives = {'mean over the other chapters':mean_of_chapters, 'several components, other chapters':with_several}
    for name,objective in objectives.items():
        sums,chosen = leave_one_out(questions, groups, objective)
        rows.append(row_with_interval(name, sums, groups, seed))
        lines += [f'- {name}, for chapter {c}: {", ".join(s)}' for c,s in chosen.items()]
    print_table('Openers and cohesion chosen on three chapters, tested on the fourth (soft F1)',
                ['chosen by','all [95% interval]',*groups.names[1:]], rows)
    print('', *lines, sep='\n')

def oracle(question, units, price=.85):
    "The best runs of `units`: cuts are set or removed one by one as long as 2 * shared - `price` * components grows."
    def spans(cuts):
        starts = [0, *(i+1 for i,cut in enumerate(cuts) if cut), len(units)]
        return [d.Span(units[a].start, units[b-1].end) for a,b in zip(starts, starts[1:])]
    def value(cuts):
        top,below = score([question], lambda q: spans(cuts))[0]
        return top-price*below
    def climb(cuts):
        best = value(cuts)
        while cuts:
            top,i = max((value([*cuts[:i], not cuts[i], *cuts[i+1:]]), i) for i in range(len(cuts)))
            if top <= best: break
            best,cuts = top,[*cuts[:i], not cuts[i], *cuts[i+1:]]
        return best,cuts
    n = len(units)-1
    return spans(max(climb([False]*n), climb([True]*n))[1])

def print_limits(questions, systems, groups):
    rows = [[name, *groups.ratios(score(questions, lambda q: oracle(q, units(q.gold_answer))))]
            for name,units in {'units':d.answer_units, 'units and clauses':clauses}.items()]
    print_table('If the best cuts were chosen (soft F1)', ['cuts between', *groups.names], rows)
    lost = systems['standard'][:,1]-systems['standard'][:,0]
    counts = np.array([[len(drop_duplicates(gold(q))), len(named('standard')(q))] for q in questions])
    rows = []
    for name,chosen in {'one component':~groups.multi, 'several components':groups.multi}.items():
        true,ours = counts[chosen].T
        share,found = f'{lost[chosen].sum()/lost.sum():.0%}',(ours < true, ours == true, ours > true)
        rows.append([name, str(chosen.sum()), share, *(str(x.sum()) for x in found)])
    print_table('Where the rest is lost (standard)',
                ['questions with','number','share of the loss','too few','right number','too many'], rows)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--seed', type=int, default=42, help='seed of the bootstrap (default: 42)')
    parser.add_argument('--quick', action='store_true', help='only the first table')
    args = parser.parse_args()
    questions = read_questions(args.data)
    groups = Groups(questions)
    splits = {'whole':named('whole'), 'sentences and lines':lambda q: sentences(q.gold_answer)}
    splits.update({g:named(g) for g in LEVELS})
    systems = {name:score(questions, split) for name,split in splits.items()}
    print(f'{len(questions)} questions, {groups.multi.sum()} of them with several components')
    print_systems(systems, groups, args.seed)
    if args.quick: return
    print_differences(systems, groups, args.seed)
    print_models(questions, args.data, args.seed)
    print_ablations(questions, systems, groups)
    print_leave_one_out(questions, groups, args.seed)
    print_limits(questions, systems, groups)

if __name__ == '__main__': main()
