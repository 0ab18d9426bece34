"afb_curate --lm against a server on this machine: priced before the first call, within the budget, resumed for nothing."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lm_server import LMServer
from test_lm_engines import answer

KEY = 'sk-test-0123456789-0123456789'


@pytest.fixture
def server():
    with LMServer(answer) as server: yield server


def curate(server, out, *options, **environment):
    env = {**os.environ, 'ANTHROPIC_API_KEY': KEY, 'ANTHROPIC_BASE_URL': server.url, **environment}
    command = [str(Path(sys.executable).parent/'afb_curate'), '--out', str(out), *options]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_priced_run_and_resumed(server, tmp_path):
    done = curate(server, tmp_path/'out', '--lm', 'claude-haiku-4-5', '--budget-usd', '.5')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 'calls to the model for about $0.0' in lines[0] and 'budget $0.5' in lines[0], 'the first line is the price'
    n = len(server.paid)
    assert n > 30 and KEY not in done.stdout+done.stderr
    for question in json.loads((tmp_path/'out'/'dataset.json').read_text())['questions']:
        for component in question['answer_context']: assert component['answer_component'] in question['gold_standard_answer']
    assert curate(server, tmp_path/'out', '--lm', 'claude-haiku-4-5').returncode == 0
    assert len(server.paid) == n


def test_a_server_of_ones_own(server, tmp_path):
    assert curate(server, tmp_path/'out', '--lm', f'{server.url}/v1#a-model').returncode == 0


@pytest.mark.parametrize('options,environment,words', [
    (['--lm', 'claude-haiku-4-5', '--budget-usd', '.001'], {}, 'over_budget'),
    (['--lm', 'claude-haiku-4-5'], dict(ANTHROPIC_API_KEY=''), 'no_key'),
    (['--lm', 'gpt'], {}, "language model 'gpt' is not known"),
    (['--lm', 'local:none.gguf'], {}, 'not_a_model'),
    (['--budget-usd', '1'], {}, 'name one with --lm'),
])
def test_what_can_not_work_is_one_line(options, environment, words, server, tmp_path):
    done = curate(server, tmp_path/'out', *options, **environment)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1] and not server.received
