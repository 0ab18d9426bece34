"What all tests share."
import os
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')

ROOT = Path(__file__).parents[1]


def data_folder():
    "The real chapters and labels, which may not be bundled: $AFB_DATA, or shared/data/ beside the checkout."
    return Path(os.environ.get('AFB_DATA') or ROOT.parent/'shared'/'data').resolve()


@pytest.fixture
def data():
    "The folder with the real chapters and labels; without it, the test is skipped."
    if not data_folder().is_dir(): pytest.skip(f'no real data: {data_folder()} is not there; set AFB_DATA')
    return data_folder()


@pytest.fixture
def shared(data):
    "The folder that holds the data folder."
    return data.parent
