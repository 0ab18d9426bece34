"Calls with their parts: nothing secret is kept, nothing is lost, and looking things up stays fast."
import subprocess
import time

import pytest
from agentfastbook.prompts.asking import model_usage
from agentfastbook.text.spans import FastbookError
from agentfastbook.lm.door import LM, Door
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.provenance import Asker, keep_parts, kept_parts, replay, tidy, why
from agentfastbook.lm.reply import Reply, Usage
from agentfastbook.store.runs import Call, Item, Store
from agentfastbook.prompts.templates import Part, Prompt
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
        with pytest.raises(ConnectionError): Asker(repo, store, fails, 'fails').ask_parts([Part('question', 'x')])
        assert secret.encode() not in every_byte(tmp_path)


def test_tokens_and_price_of_a_reply_are_kept(repo, store):
    class Model:
        def __repr__(self): return 'Model()'
        def complete(self, text, step, prompt): return Reply(text.upper(), usage=Usage(7, 3, 2, 1), usd=.25)
    call = Asker(repo, store, Model()).ask_parts([Part('question', 'hi')])
    assert (call.raw, call.input_tokens, call.output_tokens, call.usd) == ('HI', 10, 3, .25)
    assert store.calls().usd.tolist() == [.25]


def test_a_failed_call_is_asked_again(repo, store):
    replies = iter([ValueError('down'), 'up'])
    def model(text):
        reply = next(replies)
        if isinstance(reply, Exception): raise reply
        return reply
    asker = Asker(repo, store, model, 'shaky')
    with pytest.raises(ValueError): asker.ask_parts([Part('question', 'hi')])
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
    monkeypatch.setattr('agentfastbook.prompts.provenance._TIDY_EVERY', 5)
    monkeypatch.setattr('agentfastbook.prompts.provenance._many_loose', lambda repo: True)
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
    twins = store._rows('select substr(id, 1, 4) as start from call group by start having count(*) > 1 limit 1')
    if twins:
        with pytest.raises(FastbookError, match='more than one call'): why(repo, store, twins[0]['start'])
