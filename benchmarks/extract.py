"""How well the text that supports a component is extracted, on real chapters: python benchmarks/extract.py

Needs fastbook/*.ipynb and fastbook/fastbook-benchmark.json in the data folder (fetch them with agentfastbook.books.download.get_fastbook).
Prints Markdown tables: extraction with the gold components as input beside baselines and oracles; the whole chain with
components made by rules; both with weights that were fitted without the chapter they are tested on; what each measure
is worth; abstention. With --encoder the same with late interaction; with --fit the weights fitted on all chapters.
"""
import argparse,os,sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from agentfastbook.engines import extract as e
from agentfastbook.books.questions import Component,load_benchmark
from agentfastbook.books.chapters import read_book
from agentfastbook.text.spans import Span
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.stats.metrics import Extraction,character_overlap,extraction_sums,occurrences
from agentfastbook.stats.bootstrap import interval
from agentfastbook.engines.retrieve import BM25,Retriever

@dataclass
class Case:
    "A component with what was retrieved and measured for it."
    question:object
    chapter:object
    component:Component
    gold:list # spans of its contexts, all occurrences
    ranked:Sequence
    runs:e.Runs

def read_data(data):
    folder = Path(data)/'fastbook'
    if not (folder/'fastbook-benchmark.json').is_file():
        sys.exit(f"{folder/'fastbook-benchmark.json'} is not there; give the folder that holds fastbook/ with --data or AFB_DATA, "
                 "or fetch chapters and benchmark with agentfastbook.books.download.get_fastbook")
    book = read_book(folder)
    return book,[q for q in load_benchmark(folder/'fastbook-benchmark.json') if q.components and q.chapter in book]

def engines(encoder, k):
    "The retrieval step, and what measures the runs."
    if encoder is None: return Retriever(BM25, max_tokens=200, k=k),e.RuleExtractor().measure
    from agentfastbook.engines.retrieve import hybrid
    return Retriever(partial(hybrid, encoder=encoder), max_tokens=200, k=k),e.RuleExtractor(encoder).measure

def make_cases(book, questions, retrieve, measure, components):
    "`components(question)` gives what to extract for."
    cases = []
    for q in questions:
        chapter = book[q.chapter]
        for c in components(q):
            ranked = retrieve(c, chapter)
            gold = [s for x in c.contexts for s in occurrences(x.text, chapter.text)]
            cases.append(Case(q, chapter, c, gold, ranked, measure(c, ranked, chapter)))
    return cases

def gold_components(q): return [Component(c.text, c.spans, c.contexts, f'{q.text} {c.text}') for c in q.components]

# ways to extract: a case comes in, spans come out

def rules(weights, **options): return lambda case: e.keep_runs(case.runs, weights, **options)

def top_passage(case): return [r.passage.span for r in case.ranked[:1]]

def best_run(case, allowed, score):
    "The run with the highest score among those that are allowed."
    chosen = np.flatnonzero(allowed)
    return [Span(*map(int, case.runs.spans[chosen[np.argmax(score[chosen])]]))] if len(chosen) else []

def best_block(case): return best_run(case, case.runs.measures['whole'] > 0, case.runs.measures['block'])

def best_sentence(case): return best_run(case, np.diff(case.runs.sentences)[:,0] == 1, case.runs.measures['words'])

def overlap_f1(case, spans):
    "Character F1 of each of `spans` alone."
    n = len(case.chapter.text)
    marked,solid = np.zeros(n, bool),np.array([not c.isspace() for c in case.chapter.text])
    for s in case.gold: marked[s.start:s.end] = True
    both,all_ = (np.r_[0, np.cumsum(x)] for x in (marked & solid, solid))
    (a,b),total = np.asarray(spans).reshape(-1, 2).T,both[-1]
    return 2*(both[b]-both[a])/np.maximum(1, all_[b]-all_[a]+total)

def oracle_run(case): return best_run(case, np.ones(len(case.runs), bool), overlap_f1(case, case.runs.spans))

def oracle_blocks(case):
    blocks = [(b[0].start, b[-1].end) for _,b in e.sentence_blocks(case.chapter)]
    return [Span(*blocks[int(np.argmax(overlap_f1(case, blocks)))])]

def oracle_sentences(case):
    "All sentences more than half of which a person marked."
    found = [s for _,block in e.sentence_blocks(case.chapter) for s in block]
    touched = [s for s in found if any(s.overlaps(g) for g in case.gold)]
    shares = [character_overlap(case.chapter.text, case.gold, [s]) for s in touched]
    return [s for s,(both,_,size) in zip(touched, shares) if both > size/2] or touched[:1]

# measures

def triples(cases, extract):
    "Character precision, recall and F1 of each findable component."
    res = []
    for case in cases:
        both,gold,predicted = character_overlap(case.chapter.text, case.gold, extract(case))
        res.append((both/max(1, predicted), both/gold, 2*both/(gold+predicted)))
    return np.array(res)

def chain_sums(cases, questions, book, extract):
    "Sums of extraction measures over questions, with predicted components."
    predicted = {q.id: [] for q in questions}
    for case in cases: predicted[case.question.id].append(extract(case))
    items = [Extraction(book[q.chapter].text, [[x.text for x in c.contexts] for c in q.components], predicted[q.id]) for q in questions]
    return extraction_sums(items)

# fitting

def utilities(case):
    "How good each run would be: F1, and for two fifths whether it holds a whole context."
    whole = np.zeros(len(case.runs), bool)
    for s in case.gold: whole |= (case.runs.spans[:,0] <= s.start) & (s.end <= case.runs.spans[:,1])
    return .6*overlap_f1(case, case.runs.spans)+.4*whole

def fit(cases, names, penalty=.05, sharpness=8):
    "Weights under which the best runs of each case are likeliest: softmax over its runs, against exp(sharpness * utility)."
    pairs = []
    for case in cases:
        good = utilities(case)
        wanted = np.exp(sharpness*good)*(good > .3)
        if wanted.sum(): pairs.append((np.column_stack([case.runs.measures[n] for n in names]), wanted/wanted.sum()))
    spread = np.concatenate([x for x,_ in pairs]).std(0)+1e-9
    def loss(weights):
        value,slope = penalty*(weights @ weights)/2,penalty*weights
        for x,wanted in pairs:
            total = x/spread @ weights
            chances = np.exp(total-total.max())
            chances /= chances.sum()
            value -= wanted @ np.log(chances+1e-300)/len(cases)
            slope = slope-(wanted-chances) @ (x/spread)/len(cases)
        return value,slope
    found = minimize(loss, np.zeros(len(names)), jac=True, method='L-BFGS-B').x/spread
    return dict(zip(names, found.tolist()))

def without_own_chapter(cases, names, **options):
    "Extraction with weights fitted on the other chapters."
    chapters = sorted({c.chapter.number for c in cases})
    weights = {n: fit([c for c in cases if c.chapter.number != n], names) for n in chapters}
    return lambda case: e.keep_runs(case.runs, weights[case.chapter.number], **options)

# tables

def print_table(title, header, rows):
    print(f'\n{title}\n\n| {" | ".join(header)} |\n|{"---|"*len(header)}')
    for row in rows: print(f'| {" | ".join(x if isinstance(x, str) else f"{x:.3f}" for x in row)} |', flush=True)

def gold_row(name, cases, extract, seed):
    values,numbers = triples(cases, extract),np.array([c.chapter.number for c in cases])
    mean = interval(values[:,2], clusters=[c.question.id for c in cases], seed=seed)
    return [name, str(mean), *values[:,:2].mean(0), *(values[numbers == n, 2].mean() for n in sorted(set(numbers)))]

def chain_row(name, cases, questions, book, extract, seed):
    sums = chain_sums(cases, questions, book, extract)
    figures = [str(interval(*sums[m], seed=seed)) for m in ('f1','component_recall')]
    return [name, *figures, *(sums[m][0].sum()/sums[m][1].sum() for m in ('precision','recall'))]

def print_gold(systems, findable, seed):
    numbers = sorted({c.chapter.number for c in findable})
    print_table('Gold components as input: mean over findable components', ['extraction','F1 [95% interval]','precision','recall',
                *(f'F1, chapter {n}' for n in numbers)], [gold_row(name, findable, x, seed) for name,x in systems.items()])

def print_chain(systems, chain, questions, book, seed):
    print_table('Rule components as input: united over the components of a question', ['extraction','F1 [95% interval]',
                'component recall [95% interval]','precision','recall'],
                [chain_row(name, chain, questions, book, x, seed) for name,x in systems.items()])

def print_ablations(findable, chain, questions, book, names, seed):
    rows = []
    for left_out in (None, *names):
        extract = without_own_chapter(findable, [n for n in names if n != left_out])
        values = triples(findable, extract)[:,2]
        sums = chain_sums(chain, questions, book, extract)
        rows.append([f'without {left_out}' if left_out else 'all', values.mean(),
                     *(sums[m][0].sum()/sums[m][1].sum() for m in ('f1','component_recall'))])
    print_table('What each measure is worth (weights fitted without the tested chapter)',
                ['measures','gold components, F1','rule components, F1','component recall'], rows)

def print_trade_off(weights, gold, findable, chain, questions, book):
    rows = []
    for slack in (0,.1,.25,.5,1):
        sums = chain_sums(chain, questions, book, rules(weights, slack=slack))
        rows.append([str(slack), triples(findable, rules(weights, slack=slack))[:,2].mean(),
                     *(sums[m][0].sum()/sums[m][1].sum() for m in ('f1','component_recall','precision','recall'))])
    print_table('slack', ['slack','gold components, F1','rule components, F1','component recall','precision','recall'], rows)
    empty,rows = [c for c in gold if not c.component.contexts],[]
    for least in (0,.05,.1,.15,.2,.25,.3,.4):
        extract = rules(weights, min_support=least)
        right,wrong = (sum(not extract(c) for c in cases) for cases in (empty, findable))
        sums = chain_sums(chain, questions, book, extract)
        rows.append([str(least), f'{right} of {len(empty)}', f'{wrong} of {len(findable)}', right/max(1, right+wrong),
                     triples(findable, extract)[:,2].mean(), *(sums[m][0].sum()/sums[m][1].sum() for m in ('f1','component_recall'))])
    print_table('Abstention: components without any context, and with one', ['min_support','rightly empty','wrongly empty','precision',
                'gold components, F1','rule components, F1','component recall'], rows)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--encoder', help='late interaction, too: a ColBERT checkpoint or the folder of a token encoder')
    parser.add_argument('--k', type=int, default=5, help='passages of 200 tokens retrieved for each component (default: 5)')
    parser.add_argument('--granularity', default='standard', help='of the rule components: standard, fine or whole (default: standard)')
    parser.add_argument('--seed', type=int, default=42, help='seed of the bootstrap (default: 42)')
    parser.add_argument('--quick', action='store_true', help='only the figures of the extractor as it is')
    parser.add_argument('--fit', action='store_true', help='only the weights, fitted on all chapters')
    args = parser.parse_args()
    encoder,weights = None,e.WEIGHTS
    if args.encoder:
        from agentfastbook.engines.encode import token_encoder
        encoder,weights = token_encoder(args.encoder),e.WEIGHTS_WITH_MEANING
    book,questions = read_data(args.data)
    retrieve,measure = engines(encoder, args.k)
    gold = make_cases(book, questions, retrieve, measure, gold_components)
    findable = [c for c in gold if c.gold]
    names = list(weights)
    if args.fit: return print('\n'.join(f'{name} {value:.2f}' for name,value in fit(findable, names).items()))
    chain = make_cases(book, questions, retrieve, measure, RuleDecomposer(args.granularity))
    print(f'{len(questions)} questions, {len(gold)} gold components ({len(findable)} findable), {len(chain)} rule components, '
          f'{"with" if encoder else "without"} late interaction')
    systems = {'rules':rules(weights)}
    if not args.quick:
        left_out = without_own_chapter(findable, names)
        systems |= {'rules, weights of the other chapters':left_out, 'best block by BM25':best_block,
                    'best sentence by BM25':best_sentence, 'top passage':top_passage}
    oracles = {} if args.quick else {'oracle: best run in the passages':oracle_run, 'oracle: sentences':oracle_sentences,
                                     'oracle: best block':oracle_blocks}
    print_gold(systems | oracles, findable, args.seed)
    print_chain(systems, chain, questions, book, args.seed)
    if args.quick: return
    print_ablations(findable, chain, questions, book, names, args.seed)
    print_trade_off(weights, gold, findable, chain, questions, book)

if __name__ == '__main__': main()
