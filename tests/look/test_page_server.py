"Whoever doesn't know the address of a review gets nothing, and nothing of the current folder is executed."
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT
from browsing import browser, needs, needs_browser, page_of, press, rows_of, run  # noqa: F401 (fixtures)

from agentfastbook.books.chapters import sample_path
from agentfastbook.lm.local import try_model

SCRIPTS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(ROOT)}


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()[1]


@contextmanager
def serving(folder, *options, cwd=None, browser=None):  # noqa: F811 (a command, not the fixture)
    "A real `afb_review`; gives the address that it prints, and the process."
    quiet = [] if browser else ['--no_browser']
    command = [SCRIPTS/'afb_review', '--run', folder, *quiet, '--port', str(free_port()), '--annotator', 'Ada', *options]
    environment = ENVIRONMENT | (dict(BROWSER=browser) if browser else {})
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert said.startswith('review '), process.communicate()
        url = re.search(r'http://\S+/(?=;)', said)[0]
        for _ in range(300):
            try: urllib.request.urlopen(url+'voila/static/voila.js', timeout=5); break
            except OSError: time.sleep(.1)
        yield url, process
    finally:
        process.send_signal(signal.SIGINT)
        try: process.communicate(timeout=20)
        except subprocess.TimeoutExpired: process.kill()


@pytest.fixture(scope='module')
def served(run):  # noqa: F811
    with serving(run, '--step', 'decompose') as (url, _): yield url


def status(url, method='GET', **headers):
    request = urllib.request.Request(url, method=method, headers={k.replace('_', '-'): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply: return reply.status
    except urllib.error.HTTPError as e: return e.code


PATHS = ['', 'voila/static/voila.js', 'voila/templates/lab/static/voila.js', 'voila/files/review.js', 'voila/labextensions/x.js',
         'voila/api/themes/x', 'api/kernels/01234567-0123-0123-0123-0123456789ab', 'login', 'nothing']


@needs('voila')
@pytest.mark.parametrize('path', PATHS)
def test_strangers_get_403(served, path):
    "Without the word of the address, under another name, or from another site's page."
    word = served.split('/')[3]
    root, host = served[:-len(word)-1], served.split('/')[2]
    assert len(word) >= 32
    for wrong in (f'{root}{path}', f'{root}{word[:-1]}/{path}', f'{root}{word.swapcase()}/{path}', f'{root}x{word}/{path}',
                  f'{root}{path}?token={word}'):
        assert status(wrong) == 403, wrong
    for name in ('evil.example', f'evil.example:{host[10:]}', '127.0.0.1.evil.example:80', '[::1]:80'):
        assert status(served+path, Host=name) == 403, name
    for origin in ('http://evil.example', 'http://127.0.0.1:1', f'https://{host}', 'null', f'http://{host}.evil.example'):
        assert status(served+path, Origin=origin) == 403, origin
    for method in ('POST', 'DELETE', 'PUT', 'PATCH', 'OPTIONS', 'HEAD'):
        assert status(served+path, method, Origin='http://evil.example') == 403
        assert status(root+path, method) == 403


@needs('voila')
def test_the_address_works_and_only_on_this_computer(served):
    port = int(served.split(':')[2].split('/')[0])
    assert status(served+'voila/static/voila.js') == 200
    assert status(served+'voila/static/voila.js', Host=f'localhost:{port}', Origin=f'http://localhost:{port}') == 200
    assert status(served+'voila/files/review.ipynb') == 403
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {'127.0.0.1'} | {'127.0.0.2'}:
        with socket.socket() as s: assert s.connect_ex((address, port)) != 0
    with socket.create_connection(('127.0.0.1', port)) as s:  # neither Host nor path as browsers write them
        s.sendall(b'GET http://127.0.0.1/ HTTP/1.0\r\n\r\n')
        assert b' 403 ' in s.recv(100)


async def channel(url, **headers):
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import websocket_connect
    request = HTTPRequest(url, headers={k.replace('_', '-'): v for k, v in headers.items()})
    try: (await websocket_connect(request)).close()
    except HTTPClientError as e: return e.code
    return 101


@needs('voila')
def test_no_other_page_gets_a_channel_to_the_kernel(served):
    "A kernel executes what it is told: even with its id, the channel needs the word, the name and the origin."
    with urllib.request.urlopen(served, timeout=60) as page: html = page.read().decode()
    kernel = re.search(r'"kernelId": "([\w-]+)"', html)[1]
    host = served.split('/')[2]
    path = f'api/kernels/{kernel}/channels?session_id=1'
    inside, outside = (root.replace('http', 'ws')+path for root in (served, f'http://{host}/'))
    codes = [asyncio.run(channel(inside, **headers)) for headers in (
        {}, dict(Origin=f'http://{host}'), dict(Origin='http://evil.example'), dict(Origin='http://127.0.0.1:1'),
        dict(Host='evil.example'), dict(Host='evil.example', Origin='http://evil.example'), dict(Sec_WebSocket_Origin='http://evil.example'))]
    assert codes == [101, 101, 403, 403, 403, 403, 403]
    assert asyncio.run(channel(outside)) == asyncio.run(channel(outside, Origin=f'http://{host}')) == 403
    assert status(f'{served}voila/api/shutdown/{kernel}', 'POST', Origin='http://evil.example') == 403
    assert status(f'{served}voila/api/shutdown/{kernel}', 'POST') == 204
    assert status(f'{served}voila/api/shutdown/{kernel}', 'POST') == 404  # it has ended


@needs_browser
@needs('voila')
def test_the_page_works_and_asks_nobody_else(browser, run, tmp_path):  # noqa: F811
    "A label is written, no request leaves this server, the kernel ends with the page."
    folder = shutil.copytree(run, tmp_path/'run')
    with serving(folder, '--step', 'extract') as (url, _), page_of(browser) as page:
        asked, reached, refused = [], [], []
        page.on('request', lambda r: asked.append(r.url))
        page.on('response', lambda r: reached.append(r.url))
        page.on('requestfailed', lambda r: refused.append((r.url, r.failure)))
        page.goto(url)
        page.wait_for_selector('.afb-at')
        page.locator('.afb').focus()
        press(page, 'f', at=2)
        abroad = {a for a in asked if not a.startswith((url, 'blob:', 'data:'))}
        assert {a.rsplit('/', 1)[1] for a in abroad} <= {'all.min.css', 'v4-shims.min.css'}  # Voila's icons
        assert not abroad & set(reached) and {a for a, why in refused if why == 'csp'} == abroad
        kernel = page.evaluate('JSON.parse(document.getElementById("jupyter-config-data").textContent).kernelId')
        page.goto('about:blank')
        for _ in range(100):
            if status(f'{url}voila/api/shutdown/{kernel}', 'POST') == 404: break
            time.sleep(.1)
        else: raise AssertionError('the kernel lives on without its page')
    assert rows_of(folder/'traces.db', "select annotator, value from label join act on act.id = act where name = 'verdict'") == [('Ada', 'false')]


@needs('voila')
def test_the_browser_is_sent_to_the_address_without_showing_it_to_others(run, tmp_path):  # noqa: F811
    "The command line of a browser can be read by everybody on the computer: it names a private file."
    script, seen = tmp_path/'browser', tmp_path/'seen'
    script.write_text(f'#!/bin/sh\necho "$1" > {seen}\ncp "${{1#file://}}" {seen}.html\nstat -c %a "$(dirname "${{1#file://}}")" > {seen}.mode\n')
    script.chmod(0o755)
    with serving(run, browser=f'{script} %s') as (url, _):
        for _ in range(100):
            if (tmp_path/'seen.mode').exists() and (tmp_path/'seen.mode').read_text(): break
            time.sleep(.1)
        assert seen.read_text().startswith('file:///') and url.split('/')[3] not in seen.read_text()
        assert f'url={url}"' in (tmp_path/'seen.html').read_text()
        assert (tmp_path/'seen.mode').read_text() == '700\n'
    assert not Path(seen.read_text().strip()[7:]).exists()


def test_a_port_that_cannot_be_had_is_an_error(run):  # noqa: F811
    def error(port):
        done = subprocess.run([SCRIPTS/'afb_review', '--run', run, '--no_browser', '--port', str(port)], env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 2 and not done.stdout
        return done.stderr
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert error(port) == f'error: port {port}: Address already in use; give another with --port\n'
    for port in (0, -1, 65536): assert error(port) == f'error: --port is {port}; give a number from 1 to 65,535\n'


# A folder that somebody sent

PACKAGES = ['voila', 'IPython', 'ipykernel', 'ipykernel_launcher', 'jupyter_server', 'jupyter_client', 'jupyter_core', 'tornado', 'zmq',
            'traitlets', 'anywidget', 'ipywidgets', 'comm', 'nbclient', 'nbconvert', 'nbformat', 'jinja2', 'pandas', 'numpy', 'scipy',
            'fastcore', 'bm25s', 'Stemmer', 'yaml', 'markdown_it', 'psutil', 'debugpy', 'llama_cpp', 'jupyterlab_server', 'requests']
CONFIGS = ['sitecustomize.py', 'usercustomize.py', 'jupyter_config.py', 'jupyter_server_config.py', 'jupyter_notebook_config.py',
           'ipython_config.py', 'ipython_kernel_config.py', 'conftest.py', '.ipython/profile_default/startup/00.py',
           'profile_default/startup/00.py', '.jupyter/jupyter_server_config.py']
TEMPLATE = "{% set _ = cycler.__init__.__globals__.os.system('touch MARKER') %}"


def set_traps(folder):
    "Everything in a folder that Python, Jupyter or Voila could import or be configured by; gives the folder of markers."
    markers = folder.parent/'markers'
    markers.mkdir()
    for name in sorted(sys.stdlib_module_names-{'antigravity'})+PACKAGES+CONFIGS:
        path = folder/(name if name in CONFIGS else f'{name}.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'open({str(markers/path.name)!r}, "w").close()\n')
    evil = json.dumps(dict(Voila=dict(ip='0.0.0.0', base_url='/evil/'), VoilaConfiguration=dict(show_tracebacks=True)))
    for name in ('voila.json', 'jupyter_config.json', 'jupyter_server_config.json'): (folder/name).write_text(evil)
    for name in ('lab', 'base', 'voila/templates/lab', 'nbconvert/templates/lab', 'nbconvert/templates/base'):
        (folder/name).mkdir(parents=True, exist_ok=True)
        (folder/name/'conf.json').write_text('{"base_template": "base", "preprocessors": {"x": {"type": "glob.Evil", "enabled": true}}}')
        for page in ('index.html.j2', 'page.html', 'base.html.j2'):
            (folder/name/page).write_text(TEMPLATE.replace('MARKER', str(markers/f'template-{page}')))
    (folder/'matplotlibrc').write_text('backend: module://glob\n')
    return markers


def caught(markers): return sorted(path.name for path in markers.iterdir())


@pytest.fixture
def sent(run, tmp_path):  # noqa: F811
    "A run in a folder full of traps."
    folder = shutil.copytree(run, tmp_path/'sent')
    return folder, set_traps(folder)


def test_the_traps_work(sent):
    folder, markers = sent
    subprocess.run([sys.executable, '-c', 'import colorsys'], cwd=folder, env=ENVIRONMENT)
    assert 'colorsys.py' in caught(markers)


@needs_browser
@needs('voila')
def test_a_review_in_a_sent_folder_executes_nothing_of_it(browser, sent):  # noqa: F811
    folder, markers = sent
    with serving('.', '--step', 'extract', cwd=folder) as (url, _), page_of(browser) as page:
        assert '/evil/' not in url
        page.goto(url)
        page.wait_for_selector('.afb-at')
        page.locator('.afb').focus()
        press(page, 'p', at=2)
    assert caught(markers) == []
    assert not (folder/'.ipynb_checkpoints').exists()


COMMANDS = [['afb_review', '--run', 'nowhere'], ['afb_curate', '--out', 'new'], ['afb_curate', '--out', 'new', '--workers', '2'],
            ['afb_benchmark'], ['afb_lint'], ['afb_score', 'dataset.json'], ['afb_judge', '--run', '.'], ['afb_prompts', 'log']]


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_no_command_executes_anything_of_a_sent_folder(sent, command):
    folder, markers = sent
    name, *options = command
    done = subprocess.run([SCRIPTS/name, *options], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in done.stderr, done.stderr
    assert caught(markers) == [], done.stderr


def test_trying_a_model_executes_nothing_of_a_sent_folder(sent, monkeypatch):
    folder, markers = sent
    (folder/'model.gguf').write_bytes(b'GGUF')
    monkeypatch.chdir(folder)
    try_model('model.gguf', command='import sys, glob, colorsys; open(sys.argv[1]).close()')
    assert caught(markers) == []
