"""Opens every page of the rendered site in Chromium, wide and narrow: python tools/check_pages.py [--shots FOLDER]

Fails on an uncaught error in a page, and where a page must be scrolled sideways. With --shots it saves a picture of each.
"""
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nbdev.config import get_config
from playwright.sync_api import sync_playwright

WIDTHS = (1200, 700)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


def page_problems(browser, address, width, picture):
    "Uncaught errors of a page at a width in pixels, and how far it can be scrolled sideways."
    page, problems = browser.new_page(viewport={'width': width, 'height': 900}), []
    page.on('pageerror', lambda error: problems.append(f'error in the page: {error}'))
    page.route('**/*', lambda route: route.continue_() if address.split('/')[2] in route.request.url else route.abort())
    page.goto(address, wait_until='load')
    page.wait_for_timeout(150)
    beyond = page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
    if beyond > 2: problems.append(f'{beyond} pixels too wide at {width}')
    if picture: page.screenshot(path=picture, full_page=True)
    page.close()
    return problems


def is_page(path):
    "True for all pages but those that only lead to another address."
    return 'http-equiv="refresh"' not in path.read_text(encoding='utf-8')


def check(folder, shots=None):
    "The problems of all pages below a folder, a line each."
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    paths, problems = [path.relative_to(folder) for path in filter(is_page, sorted(folder.rglob('*.html')))], []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=FLAGS)
            for path in paths:
                for width in WIDTHS:
                    picture = shots and str(shots/f"{'_'.join(path.with_suffix('').parts)}-{width}.png")
                    address = f'http://127.0.0.1:{server.server_port}/{path.as_posix()}'
                    problems += [f'{path}: {found}' for found in page_problems(browser, address, width, picture)]
            browser.close()
    finally: server.shutdown()
    return problems, len(paths)


def main():
    config = get_config()
    shots = Path(sys.argv[sys.argv.index('--shots') + 1]) if '--shots' in sys.argv else None
    if shots: shots.mkdir(parents=True, exist_ok=True)
    problems, pages = check(config.config_path/'_proc'/config.doc_path.name, shots)
    print(f'{pages} pages at {len(WIDTHS)} widths, {len(problems)} problems')
    if problems: sys.exit('\n'.join(problems))


if __name__ == '__main__': main()
