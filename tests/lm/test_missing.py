"Without the packages of the extra `lm`: everything can be imported, the default job runs, what needs one names it."
import subprocess
import sys

import pytest

WITHOUT = """import sys
class Missing:
    "Finds none of these packages."
    names = {'claudette', 'anthropic', 'openai', 'tenacity', 'filelock', 'pygit2', 'yaml'}
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in self.names: raise ModuleNotFoundError(f'No module named {name!r}', name=name.split('.')[0])
sys.meta_path.insert(0, Missing())
from importlib import import_module
from pathlib import Path
import agentfastbook
"""


def run(code, *args):
    done = subprocess.run([sys.executable, '-c', WITHOUT+code, *map(str, args)], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done.stdout


def test_every_module_can_be_imported():
    run("""
for path in sorted(Path(agentfastbook.__file__).parent.glob('*/*.py')):
    if path.parent.name in ('lm', 'prompts', 'engines', 'judges', 'store') and path.stem not in ('__init__', 'claims'):
        import_module(f'agentfastbook.{path.parent.name}.{path.stem}')
assert not Missing.names & {name.split('.')[0] for name in sys.modules}
""")


def test_the_default_job_runs(tmp_path):
    shown = run("""
from agentfastbook.books.chapters import sample_path
from agentfastbook.engines.pipeline import curate
print(curate(sample_path(), sample_path()/'benchmark.json', sys.argv[1], progress=False))
""", tmp_path/'out')
    assert '0 failed' in shown


@pytest.mark.parametrize('code,package', [
    ("from agentfastbook.lm.local import open_lm; open_lm('claude-haiku-4-5').check_ready()", 'claudette'),
    ("from agentfastbook.lm.local import open_lm; open_lm('claude-haiku-4-5').complete('Hi')", 'tenacity'),
    ("from agentfastbook.lm.local import open_lm; open_lm('http://localhost:1/v1#m').check_ready()", 'openai'),
    ("from agentfastbook.lm.door import Door; from agentfastbook.store.runs import Store; Door(Store(sys.argv[1]+'/x.db'))",
     'filelock'),
    ("from agentfastbook.prompts.branches import PromptRepo; PromptRepo(sys.argv[1]+'/prompts')", 'pygit2'),
    ("from agentfastbook.prompts.templates import packaged_prompt; packaged_prompt('decompose/v0')", 'yaml')])
def test_what_is_missing_is_named_with_the_command_that_brings_it(code, package, tmp_path, monkeypatch):
    monkeypatch.setenv('ANTHROPIC_API_KEY', 'sk-test-0123456789-0123456789')
    shown = run("""
from agentfastbook.text.spans import FastbookError
try: exec(sys.argv[2])
except FastbookError as e: print(e)
""", tmp_path, code)
    assert f"the package '{package}' is not installed" in shown and "pip install 'agentfastbook[lm]'" in shown
