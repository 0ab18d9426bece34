"""Retrieval on real chapters: every engine, what each part is worth, how it does on chapters it was not chosen on.

    python benchmarks/retrieve.py [--data DIR] [--encoder DIR_OR_NAME] [--parts] [--loco]

DIR/fastbook holds chapter notebooks (NN_*.ipynb) and fastbook-benchmark.json. Figures are means over questions with 95%
bootstrap intervals; tokens are words and punctuation marks. Without --encoder, BM25 alone is measured. Encoding four
chapters takes a minute on one core.
"""
import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import read_book
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.engines.scoring import rank_passages_for, score_indexes, score_reading
from agentfastbook.stats.bootstrap import compare, summarize
from agentfastbook.stats.metrics import retrieval_sums
from agentfastbook.engines.retrieve import BM25, Fusion, LateInteraction, Retriever, hybrid

DATA = os.environ.get('AFB_DATA', Path(__file__).resolve().parent.parent.parent/'shared'/'data')
PUBLISHED = pd.DataFrame([ # passages of 500 tokens, over chapters 1, 4, 8, 13
    ('SQLite BM25, keywords by hand', .515, .863), ('bge-small-en-v1.5', .452, .834), ('ColBERTv2', .589, .888),
    ('answerai-colbert-small-v1', .576, .878)], columns=['published', 'MRR@10', 'Recall@10'])
BUDGETS = [f'Recall at {n} tokens' for n in (500, 1000, 2000, 5000)]
ASKED = {'question': ['MRR@10', 'Recall@10', 'MRR@10, findable', 'Recall@10, findable'],
         'component': ['MRR@10, findable', 'Recall@5, findable', 'Recall@10, findable']}
READING = [(500, dict(k=2)), (200, dict(k=3)), (200, dict(k=5)), (200, dict(k=12, margin=1.5)), (150, dict(k=5)),
           *((150, dict(k=12, margin=m)) for m in (1.5, 1.75, 2))] # tokens of a passage, limits of a search
CHOSEN_BY = {'question': ['MRR@10', 'Recall@10'], 'component': ['MRR@10, findable', 'Recall@5, findable']}


class Remember:
    "An index that remembers the scores of its queries, so that settings of a fusion can be compared quickly."
    def __init__(self, index): self.index, self.passages, self.known = index, index.passages, {}

    def _score(self, query):
        if query not in self.known: self.known[query] = self.index._score(query)
        return self.known[query]


def without_neighbours(index):
    index.neighbour_weight = 0
    return index


def parts(encoder):
    "The engines, piece by piece."
    engines = {
        'BM25 of stemmed words': lambda p: without_neighbours(BM25(p, pair_weight=0, block_weight=0)),
        '+ pairs of words': lambda p: without_neighbours(BM25(p, block_weight=0)),
        '+ best block': lambda p: without_neighbours(BM25(p)),
        '+ neighbours = BM25': BM25}
    if encoder is None: return engines
    late = partial(LateInteraction, encoder=encoder)
    return engines | {
        'late, nearest token only, no blocks': lambda p: without_neighbours(late(p, sharpness=None, block_weight=0)),
        'late, smooth, no blocks': lambda p: without_neighbours(late(p, block_weight=0)),
        'late, smooth, best block': lambda p: without_neighbours(late(p)),
        'BM25 + late': lambda p: without_neighbours(hybrid(p, encoder)),
        '+ neighbours = hybrid': partial(hybrid, encoder=encoder)}


def cells(table, measures):
    "A row for each engine, with `value [low, high]`."
    table = table[table.measure.isin(measures)]
    def text(row):
        if row.low != row.low: return f'{row.value:.1f}'
        if row.measure.startswith('tokens'): return f'{row.value:,.0f}'
        return f'{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]'
    table = table.assign(cell=[text(r) for r in table.itertuples()])
    wide = table.pivot(index='engine', columns='measure', values='cell')
    return wide.loc[list(dict.fromkeys(table.engine)), measures]


def show(title, table):
    print(f'\n## {title}\n')
    print(table.to_string())


def show_retrieval(benchmark, book, engines, max_tokens):
    for query, measures in ASKED.items():
        table = score_indexes(benchmark, book, engines, max_tokens, query)
        asked = 'question and component' if query == 'component' else 'the question'
        title = f'Passages of {max_tokens} tokens, asked with {asked}'
        show(title, cells(table, measures))
        if query == 'question': show(f'{title}: at equal tokens', cells(table, [*BUDGETS, 'tokens in 10', 'seconds']))
    print('\nSeconds hold making the index, and all searches.')


def gold_components(question):
    return [replace(c, query=f'{question.text} {c.text}', contexts=()) for c in question.components]


def show_reading(benchmark, book, index, name):
    "What a question's united passages hold, and what they cost to read."
    rows = []
    for max_tokens, limits in READING:
        retrieve = Retriever(index, max_tokens=max_tokens, **limits)
        for source, decompose in {'gold': gold_components, 'rules': RuleDecomposer()}.items():
            table = score_reading(benchmark, book, decompose, retrieve)
            found = {r.measure: r for r in table.itertuples()}
            recall, tokens = found['recall'], found['tokens a question']
            rows.append((source, max_tokens, *(limits.get(x, '') for x in ('k', 'margin')),
                         f'{recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}]', f'{tokens.value:,.0f}'))
    columns = ['components', 'passages of', 'k', 'margin', 'recall', 'tokens a question']
    table = pd.DataFrame(rows, columns=columns).sort_values('components', kind='stable').set_index('components')
    show(f'What the pipeline reads: {name} (at best {found["recall, at best"].value:.3f})', table)


def settings(encoder):
    "All settings that the chosen ones were chosen from: name -> list of passages -> index."
    bm25 = {(p, b, n): dict(pair_weight=p, block_weight=b, neighbours=n)
            for p in (0, .2, .25, .3) for b in (0, .5, .8) for n in (0, .3)}
    def make(passages, neighbours, **weights):
        index = BM25(passages, **weights)
        index.neighbour_weight = neighbours
        return index
    found = {'BM25': {str(s): partial(make, **s) for s in bm25.values()}}
    if encoder is None: return found
    made = {}
    def fuse(passages, late, block_weight, neighbours):
        key = passages[0].id, len(passages), block_weight
        if key not in made:
            late_index = LateInteraction(passages, encoder, block_weight=block_weight)
            made[key] = Remember(BM25(passages)), Remember(late_index)
        index = Fusion(*made[key], weights=[1., late])
        index.neighbour_weight = neighbours
        return index
    hybrids = [dict(late=w, block_weight=b, neighbours=n) for w in (1., 2., 3.) for b in (0., 1., 2.) for n in (0, .3)]
    return found | {'hybrid': {str(s): partial(fuse, **s) for s in hybrids}}


def measures_of(rankings): return {**retrieval_sums(rankings, 10, ()), **retrieval_sums(rankings, 5, ())}


def by_chapter(benchmark, book, index, max_tokens, query):
    "For each chapter the sums of each measure, for one setting."
    rankings = rank_passages_for(benchmark, book, index, max_tokens, query)
    chapter_of = {q.id: q.chapter for q in benchmark}
    groups = {c.number: [r for r in rankings if chapter_of[r.question] == c.number] for c in book}
    return {number: measures_of(group) for number, group in groups.items()}


def mean(sums): return sums[0].sum()/max(sums[1].sum(), 1e-9)


def show_loco(benchmark, book, found, max_tokens):
    "Choose the setting on all chapters but one, and measure it on that one."
    for engine, made in found.items():
        scores = {name: {query: by_chapter(benchmark, book, index, max_tokens, query) for query in ASKED}
                  for name, index in made.items()}
        held = {query: [] for query in ASKED}
        for chapter in (c.number for c in book):
            def quality(name):
                return sum(mean(s[m]) for query, measures in CHOSEN_BY.items() for m in measures
                           for number, s in scores[name][query].items() if number != chapter)
            best = max(made, key=quality)
            print(f'{engine}, held out {chapter}: chosen {best}')
            for query in ASKED: held[query].append(scores[best][query][chapter])
        for query, measures in CHOSEN_BY.items():
            sums = {m: tuple(np.concatenate([h[m][i] for h in held[query]]) for i in (0, 1)) for m in measures}
            show(f'{engine}, {query}, leave one chapter out', summarize(sums).set_index('measure').round(3))


def show_chapters(benchmark, book, engines, max_tokens):
    for query, measures in CHOSEN_BY.items():
        sums = {name: by_chapter(benchmark, book, e, max_tokens, query) for name, e in engines.items()}
        rows = {name: {(number, m): mean(s[m]) for number, s in found.items() for m in measures}
                for name, found in sums.items()}
        show(f'By chapter, {query}', pd.DataFrame(rows).T.round(3))


def show_difference(benchmark, book, engines, max_tokens):
    for query, measures in CHOSEN_BY.items():
        rankings = [rank_passages_for(benchmark, book, e, max_tokens, query) for e in engines.values()]
        first, second = map(measures_of, rankings)
        table = compare(first, second).set_index('measure').loc[measures]
        show(f'{" minus ".join(engines)}, {query}', table.round(3))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default=DATA, help='folder with fastbook/ in it (default: AFB_DATA or ../shared/data)')
    parser.add_argument('--encoder', help='late interaction, too: a ColBERT model, or the folder of another encoder')
    parser.add_argument('--max_tokens', type=int, default=500, help='tokens of a passage, >= 1 (default: 500)')
    parser.add_argument('--parts', action='store_true', help='what each part of an engine is worth')
    parser.add_argument('--loco', action='store_true', help='choose settings on all chapters but one, measure there')
    args = parser.parse_args()
    folder = Path(args.data)/'fastbook'
    book, benchmark, encoder = read_book(folder), load_benchmark(folder/'fastbook-benchmark.json'), None
    engines: dict[str, Callable] = {'BM25': BM25}
    if args.encoder:
        from agentfastbook.engines.encode import token_encoder
        encoder = RememberQueries(token_encoder(args.encoder))
        engines |= {'late': partial(LateInteraction, encoder=encoder),
                    'hybrid': partial(hybrid, encoder=encoder)}
    print(f'{len(benchmark)} questions, {sum(len(q.components) for q in benchmark)} components, {len(book)} chapters')
    show_retrieval(benchmark, book, engines, args.max_tokens)
    show('Published', PUBLISHED.set_index('published'))
    show_chapters(benchmark, book, engines, args.max_tokens)
    if encoder: show_difference(benchmark, book, {n: engines[n] for n in ('hybrid', 'BM25')}, args.max_tokens)
    for name in engines:
        if name != 'late': show_reading(benchmark, book, engines[name], name)
    if args.parts: show_retrieval(benchmark, book, parts(encoder), args.max_tokens)
    if args.loco: show_loco(benchmark, book, settings(encoder), args.max_tokens)


class RememberQueries:
    "An encoder that encodes each query once: the tables ask the same ones again and again."
    def __init__(self, encoder): self.encoder, self.name, self.known = encoder, encoder.name, {}

    def encode(self, texts, query=False):
        if not query: return self.encoder.encode(texts)
        for text in texts:
            if text not in self.known: self.known[text] = self.encoder.encode([text], query=True)[0]
        return [self.known[text] for text in texts]


if __name__ == '__main__': main()
