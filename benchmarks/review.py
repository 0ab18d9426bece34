"""Measure the review in a real browser: 10,000 items open in under 2 s, a key press shows the next in under 100 ms.

    python benchmarks/review.py            # both measures, with the sizes of what is sent
    python benchmarks/review.py --rows 1000

Voila serves one notebook with 10,000 rows of text. The time to open is that of the import, `review(...)` and its first
state, the median of three processes; the time of a key press runs in the browser, from the key event to the new row painted. The exit
status is 1 if a limit is passed.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

OPEN_LIMIT, KEY_LIMIT = 2., .1
TEXT = 'Row {i}. ' + 'Yeast eats sugar and makes gas; the dough rises in the warm kitchen. '*20
PREPARE = '''import pandas as pd, sys
rows = int(sys.argv[1])
pd.DataFrame(dict(reply=[{text!r}.format(i=i) for i in range(rows)])).to_pickle('rows.pkl')'''.format(text=TEXT)
OPEN = '''import pandas as pd, time
df = pd.read_pickle('rows.pkl')
start = time.perf_counter()
from agentfastbook.look.page import review
opened = review(df, store='labels.db', annotator='Ada', names=['a', 'b'])
state = opened.pane.shown
print(time.perf_counter()-start, len(__import__('json').dumps(state)))'''
NOTEBOOK = '''import pandas as pd
from agentfastbook.look.page import review
review(pd.read_pickle('rows.pkl'), store='labels.db', annotator='Ada', names=['a', 'b'])'''
TIME_A_KEY = '''key => new Promise(done => {
  const pane = document.querySelector('.afb'), tick = pane.dataset.tick, start = performance.now()
  const watch = new MutationObserver(() => { if (pane.dataset.tick !== tick) { watch.disconnect()
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))) } })
  watch.observe(pane, { attributes: true, attributeFilter: ['data-tick'] })
  pane.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })) })'''


def write_notebook(path):
    cell = dict(cell_type='code', id='a', execution_count=None, metadata={}, outputs=[], source=NOTEBOOK)
    kernel = dict(name='python3', display_name='Python 3', language='python')
    path.write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))


def wait_for(url):
    for _ in range(400):
        try: return urllib.request.urlopen(url, timeout=1)
        except urllib.error.HTTPError: return
        except OSError: time.sleep(.1)


def time_keys(folder, keys):
    "Seconds of each key press, in the browser."
    from playwright.sync_api import sync_playwright
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = [sys.executable, '-m', 'voila', 'rows.ipynb', '--no-browser', '--Voila.ip=127.0.0.1', f'--port={port}']
    served = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f'http://127.0.0.1:{port}/voila/api/contents/')
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu'])
            page = browser.new_page(viewport=dict(width=1200, height=900))
            page.goto(f'http://127.0.0.1:{port}/')
            page.wait_for_selector('.afb-at', timeout=60_000)
            page.wait_for_timeout(500)
            return [page.evaluate(TIME_A_KEY, key)/1000 for key in keys]
    finally:
        served.terminate()
        served.wait(20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=10_000)
    rows = parser.parse_args().rows
    os.environ['PYTHONPATH'] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, '-c', PREPARE, str(rows)], cwd=folder, check=True)
        def measure(): return subprocess.run([sys.executable, '-c', OPEN], cwd=folder, check=True, capture_output=True, text=True)
        opened, size = sorted(tuple(map(float, measure().stdout.split())) for _ in range(3))[1]
        write_notebook(Path(folder)/'rows.ipynb')
        moves, acts = [time_keys(folder, keys) for keys in ('j'*40, 'p1'*20)]
    middle = {name: statistics.median(times) for name, times in (('next', moves), ('verdict or label', acts))}
    print(f'{rows:,} rows: opened in {opened:.2f} s (limit {OPEN_LIMIT:g} s); {size:,.0f} characters are sent for a row')
    for name, times in (('next', moves), ('verdict or label', acts)):
        print(f'{name}: median {middle[name]*1000:.0f} ms, slowest of {len(times)} {max(times)*1000:.0f} ms (limit {KEY_LIMIT*1000:.0f} ms)')
    return int(opened > OPEN_LIMIT or max(middle.values()) > KEY_LIMIT)


if __name__ == '__main__': sys.exit(main())
