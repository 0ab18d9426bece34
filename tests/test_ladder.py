"Modules form a ladder: a wing imports only wings before it, a module of it only lower numbers. And importing is cheap."
import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

LIBRARY = ROOT/'agentfastbook'
WINGS = 'text stats books store lm prompts engines look judges tiny cli'.split()  # each imports only those before it
HEAVY = ('torch', 'transformers', 'sentence_transformers', 'fastai', 'anthropic', 'claudette', 'openai', 'llama_cpp',
         'matplotlib', 'sklearn', 'IPython', 'nbdev')

TRAINING = ('tiny.dynamics', 'tiny.training', 'tiny.sweeps', 'tiny.stages', 'tiny.fitting')  # build on fastai's Learner and Callback


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


def loaded_by(statement):
    "The packages that a statement loads in a fresh Python."
    code = f'{statement}\nimport sys\nprint(*{{name.split(".")[0] for name in sys.modules}})'
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_next_to_nothing():
    loaded = loaded_by('import agentfastbook')
    assert not loaded & {*HEAVY, 'numpy', 'pandas', 'scipy', 'fastcore'}


@pytest.mark.parametrize('module', MODULES)
def test_modules_load_no_heavy_packages(module):
    allowed = {'torch'} if module.startswith('tiny.') else set()  # a model is a torch module
    if module in TRAINING: allowed |= {'fastai', 'matplotlib', 'sklearn', 'IPython'}
    assert not loaded_by(f'import agentfastbook.{module}') & (set(HEAVY) - allowed)


def test_only_what_needs_models_loads_torch():
    for module in ('tiny', 'tiny.stories', 'tiny.data'): assert 'torch' not in loaded_by(f'import agentfastbook.{module}')
