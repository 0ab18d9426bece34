"""Time and memory of `afb_curate` as a whole process: on the four real chapters, and on 50 copies of them.

    python benchmarks/pipeline.py [--data ../shared/data] [--copies 50] [--runs 3] [--workers 0]

Prints the median over runs of wall seconds and of peak memory (the largest process), and the ratio of the copies to
the one book. The aim: at most 10 s and 400 MB for one book, and at most 60 times that time for 50 copies.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def copy_book(source, benchmark, folder, copies):
    "A book of `copies` times the chapters, numbered anew, and its benchmark."
    questions = json.loads(benchmark.read_text(encoding='utf-8'))['questions']
    for i in range(copies):
        for path in source.glob('*.ipynb'):
            shutil.copyfile(path, folder/f'{int(path.name[:2])+100*i}{path.name[2:]}')
    renumbered = [dict(q, chapter=q['chapter']+100*i) for i in range(copies) for q in questions]
    (folder/'benchmark.json').write_text(json.dumps(dict(questions=renumbered)), encoding='utf-8')
    return folder, folder/'benchmark.json'


def measure(book, benchmark, workers):
    "Wall seconds and peak megabytes of one fresh run."
    with tempfile.TemporaryDirectory() as out:
        command = [Path(sys.executable).parent/'afb_curate', '--book', book, '--benchmark', benchmark, '--out', out, '--workers', str(workers)]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter()-start
    if status: sys.exit(f'afb_curate failed with status {os.waitstatus_to_exitcode(status)}')
    return seconds, usage.ru_maxrss/1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=Path(os.environ.get('AFB_DATA', Path(__file__).parents[2]/'shared'/'data')))
    parser.add_argument('--copies', type=int, default=50, help='copies of the book (default: 50)')
    parser.add_argument('--runs', type=int, default=3, help='runs on the one book; the copies run once (default: 3)')
    parser.add_argument('--workers', type=int, default=0, help='processes for afb_curate; 0: none of its own (default: 0)')
    args = parser.parse_args()
    book = args.data/'fastbook'
    if not book.is_dir(): sys.exit(f"no real chapters in '{book}'; give --data or set AFB_DATA")
    benchmark = book/'fastbook-benchmark.json'
    once = [measure(book, benchmark, args.workers) for _ in range(args.runs)]
    seconds, memory = (statistics.median(column) for column in zip(*once))
    print(f'one book:   {seconds:7.1f} s {memory:7.0f} MB   (median of {args.runs}; {min(once)[0]:.1f} to {max(once)[0]:.1f} s)')
    with tempfile.TemporaryDirectory() as folder:
        many_seconds, many_memory = measure(*copy_book(book, benchmark, Path(folder), args.copies), args.workers)
    print(f'{args.copies} copies:  {many_seconds:7.1f} s {many_memory:7.0f} MB')
    print(f'ratio:      {many_seconds/seconds:7.1f}   {many_memory/memory:7.1f}')


if __name__ == '__main__': main()
