"""How well a tiny model splits answers and selects sentences, on real chapters: python benchmarks/tiny_tasks.py

Needs fastbook/*.ipynb and fastbook/fastbook-benchmark.json in the data folder (fetch them with agentfastbook.book.get_fastbook).
Trunk and stage 2 have seen no text of these chapters. What is fitted on real pairs is fitted without the chapter that it
is tested on, and its penalties are chosen without it, too. (The rules themselves were written with an eye on all four
chapters, so where the model is told what they do, it is not independent of them.) Prints Markdown tables: both tasks beside
the rules, baselines and ablations with 95% bootstrap intervals by question, paired differences, and whether eight runs agree.
"""
import argparse,os
from functools import lru_cache

import numpy as np

import extract as bx
from agentfastbook import decompose as d
from agentfastbook.core import Span,sentences
from agentfastbook.extract import WEIGHTS
from agentfastbook.matching import decomposition_sums,drop_duplicates
from agentfastbook.metrics import interval,paired_interval
from agentfastbook.retrieve import BM25,Retriever
from agentfastbook.tiny.encode import TinyEncoder
from agentfastbook.tiny.fitting import boundary_choice,fit_boundary,fit_selection,run_worth
from agentfastbook.tiny.tasks import SELECTION,TinyDecomposer,TinyExtractor,_heads,expected_best,run_chances

PENALTIES = (.03,.1,.3,1.)
SELECTION_GRID = [(p, s) for p in (.005,.02) for s in (1.,2.,3.)]
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
    def __init__(self, questions, folder):
        engine = TinyDecomposer(folder)
        encoder,heads = engine.encoder,_heads(engine)
        self.questions,self.chapters = questions,np.array([q.chapter for q in questions])
        self.multi = np.array([len(drop_duplicates(gold(q))) > 1 for q in questions])
        self.found = {i:f for i,q in enumerate(questions) if (f := boundary_choice(q, heads, encoder))}
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
        return fit_boundary([f[0] for i,f in self.found.items() if self.chapters[i] not in without], penalty)

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

def print_boundaries(questions, folder, seed):
    data = Boundaries(questions, folder)
    ids,every = np.arange(len(questions)),sorted(set(data.chapters.tolist()))
    with_rules,p1 = data.nested('boundary')
    alone,p2 = data.nested('boundary_alone')
    unfitted = np.array([1., 0., 0.])
    systems = {'whole answer': data.fixed, 'sentences': score(questions, lambda q: sentences(q.gold_answer)),
               'rules': score(questions, lambda q: d.decompose_spans(q.gold_answer)),
               'rules, fine': score(questions, lambda q: d.decompose_spans(q.gold_answer, 'fine')),
               'tiny alone, no real pairs (stage 2)': data.sums(lambda c: unfitted, ids),
               'tiny alone': data.sums(lambda c: alone[c], ids), 'tiny with the rules': data.sums(lambda c: with_rules[c], ids)}
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
    def __init__(self, cases):
        self.cases,self.chapters = cases,np.array([c.chapter.number for c in cases])
        self.pairs = [(c.runs, run_worth(c.runs, c.gold, c.chapter.text)) for c in cases]

    def values(self, ids, weights, sharpen):
        "F1 of the components with these numbers."
        named = dict(zip(SELECTION, weights*sharpen))
        return f1([self.cases[i] for i in ids], lambda case: choose(case, named))

    def fit(self, without, names, penalty):
        return fit_selection([p for p,c in zip(self.pairs, self.chapters) if c not in without], names, penalty, 1.)

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

def print_selection(book, questions, folder, seed, quick):
    retrieve = Retriever(BM25, max_tokens=200, k=5)
    def cases(**options):
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

# repetition

def print_repeats(book, questions, folder, times=8):
    "All runs by engines that are loaded anew."
    retrieve,outputs = Retriever(BM25, max_tokens=200, k=5),[]
    for _ in range(times):
        decompose,extract = TinyDecomposer(folder),TinyExtractor(folder)
        made = []
        for q in questions:
            components = decompose(q)
            made.append(([c.spans for c in components], [extract(c, retrieve(c, book[q.chapter]), book[q.chapter]) for c in components]))
        outputs.append(made)
    good = [score(questions, lambda q, m=dict(zip([q.id for q in questions], run)): [s for spans in m[q.id][0] for s in spans]) for run in outputs]
    passed = np.array([g[:,0]/g[:,1] >= .8 for g in good])
    rows = [['boundaries: soft F1 of .8 or more', passed.mean(), passed.all(0).mean()],
            ['the same output as the first run', np.mean([[a == b for a,b in zip(run, outputs[0])] for run in outputs]),
             np.mean([all(run[i] == outputs[0][i] for run in outputs) for i in range(len(questions))])]]
    print_table(f'{times} runs by engines that are loaded anew, {len(questions)} questions', ['','pass^1',f'pass^{times}'], rows)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--folder', help='of a model with its heads (default: the bundled one)')
    parser.add_argument('--seed', type=int, default=42, help='seed of the bootstrap (default: 42)')
    parser.add_argument('--only', choices=('boundaries','sentences','repeats'), help='one part alone')
    parser.add_argument('--quick', action='store_true', help='without the variants of the encoder')
    args = parser.parse_args()
    book,questions = bx.read_data(args.data)
    print(f'{len(questions)} questions, {TinyDecomposer(args.folder)!r}', flush=True)
    if args.only in (None,'boundaries'): print_boundaries(questions, args.folder, args.seed)
    if args.only in (None,'sentences'): print_selection(book, questions, args.folder, args.seed, args.quick)
    if args.only in (None,'repeats'): print_repeats(book, questions, args.folder)

if __name__ == '__main__': main()
