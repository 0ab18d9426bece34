"The command `afb`: its sub-commands' exit statuses and JSON, both spellings of an option, old names, signals."
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from agentfastbook.books.chapters import sample_path
from agentfastbook.cli.commands import afb
from agentfastbook.cli.shell import print_table
from conftest import ROOT

SAMPLE = sample_path()
BENCHMARK = SAMPLE/'benchmark.json'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A finished run of the sample."
    out = tmp_path_factory.mktemp('afb')/'out'
    assert status('curate', '--book', SAMPLE, '--benchmark', BENCHMARK, '--out', out) == 0
    return out


def status(*words):
    try: afb([*map(str, words)])
    except SystemExit as e: return e.code
    return 0


def given(run):
    "For each sub-command with tables, words that work, its exit status, and the keys of its JSON."
    return {'curate': (['--book', SAMPLE, '--benchmark', BENCHMARK, '--out', run], 0, {'summary', 'errors', 'warning', 'out'}),
            'score': (['--pred', run/'dataset.json', '--gold', BENCHMARK, '--book', SAMPLE], 0, {'scores'}),
            'benchmark': (['--book', SAMPLE, '--benchmark', BENCHMARK], 0, {'passages', 'decomposition', 'reading', 'extraction'}),
            'lint': (['--book', SAMPLE, '--benchmark', BENCHMARK], 1, {'defects', 'ceilings'}),
            'judge': (['--run', run, '--step', 'extract'], 0, {'extract', 'extract failures'})}


@pytest.mark.parametrize('command', ['curate', 'score', 'benchmark', 'lint', 'judge'])
def test_json_and_exit_status(command, run, capsys):
    words, expected, keys = given(run)[command]
    assert status(command, *words, '--json') == expected
    data = json.loads(capsys.readouterr().out)  # nothing but one object
    assert keys <= set(data)
    assert status(command, *words) == expected
    assert capsys.readouterr().out.strip()[0] != '{'


@pytest.mark.parametrize('words,message', [
    (['curate', '--book', 'nowhere'], "book folder 'nowhere'"), (['curate', '--k', '0'], '--k is 0'),
    (['curate', '--k', 'two'], 'not a valid integer'), (['curate', '--granularity', 'dust'], 'is not one of'),
    (['score', '--pred', 'nowhere.json'], 'nowhere.json'), (['benchmark', '--max-tokens', '0'], '--max-tokens is 0'),
    (['lint', '--benchmark', 'nowhere.json'], 'nowhere.json'), (['review', '--run', 'nowhere'], 'there is no store'),
    (['judge', '--step', 'dance', '--run', '.'], 'there is no store'), (['prompts', 'log', '--repo', 'nowhere'], 'there is no folder'),
    (['prompts'], 'a command is required'), (['dance'], 'choose from curate, score'), (['lint', '--nowhere'], 'No such option'),
    (['curate', '--out='], '--out is empty'), ([], 'a command is required')])
def test_what_can_not_be_done_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status(*words) == 2
    said = capsys.readouterr()
    assert message in said.err.splitlines()[-1] and said.err.splitlines()[-1].startswith('error: ')
    assert said.out == '' and list(tmp_path.iterdir()) == []


def test_a_run_without_answers_is_judged_by_the_steps_that_it_has(tmp_path, capsys):
    (tmp_path/'book').mkdir()
    (tmp_path/'book'/'01_tea.md').write_text('# Tea\n\nTea is made of leaves. It came from China.\n\n## Questionnaire\n\n1. What is tea made of?\n')
    assert status('curate', '--book', tmp_path/'book', '--out', tmp_path/'out') == 0
    capsys.readouterr()
    assert status('judge', '--run', tmp_path/'out', '--json') == 0
    said = json.loads(capsys.readouterr().out)
    assert 'extract' in said and 'decompose' not in said


def test_a_table_without_rows_says_so(capsys):
    print_table(pd.DataFrame(dict(question=[], defect=[])))
    assert capsys.readouterr().out == 'nothing to show\n'


@pytest.mark.parametrize('spelling', ['--max-tokens', '--max_tokens'])
def test_both_spellings_of_an_option(spelling, run): assert status('curate', spelling, '200', '--out', run) == 0


@pytest.mark.parametrize('name', ['curate', 'benchmark', 'lint', 'score', 'review', 'prompts', 'judge'])
def test_old_names_say_the_new_one(name):
    code = f'from agentfastbook.cli.commands import afb_{name}; afb_{name}()'
    done = subprocess.run([sys.executable, '-c', code, '--help'], text=True, capture_output=True, cwd=ROOT)
    assert done.returncode == 0 and f'The same as `afb {name}`' in ' '.join(done.stdout.split())


@pytest.mark.parametrize('number,expected', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_a_word(number, expected, tmp_path):
    slow = ('import time, agentfastbook.engines.retrieve as r; found = r.Retriever.__call__\n'
            'def slow(self, *args): print("works", flush=True); time.sleep(.3); return found(self, *args)\n'
            'r.Retriever.__call__ = slow\nfrom agentfastbook.cli.commands import afb; afb()')
    run = subprocess.Popen([sys.executable, '-c', slow, 'curate', '--out', tmp_path/'out'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, cwd=ROOT)
    assert run.stdout.readline() == 'works\n'
    time.sleep(.1)
    run.send_signal(number)
    _, told = run.communicate(timeout=60)
    assert run.returncode == expected and 'stopped; what is saved stays' in told and 'Traceback' not in told


def test_commands_of_the_readme_are_known():
    "Every `afb` of the README has a sub-command and options that are there."
    readme = Path(ROOT/'README.md').read_text(encoding='utf-8')
    for line in set(re.findall(r'\bafb ([a-z]+(?: (?:why|bisect|log|diff))?)((?: --[a-z-]+[^`\n&|;]*)?)', readme)):
        command, options = line[0].split(), re.findall(r'--[a-z-]+', line[1])
        if command[0] not in ('curate', 'score', 'benchmark', 'lint', 'review', 'judge', 'prompts'): continue
        done = subprocess.run([sys.executable, '-m', 'agentfastbook', *command, '--help'], text=True, capture_output=True, cwd=ROOT)
        assert done.returncode == 0 and all(option in done.stdout for option in options), line
