"What the embedded engines reach on the real chapters must not fall below what the project promises."
import json

import pytest

from agentfastbook.books.questions import Benchmark, load_benchmark
from agentfastbook.books.chapters import read_book
from agentfastbook.engines.scoring import score_decomposers, score_extractors, score_labels, count_broken_contexts, score_indexes
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.scoring import score


@pytest.fixture(scope='module')
def real(data): return read_book(data/'fastbook'), load_benchmark(data/'fastbook'/'fastbook-benchmark.json')


def value(table, measure, **where):
    for column, wanted in where.items(): table = table[table[column] == wanted]
    return table[table.measure == measure].value.item()


def test_passages_break_no_context(real):
    assert count_broken_contexts(real[1], real[0]).broken.sum() == 0


def test_decomposition(real):
    table = score_decomposers(real[1])
    assert value(table, 'soft_f1', engine='standard', questions='all') >= .66
    assert value(table, 'soft_f1', engine='fine', questions='several components') >= .64
    fourth = score_decomposers(Benchmark([q for q in real[1] if q.chapter == 4]))
    assert value(fourth, 'soft_f1', engine='standard', questions='all') >= .63


def test_retrieval(real):
    table = score_indexes(real[1], real[0])
    assert value(table, 'MRR@10') >= .60 and value(table, 'Recall@10') >= .915
    table = score_indexes(real[1], real[0], query='component')
    assert value(table, 'MRR@10, findable') >= .86 and value(table, 'Recall@5, findable') >= .96


def test_extraction_from_gold_components(real):
    assert value(score_extractors(real[1], real[0]), 'f1 by component, findable', engine='rules') >= .53


@pytest.fixture(scope='module')
def curated(real, tmp_path_factory):
    "The whole pipeline's dataset.json, and what this library says of it."
    folder = tmp_path_factory.mktemp('promises')
    curate(*real, folder, progress=False)
    return folder/'dataset.json', score(load_benchmark(folder/'dataset.json'), real[1], real[0])


def test_the_whole_pipeline(curated):
    ours = curated[1]
    assert value(ours, 'f1', step='extraction') >= .58 and value(ours, 'component_recall', step='extraction') >= .60
    assert value(ours, 'context_verbatim', step='extraction') == 1 and value(ours, 'verbatim', step='decomposition') == 1


def test_another_scorer_sees_the_same(curated, real, data, scorer):
    path, ours = curated
    read = {name: {(q['chapter'], q['question_number']): q for q in json.loads(file.read_text(encoding='utf-8'))['questions']}
            for name, file in [('pred', path), ('gold', data/'fastbook'/'fastbook-benchmark.json')]}
    theirs = scorer.extraction(read['pred'], read['gold'], {c.number: c.text for c in real[0]})
    for measure in ('precision', 'recall', 'f1', 'component_recall', 'context_verbatim'):
        assert value(ours, measure, step='extraction') == pytest.approx(theirs[measure], abs=1e-9)


def test_automatic_labels(data):
    table = score_labels(data/'agentfastbook'/'evals-haiku-3.5.json').set_index('label')
    assert table.kappa['all'] >= .97
