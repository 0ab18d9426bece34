"""How well a tiny model splits answers and selects sentences, on real chapters: python benchmarks/tiny_tasks.py

Needs fastbook/*.ipynb and fastbook/fastbook-benchmark.json in the data folder (fetch them with agentfastbook.books.download.get_fastbook).
Trunk and stage 2 have seen no text of these chapters. What is fitted on real pairs is fitted without the chapter that it
is tested on, and its penalties are chosen without it, too; where story answers are added, they are the same for each chapter.
(The rules themselves were written with an eye on all four chapters, so where the model is told what they do, it is not
independent of them.) Prints Markdown tables: both tasks beside the rules, baselines and ablations with 95% bootstrap intervals
by question, and paired differences; the whole pipeline; both tasks on story answers that no stage has seen; pass^8.
"""
import argparse,os,shutil
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import extract as bx
from story_book import story_book
from tiny_choosing import boundary_choice,fit_boundary,fit_selection,run_worth
from agentfastbook.engines import decompose as d
from agentfastbook.books.questions import Benchmark
from agentfastbook.text.spans import Span,sentences
from agentfastbook.engines.scoring import score_decomposers,score_extractors,top_passage
from agentfastbook.engines.extract import WEIGHTS,RuleExtractor
from agentfastbook.stats.matching import decomposition_sums,drop_duplicates
from agentfastbook.stats.bootstrap import interval,paired_interval
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.scoring import score as score_run
from agentfastbook.stats.reliability import pass_power
from agentfastbook.engines.retrieve import BM25,Retriever
from agentfastbook.tiny.checkpoint import load_config
from agentfastbook.tiny.encode import TinyEncoder,save_arrays,tiny_path
from agentfastbook.tiny.tasks import HEADS,SELECTION,TinyDecomposer,TinyExtractor,_heads,expected_best,run_chances

PENALTIES = (.03,.1,.3,1.)
SELECTION_GRID = [(p, s) for p in (.005,.02) for s in (1.,2.,3.)]
TOLD,HELD_OUT = 10_000,20_000 # numbers of the first story: added in stage 3, tested on; training begins at 0
WORDS = SELECTION[:7]
MEANING = ('length','whole','heading','meaning','near_meaning','focus')

def print_table(title, header, rows): bx.print_table(title, header, rows)

# boundaries

def gold(q): return [[s.of(q.gold_answer) for s in c.spans] or [c.text] for c in q.components]

def score(questions, split):
    "Numerators and denominators of soft F1, (questions, 2)."
    pairs = [(q.gold_answer, gold(q), [s.of(q.gold_answer) for s in split(q)]) for q in questions]
    return np.array(decomposition_sums(pairs)['soft_f1']).T

def ratio(sums): return sums[:,0].sum()/sums[:,1].sum()

def best_way(choice, weights): return int(np.argmax(choice.features[:,-len(weights):] @ weights))

class Boundaries:
    "All answers with their ways to cut; `sums` of a system by question."
    def __init__(self, questions, folder, told=()):
        engine = TinyDecomposer(folder)
        encoder,heads = engine.encoder,_heads(engine)
        self.questions,self.chapters = questions,np.array([q.chapter for q in questions])
        self.multi = np.array([len(drop_duplicates(gold(q))) > 1 for q in questions])
        self.found = {i:f for i,q in enumerate(questions) if (f := boundary_choice(q, heads, encoder))}
        self.told = [f[0] for q in told if (f := boundary_choice(q, heads, encoder))]
        self.fixed = score(questions, lambda q: d.decompose_spans(q.gold_answer, 'whole'))

    def sums(self, weights_of, ids):
        "`weights_of` gives the weights for a chapter."
        res = self.fixed[ids].copy()
        for row,i in enumerate(ids):
            if i not in self.found: continue
            choice,sums = self.found[i]
            res[row] = sums[best_way(choice, weights_of(self.chapters[i]))]
        return res

    def fit(self, without, penalty):
        return fit_boundary([f[0] for i,f in self.found.items() if self.chapters[i] not in without]+self.told, penalty)

    def nested(self, name):
        "Weights for each chapter, fitted and their penalty chosen on the other chapters."
        fit,chosen = lru_cache(None)(lambda without, penalty: self.fit(without, penalty)[name]),{}
        everything = sorted(set(self.chapters.tolist()))
        for out in everything:
            inner = [c for c in everything if c != out]
            ids = np.flatnonzero(self.chapters != out)
            value = {p: ratio(self.sums(lambda c: fit(tuple(sorted((c, out))), p), ids)) for p in PENALTIES}
            chosen[out] = max(PENALTIES, key=lambda p: (round(value[p], 6), p))
        return {c: fit((c,), chosen[c]) for c in everything},chosen

def print_boundaries(questions, folder, seed, told):
    data,both = Boundaries(questions, folder),Boundaries(questions, folder, told)
    ids,every = np.arange(len(questions)),sorted(set(data.chapters.tolist()))
    with_rules,p1 = data.nested('boundary')
    alone,p2 = data.nested('boundary_alone')
    unfitted,(more_rules,_),(more_alone,_) = np.array([1., 0., 0.]),both.nested('boundary'),both.nested('boundary_alone')
    systems = {'whole answer': data.fixed, 'sentences': score(questions, lambda q: sentences(q.gold_answer)),
               'rules': score(questions, lambda q: d.decompose_spans(q.gold_answer)),
               'rules, fine': score(questions, lambda q: d.decompose_spans(q.gold_answer, 'fine')),
               'tiny alone, no real pairs (stage 2)': data.sums(lambda c: unfitted, ids),
               'tiny alone': data.sums(lambda c: alone[c], ids), 'tiny with the rules': data.sums(lambda c: with_rules[c], ids),
               f'tiny alone, {len(told)} story answers in stage 3': data.sums(lambda c: more_alone[c], ids),
               f'tiny with the rules, {len(told)} story answers in stage 3': data.sums(lambda c: more_rules[c], ids)}
    rows = [[name, *(str(interval(*s[keep].T, seed=seed)) for keep in (slice(None), data.multi)),
             *(ratio(s[data.chapters == c]) for c in every)] for name,s in systems.items()]
    print_table('Boundaries: soft F1, each chapter with weights of the others', ['split','all [95% interval]',
                'several components [95% interval]',*(f'chapter {c}' for c in every)], rows)
    rows = []
    for name in ('tiny alone','tiny with the rules'):
        a,b = systems[name],systems['rules']
        changed = int((np.abs(a-b) > 1e-9).any(1).sum())
        rows.append([f'{name} minus rules', *(str(paired_interval(a[k].T, b[k].T, seed=seed)) for k in (slice(None), data.multi)), str(changed)])
    print_table('Paired differences', ['','all','several components','questions that change'], rows)
    print(f'\npenalties chosen without the chapter: with the rules {p1}, alone {p2}')

# sentences

def choose(case, weights):
    runs = case.runs
    chosen = expected_best(runs.spans, runs.blocks, run_chances(runs, weights), case.chapter.text)
    return [Span(*map(int, runs.spans[i])) for i in chosen]

def f1(cases, extract): return bx.triples(cases, extract)[:,2]

class Selection:
    "All findable components with their runs."
    def __init__(self, cases, told=()):
        self.cases,self.chapters = cases,np.array([c.chapter.number for c in cases])
        self.pairs,self.told = ([(c.runs, run_worth(c.runs, c.gold, c.chapter.text)) for c in part] for part in (cases, told))

    def values(self, ids, weights, sharpen):
        "F1 of the components with these numbers."
        named = dict(zip(SELECTION, weights*sharpen))
        return f1([self.cases[i] for i in ids], lambda case: choose(case, named))

    def fit(self, without, names, penalty):
        return fit_selection([p for p,c in zip(self.pairs, self.chapters) if c not in without]+self.told,
                             names, penalty, 1.)

    def fixed(self, names, penalty=.02, sharpen=2.):
        "F1 of each component with weights of the other chapters; penalty and sharpening were chosen with a look at all four."
        res = np.zeros(len(self.cases))
        for out in set(self.chapters.tolist()):
            ids = np.flatnonzero(self.chapters == out)
            res[ids] = self.values(ids, self.fit((out,), names, penalty), sharpen)
        return res

    def nested(self, names):
        "F1 of each component with weights fitted, and settings chosen, on the other chapters."
        every,chosen = sorted(set(self.chapters.tolist())),{}
        fit = lru_cache(None)(lambda without, penalty: self.fit(without, names, penalty))
        def values(ids, without, setting): return self.values(ids, fit(without, setting[0]), setting[1])
        res = np.zeros(len(self.cases))
        for out in every:
            def inner(setting):
                return np.concatenate([values(np.flatnonzero(self.chapters == c), tuple(sorted((c, out))), setting)
                                       for c in every if c != out]).mean()
            chosen[out] = max(SELECTION_GRID, key=inner)
            ids = np.flatnonzero(self.chapters == out)
            res[ids] = values(ids, (out,), chosen[out])
        return res,chosen

def print_selection(book, questions, folder, seed, quick, stories):
    retrieve = Retriever(BM25, max_tokens=200, k=5)
    def cases(book=book, questions=questions, **options):
        engine = TinyExtractor(folder)
        if options: engine._ready['encoder'] = TinyEncoder(folder, **options)
        made = bx.make_cases(book, questions, retrieve, engine.measure, bx.gold_components)
        return [c for c in made if c.gold]
    found = cases()
    data,systems = Selection(found),{}
    systems['top passage'] = f1(found, bx.top_passage)
    systems['best block by BM25'] = f1(found, bx.best_block)
    systems['rules, their own weights'] = f1(found, bx.rules(WEIGHTS))
    systems['rules, weights of the other chapters'] = f1(found, bx.without_own_chapter(found, list(WEIGHTS)))
    systems['words, chosen by expected F1'],_ = data.nested(WORDS)
    systems['tiny states, without words'],_ = data.nested(MEANING)
    systems['tiny, words and states'],settings = data.nested(SELECTION)
    systems['tiny, words and states, settings as shipped'] = data.fixed(SELECTION)
    systems[f'tiny, words and states, {len(stories[1])} story answers in stage 3'],_ = Selection(found, cases(*stories)).nested(SELECTION)
    if not quick:
        for name,options in {'without the words around': dict(around=0.), 'with the last layer': dict(layers=.3)}.items():
            systems[f'tiny, {name}, settings as shipped'] = Selection(cases(**options)).fixed(SELECTION)
    every,clusters = sorted(set(data.chapters.tolist())),[c.question.id for c in found]
    rows = [[name, str(interval(v, clusters=clusters, seed=seed)), *(v[data.chapters == c].mean() for c in every)] for name,v in systems.items()]
    print_table(f'Sentences: character F1, mean over {len(found)} findable gold components, each chapter with weights of the others',
                ['extraction','F1 [95% interval]',*(f'chapter {c}' for c in every)], rows)
    ours = systems['tiny, words and states']
    rows = [[f'tiny, words and states minus {name}', str(interval(ours-systems[name], clusters=clusters, seed=seed))]
            for name in list(systems)[2:6]]
    rows += [[f'tiny, settings as shipped minus {name}', str(interval(systems['tiny, words and states, settings as shipped']-systems[name],
              clusters=clusters, seed=seed))] for name in list(systems)[2:4]]
    print_table('Paired differences', ['','F1 [95% interval]'], rows)
    print(f'\npenalty and sharpening chosen without the chapter: {settings}')

# the whole pipeline

class ByChapter:
    "Engines that were fitted without the chapter that they work on, as one."
    def __init__(self, engines, chapter_of): self.engines,self.chapter_of = engines,chapter_of
    def __call__(self, *args): return self.engines[self.chapter_of(*args)](*args)

def refitted(folder, data, selection, chapter, target):
    "A copy of a model whose stage 3 has not seen a chapter; settings as shipped."
    shutil.copytree(folder or tiny_path(), target)
    heads = _heads(TinyDecomposer(target)) | data.fit((chapter,), .1)
    heads['selection'] = selection.fit((chapter,), SELECTION, .02)*2
    save_arrays(heads, target/HEADS, load_config(target)[0].id)
    return target

def print_pipeline(book, questions, folder):
    retrieve = Retriever(BM25, max_tokens=200, k=5)
    cases = [c for c in bx.make_cases(book, questions, retrieve, TinyExtractor(folder).measure, bx.gold_components) if c.gold]
    data,selection = Boundaries(questions, folder),Selection(cases)
    with TemporaryDirectory() as made:
        copies = {c.number: refitted(folder, data, selection, c.number, Path(made)/str(c.number)) for c in book}
        without = {'decompose': ByChapter({n: TinyDecomposer(f) for n,f in copies.items()}, lambda q: q.chapter),
                   'extract': ByChapter({n: TinyExtractor(f) for n,f in copies.items()}, lambda c,ranked,chapter: chapter.number)}
        engines = {'rules': {}, 'tiny, weights of the other chapters': without, 'rules, then tiny': dict(extract=without['extract']),
                   'tiny, as shipped (fitted on these chapters, as the rules were)': dict(decompose=TinyDecomposer(folder), extract=TinyExtractor(folder))}
        rows = []
        for i,(name,chosen) in enumerate(engines.items()):
            out = curate(book, Benchmark(questions), Path(made)/f'out{i}', retrieve=retrieve, progress=False, **chosen)
            assert not out.errors, out.errors
            table = score_run(Benchmark(out.questions), Benchmark(questions), book)
            rows.append([name, *(f'{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]' for measure in ('soft_f1','f1','component_recall')
                                 for r in table[table.measure.eq(measure)].head(1).itertuples())])
    print_table('The whole pipeline, BM25, 5 passages of 200 tokens', ['','soft F1','extraction F1','component recall'], rows)

# stories

def wide(table, measures):
    kept = table[table.measure.isin(measures)]
    if 'questions' in kept: kept = kept[kept.questions.eq('all')]
    return kept.assign(cell=[f'{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]' for r in kept.itertuples()])

def print_stories(folder, number):
    "Both engines on stories that no stage has seen."
    book,told = story_book(number, seed=HELD_OUT)
    split = score_decomposers(told, {'rules': d.RuleDecomposer(), 'rules, fine': d.RuleDecomposer('fine'),
        'whole answer': d.RuleDecomposer('whole'), 'tiny alone': TinyDecomposer(folder, rules=False), 'tiny with the rules': TinyDecomposer(folder)})
    chosen = score_extractors(told, book, Retriever(BM25, max_tokens=200, k=5), {'top passage': top_passage,
        'rules': RuleExtractor(), 'tiny': TinyExtractor(folder)})
    for title,table,measure in (('boundaries', split, 'soft_f1'), ('sentences', chosen, 'f1 by component, findable')):
        print_table(f'Stories: {title}, {len(told)} composed answers that no stage has seen', ['', f'{measure} [95% interval]'],
                    [[r.engine, r.cell] for r in wide(table, [measure]).itertuples()])

# repetition

def print_repeats(book, questions, folder, times=8):
    "All runs by engines that are loaded anew; a question succeeds if its split, or what is extracted for it, is good."
    retrieve,good,same = Retriever(BM25, max_tokens=200, k=5),{'boundaries': [], 'sentences': []},[]
    for _ in range(times):
        decompose,extract = TinyDecomposer(folder),TinyExtractor(folder)
        made = {q.id: [s for c in decompose(q) for s in c.spans] for q in questions}
        cases = [c for c in bx.make_cases(book, questions, retrieve, extract, bx.gold_components) if c.gold]
        found = bx.triples(cases, lambda case: case.runs)[:,2]
        sums = score(questions, lambda q: made[q.id])
        good['boundaries'] += list(zip([q.id for q in questions], sums[:,0]/sums[:,1] >= .8))
        good['sentences'] += list(enumerate(found >= .5))
        same.append((made, [c.runs for c in cases]))
    rows = [[f'{name}, {"soft F1 of .8" if name == "boundaries" else "character F1 of .5"} or more',
             *(str(pass_power([p for _,p in tried], [i for i,_ in tried], k)) for k in (1, times))] for name,tried in good.items()]
    print_table(f'{times} runs by engines that are loaded anew', ['','pass^1',f'pass^{times}'], rows)
    print(f'\nall {times} outputs are the same: {all(run == same[0] for run in same)}')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--folder', help='of a model with its heads (default: the bundled one)')
    parser.add_argument('--seed', type=int, default=42, help='seed of the bootstrap (default: 42)')
    parser.add_argument('--only', choices=('boundaries','sentences','pipeline','stories','repeats'), help='one part alone')
    parser.add_argument('--stories', type=int, default=100, help='composed answers that are added in stage 3, to compare (default: 100)')
    parser.add_argument('--quick', action='store_true', help='without the variants of the encoder')
    args = parser.parse_args()
    book,questions = bx.read_data(args.data)
    print(f'{len(questions)} questions, {TinyDecomposer(args.folder)!r}', flush=True)
    stories = story_book(args.stories, seed=TOLD)
    if args.only in (None,'boundaries'): print_boundaries(questions, args.folder, args.seed, stories[1])
    if args.only in (None,'sentences'): print_selection(book, questions, args.folder, args.seed, args.quick, stories)
    if args.only in (None,'pipeline'): print_pipeline(book, questions, args.folder)
    if args.only in (None,'stories'): print_stories(args.folder, 240)
    if args.only in (None,'repeats'): print_repeats(book, questions, args.folder)

if __name__ == '__main__': main()
