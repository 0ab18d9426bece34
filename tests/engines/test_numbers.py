"What the embedded engines reach on the real chapters must not fall below what the project promises."
import importlib.util
import json

import pytest

from agentfastbook.books.questions import Benchmark, load_benchmark
from agentfastbook.books.chapters import read_book
from agentfastbook.engines.scoring import evaluate_decomposition, evaluate_extraction, evaluate_labels, evaluate_passages, evaluate_retrieval
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.scoring import score


@pytest.fixture(scope='module')
def real():
    from conftest import data_folder
    folder = data_folder()/'fastbook'
    if not folder.is_dir(): pytest.skip(f'no real data: {folder} is not there; set AFB_DATA')
    return read_book(folder), load_benchmark(folder/'fastbook-benchmark.json')


def value(table, measure, **where):
    for column, wanted in where.items(): table = table[table[column] == wanted]
    return table[table.measure == measure].value.item()


def test_passages_break_no_context(real):
    assert evaluate_passages(real[1], real[0]).broken.sum() == 0


def test_decomposition(real):
    table = evaluate_decomposition(real[1])
    assert value(table, 'soft_f1', engine='standard', questions='all') >= .66
    assert value(table, 'soft_f1', engine='fine', questions='several components') >= .64
    fourth = evaluate_decomposition(Benchmark([q for q in real[1] if q.chapter == 4]))
    assert value(fourth, 'soft_f1', engine='standard', questions='all') >= .63


def test_retrieval(real):
    table = evaluate_retrieval(real[1], real[0])
    assert value(table, 'MRR@10') >= .60 and value(table, 'Recall@10') >= .915
    table = evaluate_retrieval(real[1], real[0], query='component')
    assert value(table, 'MRR@10, findable') >= .86 and value(table, 'Recall@5, findable') >= .96


def test_extraction_from_gold_components(real):
    assert value(evaluate_extraction(real[1], real[0]), 'f1 by component, findable', engine='rules') >= .53


def test_the_whole_pipeline_as_two_scorers_see_it(real, shared, tmp_path):
    book, benchmark = real
    curate(book, benchmark, tmp_path, progress=False)
    ours = score(load_benchmark(tmp_path/'dataset.json'), benchmark, book)
    assert value(ours, 'f1', step='extraction') >= .58 and value(ours, 'component_recall', step='extraction') >= .60
    assert value(ours, 'context_verbatim', step='extraction') == 1 and value(ours, 'verbatim', step='decomposition') == 1
    if not (shared/'tools'/'score.py').is_file(): pytest.skip('the independent scorer is not there')
    spec = importlib.util.spec_from_file_location('score', shared/'tools'/'score.py')
    score = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(score)
    read = {name: {(q['chapter'], q['question_number']): q for q in json.loads(path.read_text(encoding='utf-8'))['questions']}
            for name, path in [('pred', tmp_path/'dataset.json'), ('gold', shared/'data'/'fastbook'/'fastbook-benchmark.json')]}
    theirs = score.extraction(read['pred'], read['gold'], {c.number: c.text for c in book})
    for measure in ('precision', 'recall', 'f1', 'component_recall', 'context_verbatim'):
        assert value(ours, measure, step='extraction') == pytest.approx(theirs[measure], abs=1e-9)


def test_automatic_labels(shared):
    table = evaluate_labels(shared/'data'/'agentfastbook'/'evals-haiku-3.5.json').set_index('label')
    assert table.kappa['all'] >= .97
