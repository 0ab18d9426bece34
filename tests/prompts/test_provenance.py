"Calls with their parts: nothing secret is kept, nothing is lost, and looking things up stays fast."
import subprocess
import time

import pytest
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.books.questions import Benchmark, load_benchmark
from agentfastbook.engines.lm_decompose import LMDecomposer
from agentfastbook.engines.pipeline import curate
from agentfastbook.judges.judge import judge_run
from agentfastbook.judges.lm_judge import judge_from
from agentfastbook.lm.calls import LM
from agentfastbook.lm.door import Door
from agentfastbook.lm.reply import LMError, Price, Reply, Usage
from agentfastbook.prompts.asking import Asker, Prompts
from agentfastbook.lm.door import model_usage
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.causes import blame_result
from agentfastbook.prompts.parts import keep_parts, kept_parts, tidy
from agentfastbook.prompts.provenance import recent_calls, replay, why
from agentfastbook.prompts.templates import Part, Prompt, packaged_prompt
from agentfastbook.store.runs import Call, Item, Store
from agentfastbook.text.spans import FastbookError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEY = 'sk-ant-api03-' + 'a1b2' * 8
PARTS = st.lists(st.builds(Part, st.sampled_from(['instruction', 'passage', 'question', 'turn', 'json']),
                           st.text(max_size=50), st.just({}) | st.dictionaries(st.text(max_size=5), st.integers())),
                 max_size=8)


@pytest.fixture
def repo(tmp_path): return PromptRepo(tmp_path/'prompts', author='Ada')


@pytest.fixture
def store(tmp_path): return Store(tmp_path/'traces.db')


def every_byte(folder):
    "All that Git and SQLite hold, Git's objects unpacked."
    ids = subprocess.run(['git', '-C', str(folder/'prompts'), 'cat-file', '--batch-all-objects', '--batch'],
                         capture_output=True, check=True).stdout
    return ids + b''.join(p.read_bytes() for p in folder.glob('traces.db*'))


def sourceless(part): return Part(part.kind, part.text) if part.kind == 'instruction' else part


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARTS)
def test_parts_come_back(repo, parts):
    assert kept_parts(repo, keep_parts(repo, parts)) == [sourceless(p) for p in parts]


def test_no_key_reaches_git_or_the_store(tmp_path, repo, store, monkeypatch):
    "Keys in the environment, in a header, in the prompt, in a part, in a reply, in an error, in the engine's name."
    monkeypatch.setenv('SERVICE_TOKEN', 'looks-like-nothing')
    for secret in (KEY, 'looks-like-nothing'):
        with pytest.raises(FastbookError): repo.write(Prompt('p', f'x-api-key: {secret}\n'))
        asker = Asker(repo, store, lambda text, secret=secret: f'the key is {secret}', 'echo')
        with pytest.raises(FastbookError): asker.ask_parts([Part('question', f'use {secret}')])
        with pytest.raises(FastbookError): Asker(repo, store, str.upper, f'model(api_key={secret})')
        assert secret not in asker.ask_parts([Part('question', f'what is it? {len(secret)}')]).raw
        def fails(text, secret=secret): raise ConnectionError(f'refused: Authorization: Bearer {secret}')
        with pytest.raises(LMError, match='ConnectionError'): Asker(repo, store, fails, 'fails').ask_parts([Part('question', 'x')])
        assert secret.encode() not in every_byte(tmp_path)


def test_tokens_and_price_of_a_reply_are_kept(repo, store):
    class Model(LM):
        def _send(self, request, timeout, on_text):
            return Reply(request.messages[0]['content'].upper(), usage=Usage(7, 3, 2, 1), stop_reason='end_turn')
    price = Price('model', 25_000, 0, 25_000, 0, '2026-11-29', 'example')  # nine tokens at 25,000 dollars a million
    call = Asker(repo, store, Model('model', Door(store, prices=(price,)))).ask_parts([Part('question', 'hi')])
    assert (call.raw, call.input_tokens, call.output_tokens, call.usd) == ('HI', 10, 3, .225)
    assert store.calls().usd.tolist() == [.225]


def test_a_failed_call_is_asked_again(repo, store):
    replies = iter([ValueError('down'), 'up'])
    def model(text):
        reply = next(replies)
        if isinstance(reply, Exception): raise reply
        return reply
    asker = Asker(repo, store, model, 'shaky')
    with pytest.raises(LMError, match='ValueError: down'): asker.ask_parts([Part('question', 'hi')])
    assert asker.ask_parts([Part('question', 'hi')]).raw == 'up'


def test_another_sample_is_another_call_to_the_model(repo, store):
    class Counting(LM):
        sent = 0

        def _send(self, request, timeout, on_text):
            self.sent += 1
            return Reply(f'answer {self.sent}', usage=Usage(3, 2), stop_reason='end_turn')

    model = Counting('m', Door(store))
    asker, parts = Asker(repo, store, model, 'model'), [Part('question', 'Who bakes?')]
    said = [asker.ask_parts(parts, sample=n).raw for n in (0, 1, 1, 0)]
    assert said == ['answer 1', 'answer 2', 'answer 2', 'answer 1'] and model.sent == 2


def test_what_a_failed_attempt_cost_is_counted(store):
    "A paid reply that was of no use stays in the sums when a later attempt succeeds."
    asked = dict(messages=[dict(role='user', content='Hi')])
    run = store.start_run(dict(lm='m'))
    bad = Call('answer', 'm', asked, None, 'cut', input_tokens=5, output_tokens=1, usd=.25)
    good = Call('answer', 'm', asked, 'Hello', input_tokens=5, output_tokens=2, usd=.5)
    store.save_item(run, Item('key', 'lm key', (bad,), 'cut'))
    store.save_item(run, Item('key', 'lm key', (good,)))
    row = model_usage(store).iloc[0]
    assert (row.calls, row.failed, row.input_tokens, row.output_tokens, row.usd) == (2, 1, 10, 3, .75)


def test_why_survives_everything_that_git_does(tmp_path, repo, store):
    repo.write(Prompt('p', 'Say {{x}}.\n', {'x': 'a word'}))
    repo.commit('first')
    asker = Asker(repo, store, str.upper, 'shout')
    call = asker.ask('p', {'x': 'yes'})
    tidy(repo, store)
    repo.branch('other')
    repo.switch('other')
    (repo.path/'p.md').unlink()
    repo.commit('the prompt is gone')
    subprocess.run(['git', '-C', str(repo.path), 'gc', '-q', '--prune=now', '--aggressive'], check=True)
    assert why(repo, store, call.id).text == 'Say yes.\n'
    assert replay(asker, call.id).same
    copy = tmp_path/'copy'
    subprocess.run(['git', 'clone', '-q', '--mirror', str(repo.path), str(copy/'.git')], check=True)
    subprocess.run(['git', '-C', str(copy), 'config', 'core.bare', 'false'], check=True)
    assert why(PromptRepo(copy), store, call.id).text == 'Say yes.\n'


def test_why_is_fast_with_many_calls(repo, store):
    repo.write(Prompt('p', 'Say {{x}}.\n', {'x': 'a word'}))
    repo.commit('first')
    commit = repo.log().commit[0]
    trees = [keep_parts(repo, [Part('instruction', 'Say '), Part('x', f'word {i}'), Part('instruction', '.\n')])
             for i in range(50)]
    calls = [Call('ask', f'engine {i}', {'parts': trees[i % 50]}, prompt=f'{commit}:p.md', raw='yes') for i in range(20_000)]
    store.save_item(store.start_run({}), Item('all', 'all', tuple(calls)))
    start = time.perf_counter()
    for call in calls[::1000]: assert why(repo, store, call.id).text.startswith('Say word ')
    assert (time.perf_counter() - start) / 20 < .5  # tenfold the promise of 50 ms, for slow machines


def test_an_asker_tidies_by_itself(repo, store, monkeypatch):
    "As `git gc --auto` would: many loose files become a pack, and every call can still be explained."
    monkeypatch.setattr('agentfastbook.prompts.parts._TIDY_EVERY', 5)
    monkeypatch.setattr('agentfastbook.prompts.parts._many_loose', lambda repo: True)
    asker = Asker(repo, store, str.upper, 'shout')
    calls = [asker.ask_parts([Part('question', f'number {i}')]) for i in range(12)]
    objects = repo.path/'.git'/'objects'
    assert len(list((objects/'pack').glob('*.pack'))) == 2
    assert len([p for p in objects.glob('??/*') if len(p.name) == 38]) == 4  # of the last two calls
    for i, call in enumerate(calls): assert why(repo, store, call.id).text == f'number {i}'


def test_what_a_clean_up_removed_is_written_again(repo, store):
    "An open repository remembers what it has written, but not longer than it is there."
    parts = [Part('instruction', 'Say it.\n'), Part('passage', 'Yeast eats sugar.', dict(chapter='1', start=0, end=17))]
    tree = keep_parts(repo, parts)
    subprocess.run(['git', '-C', str(repo.path), 'gc', '-q', '--prune=now'], check=True)  # nothing refers to the parts yet
    assert kept_parts(repo, keep_parts(repo, parts)) == [sourceless(p) for p in parts]
    assert keep_parts(PromptRepo(repo.path), parts) == tree


def test_recent_and_shortened_ids(repo, store):
    asker = Asker(repo, store, str.upper, 'shout')
    calls = [asker.ask_parts([Part('question', f'number {i}')]) for i in range(3)]
    assert [why(repo, store, c.id[:9]).call.id for c in calls] == [c.id for c in calls]
    with pytest.raises(FastbookError, match='is not in the store'): why(repo, store, calls[0].id[:3])
    store.save_item(1, Item('x', 'x', tuple(Call('ask', f'engine {i}', {'parts': 'no'}) for i in range(3000))))
    starts = store.calls().id.str[:4]
    for twin in starts[starts.duplicated()][:1]:
        with pytest.raises(FastbookError, match='more than one call'): why(repo, store, twin)


# one road: what engines and judges asked is explained, repeated and taken apart as it was sent

class Watched(LM):
    "Answers as it is told to, and remembers what reached it."
    def __init__(self, data, door=None):
        super().__init__('watched', door)
        self.data, self.seen = data, []

    def _send(self, request, timeout, on_text):
        self.seen.append(request)
        return Reply('', self.data, usage=Usage(9, 3), stop_reason='end_turn')


def sent(request): return {k: v for k, v in request.data.items() if k != 'parts'}


@pytest.fixture
def decomposed(tmp_path):
    "Two sample questions, decomposed by a model that is watched; the repository of its prompts, and the store."
    lm, prompts = Watched(dict(starts=[1])), Prompts(tmp_path/'prompts')
    benchmark = load_benchmark(sample_path()/'benchmark.json')
    curate(read_book(sample_path()), Benchmark(benchmark.questions[:2]), tmp_path,
           decompose=LMDecomposer(lm, prompts=prompts), progress=False)
    with Store(tmp_path/'traces.db') as store: yield lm, prompts.repo, store


def test_replay_sends_what_the_engine_sent(decomposed):
    "System's words, form of the reply, length and temperature: all of it."
    lm, repo, store = decomposed
    call, asked = recent_calls(store).call[0], len(lm.seen)
    done = replay(Asker(repo, store, lm), call, sample=1)
    first, again = sent(lm.seen[asked-1]), sent(lm.seen[asked])
    assert first['system'] and first['schema'] and first['max_tokens'] != 1024
    assert again == {**first, 'sample': 1}
    assert done.same and done.old.raw == '{"starts": [1]}'
    assert why(repo, store, call).settings == {k: first[k] for k in ('schema', 'max_tokens', 'temperature')}


def test_an_asker_finds_what_the_engine_has_asked(decomposed):
    "So bisect and shorten measure the request that the pipeline sends: it is on record, and nothing is paid twice."
    lm, repo, store = decomposed
    told = why(repo, store, recent_calls(store).call[0])
    answers, asked = [p for p in told.parts if p.kind not in ('instruction', 'example')], len(lm.seen)
    schema, most = told.settings['schema'], told.settings['max_tokens']
    asker = Asker(repo, store, lm)
    assert asker.ask('decompose/point', dict(answers=answers), schema=schema, max_tokens=most).id == told.call.id
    assert replay(asker, told.call.id).new == told.call and len(lm.seen) == asked
    shorter = Prompt('decompose/point', repo.read('decompose/point').body, dict(answers='gold answers'),
                     model=dict(temperature=0))
    asker.ask(shorter, dict(answers=answers), schema=schema, max_tokens=most)
    assert len(lm.seen) == asked, 'the same words from a prompt that is not committed are the same request'


def test_blame_leaves_out_one_part_and_nothing_else(decomposed):
    lm, repo, store = decomposed
    call, asked = recent_calls(store).call[0], len(lm.seen)
    first = sent(lm.seen[asked-1])
    blamed = blame_result(Asker(repo, store, lm), call, run=True)
    for part, request in zip(blamed.parts.itertuples(), map(sent, lm.seen[asked:])):
        assert {**request, 'messages': 0, 'system': 0} == {**first, 'messages': 0, 'system': 0}, part
    assert (blamed.parts.change == 0).all()


def test_why_explains_what_a_judge_asked(tmp_path):
    repo, name = PromptRepo(tmp_path/'prompts'), 'judge/standalone'
    repo.write(packaged_prompt(name))
    commit = repo.commit('A judge')
    benchmark = load_benchmark(sample_path()/'benchmark.json')
    curate(sample_path(), Benchmark(benchmark.questions[:2]), tmp_path, progress=False)
    with Store(tmp_path/'traces.db') as store:
        lm = Watched(dict(critique='c', verdict='pass'), Door(store))
        judge_run(store, dict(standalone=judge_from(repo, name, lm)), parts=True)
        calls = recent_calls(store)
        assert len(calls) == len(lm.seen) > 1
        told = why(repo, store, calls.call[0])
        assert told.commit == commit and told.message == 'A judge' and told.call.step == 'judge judge/standalone'
        assert told.text == lm.seen[-1].messages[0]['content'] and told.request.schema == lm.seen[-1].schema
        assert 'verdict' in told.call.raw


def test_a_call_of_an_earlier_version_is_explained_and_used(repo, store):
    "It kept the parts and no messages; the user said all of them, with default settings."
    parts = [Part('instruction', 'Say it.\n\n'), Part('x', 'yes')]
    old = Call('ask', 'shout', dict(parts=keep_parts(repo, parts)), 'YES', raw='YES')
    store.save_item(store.start_run({}), Item('x', 'x', (old,)))
    told = why(repo, store, old.id)
    assert told.text == 'Say it.\n\nyes' == told.request.messages[0]['content'] and not told.request.system
    asker = Asker(repo, store, lambda text: 'asked anew', 'shout')
    assert replay(asker, old.id).new == old
    assert replay(asker, old.id, sample=1).new.raw == 'asked anew'
