"Every notebook runs from top to bottom, and is fit to be published."
import ast
import json
import os
import re

import build_site
import house
import pytest
import wings
from conftest import ROOT, data_folder
from nbdev.test import test_nb as run_notebook

NOTEBOOKS = sorted(path for path in (ROOT/'nbs').rglob('*.ipynb')
                   if not any(part[0] in '._' for part in path.relative_to(ROOT).parts))
API = [path for path in NOTEBOOKS if re.match(r'\d\d_', path.name)]
INDEX_PAGES = [ROOT/'nbs'/wing/'index.ipynb' for wing in house.WINGS]
# Modules with public names that no output shows yet: each leaves the list when all of its names are shown.
NOT_YET_SHOWN = set('''
'''.split())
HOME_PATH = re.compile(r'(?<![\w.])(/home/\w+|/root\b|/Users/\w+|[A-Z]:\\+Users)')
RANDOM_ID = re.compile(r'<[^<>\n]* at 0x[0-9a-f]{6,}>')


def name(path): return path.relative_to(ROOT/'nbs').with_suffix('').as_posix()


every_api_notebook = pytest.mark.parametrize('path', API, ids=name)


def read(path): return json.loads(path.read_text(encoding='utf-8'))


def sources(path, kind=None):
    return [''.join(cell['source']) for cell in read(path)['cells'] if kind in (None, cell['cell_type'])]


def outputs(path):
    return [output for cell in read(path)['cells'] for output in cell.get('outputs', [])]


def needs_real_data(path): return any('AFB_DATA' in source for source in sources(path, 'code'))


every_notebook = pytest.mark.parametrize(
    'path', [pytest.param(path, marks=[pytest.mark.real_data]*needs_real_data(path)) for path in NOTEBOOKS], ids=name)


@every_notebook
def test_notebook_runs(path):
    if needs_real_data(path) and not data_folder().is_dir():
        pytest.skip(f'{name(path)} needs the real chapters: {data_folder()} is not there; set AFB_DATA')
    before = dict(os.environ)
    os.environ.update(AFB_DATA=str(data_folder()))
    try: passed, _ = run_notebook(path, skip_flags=['notest'], basepath=ROOT)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert passed, f'{name(path)} failed; its error is in the captured output'


@every_notebook
def test_notebook_is_clean(path):
    text = path.read_text(encoding='utf-8')
    assert path.stat().st_size < 150_000, 'past 150 kB there are two ideas in a notebook'
    assert '\r' not in text
    assert not (found := HOME_PATH.search(text)), f'a path of one machine: {found[0]}'
    assert str(ROOT) not in text, 'the path of the checkout'
    assert not [output for output in outputs(path) if output['output_type'] == 'error']
    assert not (found := RANDOM_ID.search(json.dumps(outputs(path)))), f'changes with every run: {found[0]}'
    assert 'widget-view+json' not in json.dumps(outputs(path)), 'a live widget shows nothing later: show its HTML'
    assert 'widgets' not in read(path)['metadata'], 'state of live widgets'
    assert all(cell.get('execution_count') is None for cell in read(path)['cells']), 'run nbdev_clean'


@every_notebook
def test_notebook_begins_with_title_and_summary(path):
    first = sources(path)[0]
    if first.startswith('---'):  # front matter: pages that are not part of the API
        assert re.search(r'^title: *\S', first, re.M) and re.search(r'^(description|subtitle): *\S', first, re.M)
    else: assert re.match(r'# [^\n]+\n\n> [^\n]+$', first), f'not a title and one sentence: {first!r}'


@every_notebook
def test_links_to_files_lead_somewhere(path):
    text = '\n'.join(sources(path, 'markdown'))
    links = re.findall(r'\]\((?!\w+:|#)([^)\s#]+)[^)]*\)', text)
    assert [link for link in links if not (path.parent/link).exists()] == []


@every_api_notebook
def test_api_notebook_follows_the_beat(path):
    cells = sources(path)
    assert re.match(rf'# {re.sub("^[0-9]+_", "", path.stem)}\n', cells[0]), 'the title is the name of the module'
    assert cells[1].startswith('#| default_exp ')
    assert cells[-1].startswith('#| hide') and 'nbdev_export()' in cells[-1]
    assert sum(cell.startswith('## ') for cell in sources(path, 'markdown')) >= 1, 'an H2 for each idea'
    code = '\n'.join(sources(path, 'code'))
    assert re.search(r'\btest_(eq|close)\(', code), 'nothing is asserted'


@every_api_notebook
def test_imports_stand_in_cells_of_their_own(path):
    "The site executes every cell that imports something, and no others: such a cell must not need what went before."
    for source in sources(path, 'code'):
        if re.match(r'#\|\s*exports?\b', source) or 'nbdev_export()' in source: continue
        nodes = list(ast.walk(ast.parse(re.sub(r'^[%!].*$', '', source, flags=re.M))))
        if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes):
            assert not any(isinstance(node, (ast.Expr, ast.Assign)) for node in nodes), source


def public_names(source):
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith('_')]


@every_api_notebook
def test_exported_code_is_short_and_documented(path):
    exported = [source for source in sources(path, 'code') if re.match(r'#\|\s*exports?\b', source)]
    assert exported
    for source in exported:
        long = [line for line in source.splitlines() if len(line) > 120]
        assert not long, f'longer than 120 columns: {long[0]}'
        for node in public_names(source): assert ast.get_docstring(node), f'{node.name} has no docstring'


def patched_names(path):
    "The public methods that a module adds to its classes with `@patch`."
    return re.findall(r'^@patch.*\n(?:async )?def ([a-z]\w*)', path.read_text(encoding='utf-8'), re.M)


@pytest.mark.parametrize('module', house.modules(ROOT))
def test_every_public_name_is_shown(module):
    path = house.modules(ROOT)[module]
    missing = house.not_shown(path, house.public_names(path) + patched_names(path))
    if module in NOT_YET_SHOWN: assert missing, f'{module} shows everything: take it out of NOT_YET_SHOWN'
    else: assert not missing, f'no output after their definition shows {", ".join(missing)}'


def test_the_list_of_what_is_not_yet_shown_names_modules():
    assert not NOT_YET_SHOWN - set(house.modules(ROOT))


def test_sidebar_lists_every_api_notebook_in_order():
    listed = re.findall(r'^ +(?:- |href: )(\w+/(?:\d\d_\w+|index))\.ipynb$',
                        (ROOT/'_quarto.yml').read_text(encoding='utf-8').partition('sidebar:')[2], re.M)
    pages = [*API, *INDEX_PAGES]
    order = sorted(pages, key=lambda path: (house.WINGS.index(path.parent.name), path.name != 'index.ipynb', path.name))
    assert listed == [name(path) for path in order]


@pytest.mark.parametrize('path', INDEX_PAGES, ids=name)
def test_index_page_of_a_wing_lists_its_modules_on_one_screen(path):
    page = '\n'.join(sources(path))
    assert [other.name for other in API if other.parent == path.parent and f']({other.name})' not in page] == []
    for part in ('**Comes in:**', '**Goes out:**', '**Read this first:**', '](parts.svg)'): assert part in page
    seen = re.sub(r'\]\([^)]*\)', ']', page)  # without the addresses of links
    assert len(seen) < 3000 and len(seen.splitlines()) < 36, 'more than fits one screen'
    assert int(re.search(r' height="(\d+)"', (path.parent/'parts.svg').read_text(encoding='utf-8'))[1]) <= 560


def test_index_pages_say_what_the_code_says():
    stale = [str(path.relative_to(ROOT)) for path, text in wings.pages() if path.read_text(encoding='utf-8') != text]
    assert not stale, 'run python tools/wings.py'


def test_home_page_lists_every_wing():
    home = '\n'.join(sources(ROOT/'nbs'/'index.ipynb', 'markdown'))
    assert [wing for wing in house.WINGS if f'({wing}/index.ipynb)' not in home] == []


def test_old_addresses_lead_to_pages():
    pages = {re.sub(r'\d\d_', '', name(path)) for path in NOTEBOOKS}
    assert len(build_site.old_pages(ROOT)) == 80
    assert {new for new in build_site.old_pages(ROOT).values()} - pages == set()
