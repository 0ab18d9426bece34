"Runs that are killed, broken, fed with rubbish, or spread over processes."
import json, os, shutil, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from agentfastbook.books.questions import Benchmark, load_benchmark
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.text.spans import FastbookError, Span
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.store.labels import annotate
from agentfastbook.store.reviews import span_label
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.retrieve import Retriever
from agentfastbook.look.page import save_reviews
from agentfastbook.store.runs import Store

SAMPLE = sample_path()
QUESTIONS = json.loads((SAMPLE/'benchmark.json').read_text(encoding='utf-8'))['questions']


def written(out): return {p.name: p.read_bytes() for p in Path(out).iterdir() if not p.name.startswith('traces.db')}


def quiet(book, benchmark, out, **kwargs): return curate(book, benchmark, out, progress=False, **kwargs)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The sample, curated without any trouble."
    out = tmp_path_factory.mktemp('whole')
    quiet(SAMPLE, SAMPLE/'benchmark.json', out)
    return out


KILLED = '''
import sys, time
from agentfastbook.books.chapters import sample_path
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.retrieve import Retriever

class Logged(Retriever):
    "Retrieval that logs each call and takes its time."
    def __call__(self, component, chapter):
        with open(sys.argv[2], 'a') as f: f.write(component.query.replace('\\n', ' ')+'\\n')
        time.sleep(.01)
        return super().__call__(component, chapter)
    def __repr__(self): return 'Logged retriever'

print('ready', flush=True)
curate(sample_path(), sample_path()/'benchmark.json', sys.argv[1], retrieve=Logged(), progress=False)
'''


def finished(out):
    if not (out/'traces.db').exists(): return set()
    with Store(out/'traces.db') as store: return set(store.items().query("error == ''")['item'])


def test_sigkill_loses_and_repeats_nothing(tmp_path, whole):
    script, out, log = tmp_path/'run.py', tmp_path/'out', tmp_path/'log'
    script.write_text(KILLED)
    by_id = {q.id: q for q in load_benchmark(SAMPLE/'benchmark.json')}
    kills = 0
    for delay in (.02, .08, .15, .3, .3, .5):
        before = finished(out)
        log.write_text('')
        process = subprocess.Popen([sys.executable, script, out, log], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == 'ready\n'
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for name in before:
            assert not any(line.startswith(by_id[name].text.replace('\n', ' ')) for line in log.read_text().splitlines()), f'{name} was worked on again'
        assert before <= finished(out), 'a finished question was lost'
    assert kills >= 3 and finished(out), 'the kills came too early or too late to mean anything'
    assert subprocess.run([sys.executable, script, out, log]).returncode == 0
    assert written(out)['dataset.json'] == written(whole)['dataset.json']


def test_processes_give_the_same_bytes(tmp_path, whole):
    with ProcessPoolExecutor(2) as pool: quiet(SAMPLE, SAMPLE/'benchmark.json', tmp_path, executor=pool)
    assert written(tmp_path) == written(whole)


class Suicidal(Retriever):
    "Kills its own process at the third chapter-2 question, once."
    def __call__(self, component, chapter):
        flag = Path(os.environ['AFB_TEST_FLAG'])
        if chapter.number == 2 and flag.exists(): flag.unlink(); os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(component, chapter)


def test_a_worker_that_dies_once_costs_nothing(tmp_path, whole, monkeypatch):
    flag, out = tmp_path/'flag', tmp_path/'out'
    flag.touch()
    monkeypatch.setenv('AFB_TEST_FLAG', str(flag))
    with ProcessPoolExecutor(1) as pool, pytest.warns(UserWarning, match='the executor broke .* workers=N'):
        curation = quiet(SAMPLE, SAMPLE/'benchmark.json', out, retrieve=Suicidal(), executor=pool)
    assert not flag.exists(), 'nobody died'
    assert not curation.errors and len(curation.questions) == len(QUESTIONS)
    assert json.loads(written(out)['dataset.json']) == json.loads(written(whole)['dataset.json'])


def question(answer, text='What makes the dough rise?', chapter=1, number=1):
    return dict(chapter=chapter, question_number=number, question_text=text, gold_standard_answer=answer, answer_context=[], question_context=[])


def benchmark_file(folder, *questions):
    path = folder/'benchmark.json'
    path.write_text(json.dumps(dict(questions=list(questions))), encoding='utf-8')
    return path


ANSWERS = {
    'one word': 'Yeast', 'one character': 'a', 'only marks': '?!', 'very long': 'Yeast eats sugar and makes gas. '*1600,
    'one endless sentence': 'yeast '*8500, 'no space': 'x'*50_000, 'windows': 'Yeast eats.\r\n\r\nIt makes gas.\r\n- one\r\n- two',
    'right to left': 'השמרים אוכלים סוכר. הם מייצרים גז.', 'chinese': '酵母吃糖。它产生气体！面团会发起来。',
    'script': '<script>alert(1)</script> Yeast makes gas.', 'braces': '{yeast} makes {{gas}} %s \\n', 'emoji': '🍞🍞 rises 🎈.',
}


@pytest.mark.parametrize('name', ANSWERS)
def test_odd_answers_work(name, tmp_path):
    curation = quiet(SAMPLE, benchmark_file(tmp_path, question(ANSWERS[name]), question('Yeast makes gas.', number=2)), tmp_path/'out')
    assert not curation.errors
    one = curation.questions[0]
    text = {c.number: c.text for c in read_book(SAMPLE)}[1]
    assert all(s.of(one.gold_answer) in one.gold_answer for c in one.components for s in c.spans)
    assert all(x.span.of(text) == x.text for c in one.components for x in c.contexts)
    covered = {i for c in one.components for s in c.spans for i in range(s.start, s.end)}
    assert all(i in covered for i, ch in enumerate(one.gold_answer) if ch.isalnum())
    assert '<script' not in (tmp_path/'out'/'report.html').read_text(encoding='utf-8')


BAD_QUESTIONS = {
    'no answer': {k: v for k, v in question('x').items() if k != 'gold_standard_answer'}, 'empty answer': question('""'),
    'surrogate': question('half \ud800 a pair'), 'NUL': question('a\x00b'), 'number as answer': question(7), 'not an object': 'question',
    'chapter as text': question('Yeast.', chapter='one'), 'other chapter': question('Yeast.', chapter=77),
}


@pytest.mark.parametrize('name', BAD_QUESTIONS)
def test_one_bad_question_stops_nothing(name, tmp_path):
    path = benchmark_file(tmp_path, BAD_QUESTIONS[name], question('Yeast makes gas.', number=2))
    curation = quiet(SAMPLE, path, tmp_path/'out')
    assert [q.id for q in curation.questions] == ['1/2']
    assert len(curation.errors) == 1
    assert 'Failed' in (tmp_path/'out'/'report.html').read_text(encoding='utf-8')


def copy_sample(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path/'book'))


def spoil(path, what):
    if what == 'truncated': path.write_bytes(path.read_bytes()[:2000])
    if what == 'not json': path.write_text('PK\x03\x04 no notebook')
    if what == 'no cells': path.write_text('{"cells": [], "nbformat": 4}')
    if what == 'not utf-8': path.write_bytes(b'\xff\xfe{}')
    if what == 'duplicate': shutil.copy(path, path.with_name('02_twice.ipynb'))
    if what == 'deep': path.write_text('['*200_000)


@pytest.mark.parametrize('what', ['truncated', 'not json', 'no cells', 'not utf-8', 'duplicate', 'deep'])
def test_one_bad_chapter_stops_nothing(what, tmp_path):
    book = copy_sample(tmp_path)
    bad = next(book.glob('02_*.ipynb'))
    spoil(bad, what)
    curation = quiet(book, SAMPLE/'benchmark.json', tmp_path/'out')
    assert len(curation.questions) == sum(q['chapter'] == 1 for q in QUESTIONS)
    assert bad.name in curation.errors
    assert all('chapter 2 is not in the book' in curation.errors[f"2/{q['question_number']}"] for q in QUESTIONS if q['chapter'] == 2)


def test_a_hundred_megabytes_of_outputs_are_ignored(tmp_path, whole):
    book = copy_sample(tmp_path)
    path = next(book.glob('02_*.ipynb'))
    notebook = json.loads(path.read_text(encoding='utf-8'))
    code = next(c for c in notebook['cells'] if c['cell_type'] == 'code')
    code['outputs'] = [dict(output_type='stream', name='stdout', text='x'*100_000_000)]
    path.write_text(json.dumps(notebook), encoding='utf-8')
    quiet(book, SAMPLE/'benchmark.json', tmp_path/'out')
    assert written(tmp_path/'out')['dataset.json'] == written(whole)['dataset.json']


def test_script_tags_and_odd_characters_in_a_chapter(tmp_path):
    book = tmp_path/'book'
    book.mkdir()
    source = ['# <script>alert(1)</script>\r\n', 'Yeast makes gas, <img src=x onerror=alert(1)> and \ud800 half a pair.\r\n', '\r\nשלום 酵母\x00 end.']
    cells = [dict(cell_type='markdown', source=source), dict(cell_type='code', source='import os; os.remove("yeast")', outputs=[])]
    (book/'01_odd.ipynb').write_text(json.dumps(dict(cells=cells)))
    curation = quiet(book, benchmark_file(tmp_path, question('Yeast makes gas.')), tmp_path/'out')
    assert not curation.errors
    report = (tmp_path/'out'/'report.html').read_text(encoding='utf-8')
    assert '<script' not in report and '<img' not in report
    assert 'Yeast makes gas' in json.loads((tmp_path/'out'/'dataset.json').read_text())['questions'][0]['answer_context'][0]['context'][0]


def test_hopeless_input_is_an_error_with_a_remedy(tmp_path):
    for book, benchmark, message in [
        (tmp_path/'nowhere', SAMPLE/'benchmark.json', 'does not exist'),
        (SAMPLE, tmp_path/'nowhere.json', 'no benchmark file'),
        (SAMPLE, benchmark_file(tmp_path), 'no usable question'),
        (SAMPLE, next(SAMPLE.glob('01_*.ipynb')), "under the key 'questions'"),
    ]:
        with pytest.raises(FastbookError, match=message): quiet(book, benchmark, tmp_path/'out')


def test_a_person_s_correction_survives_the_next_run(tmp_path):
    out = tmp_path/'out'
    curation = quiet(SAMPLE, SAMPLE/'benchmark.json', out)
    question, component, context = next((q, i, c.contexts[0]) for q in curation.questions for i, c in enumerate(q.components) if c.contexts)
    shorter = Span(context.span.start, context.span.start+20)
    with Store(out/'traces.db') as store:
        item = question.id
        call = store.calls(step='extract').query('item == @item').iloc[component]
        annotate(store, 'reader', span_label(call.id, 'fix', shorter, context.span))
    again = quiet(SAMPLE, SAMPLE/'benchmark.json', out)
    fixed = next(q for q in again.questions if q.id == question.id).components[component]
    assert shorter in [x.span for x in fixed.contexts] and context.span not in [x.span for x in fixed.contexts]
    saved = next(q for q in json.loads((out/'dataset.json').read_text())['questions'] if f"{q['chapter']}/{q['question_number']}" == question.id)
    assert 'reviewed' in json.dumps(saved['answer_context'][component])
    assert context.text[:20] in saved['answer_context'][component]['context']


def test_what_a_person_wrote_into_a_dataset_is_never_lost(tmp_path):
    "Neither by another run, nor by a review and then another run; what this program wrote is simply written anew."
    some = Benchmark(load_benchmark(sample_path()/'benchmark.json').questions[:2])
    def run(**options): return curate(sample_path(), some, tmp_path, progress=False, **options)
    run()
    own = tmp_path/'dataset.json'
    with Store(tmp_path/'traces.db') as store:
        call = store.calls(step='extract').iloc[0]
        annotate(store, 'Ada', span_label(call.id, 'reject', Span(*call.output[0]), Span(*call.output[0])))
    own.write_text(own.read_text().replace('"chapter"', '"by_hand": "yes", "chapter"', 1))
    assert save_reviews(tmp_path) == 1 and 'by_hand' in own.read_text()
    again = run()
    assert 'by_hand' in again.former.read_text() and 'by_hand' not in own.read_text()
    assert run(decompose=RuleDecomposer('whole')).former is None, 'our own file needs no copy'
    assert sorted(p.name for p in tmp_path.glob('dataset*')) == ['dataset.1.json', 'dataset.json']
