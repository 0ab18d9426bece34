"Workers that die, hang, or lose their parent: what is lost is one question, and nobody is left behind."
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import sample_path
from agentfastbook.text.spans import FastbookError
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.retrieve import Retriever
from agentfastbook.store.runs import Store
from deadly import Deadly

SAMPLE = sample_path()
BAD = {'1/901': 'kill', '1/902': 'kill'}


def many(folder, copies=1, bad=BAD):
    "The sample's questions, each so many times, and some more whose text says what is to become of the worker."
    data = json.loads((SAMPLE/'benchmark.json').read_text(encoding='utf-8'))
    first = data['questions'][0]
    data['questions'] = [{**q, 'question_number': q['question_number']+100*i} for q in data['questions'] for i in range(copies)]
    data['questions'] += [{**first, 'question_number': int(id.split('/')[1]), 'question_text': what, 'gold_standard_answer': f'Yeast, {what}.'}
                          for id, what in bad.items()]
    path = folder/'benchmark.json'
    path.write_text(json.dumps(data), encoding='utf-8')
    return path


def quiet(benchmark, out, **kwargs): return curate(SAMPLE, benchmark, out, progress=False, **kwargs)


@pytest.fixture
def benchmark(tmp_path): return many(tmp_path)


def innocent(benchmark): return {q.id for q in load_benchmark(benchmark)}-set(BAD)


def check_culprits(curation, benchmark, words='its worker died'):
    "All innocent questions are finished, and the two bad ones are named, in the result and in the store."
    assert {q.id for q in curation.questions} == innocent(benchmark)
    assert set(curation.errors) == set(BAD) and all(words in e for e in curation.errors.values())
    with Store(curation.out/'traces.db') as store:
        assert set(store.items().query("error != ''")['item']) == set(BAD)


def test_two_bad_questions_cost_two_questions(benchmark, tmp_path):
    check_culprits(quiet(benchmark, tmp_path/'out', retrieve=Deadly(), workers=2), benchmark)


def test_an_executor_from_outside_that_breaks_is_replaced(benchmark, tmp_path):
    with ProcessPoolExecutor(2, get_context('spawn')) as pool, pytest.warns(UserWarning, match='the executor broke'):
        check_culprits(quiet(benchmark, tmp_path/'out', retrieve=Deadly(), executor=pool), benchmark)


def test_a_question_that_never_ends(tmp_path):
    bad = {'1/901': 'sleep'}
    curation = quiet(many(tmp_path, bad=bad), tmp_path/'out', retrieve=Deadly(), workers=2, patience=6)
    assert set(curation.errors) == set(bad) and 'was not finished in 6 s, even alone' in curation.errors['1/901']
    assert len(curation.questions) == len(load_benchmark(SAMPLE/'benchmark.json'))


def test_a_worker_that_exits_is_an_error_of_its_question(tmp_path):
    for workers in (0, 1):
        curation = quiet(many(tmp_path, bad={'1/901': 'exit'}), tmp_path/f'out{workers}', retrieve=Deadly(), workers=workers)
        assert curation.errors == {'1/901': 'SystemExit: 3'}


def test_the_sum_of_workers_is_the_same(tmp_path):
    benchmark = many(tmp_path, bad={})
    one, two = quiet(benchmark, tmp_path/'one'), quiet(benchmark, tmp_path/'two', workers=2)
    for name in ('dataset.json', 'passages.jsonl', 'report.html'):
        assert (one.out/name).read_bytes() == (two.out/name).read_bytes()


def test_dask(benchmark, tmp_path):
    "Dask takes closures, and loses a worker without losing other questions."
    distributed = pytest.importorskip('distributed')
    deadly = Deadly()
    def retrieve(component, chapter): return deadly(component, chapter)
    retrieve.version = '1'
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        check_culprits(quiet(benchmark, tmp_path/'out', retrieve=retrieve, executor=client.get_executor(), patience=300), benchmark)


def runs(out):
    with Store(out/'traces.db') as store: return len(store.runs())


@pytest.mark.parametrize('where', ['workers', 'outside'])
def test_a_lambda_is_one_error_before_the_run(where, tmp_path):
    out, engine = tmp_path/'out', lambda component, chapter: []
    with ProcessPoolExecutor(1, get_context('spawn')) as pool, pytest.raises(FastbookError, match="workers can't be given the engines .*lambda"):
        quiet(SAMPLE/'benchmark.json', out, retrieve=engine, **(dict(workers=1) if where == 'workers' else dict(executor=pool)))
    assert runs(out) == 0


def test_what_fails_at_the_start_leaves_no_run(tmp_path):
    out = tmp_path/'out'
    quiet(SAMPLE/'benchmark.json', out)
    closed = ProcessPoolExecutor(1)
    closed.shutdown()
    for wrong in (dict(executor=closed), dict(workers=-1), dict(workers=1, patience=0), dict(workers=1, executor=closed)):
        with pytest.raises(FastbookError): quiet(SAMPLE/'benchmark.json', out, retrieve=Retriever(k=4), **wrong)
    with pytest.raises(FastbookError): quiet(tmp_path/'nowhere.json', out)
    assert runs(out) == 1


class Rival(Retriever):
    "While this one works, somebody else finishes everything; then this one fails."
    version = '1'

    def __init__(self, work=None):
        super().__init__()
        self.work = work

    def __call__(self, component, chapter):
        if self.work is None: return super().__call__(component, chapter)
        self.work()
        raise ValueError('too late')


def test_finished_stays_finished(tmp_path):
    "Two processes with the same engines in one folder: the one that fails takes nothing from the other."
    out, benchmark = tmp_path/'out', SAMPLE/'benchmark.json'
    whole = quiet(benchmark, tmp_path/'whole', retrieve=Rival())
    done = quiet(benchmark, out, retrieve=Rival(lambda: quiet(benchmark, out, retrieve=Rival())))
    assert done.errors == {} and len(done.questions) == len(load_benchmark(benchmark))
    for name in ('dataset.json', 'passages.jsonl'): assert (out/name).read_bytes() == (whole.out/name).read_bytes()


def start(out, benchmark, *options):
    command = [str(Path(sys.executable).parent/'afb_curate'), '--book', str(SAMPLE), '--benchmark', str(benchmark), '--out', str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finished(out):
    try:
        with Store(out/'traces.db', readonly=True) as store: return (store.items().error == '').sum()
    except (FastbookError, sqlite3.Error): return 0  # not there yet


@pytest.mark.parametrize('number,status,group', [
    (signal.SIGKILL, -9, False), (signal.SIGTERM, 143, False), (signal.SIGINT, 130, False), (signal.SIGINT, 130, True), (signal.SIGTERM, None, True)])
def test_workers_end_with_their_parent(number, status, group, tmp_path):
    "However the command ends, its workers let go of its output at once, and the same command goes on."
    benchmark, out = many(tmp_path, copies=30, bad={}), tmp_path/'out'
    process = start(out, benchmark, '--workers', '2')
    until = time.monotonic()+60
    while not finished(out) and time.monotonic() < until: time.sleep(.02)
    began = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=30) # the end of the output: nobody holds it
    assert time.monotonic()-began < 10
    assert process.returncode == status or status is None
    assert 'Traceback' not in stderr and 'curated' not in stdout
    if number != signal.SIGKILL: assert 'stopped; what is saved stays' in stderr
    before = finished(out)
    assert 0 < before < 30*len(load_benchmark(SAMPLE/'benchmark.json'))
    again = start(out, benchmark)
    again.communicate(timeout=120)
    assert again.returncode == 0
    with Store(out/'traces.db') as store: assert store.runs()['items'].tolist()[1] == finished(out) > before
