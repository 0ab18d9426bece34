"""What the checks in code say about real results: gold data made by a person, components of Claude 3.5 Haiku, and
what the rules of this library make. A check that fails on gold data cries wolf.

    AFB_DATA=... python benchmarks/checks.py
"""
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from agentfastbook.books.questions import load_benchmark, locate_contexts
from agentfastbook.books.chapters import read_book
from agentfastbook.judges.checks import CHECKS, gold_cases
from agentfastbook.judges.judge import cases, judge_cases, summarize_verdicts
from agentfastbook.engines.pipeline import curate
from agentfastbook.store.runs import Store

sys.path.append(str(Path(__file__).parents[1]/'tests'))
from author_evals import read_evaluation  # noqa: E402

DATA = Path(os.environ.get('AFB_DATA', Path(__file__).parents[2]/'shared'/'data'))


def failing(name, found):
    "Share of results that fail each check."
    for step in ('decompose', 'extract'):
        mine = [c for c in found if c.step == step]
        if not mine: continue
        table = summarize_verdicts(judge_cases(CHECKS[step], mine))
        for row in table.itertuples():
            yield dict(step=step, check=row.judge, results=f'{name} (n={row.n})', fails=1-row.rate)


def main():
    book = read_book(DATA/'fastbook')
    gold = locate_contexts(load_benchmark(DATA/'fastbook'/'fastbook-benchmark.json'), book)
    rows = list(failing('gold', gold_cases(gold, book)))
    with TemporaryDirectory() as folder:
        curate(book, gold, folder, progress=False)
        with Store(Path(folder)/'traces.db') as store:
            rows += failing('rules', cases(store)+cases(store, 'extract'))
        with Store(Path(folder)/'evals.db') as store:
            read_evaluation(DATA/'agentfastbook'/'evals-haiku-3.5.json', store)
            rows += failing('Haiku 3.5', cases(store))
    table = pd.DataFrame(rows).pivot_table(index=['step', 'check'], columns='results', values='fails', sort=False)
    print(table.map('{:.1%}'.format, na_action='ignore').fillna('').to_string())


if __name__ == '__main__': main()
