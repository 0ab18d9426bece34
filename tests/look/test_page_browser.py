"The review in a real browser: JupyterLab and Voila, with the keyboard alone, and nothing lost."
import json
import os
import re
import shutil
import signal
import time
from contextlib import contextmanager

import pandas as pd
import pytest
from conftest import ROOT

from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import sample_path
from agentfastbook.store.labels import labels, notes
from agentfastbook.store.reviews import reviewed_spans
from agentfastbook.text.spans import Span
from agentfastbook.look.page import Review
from agentfastbook.look.sitting import Sitting, _sendable
from agentfastbook.store.runs import Store
from agentfastbook.look.steps import call_rows
from agentfastbook.look.views import Mark, Panel, Field, Rows, View, frame_rows
from browsing import browser, needs, needs_browser, page_of, press, rows_of, run, server, shown

STATIC = ROOT/'agentfastbook'/'static'
HOSTILE = ['<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">', 'x'*1_000_000,
           'שלום עולם, this is mixed', '😀 emoji 👩‍👩‍👧 first', '\x1b[31mred\x1b[0m', '# **broken [Markdown](javascript:alert(1)',
           '\u202eoverride', '', '</div></body>', 'line\r\nline\n'*50, 'NUL \0 and \ud800 and \u2028',
           '<iframe srcdoc="<script>parent.hacked = 1</script>"></iframe><iframe src="data:text/html,<script>parent.hacked = 1</script>">',
           '<svg onload="window.hacked = 1"><image href="http://127.0.0.1:9/a.png"/><a href="javascript:hacked = 1"><text>x</text></a></svg>',
           '<math><mtext></form><style><!--</style><img src=x onerror="window.hacked = 1">-->',
           '<div style="background: url(http://127.0.0.1:9/b.png)">x</div><style>@import "http://127.0.0.1:9/c.css"</style>',
           '![image](http://127.0.0.1:9/d.png) [link](data:text/html,<script>hacked=1</script>) <base href="http://127.0.0.1:9/">',
           '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/"><link rel="prefetch" href="http://127.0.0.1:9/e">',
           '"><form action="http://127.0.0.1:9/"><object data="http://127.0.0.1:9/f"></object><embed src="http://127.0.0.1:9/g">',
           "{{ 7*7 }}{% raw %}${hacked=1}<%= 1 %>`'\"--></textarea></title></script><script>window.hacked = 1</script>"]

def wait_for(page, text, selector='.afb-message'):
    page.wait_for_function('([s, t]) => document.querySelector(s)?.innerText.includes(t)', arg=[selector, text])


FAKE = '''async ([js, css, states]) => {
  const style = document.createElement('style'); style.textContent = css; document.head.append(style)
  const url = URL.createObjectURL(new Blob([js], { type: 'text/javascript' })), module = (await import(url)).default
  const data = { shown: states[0] }, on = {}; window.sent = []; window.states = states
  window.show = i => { data.shown = states[i]; on['change:shown']() }
  const model = { get: k => data[k], set(k, v) { data[k] = v }, on: (k, f) => { on[k] = f }, off() {}, save_changes() {}, send: m => sent.push(m) }
  module.render({ model, el: document.getElementById('pane') })
}'''


def open_pane(page, states):
    "The pane alone, with a model that only notes what is sent."
    page.set_content('<!doctype html><meta name=viewport content="width=device-width"><body><div id=pane></div>')
    page.evaluate(FAKE, [(STATIC/'review.js').read_text(), (STATIC/'review.css').read_text(), states])


def states_of(sitting):
    for _ in range(len(sitting.order)-1): yield sitting.press('j')


@needs_browser
def test_hostile_texts_are_shown_and_not_executed(browser, tmp_path):
    rows = frame_rows(pd.DataFrame(dict(reply=HOSTILE), dtype=object))
    sitting = Sitting(rows, Store(tmp_path/'labels.db'), '<b>Ada</b>', ['<i>bad</i>'])
    states = [sitting.state(), *states_of(sitting)]
    with page_of(browser) as page:
        asked = []
        page.on('request', lambda r: asked.append(r.url))
        open_pane(page, json.loads(json.dumps(states)))
        for i, text in enumerate(HOSTILE):
            page.evaluate('i => show(i)', i)
            expected = re.sub('[\x1b\0\ud800]', '\ufffd', text[:20_000]).replace('\r', ' ')
            assert page.locator('.afb-text').evaluate('e => e.textContent') == expected
            assert page.evaluate('document.querySelectorAll(".afb script, .afb img, .afb i, .afb-text *").length') == 0
            width = page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
            assert width[0] <= width[1], f'the page is wider than the window with {text[:20]!r}'
        page.wait_for_timeout(200)
        assert page.evaluate('window.hacked') is None
        assert [url for url in asked if not url.startswith('blob:')] == []
        assert 'first 20,000 of 1,000,000' in page.evaluate('show(1), document.querySelector(".afb-quiet").innerText')


SELECT = '''([selector, word]) => { const text = document.querySelector(selector), walk = document.createTreeWalker(text, NodeFilter.SHOW_TEXT)
  for (let node; node = walk.nextNode();) { const at = node.data.indexOf(word); if (at >= 0) getSelection().setBaseAndExtent(node, at, node, at + word.length) } }'''
AT = '''([selector, word]) => { const text = document.querySelector(selector), walk = document.createTreeWalker(text, NodeFilter.SHOW_TEXT), range = document.createRange()
  for (let node; node = walk.nextNode();) { const at = node.data.indexOf(word); if (at >= 0) { range.setStart(node, at); range.setEnd(node, at + word.length) } }
  const box = range.getBoundingClientRect(); return [box.left, box.right, box.top + box.height / 2] }'''


@contextmanager
def reading(browser, run, tmp_path, **options):
    "The pane over a copy of the run, with contexts; `answer()` does what the page has sent, as the kernel would."
    shutil.copytree(run, tmp_path/'run')
    sitting = Sitting(call_rows(Store(tmp_path/'run'/'traces.db'), 'extract'), Store(tmp_path/'run'/'traces.db'), 'Ada')
    opened = Review(sitting)
    with page_of(browser, **options) as page:
        open_pane(page, [sitting.state()])

        def answer():
            for message in page.evaluate('sent.splice(0)'):
                page.evaluate('state => show(states.push(state) - 1)', opened.receive(message))
            given = labels(sitting.store)
            return [v for v in given[given.name == 'span'].value]
        page.locator('.afb').focus()
        yield page, sitting, answer


def picked(page, text):
    "Some text is selected, the button says what its key will do, and nothing was sent."
    wait_for(page, f'selected, not saved: {text}')
    button = page.locator('.afb-ready')
    assert button.get_attribute('aria-keyshortcuts') == 's' and button.inner_text() == 's replace context 1 by the selection'
    assert page.evaluate('sent.length') == 0 and page.evaluate('getSelection().toString()').strip()


@needs_browser
def test_selecting_only_selects_and_a_key_or_a_button_changes(browser, run, tmp_path):
    "Double click, drag, triple click and select all send nothing; then `s`, the button and undo."
    text, word = '.afb-panel:nth-of-type(2) .afb-text', 'Nobody has to buy them'
    with reading(browser, run, tmp_path) as (page, sitting, answer):
        left, right, y = page.evaluate(AT, [text, word])
        source = sitting.view.panels[1]
        page.mouse.dblclick(left+5, y)
        picked(page, 'Nobody')
        page.mouse.click(right+60, y)
        page.mouse.move(left, y)
        page.mouse.down()
        page.mouse.move(right+1, y, steps=5)
        page.mouse.up()
        picked(page, word)
        page.mouse.click(left+5, y, click_count=3)
        picked(page, 'A starter is nothing but flour')
        page.keyboard.press('Control+a')
        page.wait_for_function('() => !document.querySelector(".afb-ready")')  # more than one text is nobody's context
        assert page.locator('.afb-message').inner_text() == ''
        page.mouse.dblclick(left+5, y)
        picked(page, 'Nobody')
        page.keyboard.press('Escape')
        page.wait_for_function('() => !document.querySelector(".afb-ready")')
        assert answer() == [] and page.evaluate('sent.length') == 0

        page.evaluate(SELECT, [text, word])
        picked(page, word)
        page.keyboard.press('s')
        start = source.offset+source.text.index(word)
        (fixed,) = answer()
        assert (fixed['action'], fixed['start'], fixed['end']) == ('fix', start, start+len(word))
        assert 'context corrected' in page.locator('.afb-message').inner_text()
        page.keyboard.press('u')
        assert answer() == []

        page.evaluate(SELECT, [text, 'is nothing but flour'])
        picked(page, 'is nothing but flour')
        page.locator('.afb-ready').click()
        start = source.offset+source.text.index('is nothing but flour')
        assert [(v['start'], v['end']) for v in answer()] == [(start, start+20)]
        page.keyboard.press('u')
        assert answer() == []

        page.keyboard.press('l')
        while sitting.parts[sitting.part].name != 'new': page.keyboard.press('l'), answer()
        page.evaluate(SELECT, [text, 'is nothing but flour'])
        wait_for(page, 'selected, not saved: is nothing')
        assert page.locator('.afb-ready').inner_text() == 's add the selection as a context'
        page.keyboard.press('s')
        assert [v['action'] for v in answer()] == ['add']
        page.evaluate(SELECT, ['.afb-panel:nth-of-type(1) .afb-text', 'wild yeasts'])  # the component is no source
        page.wait_for_timeout(100)
        assert page.locator('.afb-ready').count() == 0
        page.keyboard.press('?')
        assert 'selecting alone changes nothing' in page.locator('.afb-help').inner_text()


@needs_browser
def test_a_finger_selects_and_a_tap_on_the_button_changes(browser, run, tmp_path):
    "A selection, as a long press makes it, waits for a tap on the button; the page fits a telephone."
    phone = dict(has_touch=True, is_mobile=True, viewport=dict(width=500, height=900))
    with reading(browser, run, tmp_path, **phone) as (page, sitting, answer):
        text = '.afb-panel:nth-of-type(2) .afb-text'
        page.locator(text).tap()
        assert page.evaluate('sent.length') == 0
        page.evaluate(SELECT, [text, 'Lives'])
        picked(page, 'Lives')
        width = page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
        assert width[0] <= width[1]
        page.locator('.afb-ready').tap()
        assert [v['action'] for v in answer()] == ['fix']


@needs_browser
def test_offsets_of_marked_text_count_characters(browser, tmp_path):
    "Selected with the mouse and sent by a key, or marked by keys: emoji are one character, as in Python."
    text = '😀 emoji 👩‍👩‍👧 first, then שלום, then the end'
    sitting = Sitting(frame_rows(pd.DataFrame(dict(reply=[text]))), Store(tmp_path/'labels.db'), 'Ada')
    with page_of(browser) as page:
        open_pane(page, [sitting.state()])
        page.locator('.afb').focus()
        for word in ('first', 'שלום', 'end'):
            page.evaluate(SELECT, ['.afb-text', word])
            wait_for(page, f'selected, not saved: {word}')
            assert page.evaluate('sent.length') == 0
            page.keyboard.press('s')
            sent = page.evaluate('sent.pop()')
            assert (sent['kind'], text[sent['start']:sent['end']]) == ('span', word)
        for key in ('s', 'ArrowRight', 'Shift+ArrowRight', 'ArrowRight', 'Enter'): page.keyboard.press(key)
        sent = page.evaluate('sent.pop()')
        assert text[sent['start']:sent['end']] == 'emoji 👩‍👩‍👧'
        page.keyboard.press('n')
        page.keyboard.type('jkp1?')
        assert page.evaluate('sent.length') == 0  # keys in a note are letters
        page.keyboard.press('Enter')
        assert page.evaluate('sent.pop()')['text'] == 'jkp1?'
        page.keyboard.press('?')
        assert page.locator('.afb-help').is_visible()
        assert page.locator('.afb').get_attribute('aria-label')
        assert page.locator('.afb-message').get_attribute('aria-live') == 'polite'
        unnamed = page.evaluate("[...document.querySelectorAll('.afb button, .afb textarea, .afb input')].filter(e => !e.innerText && !e.ariaLabel).length")
        assert unnamed == 0


SHOWN = {'DIV', 'SPAN', 'STRONG', 'BUTTON', 'KBD', 'SECTION', 'MARK', 'OL', 'LI', 'Q', 'DL', 'DT', 'DD', 'TEXTAREA', 'INPUT', 'DETAILS', 'SUMMARY',
         'TABLE', 'TR', 'TH', 'TD'}


@needs_browser
@pytest.mark.parametrize('text', [t for t in HOSTILE if 0 < len(t) < 1000])
def test_hostile_words_in_every_place(browser, text, tmp_path):
    "Titles, marks, parts, labels, notes, people, facts, messages and the filter are texts too."
    texts, marks = [Panel(text, text, (Mark(Span(0, len(text)), 0, text),), 0)], (text, text)
    view = View('x', text, tuple(texts), (Field(text, text, marks, Span(0, 1)),), ((text, text),), spans=True)
    rows = Rows(pd.DataFrame(dict(id=['x'], name=[text], text=[text]), dtype=object), lambda i: view)
    store = Store(tmp_path/'labels.db')
    state = Sitting(rows, store, 'Ada', [_sendable(text)]).state()
    state |= _sendable(dict(message=text, note=text, filter=text, others=[text], progress=text))
    state['parts'][0] |= _sendable(dict(note=text, labels=[dict(name=text, suggested=True)]))
    with page_of(browser) as page:
        asked = []
        page.on('request', lambda r: asked.append(r.url))
        open_pane(page, [state])
        page.locator('.afb').focus()
        for key in '?n/': page.keyboard.press(key)
        found = page.evaluate('[...document.querySelectorAll(".afb *")].map(e => [e.tagName, e.getAttributeNames().join(" "), e.getAttribute("style") || ""])')
        assert {tag for tag, _, _ in found} <= SHOWN
        assert not [names for _, names, _ in found if re.search(r'\b(on\w+|src|href|srcdoc|action)\b', names)]
        assert not [style for _, _, style in found if 'url' in style]
        assert page.evaluate('window.hacked') is None
        assert [url for url in asked if not url.startswith('blob:')] == []


@needs_browser
def test_the_static_page_asks_nobody_and_executes_nothing(browser, tmp_path):
    rows = frame_rows(pd.DataFrame(dict(reply=HOSTILE, name=[t[:200] for t in HOSTILE]), dtype=object), ['reply'], name='name')
    sitting = Sitting(rows, Store(tmp_path/'labels.db'), 'Ada', ['bad'])
    for text in HOSTILE[:1]+HOSTILE[11:]: sitting.handle(sitting.note, text), sitting.press('j')
    Review(sitting).save(tmp_path/'review.html')
    with page_of(browser) as page:
        asked = []
        page.on('request', lambda r: asked.append(r.url))
        page.goto((tmp_path/'review.html').as_uri())
        page.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
        page.wait_for_timeout(200)
        assert asked == [(tmp_path/'review.html').as_uri()]
        assert page.evaluate('window.hacked') is None
        assert page.evaluate('document.querySelectorAll("script, img, iframe, svg, math, object, embed, form, link, base, a").length') == 0


@needs_browser
@needs('voila')
def test_a_sitting_of_25_items_by_keys_only(browser, run, tmp_path):
    "Voila: verdicts, a label, a note, a corrected context, an undo, a reload; then the rows in the file."
    options = dict(source=str(run), step='extract', annotator='Ada', benchmark=str(sample_path()/'benchmark.json'))
    command = ['voila', str(STATIC/'review.ipynb'), '--no-browser', '--Voila.ip=127.0.0.1']
    rows = call_rows(Store(run/'traces.db'), 'extract', benchmark=load_benchmark(sample_path()/'benchmark.json'))
    with server(command, tmp_path, '/voila/api/contents/', AFB_REVIEW=json.dumps(options)) as url, page_of(browser) as page:
        page.goto(url)
        page.wait_for_selector('.afb-at')
        page.locator('.afb').focus()
        assert shown(page) == f'1/{len(rows)}'
        for n in range(1, 26):
            if n == 3: press(page, '1', message='on: too long')
            if n == 4:
                page.keyboard.press('n')
                page.keyboard.type('stops in the middle of a list')
                press(page, 'Enter', message='noted')
            if n == 5:
                for key in ('s', 'ArrowRight', 'ArrowRight'): page.keyboard.press(key)
                press(page, 'Enter', message='context')
            press(page, 'f' if n in (3, 4, 10) else 'p', at=n+1)
        assert '25 of' in page.locator('.afb-progress').inner_text()
        press(page, 'u', at=25, message='undone')
        assert f'24 of {len(rows)}, 3 failed' == page.locator('.afb-progress').inner_text()
        page.reload()
        page.wait_for_selector('.afb-at')
        assert f'24 of {len(rows)}, 3 failed' == page.locator('.afb-progress').inner_text()
        page.locator('.afb').focus()
        press(page, 'o', at=25)
        press(page, 'u', at=24, message='undone')  # what was done before the reload
    with Store(run/'traces.db') as store:
        given, ids = labels(store), rows.table['id'].tolist()
        verdicts = given[(given.name == 'verdict') & given.call.isin(ids)]
        assert verdicts.call.tolist() == ids[:23]
        assert [i+1 for i, value in enumerate(verdicts.value) if value is False] == [3, 4, 10]
        assert given[given.name == 'too long'][['annotator', 'call']].values.tolist() == [['Ada', ids[2]]]
        assert notes(store)[['call', 'text']].values.tolist() == [[ids[3], 'stops in the middle of a list']]
        fixed = given[given.name == 'span'].value.map(lambda v: v['action']).tolist()
        assert 'fix' in fixed or 'add' in fixed
        assert reviewed_spans(store)
    assert rows_of(run/'traces.db', 'select count(*) from act where undone is not null') == [(2,)]


@needs_browser
@needs('axe_playwright_python')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_screen_readers_find_names_roles_and_contrast(browser, run, scheme):
    "The rules of axe-core, without those about whole pages."
    from axe_playwright_python.sync_playwright import Axe
    sitting = Sitting(call_rows(Store(run/'traces.db'), 'extract'), Store(run/'traces.db'), 'Cleo', ['too long'])
    with page_of(browser, color_scheme=scheme) as page:
        open_pane(page, [sitting.state()])
        page.evaluate('scheme => { document.documentElement.style.colorScheme = scheme; document.title = "Review" }', scheme)
        page.locator('.afb').focus()
        for key in '?n': page.keyboard.press(key)
        found = Axe().run(page).response['violations']
        assert [v['help'] for v in found if v['id'] not in ('html-has-lang', 'landmark-one-main', 'page-has-heading-one')] == []


NOTEBOOK = '''from agentfastbook.look.page import review
opened = review({source!r}, 'decompose', annotator={annotator!r}, benchmark={benchmark!r})
import os
print('pid', os.getpid())
opened'''
RUN_ALL = '''async () => { const app = window.jupyterapp; await app.restored; let w
  for (let i = 0; i < 400; i++) { w = app.shell.currentWidget; if (w && w.context && w.sessionContext) break; await new Promise(r => setTimeout(r, 50)) }
  await w.context.ready; await w.sessionContext.ready
  for (let i = 0; i < 800 && w.sessionContext.session?.kernel?.connectionStatus !== 'connected'; i++) await new Promise(r => setTimeout(r, 50))
  await w.sessionContext.session.kernel.info; await app.commands.execute('notebook:run-all-cells') }'''


def write_notebook(path, **names):
    cells = [dict(cell_type='code', id=str(i), execution_count=None, metadata={}, outputs=[], source=source)
             for i, source in enumerate([NOTEBOOK.format(**names), '"the next cell"'])]
    kernel = dict(name='python3', display_name='Python 3', language='python')
    path.write_text(json.dumps(dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))


def open_notebook(page, url):
    page.goto(url)
    page.wait_for_function('window.jupyterapp')
    page.evaluate(RUN_ALL)
    page.wait_for_selector('.afb-at')
    page.locator('.afb').focus()


@needs_browser
@needs('jupyterlab')
def test_two_kernels_and_one_that_is_killed(browser, run, tmp_path):
    "JupyterLab: two people in two kernels see each other; a key pressed just before SIGKILL is in the file."
    for person in ('Ada', 'Ben'):
        write_notebook(tmp_path/f'{person}.ipynb', source=str(run), annotator=person, benchmark=str(sample_path()/'benchmark.json'))
    command = ['jupyterlab', '--no-browser', '--ServerApp.ip=127.0.0.1', '--IdentityProvider.token=', '--allow-root',
               '--expose-app-in-browser', '--LabApp.news_url=None', f'--ServerApp.root_dir={tmp_path}']
    ids = call_rows(Store(run/'traces.db'), 'decompose').table['id'].tolist()
    with server(command, tmp_path, '/api/status') as url, page_of(browser) as ada, page_of(browser) as ben:
        open_notebook(ada, f'{url}/lab/tree/Ada.ipynb?reset')
        open_notebook(ben, f'{url}/lab/workspaces/ben/tree/Ben.ipynb?reset')
        cells = ada.locator('.jp-Notebook .jp-Cell').count()
        press(ada, 'p', at=2)
        press(ben, 'f', at=2)
        press(ada, 'k', at=1)
        wait_for(ada, 'Ben: failed', '.afb-foot')
        for key in 'lhjk': press(ada, key)
        assert ada.locator('.jp-Notebook .jp-Cell').count() == cells  # no key reached JupyterLab
        press(ben, 'p', at=3)
        pid = int(ben.locator('.jp-OutputArea-output', has_text='pid').first.inner_text().split()[-1])
        ben.keyboard.press('f')
        time.sleep(.5)
        os.kill(pid, signal.SIGKILL)
        ben.keyboard.press('j')
        wait_for(ben, 'no answer')  # a dead kernel is not pretended away
        press(ada, 'j', at=2)
        press(ada, 'j', at=3)
        wait_for(ada, 'Ben: failed', '.afb-foot')
    with Store(run/'traces.db') as store:
        given = labels(store)
        given = given[(given.name == 'verdict') & given.call.isin(ids)]
        assert sorted(map(tuple, given[['annotator', 'call', 'value']].values.tolist())) == sorted(
            [('Ada', ids[0], True), ('Ben', ids[0], False), ('Ben', ids[1], True), ('Ben', ids[2], False)])
