"Message batches with the real SDK against a server on this machine: half the price, nothing twice, resumed."
import subprocess
import sys
import time

import pytest
from agentfastbook.lm.batches import _Batch, complete_batch
from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import sample_path
from agentfastbook.lm.door import Door
from agentfastbook.lm.models import Claude
from agentfastbook.engines.lm_decompose import LMDecomposer
from agentfastbook.lm.reply import make_request
from agentfastbook.store.runs import Store
from lm_server import Answer, LMServer, answer

REQUESTS = [make_request(f'Question {n}') for n in range(6)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('ANTHROPIC_API_KEY', 'sk-test-0123456789-0123456789')
    with LMServer() as server: yield server


def claude(server, **options): return Claude(base_url=server.url, door=Door(first_wait=.01, **options))


def sent(server): return [b for b in server.received if 'requests' in b]


def test_half_the_price_in_the_order_of_the_requests(server):
    server.answer = lambda body: Answer(body['messages'][0]['content'][-1:])
    lm = claude(server)
    replies = complete_batch(lm, [*REQUESTS, REQUESTS[0]], poll=.01)
    assert [r.text for r in replies] == list('0123450')
    assert lm.door.usd == pytest.approx(6*35e-6/2)
    assert lm.complete('Question 3').recorded and len(server.received) == 1


def test_newer_models_get_their_settings(server):
    server.answer = lambda body: Answer(data=dict(choice='no'))
    for model in ('claude-haiku-4-5', 'claude-haiku-5-5', 'claude-opus-5-5'):
        lm = Claude(model, base_url=server.url, door=Door(first_wait=.01))
        assert complete_batch(lm, [make_request('Is it?', choices=['yes', 'no'])], poll=.01)[0].data == 'no'


def test_each_entry_has_its_own_outcome(server):
    stops = {'Question 0': 'errored', 'Question 1': 'expired', 'Question 2': 'max_tokens', 'Question 3': 'refusal'}
    server.answer = lambda body: Answer(stop=stops.get(body['messages'][0]['content'], ''))
    lm = claude(server, samples=1)
    found = complete_batch(lm, REQUESTS, poll=.01)
    assert [getattr(r, 'outcome', 'complete') for r in found] == \
        ['bad_request', 'unavailable', 'cut', 'refused', 'complete', 'complete']
    again = complete_batch(lm, REQUESTS, poll=.01)
    assert [len(b['requests']) for b in sent(server)] == [6, 2], 'only what was not paid is asked again'
    assert [getattr(r, 'outcome', 'complete') for r in again][2:] == ['cut', 'refused', 'complete', 'complete']


def test_bad_replies_are_asked_for_again_in_a_batch_of_their_own(server, tmp_path):
    bad = {('Question 2', 0.): 'max_tokens', ('Question 3', 0.): 'refusal'}  # only at temperature 0
    server.answer = lambda body: Answer(stop=bad.get((body['messages'][0]['content'], body['temperature']), ''))
    with Store(tmp_path/'calls.db') as store:
        lm = claude(server, store=store)
        found = complete_batch(lm, REQUESTS, poll=.01)
        assert [r.again for r in found] == [0, 0, 1, 1, 0, 0]
        assert [len(b['requests']) for b in sent(server)] == [6, 2]
        assert complete_batch(lm, REQUESTS, poll=.01)[3].recorded and len(sent(server)) == 2
        bad.update({('Question 5', t): 'refusal' for t in (0., .5)})
        never = [make_request('Question 5', system='Be brief.')]
        for _ in range(2):
            assert complete_batch(lm, never, poll=.01)[0].outcome == 'refused' and len(sent(server)) == 5
        lm.door.keep_in(store, retry_failed=True)
        bad.clear()
        assert complete_batch(lm, never, poll=.01)[0].again == 3 and len(sent(server)) == 6


@pytest.mark.parametrize('entry', [dict(usage=(-5, 5)), dict(usage=(10**20, 5)), dict(text=5)])
def test_an_entry_that_is_no_reply_is_an_error_of_its_own(entry, server):
    server.answer = lambda body: Answer(**(entry if body['messages'][0]['content'] == 'Question 1' else {}))
    lm = claude(server)
    found = complete_batch(lm, REQUESTS, poll=.01)
    assert [getattr(r, 'outcome', 'complete') for r in found] == ['complete', 'not_a_reply']+['complete']*4
    assert lm.door.usd == pytest.approx(5*35e-6/2)


def test_a_stopped_program_waits_for_the_same_batch(server, tmp_path):
    server.polls = 10**9
    with Store(tmp_path/'calls.db') as store:
        found = complete_batch(claude(server, store=store), REQUESTS, poll=.01, deadline=.1)
        assert {e.outcome for e in found} == {'deadline'}
    server.polls = 1
    with Store(tmp_path/'calls.db') as store:
        assert [r.text for r in complete_batch(claude(server, store=store), REQUESTS, poll=.01)] == ['Hello!']*6
        assert len(sent(server)) == 1
        assert complete_batch(claude(server, store=store), REQUESTS, poll=.01)[0].recorded and len(sent(server)) == 1


def test_stopped_while_reading(server, tmp_path, monkeypatch):
    with Store(tmp_path/'calls.db') as store:
        read, n = _Batch.read, iter(range(99))

        def stop(self, result):
            if next(n) == 2: raise KeyboardInterrupt
            return read(self, result)
        monkeypatch.setattr(_Batch, 'read', stop)
        with pytest.raises(KeyboardInterrupt): complete_batch(claude(server, store=store), REQUESTS, poll=.01)
        monkeypatch.setattr(_Batch, 'read', read)
        found = complete_batch(claude(server, store=store), REQUESTS, poll=.01)
        assert [r.recorded for r in found].count(True) == 2 and len(sent(server)) == 1


def test_a_batch_is_sent_again_only_if_it_was_not_taken(server):
    server.faults += ['529', '429']
    assert complete_batch(claude(server), REQUESTS, poll=.01)[0].text == 'Hello!'
    server.faults.append('reset')
    found = complete_batch(claude(server), REQUESTS, poll=.01)
    assert {e.outcome for e in found} == {'connection'} and len(server.batches) == 1


def test_the_budget_holds(server):
    found = complete_batch(claude(server, budget_usd=.001), REQUESTS, poll=.01)
    assert {e.outcome for e in found} == {'over_budget'} and not server.received


def test_decomposing_in_batches(server):
    server.answer = answer
    questions = load_benchmark(sample_path()/'benchmark.json').questions
    decompose = LMDecomposer(claude(server))
    decompose.prepare(questions, batch=.01)
    assert len(server.received) == 1
    assert all(c.text in q.gold_answer for q in questions for c in decompose(q))
    assert len(server.received) == 1

KILLED = """import sys
from agentfastbook.lm.batches import complete_batch
from agentfastbook.lm.door import Door
from agentfastbook.lm.models import Claude
from agentfastbook.lm.reply import make_request
from agentfastbook.store.runs import Store
lm = Claude(base_url=sys.argv[1], door=Door(Store(sys.argv[2]), first_wait=.01))
complete_batch(lm, [make_request(f'Question {n}') for n in range(6)], poll=.01)
"""


def test_a_batch_whose_answer_was_lost_at_a_kill_is_found_again(server, tmp_path):
    "The process is killed after the server took the batch, and before its id could be noted."
    with Store(tmp_path/'calls.db') as store: complete_batch(claude(server, store=store), REQUESTS[:1], poll=.01)
    server.faults.append('unanswered 60')
    stopped = subprocess.Popen([sys.executable, '-c', KILLED, server.url, str(tmp_path/'calls.db')])
    for _ in range(600):
        if len(server.batches) == 2: break
        time.sleep(.05)
    stopped.kill()
    stopped.wait(30)
    assert len(server.batches) == 2
    server.new_batch(dict(requests=[dict(custom_id=f'x{n}', params=sent(server)[0]['requests'][0]['params']) for n in range(5)]))
    before = len(server.paid)  # of another program meanwhile, as large as ours
    with Store(tmp_path/'calls.db') as store:
        lm = claude(server, store=store)
        assert [r.text for r in complete_batch(lm, REQUESTS, poll=.01)] == ['Hello!']*6
        assert len(sent(server)) == 2 and len(server.paid) == before, 'nothing is sent or paid twice'
        assert lm.door.usd == pytest.approx(5*35e-6/2)


def test_a_batch_whose_answer_was_lost_on_the_way_is_found_again(server, tmp_path):
    server.faults.append('unanswered 0')
    with Store(tmp_path/'calls.db') as store:
        found = complete_batch(claude(server, store=store), REQUESTS, poll=.01)
        assert {e.outcome for e in found} == {'connection'} and len(server.batches) == 1
        assert complete_batch(claude(server, store=store), REQUESTS, poll=.01)[5].text == 'Hello!'
        assert len(sent(server)) == 1


def test_a_batch_that_never_arrived_is_sent_again(server, tmp_path):
    server.faults.append('reset')
    with Store(tmp_path/'calls.db') as store:
        assert {e.outcome for e in complete_batch(claude(server, store=store), REQUESTS, poll=.01)} == {'connection'}
        assert complete_batch(claude(server, store=store), REQUESTS, poll=.01)[5].text == 'Hello!'
        assert len(sent(server)) == 2 and len(server.batches) == 1
