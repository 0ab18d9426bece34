"""The door to language models with the real SDKs, against a server on this machine that misbehaves on demand: every
fault is an outcome with a name, the history stays clean, nothing is lost or paid twice, no secret gets out."""
import asyncio
import json
import sqlite3
import subprocess
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from agentfastbook.books.chapters import sample_path
from agentfastbook.text.spans import FastbookError
from agentfastbook.lm.door import Door, model_usage
from agentfastbook.lm.models import Claude, OpenAICompatible
from agentfastbook.lm.recorded import Recorded
from agentfastbook.engines.lm_decompose import LMDecomposer
from agentfastbook.engines.pipeline import curate
from agentfastbook.lm.reply import LMError, OUTCOMES, Usage, make_request
from agentfastbook.store.runs import Store
from lm_server import Answer, LMServer

SECRET = 'sk-test-0123456789-correct-horse-battery'
KINDS = ('claude', 'openai')
CUTS = dict(type='object', properties=dict(cuts=dict(type='array', items=dict(type='integer'))), required=['cuts'])


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv('ANTHROPIC_API_KEY', SECRET)
    monkeypatch.setenv('OPENAI_API_KEY', SECRET)
    monkeypatch.delenv('ANTHROPIC_BASE_URL', raising=False)


@pytest.fixture
def server():
    with LMServer() as server: yield server


def make(kind, server, **options):
    door = Door(**{**dict(first_wait=.01, timeout=5, attempts=3), **options})
    if kind == 'claude': return Claude(base_url=server.url, door=door)
    return OpenAICompatible(f'{server.url}/v1', 'a-model', door)


def ask(lm, how, *args, **options):
    if how == 'async':
        async def run(): return await lm.acomplete(*args, **options)
        return asyncio.run(run())
    if how == 'stream': options['on_text'] = options.get('on_text') or (lambda text: None)
    return lm.complete(*args, **options)


def outcome(lm, *args, how='sync', **options):
    with pytest.raises(LMError) as e: ask(lm, how, *args, **options)
    return e.value.outcome


def user_turns(body): return [m for m in body['messages'] if m['role'] == 'user']


# what goes well

@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_plain_reply(kind, how, server):
    reply = ask(make(kind, server), how, 'Say hello.', system='Be brief.')
    assert (reply.text, reply.usage, reply.attempts) == ('Hello!', Usage(10, 5), 1)
    body = server.received[0]
    assert body['temperature'] == 0 and body['max_tokens'] == 1024
    assert 'Be brief.' in json.dumps(body)
    assert reply.usd == (pytest.approx(35e-6) if kind == 'claude' else None)


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_structured_reply(kind, how, server):
    server.answer = lambda body: Answer(data=dict(cuts=[1, 3]))
    assert ask(make(kind, server), how, 'Cut.', schema=CUTS).data == dict(cuts=[1, 3])
    server.answer = lambda body: Answer(data=dict(choice='no'))
    assert ask(make(kind, server), how, 'Yes?', choices=['yes', 'no']).data == 'no'


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('model', ['claude-haiku-5-5', 'claude-sonnet-5-5', 'claude-opus-5-5', 'claude-opus-4-8'])
def test_newer_claude_models(model, how, server):
    lm = Claude(model, base_url=server.url)
    assert ask(lm, how, 'Say hello.', max_tokens=30).text == 'Hello!'
    server.answer = lambda body: Answer(data=dict(cuts=[1, 3]))
    limits = dict(CUTS, properties=dict(cuts=dict(type='array', items=dict(type='integer', minimum=1), maxItems=9)))
    assert ask(lm, how, 'Cut.', schema=limits).data == dict(cuts=[1, 3])
    server.answer = lambda body: Answer(data=dict(choice='no'))
    reply = ask(lm, how, 'Yes?', choices=['yes', 'no'], max_tokens=30)
    assert (reply.data, reply.text) == ('no', 'no')
    assert [b['max_tokens'] for b in (server.received[0], server.received[-1])] == \
        [4030 if model == 'claude-opus-5-5' else 30]*2
    server.answer = lambda body: Answer('I think the cuts are 1 and 3.')
    assert outcome(lm, 'Cut again.', how=how, schema=CUTS) == 'unstructured'


@pytest.mark.parametrize('how', ['stream'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_stream_shows_the_text_so_far(kind, how, server):
    seen = []
    ask(make(kind, server), how, 'Say hello.', on_text=seen.append)
    assert seen[-1] == 'Hello!' and 'Hel' in seen


def test_temperature_can_be_left_out(server):
    make('claude', server).complete('Hello', temperature=None)
    assert 'temperature' not in server.received[0]


def test_a_long_prefix_is_marked_for_the_cache_once_per_call(server):
    lm = make('claude', server)
    for n in range(6): lm.complete(f'Question {n}', prefix='Bread is old. '*500, system='Answer.')
    assert [json.dumps(b).count('cache_control') for b in server.received] == [1]*6


def test_citations(server):
    place = dict(type='char_location', cited_text='It rises.', document_index=0, document_title=None,
                 start_char_index=4, end_char_index=13, file_id=None)
    server.answer = lambda body: Answer('It does.', citations=[place])
    reply = make('claude', server).complete('Does it rise?', documents=['Yes. It rises.'])
    assert reply.citations == (dict(document=0, start=4, end=13, text='It rises.'),)


def test_log_probabilities(server):
    server.answer = lambda body: Answer('Yes', top={'Yes': -.2, ' yes': -3., 'No': -2., 'Maybe': -4.})
    scores = make('openai', server).score_choices('Baked?', ['yes', 'no', 'never'])
    assert scores['yes'] > -.2 and scores['no'] == pytest.approx(-2) and scores['never'] == float('-inf')
    server.answer = lambda body: Answer('Yes')
    assert outcome(make('openai', server), 'Baked?', choices=['yes', 'no'], scores=True) == 'unsupported'
    assert outcome(make('claude', server), 'Baked?', choices=['yes', 'no'], scores=True) == 'unsupported'
    server.answer = lambda body: Answer('Yes', top={'Yes': -.2, 'No': -2.})
    scores = asyncio.run(make('openai', server).ascore_choices('Baked?', ['yes', 'no']))
    assert scores['no'] == pytest.approx(-2)


# what goes wrong once, and right the second time

@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('fault', ['429', '429 retry-after=0', '429 retry-after-ms=20', '529', '500', '503', 'reset',
                                   'html', 'broken-json'])
def test_passing_faults_are_tried_again_with_a_clean_history(fault, kind, how, server):
    server.faults.append(fault)
    reply = ask(make(kind, server), how, 'Say hello.')
    assert (reply.text, reply.attempts) == ('Hello!', 2)
    assert len(server.paid) == 1
    assert [len(user_turns(b)) for b in server.received] == [1, 1]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('fault', ['cut-stream', 'error-in-stream'])
def test_streams_that_break_off_are_tried_again(fault, kind, server):
    server.faults.append(fault)
    seen = []
    reply = ask(make(kind, server), 'stream', 'Say hello.', on_text=seen.append)
    assert (reply.text, reply.attempts, seen[-1]) == ('Hello!', 2, 'Hello!')


@pytest.mark.parametrize('how', ['sync', 'async'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_hanging_server_is_tried_again(kind, how, server):
    ask(make(kind, server, timeout=30), how, 'The first call imports.')
    server.faults.append('sleep 3')
    assert ask(make(kind, server, timeout=.8), how, 'Hello').attempts == 2


@pytest.mark.parametrize('kind', KINDS)
def test_a_server_that_sends_a_little_now_and_then_is_not_waited_for(kind, server):
    server.answer = lambda body: Answer('a long story '*50)
    server.faults += ['drip .05']*2
    start = time.monotonic()
    assert outcome(make(kind, server, timeout=.4, attempts=2), 'Tell a story.', how='stream') == 'timeout'
    assert time.monotonic()-start < 2


def test_standing_in_line_does_not_count_as_time_of_the_call(server):
    server.latency = .1
    ask(make('claude', server, timeout=30), 'async', 'The first call imports.')
    lm = make('claude', server, concurrency=2, deadline=2)

    async def run(): return await asyncio.gather(*[lm.acomplete(f'Question {n}') for n in range(50)])
    start = time.monotonic()
    assert [r.text for r in asyncio.run(run())] == ['Hello!']*50
    assert time.monotonic()-start > lm.door.deadline
    with ThreadPoolExecutor(50) as pool:
        assert len(list(pool.map(lm.complete, [f'Answer {n}' for n in range(50)]))) == 50


def test_threads_and_tasks_share_one_limit(server):
    server.latency = .05
    lm = make('claude', server, concurrency=3)

    async def run(): return await asyncio.gather(*[lm.acomplete(f'Question {n}') for n in range(9)])
    with ThreadPoolExecutor(9) as pool:
        threads = [pool.submit(lm.complete, f'Answer {n}') for n in range(9)]
        asyncio.run(run())
        assert all(f.result().text == 'Hello!' for f in threads)
    assert server.busiest <= 3 and len(server.paid) == 18


def test_retry_after_holds_up_all_threads(server):
    server.faults.append('429 retry-after-ms=500')
    lm, start = make('claude', server, concurrency=4), time.monotonic()
    lm.complete('first, is told to wait')
    with ThreadPoolExecutor(4) as pool:
        server.faults.append('429 retry-after-ms=500')
        first = pool.submit(lm.complete, 'a')
        time.sleep(.2)
        others = [pool.submit(lm.complete, x) for x in 'bcd']
        n = len(server.received)
        time.sleep(.1)
        assert len(server.received) == n, 'a call went out while the server wanted to be left alone'
        assert [f.result().text for f in [first, *others]] == ['Hello!']*4
    assert time.monotonic()-start > 1


# what stays wrong

FATAL = {'400': 'bad_request', '401': 'unauthorized', '404': 'unknown_model', '413': 'too_large',
         'too-long': 'too_long', '429 x-should-retry=false': 'rate_limited'}


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('fault', FATAL)
def test_faults_that_do_not_pass_are_not_tried_again(fault, kind, how, server):
    server.faults.append(fault)
    lm = make(kind, server)
    assert outcome(lm, 'Hello', how=how) == FATAL[fault]
    assert len(server.received) == 1 and lm.door.tokens == 0
    assert ask(lm, how, 'Hello').text == 'Hello!', 'nothing was recorded, so it can be asked again'


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('fault,name', [('429', 'rate_limited'), ('529', 'overloaded'), ('500', 'unavailable'),
                                        ('reset', 'connection'), ('html', 'not_a_reply')])
def test_faults_that_never_pass_end(fault, name, kind, server):
    server.faults += [fault]*9
    with pytest.raises(LMError, match='gave up after 3 attempts') as e: make(kind, server).complete('Hello')
    assert e.value.outcome == name and len(server.received) == 3


def test_nobody_listens():
    with LMServer() as server: pass
    for kind in KINDS:
        lm = make(kind, server, budget_tokens=5000)
        assert outcome(lm, 'Hello') == 'connection', 'and not over_budget: nothing was sent'


def test_a_wait_longer_than_the_deadline_is_not_waited_for(server):
    server.faults.append('429 retry-after=600')
    start = time.monotonic()
    assert outcome(make('claude', server, deadline=5), 'Hello') == 'rate_limited'
    assert time.monotonic()-start < 1


def test_the_deadline_ends_a_call(server):
    server.latency = 1
    start = time.monotonic()
    assert outcome(make('claude', server, timeout=.3, deadline=.5, attempts=99), 'Hello') in ('timeout', 'deadline')
    assert time.monotonic()-start < 1.5


BAD = {'cut': Answer('<component>Yeast ea', stop='max_tokens'), 'refused': Answer('', stop='refusal'),
       'empty': Answer('')}
BAD_CHAT = {'cut': Answer('<component>Yeast ea', stop='length'), 'refused': Answer('', stop='content_filter'),
            'empty': Answer('')}


@pytest.mark.parametrize('how', ['sync', 'async', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', BAD)
def test_replies_that_are_not_complete_are_no_text_and_are_paid_once(name, kind, how, server):
    server.answer = lambda body: (BAD if kind == 'claude' else BAD_CHAT)[name]
    lm = make(kind, server, samples=1)
    assert [outcome(lm, 'Hello', how=how) for _ in range(3)] == [name]*3
    assert len(server.received) == 1 and lm.door.tokens == 15


@pytest.mark.parametrize('how', ['sync', 'stream'])
@pytest.mark.parametrize('kind', KINDS)
def test_prose_in_place_of_structure(kind, how, server):
    server.answer = lambda body: Answer('Sure! Here are the cuts: 1, 3.')
    assert outcome(make(kind, server), 'Cut.', how=how, schema=CUTS) == 'unstructured'
    assert outcome(make(kind, server), 'Cut.', how=how, choices=['yes', 'no']) == 'unstructured'


def test_structure_with_a_wrong_member(server):
    server.answer = lambda body: Answer(data=dict(cuts=['one']))
    for kind in KINDS: assert outcome(make(kind, server), 'Cut.', schema=CUTS) == 'unstructured'


def test_a_missing_key(server, monkeypatch):
    monkeypatch.delenv('ANTHROPIC_API_KEY')
    monkeypatch.delenv('OPENAI_API_KEY')
    assert outcome(make('claude', server), 'Hello') == outcome(make('claude', server), 'Hello', how='async') == 'no_key'
    assert outcome(OpenAICompatible('https://api.openai.com/v1', 'gpt'), 'Hello') == 'no_key'
    assert make('openai', server).complete('Hello').text == 'Hello!', 'a server of one\'s own needs none'
    assert len(server.received) == 1


def test_an_unknown_model_runs_and_its_price_is_unknown(server):
    lm = Claude('claude-of-tomorrow', base_url=server.url)
    assert lm.complete('Hello').usd is None
    assert 'unknown price' in repr(lm.door)
    assert lm.door.usage.unpriced.tolist() == [1]


def test_every_outcome_says_what_helps():
    assert all(len(words) > 20 for words in OUTCOMES.values())


# money

def test_a_budget_holds_with_many_threads(server):
    server.latency = .02
    server.answer = lambda body: Answer(usage=(20, 100))
    lm = make('claude', server, concurrency=16, budget_usd=.01)

    def call(n):
        try: return lm.complete(f'Question {n}', max_tokens=100)
        except LMError as e: return e.outcome
    with ThreadPoolExecutor(16) as pool: results = list(pool.map(call, range(60)))
    spent = len(server.paid)*(20*1+100*5)/1e6
    assert lm.door.usd == pytest.approx(spent) and spent <= .01
    assert set(r for r in results if isinstance(r, str)) == {'over_budget'}
    assert spent > .008, 'the budget is used'


def test_paid_once_by_threads_and_runs(server, tmp_path):
    server.latency = .1
    with Store(tmp_path/'calls.db') as store:
        lm = make('claude', server, store=store)
        def call(n): return lm.complete(f'Question {n % 2}', step='decompose')
        with ThreadPoolExecutor(8) as pool: list(pool.map(call, range(8)))
        assert len(server.paid) == 2
        usage = model_usage(store)
        assert usage.calls.tolist() == [2] and usage.usd[0] == pytest.approx(70e-6)
    with Store(tmp_path/'calls.db') as store:
        again = make('claude', server, store=store)
        assert again.complete('Question 1', step='decompose').recorded and len(server.paid) == 2


ASK = """import sys
from agentfastbook.lm.door import Door
from agentfastbook.lm.models import Claude
from agentfastbook.store.runs import Store
lm = Claude(base_url=sys.argv[1], door=Door(Store(sys.argv[2])))
print(sum(lm.complete(f'Question {n}').recorded for n in range(3)))
"""


def test_two_processes_that_ask_the_same_pay_once(server, tmp_path):
    server.latency = .5
    run = [sys.executable, '-c', ASK, server.url, str(tmp_path/'calls.db')]
    two = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    recorded = [int(p.communicate(timeout=60)[0]) for p in two]
    assert len(server.paid) == 3 and sum(recorded) == 3


def test_a_process_that_was_killed_while_it_asked_holds_nobody_up(server, tmp_path):
    server.faults.append('sleep 60')
    run = [sys.executable, '-c', ASK, server.url, str(tmp_path/'calls.db')]
    killed = subprocess.Popen(run)
    for _ in range(600):
        if server.received: break
        time.sleep(.05)
    killed.kill()
    killed.wait()
    start = time.monotonic()
    with Store(tmp_path/'calls.db') as store: assert make('claude', server, store=store).complete('Question 0').text
    assert time.monotonic()-start < 5


def test_async_calls_keep_the_concurrency_limit_and_are_paid_once(server):
    server.latency = .05
    lm = make('claude', server, concurrency=3)

    async def run(): return await asyncio.gather(*[lm.acomplete(f'Question {n % 9}') for n in range(18)])
    assert [r.text for r in asyncio.run(run())] == ['Hello!']*18
    assert len(server.paid) == 9 and server.busiest <= 3


def test_what_a_lost_attempt_may_have_cost_counts_against_the_budget(server):
    server.faults.append('sleep 2')
    lm = make('claude', server, timeout=.2, attempts=1, budget_tokens=3000)
    assert outcome(lm, 'Hello', max_tokens=2000) == 'timeout'
    assert lm.door.tokens == 0
    assert outcome(lm, 'Hello', max_tokens=2000) == 'over_budget'


def test_recording_with_one_call_at_a_time(server, tmp_path):
    lm = make('claude', server, concurrency=1)
    server.faults += ['429']
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(Recorded(tmp_path/'replies.jsonl', lm).complete, 'abcd'))
    assert len(replies) == len(server.paid) == 4 and lm.door.usd == pytest.approx(4*35e-6)
    read = Recorded(tmp_path/'replies.jsonl')
    assert [read.complete(x).text for x in 'abcd'] == ['Hello!']*4 and read.door.usd == 0
    server.faults += ['529']*9
    with pytest.raises(LMError, match='overloaded'): Recorded(tmp_path/'replies.jsonl', lm).complete('e')
    assert len(server.received) == 8, 'three attempts, not three times three'


def test_a_pool_of_processes_says_use_threads(server, tmp_path):
    decompose = LMDecomposer(make('claude', server))
    with ProcessPoolExecutor(1) as pool, pytest.raises(FastbookError, match='use threads'):
        curate(sample_path(), sample_path()/'benchmark.json', tmp_path, decompose=decompose, executor=pool,
               progress=False)


def test_interrupted_in_the_middle(server, tmp_path):
    with Store(tmp_path/'calls.db') as store:
        lm = make('claude', server, store=store)
        def stop(text): raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt): lm.complete('Hello', on_text=stop)
        assert lm.complete('Hello').text == 'Hello!'


# secrets

def test_secrets_get_nowhere(server, tmp_path, capsys, caplog):
    caplog.set_level(0)
    seen = []
    with Store(tmp_path/'calls.db') as store:
        for kind in KINDS:
            lm = make(kind, server, store=store)
            for fault in ('echo-key', '401', 'html', 'broken-json', 'reset'):
                server.faults += [fault]*3
                try: lm.complete(f'Hello {kind} {fault}')
                except LMError as e: seen += [str(e), repr(e), repr(e.args), ''.join(traceback.format_exception(e))]
                server.faults.clear()
            server.answer = lambda body: Answer(f'Your key is {SECRET}')
            lm.complete(f'Repeat my key {SECRET} {kind}')
            seen += [repr(lm), repr(lm.door), str(lm.door.usage)]
    tables = sqlite3.connect(tmp_path/'calls.db')
    seen += tables.iterdump()
    seen += [*capsys.readouterr(), caplog.text]
    assert len(seen) > 20
    assert [text[max(0, text.index(SECRET)-150):text.index(SECRET)] for text in seen if SECRET in text] == []
    assert SECRET in json.dumps(server.headers), 'it was sent'
    assert SECRET.encode() not in b''.join(p.read_bytes() for p in tmp_path.iterdir())
