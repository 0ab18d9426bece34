"settings.ini is the one source, the wheel holds what it should, and the commands explain themselves."
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import agentfastbook
import pytest
from conftest import ROOT

settings = ConfigParser(delimiters=['='])
settings.read(ROOT/'settings.ini', encoding='utf-8')
settings = settings['DEFAULT']
COMMANDS = dict(script.split('=') for script in settings['console_scripts'].split())


def run(*command): return subprocess.run(command, text=True, capture_output=True, cwd=ROOT)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built in a copy of what git knows, so that nothing is left in the checkout."
    folder = tmp_path_factory.mktemp('wheel')
    files = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, files.split('\0')):
        if not (ROOT/name).is_file(): continue
        (folder/'source'/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/'source'/name).write_bytes((ROOT/name).read_bytes())
    done = run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', str(folder),
               str(folder/'source'))
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob('*.whl')))


def metadata(wheel):
    path = next(name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))
    return Parser().parsestr(wheel.read(path).decode())


def test_versions_agree(wheel):
    assert agentfastbook.__version__ == settings['version'] == metadata(wheel)['Version']
    assert f"## {settings['version']}" in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')


def test_wheel_holds_modules_and_data_but_no_tests(wheel):
    names = set(wheel.namelist())
    known = subprocess.run(['git', 'ls-files', 'agentfastbook'], cwd=ROOT, capture_output=True, text=True).stdout
    expected = known.split()
    assert 'agentfastbook/data/sample/benchmark.json' in expected
    assert set(expected) <= names, f'not in the wheel: {sorted(set(expected) - names)}'
    others = {name for name in names if not re.match(r'agentfastbook(-[\w.]+\.dist-info)?/', name)}
    assert not others, f'does not belong into the wheel: {sorted(others)}'


def test_wheel_has_the_commands(wheel):
    path = next(name for name in wheel.namelist() if name.endswith('entry_points.txt'))
    scripts = ConfigParser(delimiters=['='])
    scripts.read_string(wheel.read(path).decode())
    assert {name: scripts['console_scripts'][name] for name in COMMANDS} == COMMANDS


def test_requirements_agree(wheel):
    required = {re.split(r'[\s;<>=!\[(]', line)[0] for line in metadata(wheel).get_all('Requires-Dist') if ';' not in line}
    assert required == {re.split(r'[<>=!\[]', word)[0] for word in settings['requirements'].split()}


def words(extra): return {re.split(r'[<>=!\[]', word)[0] for word in settings[f'{extra}_requirements'].split()}


def test_base_install_is_light_and_without_upper_bounds():
    base = settings['requirements']
    assert not re.search(r'torch|sentence|fastai|llama|tensorflow|claudette|openai|pygit2|matplotlib|polars', base)
    assert not re.search(r'(fastcore|pandas|numpy)\S*<', base), 'users get the newest; only dev is bounded'


def test_the_extra_all_brings_every_other_one_without_upper_bounds(wheel):
    lines = metadata(wheel).get_all('Requires-Dist')
    found = {re.split(r'[\s;<>=!\[(]', line)[0] for line in lines if re.search(r"extra == .all.", line)}
    assert found == set().union(*map(words, 'lm late tiny analysis local review scale'.split()))
    assert not [line for line in lines if re.search(r"extra == .all.", line) and '<' in line.split(';')[0]]


@pytest.mark.parametrize('command', COMMANDS)
def test_command_explains_itself(command):
    done = run(str(Path(sys.executable).parent/command), '--help')
    assert done.returncode == 0, done.stderr
    assert 'usage' in done.stdout.lower() and len(done.stdout.splitlines()) > 5


def test_actions_are_pinned():
    for path in sorted((ROOT/'.github'/'workflows').glob('*.yaml')):
        for action in re.findall(r'uses: *(\S+)', path.read_text(encoding='utf-8')):
            assert re.search(r'@v\d', action), f'{path.name}: pin {action} to a version'
