"afb_curate --lm against a server on this machine: priced before the first call, within the budget, resumed for nothing."
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from agentfastbook.lm.door import model_usage
from agentfastbook.store.runs import Store
from lm_server import Answer, LMServer, answer, body_text

KEY = 'sk-test-0123456789-0123456789'


@pytest.fixture
def server():
    with LMServer(answer) as server: yield server


def start(server, out, *options, **environment):
    env = {**os.environ, 'ANTHROPIC_API_KEY': KEY, 'ANTHROPIC_BASE_URL': server.url, **environment}
    command = [str(Path(sys.executable).parent/'afb_curate'), '--out', str(out), *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def curate(*args, **kwargs):
    "What a run printed, and how it ended."
    run = start(*args, **kwargs)
    stdout, stderr = run.communicate()
    return subprocess.CompletedProcess(run.args, run.returncode, stdout, stderr)


def test_priced_run_and_resumed(server, tmp_path):
    done = curate(server, tmp_path/'out', '--lm', 'claude-haiku-4-5', '--budget-usd', '.5')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 'calls to the model for about $0.0' in lines[0] and 'budget $0.5' in lines[0], 'the first line is the price'
    n = len(server.paid)
    assert n > 30 and KEY not in done.stdout+done.stderr
    for question in json.loads((tmp_path/'out'/'dataset.json').read_text())['questions']:
        for component in question['answer_context']: assert component['answer_component'] in question['gold_standard_answer']
    usd = 2*(200+30*5)/1e6+(n-2)*(500+20*5)/1e6
    paid = re.search(r'decompose/point +[0-9a-f]{10}:decompose/point.md +2 +0 .*\n *extract/list.* (\d+) +0 ', done.stdout)
    assert int(paid[1]) == n-2, 'what the models took, by step and commit'
    again = curate(server, tmp_path/'out', '--lm', 'claude-haiku-4-5')
    assert again.returncode == 0 and 'extract/list ' not in again.stdout and len(server.paid) == n
    with Store(tmp_path/'out'/'traces.db') as store:
        usage = model_usage(store)
        assert usage.usd.sum() == pytest.approx(usd) and usage.calls.sum() == n and set(usage.run) == {2}
        assert KEY not in '\n'.join(map(str, store.calls().to_numpy().ravel()))


def test_killed_and_resumed(server, tmp_path):
    "SIGKILL in the middle: what was recorded is not asked again, only the one call that was on its way may be."
    server.latency = .1
    run = start(server, tmp_path/'out', '--lm', 'claude-haiku-4-5', '--workers', '1')
    until = time.monotonic()+120
    while len(server.paid) < 9 and time.monotonic() < until: time.sleep(.01)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL and 9 <= len(server.paid) < 20
    time.sleep(.3)
    done = curate(server, tmp_path/'out', '--lm', 'claude-haiku-4-5', '--workers', '1')
    assert done.returncode == 0, done.stderr
    twice = [n for n in Counter(json.dumps(b, sort_keys=True) for b in server.paid).values() if n > 1]
    assert sum(twice)-len(twice) <= 1
    with Store(tmp_path/'out'/'traces.db') as store:
        usage = model_usage(store)
        assert (usage.calls-usage.failed).sum() == len(server.paid)-len(twice)
        assert usage.calls.sum() >= len(server.paid), 'what was on its way at the kill is booked as perhaps paid'
        assert usage.groupby('run').calls.sum().iloc[0] >= 8, 'the killed run has what it paid'


def test_other_words(server, tmp_path):
    "A prompt is edited, committed, and used; a tag brings the old words back, for nothing."
    out, lm = tmp_path/'out', ['--lm', 'claude-haiku-4-5']
    assert curate(server, out, *lm).returncode == 0
    n, path = len(server.paid), out/'prompts'/'extract'/'list.md'
    path.write_text(path.read_text().replace('as few as suffice', 'two at most'))
    done = curate(server, out, *lm)
    assert done.returncode == 2 and 'changed since the last commit' in done.stderr and len(server.paid) == n
    git = ['git', '-C', str(out/'prompts'), '-c', 'user.name=Ada', '-c', 'user.email=ada@example.org']
    subprocess.run([*git, 'tag', 'first'], check=True)
    subprocess.run([*git, 'commit', '-qam', 'Two at most'], check=True)
    done = curate(server, out, *lm)
    commit = subprocess.run([*git, 'rev-parse', '--short=10', 'HEAD'], capture_output=True, text=True).stdout.strip()
    assert done.returncode == 0 and f'{commit}:extract/list.md' in done.stdout and 'decompose/point ' not in done.stdout
    new = server.paid[n:]
    assert new and all('two at most' in json.dumps(b) for b in new)
    assert curate(server, out, *lm, '--prompts', f'{out/"prompts"}@first').returncode == 0
    assert len(server.paid) == n+len(new)


def test_rules_first_rewording_and_yes_or_no(server, tmp_path):
    def reply(body):
        text = body_text(body)
        if text.startswith('Question'): return Answer(data=dict(sentences=['zebra']*len(re.findall(r'^\[', text, re.M))))
        if text.startswith('Fact'): return Answer('yes', top={'yes': -.1, 'no': -3.})
        return answer(body)
    server.answer = reply
    lm = ['--lm', f'{server.url}/v1#m', '--hybrid', '--standalone', '--yes_no', '.5']
    done = curate(server, tmp_path/'out', *lm)
    assert done.returncode == 0, done.stderr
    steps = Counter(re.match('Answer|Question|Fact', body_text(b))[0] for b in server.paid)
    assert steps['Answer'] == 2 and steps['Question'] == 12, 'the rules are sure of the others'
    with Store(tmp_path/'out'/'traces.db') as store:
        assert set(model_usage(store).step) >= {'decompose/point', 'decompose/standalone'}
        queries = [i['component']['query'] for i in store.calls(step='retrieve')['input']]
    assert any('zebra' in q for q in queries) and not all('zebra' in q for q in queries)
    assert 'zebra' not in (tmp_path/'out'/'dataset.json').read_text()


def test_a_server_of_ones_own(server, tmp_path):
    assert curate(server, tmp_path/'out', '--lm', f'{server.url}/v1#a-model').returncode == 0


@pytest.mark.parametrize('options,environment,words', [
    (['--lm', 'claude-haiku-4-5', '--budget-usd', '.001'], {}, 'over_budget'),
    (['--lm', 'claude-haiku-4-5'], dict(ANTHROPIC_API_KEY=''), 'no_key'),
    (['--lm', 'gpt'], {}, "language model 'gpt' is not known"),
    (['--lm', 'local:none.gguf'], {}, 'not_a_model'),
    (['--budget-usd', '1'], {}, 'name one with --lm'),
    (['--hybrid'], {}, 'name one with --lm'),
    (['--lm', 'claude-haiku-4-5', '--yes-no', '.5'], {}, 'gives no probabilities'),
    (['--lm', 'claude-haiku-4-5', '--prompts', 'none@paper'], {}, "no folder 'none'"),
])
def test_what_can_not_work_is_one_line(options, environment, words, server, tmp_path):
    done = curate(server, tmp_path/'out', *options, **environment)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1] and not server.received


def runs(out):
    "The numbers of the runs in a store, and the last one for those who look at results."
    with Store(out/'traces.db') as store: return store.runs().run.tolist(), store.last_run()


def test_a_failed_start_leaves_nothing(server, tmp_path):
    "No key: no price, no folder. And over budget at the first call: no run that others would take for the last one."
    lm, out = ['--lm', 'claude-haiku-4-5'], tmp_path/'out'
    done = curate(server, out, *lm, ANTHROPIC_API_KEY='')
    assert done.returncode == 2 and done.stdout == '' and 'no_key' in done.stderr.splitlines()[-1] and not out.exists()
    assert curate(server, out).returncode == 0
    assert runs(out) == ([1], 1)
    for options, environment in [([], dict(ANTHROPIC_API_KEY='')), (['--budget-usd', '.000001'], {}), (['--prompts', 'none@x'], {})]:
        assert curate(server, out, *lm, *options, **environment).returncode == 2
        assert runs(out) == ([1], 1), options
    judge = subprocess.run([str(Path(sys.executable).parent/'afb_judge'), '--run', str(out)], capture_output=True, text=True)
    assert judge.returncode == 0 and 'verbatim' in judge.stdout
    assert not server.received


def test_retry_failed(server, tmp_path):
    "Replies that are refused again and again fail their question, for nothing, until somebody asks for new samples."
    def refusing(body):
        if 'dough' in body_text(body) and body_text(body).startswith('Answer'): return Answer('', stop='refusal')
        return answer(body)
    server.answer = refusing
    lm, out = ['--lm', 'claude-haiku-4-5'], tmp_path/'out'
    first = curate(server, out, *lm)
    assert first.returncode == 1 and 'refused' in first.stderr
    failed, n = first.stderr.count('failed: '), len(server.paid)
    server.answer = answer
    again = curate(server, out, *lm)
    assert again.returncode == 1 and again.stderr.count('failed: ') == failed and len(server.paid) == n, 'not asked, not paid'
    retried = curate(server, out, *lm, '--retry-failed')
    assert retried.returncode == 0 and len(server.paid) > n
    n = len(server.paid)
    assert curate(server, out, *lm, '--retry-failed').returncode == 0 and len(server.paid) == n


@pytest.mark.parametrize('number,status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_models_write(number, status, server, tmp_path):
    "Nobody waits for calls that are on their way, and the same command goes on."
    server.latency = .1
    run = start(server, tmp_path/'out', '--lm', 'claude-haiku-4-5', '--workers', '4')
    until = time.monotonic()+120
    while len(server.paid) < 9 and time.monotonic() < until: time.sleep(.01)
    server.latency = 60
    time.sleep(.5)
    began = time.monotonic()
    run.send_signal(number)
    stdout, stderr = run.communicate(timeout=30)
    assert time.monotonic()-began < 10 and run.returncode == status
    assert 'stopped; what is saved stays' in stderr and 'Traceback' not in stderr
    server.latency = 0
    assert curate(server, tmp_path/'out', '--lm', 'claude-haiku-4-5', '--workers', '4').returncode == 0
