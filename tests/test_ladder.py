"Modules form a ladder: a wing imports only wings before it, a module of it only lower numbers. And importing is cheap."
import ast
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

LIBRARY = ROOT/'agentfastbook'
WINGS = 'text stats books store lm prompts engines look judges tiny cli'.split()  # each imports only those before it
HEAVY = ('torch', 'transformers', 'sentence_transformers', 'fastai', 'anthropic', 'claudette', 'openai', 'llama_cpp',
         'matplotlib', 'sklearn', 'IPython', 'nbdev')
TRAINING = ('tiny.dynamics', 'tiny.training', 'tiny.sweeps', 'tiny.stages')  # build on fastai's Learner and Callback


def module_name(path):
    "The name of a module inside the package: agentfastbook/tiny/data.py is tiny.data."
    return '.'.join(path.relative_to(LIBRARY).with_suffix('').parts)


def rung(path):
    "The place of a module in the house: its wing's, and the number of its notebook inside the wing."
    wing = path.relative_to(LIBRARY).parts[0]
    found = re.search(r'File to edit: \S*?(\d\d)_\w+\.ipynb', path.read_text(encoding='utf-8'))
    return (WINGS.index(wing), int(found[1])) if found and wing in WINGS else None


MODULES = {module_name(path): (rung(path), path) for path in sorted(LIBRARY.rglob('*.py'))
           if path.name not in ('__init__.py', '__main__.py', '_modidx.py')}


def imported_modules(path):
    "The modules of this package that a module imports anywhere in it."
    package = module_name(path).split('.')[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ['agentfastbook', *package][:len(package) + 2 - node.level] if node.level else []
            start = '.'.join(base + ([node.module] if node.module else []))
            names = [start, *(f'{start}.{alias.name}' for alias in node.names)]
        else: continue
        for name in names:
            inside = name.removeprefix('agentfastbook.')
            if name.startswith('agentfastbook.') and inside in MODULES: yield inside


def test_every_module_comes_from_a_notebook():
    assert MODULES
    assert [name for name, (number, _) in MODULES.items() if number is None] == []


@pytest.mark.parametrize('module', MODULES)
def test_imports_only_lower_rungs(module):
    number, path = MODULES[module]
    too_high = {name for name in imported_modules(path) if MODULES[name][0] >= number}
    assert not too_high, f'{module} must not import {sorted(too_high)}'


def test_the_command_line_is_imported_by_nobody():
    users = [module for module, (_, path) in MODULES.items() if not module.startswith('cli.')
             and any(name.startswith('cli.') for name in imported_modules(path))]
    assert users == []


WATCHED = {*HEAVY, 'numpy', 'pandas', 'scipy', 'fastcore'}
IMPORT_EACH = """
import importlib, json, sys
watched, before, found = set(sys.argv[1].split()), set(), {}
for name in json.load(sys.stdin):
    importlib.import_module(name)
    loaded = watched & {module.split('.')[0] for module in sys.modules}
    found[name], before = sorted(loaded - before), loaded
print(json.dumps(found))
"""


def loaded_by(modules):
    "One Python imports these modules, in this order: which packages of WATCHED does each bring that were not there before?"
    names = [f'agentfastbook.{module}'.rstrip('.') for module in modules]
    done = subprocess.run([sys.executable, '-c', IMPORT_EACH, ' '.join(WATCHED)], input=json.dumps(names), text=True,
                          capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {module: set(found) for module, found in zip(modules, json.loads(done.stdout).values())}


def test_importing_the_package_loads_next_to_nothing():
    assert loaded_by(['']) == {'': set()}


def plain(module): return not module.startswith('tiny.') or module in ('tiny.stories', 'tiny.data')


@pytest.mark.parametrize('modules, allowed', [
    ([m for m in MODULES if plain(m)], set()),
    ([m for m in MODULES if not plain(m) and m not in TRAINING], {'torch'}),  # a model is a torch module
    (list(TRAINING), {'torch', 'fastai', 'matplotlib', 'sklearn', 'IPython'})], ids=['plain', 'models', 'training'])
def test_modules_load_no_heavy_packages(modules, allowed):
    heavy = {module: found & set(HEAVY) - allowed for module, found in loaded_by(modules).items()}
    assert {module: found for module, found in heavy.items() if found} == {}


def test_no_sql_leaves_the_store():
    "Other wings read it through its typed rows and tables."
    own = ('agentfastbook/store/', 'agentfastbook/prompts/repository.py') # the latter's lock of a Git repository
    for path in sorted(LIBRARY.rglob('*.py')):
        if not path.relative_to(ROOT).as_posix().startswith(own) and path.name != '_modidx.py':
            found = re.search(r'import .*sqlite3|\._db\b|store\._\w+|\.execute(?:many)?\(', path.read_text(encoding='utf-8'))
            assert not found, f'{path.name}: {found[0]}'
