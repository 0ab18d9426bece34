"A browser without a window, and a review that it looks at."
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from conftest import ROOT

from agentfastbook.books.chapters import sample_path
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.engines.pipeline import curate

CHROMIUM = os.environ.get('CHROMIUM') or shutil.which('chromium')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']

needs_browser = pytest.mark.skipif(not CHROMIUM or not find_spec('playwright'),
                                   reason='no chromium in PATH (apt-get install chromium) or no playwright')


def needs(package): return pytest.mark.skipif(not find_spec(package), reason=f'{package} is not installed')


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run on the sample; tests read other steps of it, so that they don't meet."
    folder = tmp_path_factory.mktemp('review')/'run'
    curate(sample_path(), sample_path()/'benchmark.json', folder, decompose=RuleDecomposer('fine'), progress=False)
    return folder


def rows_of(path, sql):
    with sqlite3.connect(path) as db: return db.execute(sql).fetchall()


@contextmanager
def server(command, folder, ready, **environment):
    "A server process; gives its address."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    private = {f'JUPYTER_{name}_DIR': str(folder/f'.{name}') for name in ('CONFIG', 'DATA', 'RUNTIME')}
    private |= {f'JUPYTERLAB_{name}_DIR': str(folder/f'.{name}') for name in ('SETTINGS', 'WORKSPACES')}
    env = {**os.environ, **private, 'IPYTHONDIR': str(folder/'.ipython'), 'PYTHONPATH': str(ROOT), **environment}
    with open(folder/'server.log', 'w') as log:
        process = subprocess.Popen([sys.executable, '-m', *command, f'--port={port}'], cwd=folder, env=env, stdout=log, stderr=log)
    url = f'http://127.0.0.1:{port}'
    try:
        for _ in range(400):
            assert process.poll() is None, (folder/'server.log').read_text()
            try: urllib.request.urlopen(url+ready, timeout=1); break
            except urllib.error.HTTPError: break
            except OSError: time.sleep(.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try: process.wait(10)
        except subprocess.TimeoutExpired: process.kill()


@contextmanager
def page_of(browser, **options):
    context = browser.new_context(**(dict(viewport=dict(width=1200, height=900)) | options))
    page = context.new_page()
    page.set_default_timeout(45_000)
    try: yield page
    finally: context.close()


def shown(page): return page.locator('.afb-at').first.inner_text()


def press(page, key, at=None, message=None):
    "Press a key and wait for what it does."
    tick = page.locator('.afb').first.get_attribute('data-tick')
    page.keyboard.press(key)
    page.wait_for_function('t => document.querySelector(".afb").dataset.tick !== t', arg=tick)
    if at: assert shown(page).startswith(f'{at}/')
    if message: assert message in page.locator('.afb-message').inner_text()
