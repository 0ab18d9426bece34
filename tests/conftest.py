"What all tests share."
import os
import sqlite3
import sys
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
sys.path[:0] = [str(p) for p in sorted(Path(__file__).parent.iterdir()) if p.is_dir()]  # tests of a wing may share helpers with another's


def data_folder():
    "The real chapters and labels, which may not be bundled: $AFB_DATA, or shared/data/ beside the checkout."
    return Path(os.environ.get('AFB_DATA') or ROOT.parent/'shared'/'data').resolve()


def run_sql(path, statement, *values):
    "What a statement gives in an SQLite file, asked from outside, as another program would do it."
    with closing(sqlite3.connect(path)) as db, db: return db.execute(statement, values).fetchall()


@pytest.fixture
def data():
    "The folder with the real chapters and labels; without it, the test is skipped."
    if not data_folder().is_dir(): pytest.skip(f'no real data: {data_folder()} is not there; set AFB_DATA')
    return data_folder()


@pytest.fixture
def shared(data):
    "The folder that holds the data folder."
    return data.parent
