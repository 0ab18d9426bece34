"The report in a real browser: it shows what it should, runs nothing that stands in a book, and asks nobody for anything."
import json
import shutil

import pytest
from agentfastbook.books.chapters import sample_path
from agentfastbook.engines.pipeline import curate

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']
HOSTILE = '<script>document.title="run"</script><img src=x onerror="document.title=\'run\'"><b onclick="alert(1)">x</b>'

pytestmark = pytest.mark.skipif(not CHROMIUM, reason='Chromium is not installed')


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser, path, width=1200):
    "The page, and what it asked for beside itself."
    page, asked = browser.new_page(viewport={'width': width, 'height': 900}), []
    page.on('request', lambda request: asked.append(request.url))
    page.on('dialog', lambda dialog: asked.append('dialog') or dialog.dismiss())
    page.goto(path.as_uri())
    for details in page.query_selector_all('details'): details.evaluate('element => element.open = true')
    page.wait_for_timeout(200)
    return page, asked[1:]


def question(number, text, answer):
    return dict(chapter=1, question_number=number, question_text=text, gold_standard_answer=answer, answer_context=[])


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    "A report on a book and questions that try to run code."
    folder = tmp_path_factory.mktemp('hostile')
    (folder/'book').mkdir()
    text = f'# Yeast {HOSTILE}\n\nYeast makes gas {HOSTILE} and the dough rises.\n'
    (folder/'book'/'01_yeast.md').write_text(text, encoding='utf-8')
    questions = [question(1, f'What makes the dough rise? {HOSTILE}', f'Yeast makes gas {HOSTILE} and the dough rises.'),
                 question(2, 'What else? </details></body>', 'Nothing else makes it rise. --> ]]> </style>')]
    (folder/'benchmark.json').write_text(json.dumps(dict(questions=questions)), encoding='utf-8')
    curate(folder/'book', folder/'benchmark.json', folder/'out', progress=False)
    return folder/'out'/'report.html'


def test_nothing_in_the_book_runs(browser, hostile):
    page, asked = opened(browser, hostile)
    assert page.title() != 'run' and asked == []
    assert page.query_selector('script') is None and page.query_selector('img') is None
    assert page.inner_text('body').count('document.title="run"') >= 3, 'the code is shown as text'
    assert len(page.query_selector_all('details')) == 2
    page.close()


@pytest.mark.parametrize('width', [1200, 700, 390])
def test_report_of_the_sample_book(browser, tmp_path, width):
    curate(sample_path(), sample_path()/'benchmark.json', tmp_path, progress=False)
    page, asked = opened(browser, tmp_path/'report.html', width)
    assert asked == [], 'the report is one file'
    assert len(page.query_selector_all('details')) == 21
    assert page.query_selector_all('mark'), 'contexts are highlighted'
    beyond = page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
    assert beyond <= 2, f'must be scrolled sideways at {width} pixels'
    page.close()
