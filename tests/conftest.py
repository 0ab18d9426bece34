"What all tests share."
import importlib.util
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')

# the same examples in every CI run, so that a failure there is about the change; at home new ones each time
settings.register_profile('ci', derandomize=True, deadline=None)
settings.register_profile('home', deadline=None)
settings.load_profile('ci' if os.environ.get('CI') else 'home')

ROOT = Path(__file__).parents[1]


def data_folder():
    "The real chapters and labels, which may not be bundled: $AFB_DATA, or shared/data/ beside the checkout."
    return Path(os.environ.get('AFB_DATA') or ROOT.parent/'shared'/'data').resolve()


def run_sql(path, statement, *values):
    "What a statement gives in an SQLite file, asked from outside, as another program would do it."
    with closing(sqlite3.connect(path)) as db, db: return db.execute(statement, values).fetchall()


@pytest.fixture(scope='session')
def data():
    "The folder with the real chapters and labels; without it, the test is skipped."
    if not data_folder().is_dir(): pytest.skip(f'no real data: {data_folder()} is not there; set AFB_DATA')
    return data_folder()


@pytest.fixture(scope='session')
def scorer(data):
    "The independent scorer, tools/score.py beside the data folder."
    path = data.parent/'tools'/'score.py'
    if not path.is_file(): pytest.skip(f'no independent scorer at {path}')
    spec = importlib.util.spec_from_file_location('independent_score', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items):
    "`pytest -m real_data` runs what needs the real chapters or labels."
    for item in items:
        if 'data' in item.fixturenames: item.add_marker(pytest.mark.real_data)
