"""Fetch the real chapters and labels that may not be bundled, laid out as the tests want them:
python tools/real_data.py FOLDER && AFB_DATA=FOLDER pytest -m real_data

FOLDER/fastbook has the chapters that fastbook-benchmark.json asks about, and that file; FOLDER/agentfastbook has the
labels of a person. Needs git and a network.
"""
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from agentfastbook.books.download import get_fastbook
from agentfastbook.books.questions import load_benchmark

LABELS = 'https://github.com/vishalbakshi/AgentFastbook'
NAME = 'evals-haiku-3.5.json'


def fetch_chapters(folder):
    "The chapters of the benchmark's questions, and the benchmark."
    with TemporaryDirectory() as clones:
        book, benchmark = get_fastbook(clones)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(benchmark, folder/'fastbook-benchmark.json')
        for chapter in sorted({q.chapter for q in load_benchmark(benchmark).questions}):
            for path in Path(book).glob(f'{chapter:02}_*.ipynb'): shutil.copy(path, folder/path.name)


def fetch_labels(folder):
    "The components of a model with a person's labels and notes."
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as clone:
        subprocess.run(['git', 'clone', '-q', '--depth', '1', LABELS, clone], check=True)
        shutil.copy(next(Path(clone).rglob(NAME)), folder/NAME)


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    fetch_chapters(Path(sys.argv[1])/'fastbook')
    fetch_labels(Path(sys.argv[1])/'agentfastbook')
    print(*sorted(path.relative_to(sys.argv[1]).as_posix() for path in Path(sys.argv[1]).rglob('*.*')), sep='\n')
