"""What is promised around calls to a model when things go wrong: claims of dead processes, pauses, bad replies, money in
flight at a kill, monsters in replies, keys in addresses; with real processes and a server on this machine."""
import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from agentfastbook.store.claims import Claims
from agentfastbook.lm.door import Door, model_usage
from agentfastbook.lm.calls import LM
from agentfastbook.lm.models import Claude, OpenAICompatible
from agentfastbook.lm.local import open_lm
from agentfastbook.lm.reply import LMError, Reply, Usage
from agentfastbook.text.spans import FastbookError
from agentfastbook.store.runs import Store
from lm_server import Answer, LMServer, completion, message

KINDS = ('claude', 'openai')
CUTS = dict(type='object', properties=dict(cuts=dict(type='array', items=dict(type='integer'))), required=['cuts'])


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv('ANTHROPIC_API_KEY', 'sk-test-0123456789-correct-horse')
    monkeypatch.delenv('ANTHROPIC_BASE_URL', raising=False)


@pytest.fixture
def server():
    with LMServer() as server: yield server


def make(kind, server, **options):
    door = Door(**{**dict(first_wait=.01, timeout=5, attempts=2), **options})
    if kind == 'claude': return Claude(base_url=server.url, door=door)
    return OpenAICompatible(f'{server.url}/v1', 'a-model', door)


def ask(lm, how, *args, **options):
    if how == 'async': return asyncio.run(lm.acomplete(*args, **options))
    if how == 'stream': options['on_text'] = lambda text: None
    return lm.complete(*args, **options)


# claims

CLAIM = """import os,sys,time
from agentfastbook.lm.door import Door
from agentfastbook.lm.calls import LM
from agentfastbook.lm.reply import Reply,Usage
from agentfastbook.store.runs import Store
class Slow(LM):
    def _send(self, request, timeout, on_text):
        print('asking', os.getpid(), flush=True)
        if sys.argv[2] == 'die': os._exit(137)
        if sys.argv[2] == 'hang': time.sleep(60)
        return Reply('Hello', usage=Usage(1, 1), stop_reason='end_turn')
start = time.time()
reply = Slow('m', Door(Store(sys.argv[1]), deadline=10, timeout=5)).complete('Hi')
print(reply.text, 'in time' if time.time()-start < 5 else 'late')
"""


def run(path, how, *namespace):
    return subprocess.run([*namespace, sys.executable, '-c', CLAIM, str(path), how], capture_output=True, text=True,
                          timeout=60)


def isolated():
    "A command that gives a process numbers of its own, as a container does."
    found = ['unshare', '--pid', '--fork', '--mount-proc']
    if shutil.which('unshare') and not subprocess.run([*found, 'true'], capture_output=True).returncode: return found
    pytest.skip('no PID namespaces here')


def test_a_claim_of_a_dead_process_is_taken_at_once_in_another_container(tmp_path):
    first = run(tmp_path/'calls.db', 'die', *isolated())
    second = run(tmp_path/'calls.db', 'ok', *isolated())
    assert first.stdout == second.stdout.splitlines()[0]+'\n', 'both have the same number'
    assert second.stdout.splitlines()[1] == 'Hello in time', second.stdout+second.stderr
    assert 'calls were on their way when an earlier process was stopped' in second.stderr


def test_a_claim_of_a_live_process_in_another_container_holds(tmp_path):
    alive = subprocess.Popen([*isolated(), sys.executable, '-c', CLAIM, str(tmp_path/'calls.db'), 'hang'],
                             stdout=subprocess.PIPE, text=True)
    try:
        assert alive.stdout.readline().startswith('asking')
        lm = Never('m', Door(Store(tmp_path/'calls.db'), deadline=.5, timeout=.2))
        with pytest.raises(LMError, match='deadline.*waited 1 s for another process that asks the same'): lm.complete('Hi')
    finally: subprocess.run(['pkill', '-9', '-P', str(alive.pid)]); alive.kill(); alive.wait()


class Never(LM):
    def __repr__(self): return "Slow('m')"
    def _send(self, request, timeout, on_text): raise AssertionError('it is asked already')


def test_a_forked_child_is_another_owner_and_its_end_is_not_its_parents(tmp_path):
    anna = Claims(tmp_path/'work.db')
    assert anna.take('bake') is True
    child = os.fork()
    if not child:
        taken = anna.take('bake')
        os._exit(int(bool(taken)))
    assert os.waitpid(child, 0)[1] == 0, 'the child does not have what its parent has'
    assert Claims(tmp_path/'work.db').take('bake') is False


def test_waiting_for_another_process_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr('agentfastbook.lm.calls._SILENT', .2)
    with Store(tmp_path/'calls.db') as store:
        lm = Never('m', Door(store, deadline=.5, timeout=.2))
        other = Claims(store.path)
        assert other.take(lm_key(lm, 'Hi'))
        with pytest.raises(LMError, match='look whether it hangs'): lm.complete('Hi')
        with pytest.raises(LMError, match='look whether it hangs'): asyncio.run(lm.acomplete('Hi'))
    assert caplog.text.count('waiting for another process that asks the same') == 2


def lm_key(lm, text):
    from agentfastbook.lm.reply import make_request
    return make_request(text).key(repr(lm))


def test_a_thread_that_hangs_is_not_waited_for_for_ever(tmp_path):
    class Hangs(LM):
        def _send(self, request, timeout, on_text): time.sleep(1.5); raise LMError('bad_request')
    lm = Hangs('m', Door(deadline=.2, timeout=.2, concurrency=1))
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(lm.complete, 'Hi')
        time.sleep(.1)
        same, other = pool.submit(lm.complete, 'Hi'), pool.submit(lm.complete, 'Hello')
        with pytest.raises(LMError, match='waited for another thread that asks the same'): same.result()
        with pytest.raises(LMError, match='waited for one of 1 calls at once'): other.result()
        with pytest.raises(LMError, match='bad_request'): first.result()


def test_everybody_who_waits_is_counted_and_ticks_the_bar(tmp_path):
    "Who gets the reply of another, who gives up waiting for another thread, task or process: each is one call."
    class Slow(LM):
        def _send(self, request, timeout, on_text):
            time.sleep(1.5)
            return Reply('Hello', usage=Usage(1, 1), stop_reason='end_turn')

    async def two(lm): return await asyncio.gather(lm.acomplete('Hi'), lm.acomplete('Hi'), return_exceptions=True)
    lm = Slow('m', Door(deadline=.2, timeout=.2, concurrency=1))
    with lm.door.watch(4) as door, ThreadPoolExecutor(2) as pool:
        first = pool.submit(lm.complete, 'Hi')
        time.sleep(.1)
        with pytest.raises(LMError, match='deadline'): lm.complete('Hi')
        assert {type(e) for e in asyncio.run(two(lm))} == {LMError}
        first.result()
        assert '4 of 4 calls' in str(door._bar)
    assert lm.door.usage[['calls', 'recorded', 'failed']].values.tolist() == [[4, 0, 3]]
    with Store(tmp_path/'calls.db') as store:
        other = Claims(store.path)
        assert other.take(lm_key(Never('m'), 'Hi'))
        never = Never('m', Door(store, deadline=.2, timeout=.2))
        with pytest.raises(LMError, match='deadline'): never.complete('Hi')
        assert never.door.usage[['calls', 'failed']].values.tolist() == [[1, 1]]


# money in flight

KILLED = """import sys
from concurrent.futures import ThreadPoolExecutor
from agentfastbook.lm.door import Door
from agentfastbook.lm.models import Claude
from agentfastbook.store.runs import Store
lm = Claude(base_url=sys.argv[1], door=Door(Store(sys.argv[2]), budget_usd=.05))
with ThreadPoolExecutor(4) as pool: list(pool.map(lambda n: lm.complete(f'Question {n}', max_tokens=500), range(20)))
print(lm.door)
"""


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGTERM])
def test_what_was_in_flight_at_a_kill_is_booked_when_the_run_goes_on(end, server, tmp_path):
    server.answer = lambda body: Answer(usage=(10, 500))
    server.faults += ['']*6+['sleep 3']*4
    path, command = tmp_path/'calls.db', [sys.executable, '-c', KILLED, server.url, str(tmp_path/'calls.db')]
    stopped = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if len(server.received) == 10: break
        time.sleep(.05)
    stopped.send_signal(end)
    stopped.wait(30)
    for _ in range(100): # the server answers, and bills, all the same
        if len(server.paid) >= 10: break
        time.sleep(.1)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    price = (10*1+500*5)/1e6
    billed = len(server.paid)*price
    with Store(path) as store:
        usage, calls = model_usage(store), store.calls()
        perhaps = calls[calls.error.str.startswith('perhaps paid')]
        assert usage.usd.sum() >= billed-1e-9, 'nothing that was billed is in no sum'
        assert len(perhaps) == 4 and perhaps.usd.sum() >= 4*price
        assert calls[calls.error == ''].usd.sum() == pytest.approx(20*price)
    assert '4 calls were on their way when an earlier process was stopped' in done.stderr
    assert 'for 4 calls on their way at a stop' in done.stdout


def test_a_call_that_is_interrupted_is_booked_as_perhaps_paid(server, tmp_path):
    def stop(text): raise KeyboardInterrupt
    with Store(tmp_path/'calls.db') as store:
        lm = make('claude', server, store=store)
        with pytest.raises(KeyboardInterrupt): lm.complete('Hello', on_text=stop)
        assert lm.complete('Hello').text == 'Hello!'
        assert sorted(store.calls().error.str.startswith('perhaps paid')) == [False, True]
        assert model_usage(store).usd.sum() > 2*35e-6


def test_what_may_have_been_paid_counts_against_the_budget_of_the_run_that_goes_on(server, tmp_path):
    run(tmp_path/'calls.db', 'die')
    with Store(tmp_path/'calls.db') as store:
        door = Door(store, budget_tokens=2000)
        assert door.possibly_paid['calls'] == 1 and 1024 < door.possibly_paid['tokens'] < 1200
        lm = Claude(base_url=server.url, door=door)
        with pytest.raises(LMError, match='over_budget'): lm.complete('Hello')


# pauses

@pytest.mark.parametrize('kind', KINDS)
def test_a_pause_beyond_the_deadline_ends_all_calls_with_the_time_to_go_on(kind, server, caplog):
    lm = make(kind, server, concurrency=2)
    lm.complete('The first call imports.')
    server.faults.append('429 retry-after=3600')
    start, errors = time.monotonic(), []
    for n in range(20):
        with pytest.raises(LMError) as e: lm.complete(f'Question {n}')
        errors.append(e.value)
    with pytest.raises(LMError) as e: asyncio.run(lm.acomplete('And this?'))
    assert time.monotonic()-start < 10 and len(server.received) == 2
    assert [e.outcome for e in errors] == ['rate_limited']+['paused']*19 and e.value.outcome == 'paused'
    soon = datetime.now()+timedelta(seconds=3600)
    for error in errors: assert any(f'go on at {soon+timedelta(seconds=s):%Y-%m-%d %H:%M}' in str(error) for s in (0, -60))
    assert 'the server asks to wait 3600 s; no call goes out before' in caplog.text


@pytest.mark.parametrize('asked', ['-5', 'nan', 'inf', '1e20', '9'*400, 'soon', '', 'Wed, 99 Oct 2026'])
def test_a_pause_that_is_nonsense_is_no_pause(asked, server):
    server.faults.append(f'429 retry-after={asked.replace(" ", "_")}')
    start = time.monotonic()
    assert make('claude', server).complete('Hello').attempts == 2
    assert time.monotonic()-start < 10


def test_a_pause_until_a_date(server):
    later = format_datetime(datetime.now(timezone.utc)+timedelta(hours=2), usegmt=True)
    from agentfastbook.lm.faults import _retry_after
    assert 7190 < _retry_after({'retry-after': later}) <= 7200


# bad replies

BAD = {'cut': Answer('Yeast ea', stop='max_tokens'), 'refused': Answer('', stop='refusal'), 'empty': Answer(''),
       'unstructured': Answer('Sure! The cuts are 1 and 3.')}
BAD_CHAT = {**BAD, 'cut': Answer('Yeast ea', stop='length'), 'refused': Answer('', stop='content_filter')}


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', BAD)
def test_a_bad_reply_is_followed_by_a_limited_number_of_new_samples(name, kind, how, server, tmp_path):
    bad, good = (BAD if kind == 'claude' else BAD_CHAT)[name], Answer(data=dict(cuts=[1]))
    replies = [bad]*2+[good]
    server.answer = lambda body: replies.pop(0)
    with Store(tmp_path/'calls.db') as store:
        lm = make(kind, server, store=store)
        reply = ask(lm, how, 'Cut.', schema=CUTS)
        assert (reply.data, reply.again, len(server.paid), lm.door.tokens) == (dict(cuts=[1]), 2, 3, 45)
        assert ask(make(kind, server, store=store), how, 'Cut.', schema=CUTS).recorded
        replies += [bad]*7
        for _ in range(3):
            with pytest.raises(LMError) as e: ask(make(kind, server, store=store), how, 'Cut again.', schema=CUTS)
            assert e.value.outcome == name and len(server.paid) == 6, 'three samples, and no more on later runs'
        lm.door.keep_in(store, retry_failed=True)
        for _ in range(2):
            with pytest.raises(LMError): ask(lm, how, 'Cut again.', schema=CUTS)
            assert len(server.paid) == 9, 'three more, once for a run'
        replies[:] = [good]
        lm.door.keep_in(store, retry_failed=True)
        assert ask(lm, how, 'Cut again.', schema=CUTS).again == 6
        assert model_usage(store).calls.sum() == len(server.paid) == 10


def test_four_threads_that_ask_the_same_are_four_calls_one_of_them_paid(server):
    server.latency = .2
    lm = make('claude', server)
    with ThreadPoolExecutor(4) as pool: replies = list(pool.map(lambda _: lm.complete('Hi'), range(4)))
    assert lm.door.usage[['calls', 'recorded', 'failed', 'attempts']].values.tolist() == [[4, 3, 0, 1]]
    assert sorted(r.recorded for r in replies) == [False, True, True, True] and len(server.paid) == 1
    server.faults.append('400')

    async def four(): return await asyncio.gather(*[lm.acomplete('Hello') for _ in range(4)], return_exceptions=True)
    assert {e.outcome for e in asyncio.run(four())} == {'bad_request'}
    assert lm.door.usage[['calls', 'recorded', 'failed']].values.tolist() == [[8, 3, 4]]


# monsters

def monsters(kind):
    "Replies that no server should send, as texts."
    body = dict(model='m')
    good = (message if kind == 'claude' else completion)(body, Answer())
    for value in (10**20, -5, -10**20, 1.5, 'many', [3], {}, True, '1e400', float('nan'), float('inf')):
        for name in good['usage']: yield json.dumps(dict(good, usage=dict(good['usage'], **{name: value})))
    for value in (5, 'x', [1], {}, None, True): 
        for name in good: yield json.dumps(dict(good, **{name: value}))
    part = good['content'][0] if kind == 'claude' else good['choices'][0]['message']
    for name, value in part.items():
        for odd in (5, [1], dict(a=1), True, float('nan')):
            changed = dict(part, **{name: odd})
            yield json.dumps(dict(good, content=[changed]) if kind == 'claude' else
                             dict(good, choices=[dict(good['choices'][0], message=changed)]))
    yield json.dumps(good).replace('10', '9'*5000, 1)
    yield '['*100_000
    yield '{"a":'*5000+'1'+'}'*5000
    yield from ('', 'null', '[]', '5', '"text"', 'NaN', '{}', '<html>', '\x00', json.dumps(good)[:40])


@pytest.mark.parametrize('kind', KINDS)
def test_monsters_in_a_reply_are_errors_with_a_name_and_poison_nothing(kind, server, tmp_path):
    outcomes = set()
    with Store(tmp_path/'calls.db') as store:
        lm = make(kind, server, store=store, attempts=1, samples=1, budget_usd=None, budget_tokens=10**7)
        for n, text in enumerate(monsters(kind)):
            server.faults.append(f'json {text}')
            before = lm.door.tokens
            try: outcomes.add(type(lm.complete(f'Question {n}').text))
            except LMError as e: outcomes.add(e.outcome)
            assert 0 <= lm.door.tokens-before < 1000 and lm.door.usd >= 0 and not server.faults, text[:300]
        assert lm.complete('And now?').text == 'Hello!'
        store.calls(), model_usage(store), repr(lm.door), lm.door.usage
    assert outcomes <= {str, 'not_a_reply', 'truncated', 'empty', 'refused', 'cut'}, outcomes


DEEP = '['*900+']'*900


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('text', [DEEP, '{"cuts": '+DEEP+'}', '{"cuts": ['+'9'*5000+']}', '{"cuts": [NaN]}', '{"cuts": [1e999]}',
                                  '{"cuts": ['+'9'*400+']}', '['*20_000, '{"cuts": "\\ud800"}', '\ud800'])
@pytest.mark.parametrize('kind', KINDS)
def test_monsters_in_structured_replies(kind, text, how, server, tmp_path):
    server.answer = lambda body: Answer(text)
    with Store(tmp_path/'calls.db') as store:
        lm = make(kind, server, store=store, samples=1)
        for _ in range(2):
            with pytest.raises(LMError, match='unstructured'): ask(lm, how, 'Cut.', schema=CUTS)
        assert len(server.paid) == 1 and lm.door.tokens == 15
        reply = ask(lm, how, 'Say it.')
        reply.text.encode(), store.calls(), json.dumps(reply.data)


@pytest.mark.parametrize('how', ['sync', 'async'])
@pytest.mark.parametrize('kind', KINDS)
def test_log_probabilities_that_are_none(kind, how, server):
    for odd in (float('nan'), 1e10, 'x', None, -1e400):
        server.answer = lambda body: Answer('Yes', top={'Yes': odd})
        lm = make('openai', server, samples=1, attempts=1)
        try: assert set(lm.score_choices(f'Baked {odd}?', ['yes', 'no'])) == {'yes', 'no'}
        except LMError as e: assert e.outcome in ('not_a_reply', 'unstructured')


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_reply_that_drips_is_not_waited_for(kind, how, server):
    ask(make(kind, server, timeout=30), how, 'The first call imports.')
    server.faults += ['drip-body .05']
    start = time.monotonic()
    with pytest.raises(LMError, match='timeout|not_a_reply|truncated'): ask(make(kind, server, timeout=.5, attempts=1), how, 'Hello')
    assert time.monotonic()-start < 5


# addresses and keys

KEY = 'sk-proj-0123456789abcdefABCDEF'


@pytest.mark.parametrize('name', [f'http://localhost:1/v1#{KEY}', KEY, f'http://me:{KEY}@[::1/v1#m',
                                  'http://[::1/v1#m', 'http://:80/v1', 'http://host:port/v1', 'https://'])
def test_names_that_are_no_models_are_one_error_without_the_key(name):
    try: shown = repr(open_lm(name))
    except FastbookError as e: shown = str(e)
    assert KEY not in shown
    assert 'no address' in shown or 'looks like a key' in shown or 'not known' in shown, shown


def test_secrets_of_an_address_are_written_nowhere(server, tmp_path, caplog):
    caplog.set_level(0)
    port = server.url.rsplit(':', 1)[1]
    address = f'http://anna:cor/rect-ho@rse@127.0.0.1:{port}/v1'.replace('/rect', '%2Frect')
    with Store(tmp_path/'calls.db') as store:
        lm = open_lm(f'{address}#a-model', Door(store, attempts=1, timeout=5))
        for n, fault in enumerate(['', '401', 'html', 'reset']):
            server.faults.append(fault)
            try: lm.complete(f'Hello {n}')
            except LMError as e: assert 'rse@' not in str(e)
        shown = [repr(lm), str(lm.door.usage), str(store.calls().to_dict()), str(store.runs().to_dict()), caplog.text]
    assert not [s for s in shown if 'rect-ho' in s or 'anna' in s]
    assert not any(b'rect-ho' in p.read_bytes() for p in tmp_path.iterdir())
    with pytest.raises(FastbookError) as e: open_lm(f'http://127.0.0.1:{port}/v1?token=correct-horse#m')
    assert 'no address' in str(e.value) and 'horse' not in str(e.value)


def test_each_model_says_before_a_run_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.delenv('ANTHROPIC_API_KEY')
    monkeypatch.delenv('ANTHROPIC_AUTH_TOKEN', raising=False)
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    for name, outcome in (('claude-haiku-4-5', 'no_key'), ('https://api.openai.com/v1#gpt', 'no_key'),
                          (f'local:{tmp_path}/none.gguf', 'not_a_model')):
        with pytest.raises(LMError) as e: open_lm(name).check_ready()
        assert e.value.outcome == outcome
    assert open_lm('http://localhost:1/v1#m').check_ready() is None


@pytest.mark.parametrize('kind', ['claude', 'openai'])
def test_what_is_no_model_is_not_asked_six_times(kind, server):
    "A page instead of a reply hardly gets better; neither does an address where nobody has ever answered."
    server.faults += ['html']*9
    with pytest.raises(LMError, match='not_a_reply.*gave up after 3 attempts'): make(kind, server, attempts=6).complete('Hello')
    assert len(server.faults) == 6
    nobody = OpenAICompatible('http://127.0.0.1:1/v1', 'm', door=Door(first_wait=.01))
    with pytest.raises(LMError, match='connection.*gave up after 3 attempts'): nobody.complete('Hello')


def test_a_reply_of_millions_of_characters_is_no_reply(server):
    server.answer = lambda body: Answer('word '*500_000)
    with pytest.raises(LMError, match='not_a_reply.*2,500,000 characters'): make('openai', server, attempts=1).complete('Hello')
