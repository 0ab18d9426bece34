"""Hostile inputs, given to the commands as a stranger would give them: what becomes of each?

    python benchmarks/hostile.py [FAMILY ...] [--list] [--seconds 10]

Each input is a folder of files and the words of one command. The command runs in a process of its own, in that folder,
as its script would start it. Outcomes: `done` (status 0), `named` (status 1: what is bad is said, the rest is done),
`refused` (status 2, one line says why). Not allowed: `traceback`, `hang` (longer than --seconds), `executed` (something
of the input was run, or a file outside was changed), `silent` (an input that must be named was not). With --list, a line
for each input. Leaves with status 1 if anything happened that is not allowed."""

import argparse
import atexit
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

from agentfastbook.books.chapters import sample_path
from agentfastbook.cli.commands import afb_benchmark, afb_curate, afb_judge, afb_lint, afb_prompts, afb_review, afb_score

COMMANDS = dict(
    afb_curate=afb_curate,
    afb_benchmark=afb_benchmark,
    afb_lint=afb_lint,
    afb_score=afb_score,
    afb_prompts=afb_prompts,
    afb_judge=afb_judge,
    afb_review=afb_review,
)
LOUD, ANY = ('named', 'refused'), ('done', 'named', 'refused')  # outcomes that are allowed
SAMPLE = sample_path()
PROSE = (
    '# Bees\n\nBees keep the hive warm. The queen lays eggs. A colony has 30,000 bees.\n\n## Questionnaire\n\n'
    '1. What does the queen do?\n'
)
CASES = []


@dataclass(frozen=True)
class Case:
    "One hostile input."

    family: str
    name: str
    make: object  # folder -> None: writes the files
    words: tuple  # the command and its options
    allowed: tuple = ANY


def case(family, name, words, make=lambda d: None, allowed=ANY):
    "Add a case; its words are split at spaces, or given one by one."
    CASES.append(Case(family, name, make, tuple(words.split(' ') if isinstance(words, str) else words), allowed))


def put(name, data):
    "A maker that writes one file."

    def make(d):
        path = d / name if isinstance(name, str) else Path(os.fsdecode(os.fsencode(d) + b'/' + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode('utf-8', 'surrogatepass'))

    return make


def both(*makers):
    def make(d):
        for m in makers:
            m(d)

    return make


def linked(name, target):
    def make(d):
        (d / name).parent.mkdir(parents=True, exist_ok=True)
        (d / name).symlink_to(target)

    return make


def fifo(name):
    def make(d):
        (d / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(d / name)

    return make


def nested(n, inner='null'):
    return '[' * n + inner + ']' * n


# --- book files: names ------------------------------------------------------------------------------------------------
GOOD = put('book/01_good.md', PROSE)
for label, name in {
    'superscript digit': '²_a.md',
    'circled digit': '①_x.md',
    'arabic digits': '٣_x.md',
    'fullwidth digits': '０３_x.md',
    'line end': '02_a\nb.md',
    'carriage return': '02_a\rb.md',
    'escape codes': '02_\x1b[31mred.md',
    'long name': '02_' + 'a' * 249 + '.md',
    '245 digits': '9' * 245 + '_x.md',
    'right to left': '02_\u202egpj.md',
    'leading hyphen': '-02_x.md',
    'shell words': '02_$(touch PWNED).md',
    'backticks': '02_`touch PWNED`.md',
    'semicolon': '02_; touch PWNED #.md',
    'format': '02_%s%n{0}.md',
    'html': '02_<img src=x onerror=alert(1)>.md',
    'quotes': '''02_"'.md''',
    'emoji': '02_🐝👩‍🚀.md',
    'decomposed': '02_e\u0301.md',
    'capitals': '02_X.MD',
    'dots': '02_...md',
    'same number': '01_other.md',
    'no number': 'bees.md',
    'minus': '-1_x.md',
    'zero': '00_x.md',
    'fraction': '1.5_x.md',
}.items():
    case('book: names', label, 'afb_curate --book book --out out', both(GOOD, put('book/' + name, PROSE)))
case('book: names', 'not UTF-8', 'afb_curate --book book --out out', both(GOOD, put(b'book/02_\xff\xfe.md', PROSE)))
case('book: names', 'lone surrogate in an argument', ['afb_curate', '--book', 'b\udcff', '--out', 'out'], GOOD, LOUD)
case('book: names', 'zero byte in an argument', ['afb_curate', '--book', 'b\0k', '--out', 'out'], GOOD, LOUD)

# --- book files: kinds ------------------------------------------------------------------------------------------------
for label, make, allowed in [
    ('FIFO as a chapter', fifo('book/02_x.md'), LOUD),
    ('FIFO as a notebook', fifo('book/02_x.ipynb'), LOUD),
    ('folder as a chapter', lambda d: (d / 'book/02_x.md').mkdir(parents=True), ANY),
    ('link to /dev/zero', linked('book/02_x.md', '/dev/zero'), LOUD),
    ('link to /dev/random', linked('book/02_x.ipynb', '/dev/random'), LOUD),
    (
        'link that leaves the book',
        both(put('victim.md', PROSE.replace('Bees', 'SECRET')), linked('book/02_x.md', '../victim.md')),
        LOUD,
    ),
    ('link to /etc/passwd', linked('book/02_x.md', '/etc/passwd'), LOUD),
    ('link to itself', linked('book/02_x.md', '02_x.md'), LOUD),
    ('dangling link', linked('book/02_x.md', 'nowhere.md'), LOUD),
    ('link to its own folder', linked('book/02_x', '.'), ANY),
    ('link to the root', linked('book/02_root', '/'), ANY),
    ('socket', lambda d: socket.socket(socket.AF_UNIX).bind(os.path.relpath(d / 'book/02_x.md')), LOUD),
]:
    case('book: kinds of files', label, 'afb_curate --book book --out out', both(GOOD, make), allowed)
case('book: kinds of files', 'the book is a FIFO', 'afb_curate --book book --out out', fifo('book'), LOUD)
case('book: kinds of files', 'the book is /dev/zero', 'afb_curate --book /dev/zero --out out', allowed=LOUD)
case(
    'book: kinds of files',
    'the book is empty',
    'afb_curate --book book --out out',
    lambda d: (d / 'book').mkdir(),
    LOUD,
)
case('book: kinds of files', 'no book', 'afb_curate --book none --out out', allowed=LOUD)


# --- book files: contents ---------------------------------------------------------------------------------------------
def notebook(*cells, **more):
    return json.dumps(dict(dict(nbformat=4, nbformat_minor=5, metadata={}, cells=list(cells)), **more))


def md(source):
    return dict(cell_type='markdown', id='a', metadata={}, source=source)


for label, text in {
    'empty': '',
    'not JSON': '{"cells": [',
    'a list': '[]',
    'null': 'null',
    'a string': '"x"',
    'a number': '1e999',
    'no cells': '{}',
    'cells are a number': notebook(cells=5),
    'cells are null': notebook(cells=None),
    'a cell is null': notebook(None, md(PROSE)),
    'a cell is a list': notebook([md(PROSE)]),
    'source is a number': notebook(md(5)),
    'source is a list of numbers': notebook(md([1, 2])),
    'source is null': notebook(md(None)),
    'no cell_type': notebook(dict(source=PROSE)),
    'unknown cell_type': notebook(dict(md(PROSE), cell_type='x')),
    'nbformat 3': json.dumps(dict(nbformat=3, nbformat_minor=0, metadata={}, worksheets=[dict(cells=[md(PROSE)])])),
    'nbformat 99': notebook(md(PROSE), nbformat=99),
    'nbformat is text': notebook(md(PROSE), nbformat='four'),
    'no nbformat': json.dumps(dict(cells=[md(PROSE)])),
    'nested 10,000 deep': nested(10_000),
    'cells nested 5,000 deep': '{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":' + nested(5_000) + '}',
    'integer of 5,000 digits': '{"nbformat":' + '9' * 5000 + ',"cells":[]}',
    'outputs are monsters': notebook(dict(cell_type='code', source='x=1', outputs=[5, None, [[]]], metadata=None)),
    'lone surrogate': notebook(md('# A\n\nIt is \udc80 cold.')),
    'zero bytes': notebook(md('a\0b')),
    'NaN': '{"nbformat":NaN,"cells":[]}',
    'duplicate keys': '{"cells":[],"cells":5,"nbformat":4}',
    'byte order mark': '\ufeff' + notebook(md(PROSE)),
}.items():
    case(
        'book: contents of notebooks',
        label,
        'afb_curate --book book --out out',
        both(GOOD, put('book/02_x.ipynb', text)),
    )
for label, text in {
    'UTF-16': PROSE.encode('utf-16'),
    'Latin-1': 'Käse ist gut.'.encode('latin-1'),
    'binary': bytes(range(256)) * 40,
    'PDF': b'%PDF-1.7\n\xff\xfe\x00',
    'zero bytes': 'a\0' * 500,
    'carriage returns only': PROSE.replace('\n', '\r'),
    'only spaces': ' ' * 100_000,
    'only line ends': '\n' * 100_000,
    'brackets': '[' * 50_000,
    'links in links': '[a](' * 20_000,
    'quotes in quotes': '>' * 50_000,
    'lists in lists': ''.join(' ' * i + '- a\n' for i in range(300)),
    'stars': '*a ' * 30_000,
    'underscores': '_' * 100_000,
    'backticks': '`' * 100_000,
    'one fence': '```\n' + 'x\n' * 50_000,
    'angle brackets': '<' * 100_000,
    'entities': '&amp' * 25_000,
    'table': '|' * 50_000 + '\n' + '|-' * 25_000,
    'headings': '# a\n' * 25_000,
    'one long line': 'a' * 1_000_000,
    'words': 'word ' * 200_000,
    'emoji': '👩‍🚀' * 20_000,
    'combining marks': 'e' + '\u0301' * 100_000,
    'right to left': '\u202e' * 50_000,
    'pattern': '](.aa#' * 15_000,
    'dots': '. ' * 50_000,
    'html comment': '<!--' * 25_000,
    'scripts': '<script>alert(1)</script>\n[x](javascript:alert(1))\n<svg onload=alert(1)>\n' * 100,
    'front matter': '---\n' + 'a: &x [*x]\n' * 1000 + '---\n',
    'lone surrogates': '\udc80' * 1000,
}.items():
    body = text if isinstance(text, bytes) else (text + '\n\n' + PROSE).encode('utf-8', 'surrogatepass')
    case('book: contents of Markdown', label, 'afb_curate --book book --out out', both(GOOD, put('book/02_x.md', body)))

# --- benchmark files --------------------------------------------------------------------------------------------------
ENTRY = json.loads((SAMPLE / 'benchmark.json').read_text(encoding='utf-8'))['questions'][0]
OTHER = dict(ENTRY, question_number=2)
CONTEXT = ENTRY['answer_context'][0]


def raw_number(text):
    return json.dumps(dict(OTHER, question_number='@')).replace('"@"', text)


def entries(*texts):
    return '{"questions": [' + ', '.join([json.dumps(ENTRY), *texts]) + ']}'


for label, value in {
    'number of 5,000 digits': raw_number('9' * 5000),
    'number of 4,000 digits as text': raw_number('"' + '9' * 4000 + '"'),
    'number 1e400': raw_number('1e400'),
    'number NaN': raw_number('NaN'),
    'number null': raw_number('null'),
    'number true': raw_number('true'),
    'number -1': raw_number('-1'),
    'number 1.5': raw_number('1.5'),
    'number []': raw_number('[]'),
    'number {}': raw_number('{}'),
    'superscript number': raw_number('"²"'),
    'null entry': 'null',
    'number as entry': '5',
    'text as entry': '"x"',
    'empty entry': '{}',
    'entry nested 900 deep': nested(900),
    'the same question twice': json.dumps(ENTRY),
}.items():
    case(
        'benchmark: entries',
        label,
        ['afb_curate', '--book', str(SAMPLE), '--benchmark', 'b.json', '--out', 'out'],
        put('b.json', entries(value)),
    )
for key, values in {
    'chapter': ['9' * 4000, None, True, -1, 1.5, [], {}, '1', 'x', 99],
    'question_text': [None, 5, [], {}, '', ' ', '\udc80', 'a\0b', 'x' * 1_000_000, '<script>alert(1)</script>'],
    'gold_standard_answer': [
        5,
        True,
        [],
        {},
        '\udc80',
        'a\0b',
        '](.aa#' * 15_000,
        'a ... ' * 15_000,
        'word ' * 20_000,
        '"' * 50_000,
        'not ' * 20_000,
        '蜂' * 30_000,
        '\u202e<img src=x onerror=alert(1)>',
    ],
    'answer_context': [
        5,
        'x',
        {},
        [5],
        [None],
        ['x'],
        [[]],
        [{}],
        [dict(CONTEXT, context=5)],
        [dict(CONTEXT, context=[5])],
        [dict(CONTEXT, context=[None])],
        [dict(CONTEXT, answer_component=5)],
        [dict(CONTEXT, answer_component=None)],
        [dict(CONTEXT, answer_component=[])],
        [dict(CONTEXT, answer_component=['x', 5])],
        [CONTEXT] * 2000,
        [dict(CONTEXT, context=['\udc80'])],
        [dict(CONTEXT, explicit_context=5)],
        [dict(CONTEXT, context_spans=5)],
        [dict(CONTEXT, context_spans=[[1]])],
        [dict(CONTEXT, context_spans=[['a', 'b']])],
        [dict(CONTEXT, context_spans=[[-5, 10**30]])],
        [dict(CONTEXT, context_spans=[[9, 3]])],
        [dict(CONTEXT, component_spans='x')],
        [dict(CONTEXT, component_spans=[[0, 10**9]])],
    ],
}.items():
    for value in values:
        shown = json.dumps(value)
        label = f'{key} {shown if len(shown) < 60 else shown[:40]+"... of "+format(len(shown), ",")+" characters"}'
        case(
            'benchmark: entries',
            label,
            ['afb_curate', '--book', str(SAMPLE), '--benchmark', 'b.json', '--out', 'out'],
            put('b.json', entries(json.dumps(dict(OTHER, **{key: value})))),
        )
for label, text in {
    'empty': '',
    'a list': '[]',
    'null': 'null',
    'text': '"x"',
    'number': '1',
    'no questions': '{}',
    'questions are a number': '{"questions": 5}',
    'questions are null': '{"questions": null}',
    'no question': '{"questions": []}',
    'nested 100,000 deep': nested(100_000),
    'cut': entries()[:-20],
    'two files in one': entries() + entries(),
    'binary': bytes(range(256)),
    'UTF-16': entries().encode('utf-16'),
    'zero bytes': b'\0' * 1000,
    'lone surrogate bytes': b'{"questions": ["\xed\xa0\x80"]}',
    'a comma too many': '{"questions": [,]}',
    'infinite': '{"questions": [Infinity]}',
}.items():
    for command in ('afb_curate --out out', 'afb_lint'):
        case(
            'benchmark: files',
            f'{label} ({command.split()[0]})',
            [*command.split(), '--book', str(SAMPLE), '--benchmark', 'b.json'],
            put('b.json', text),
            LOUD if command[4] == 'c' else ANY,
        )
for label, make in {
    'FIFO': fifo('b.json'),
    'folder': lambda d: (d / 'b.json').mkdir(),
    '/dev/zero': linked('b.json', '/dev/zero'),
    'missing': lambda d: None,
    'a link to itself': linked('b.json', 'b.json'),
}.items():
    for command in ('afb_curate --out out', 'afb_lint', 'afb_benchmark'):
        case(
            'benchmark: files',
            f'{label} ({command.split()[0]})',
            [*command.split(), '--book', str(SAMPLE), '--benchmark', 'b.json'],
            make,
            LOUD,
        )
    case('benchmark: files', f'{label} (afb_score)', 'afb_score b.json', make, LOUD)

# --- options ----------------------------------------------------------------------------------------------------------
for option, values in {
    '--workers': ['-1', 'x', '1.5', '1' + '0' * 400, 'nan', ''],
    '--k': ['0', '-3', 'x', '1' + '0' * 5000, 'inf'],
    '--max_tokens': ['0', '-1', 'x', 'nan'],
    '--granularity': ['x', '', '../..'],
    '--decompose': ['x', '/dev/null', '/'],
    '--extract': ['x', '.'],
    '--late': ['none', '/dev/null', '.'],
    '--out': ['/proc/x', '/dev/null', '', '/dev/null/x', 'o\0t', 'x' * 300],
    '--budget_usd': ['1', '-1', 'nan'],
    '--yes_no': ['2'],
    '--prompts': ['x'],
}.items():
    for value in values:
        case(
            'options',
            f'afb_curate {option} {value[:12]!r}',
            ['afb_curate', '--out', 'out', option, value],
            allowed=LOUD,
        )
for value in [
    'gpt',
    '',
    ':',
    'local:',
    'local:/dev/zero',
    'local:none.gguf',
    'http://[::1/v1#m',
    'http://',
    'http://#m',
    'ftp://127.0.0.1/v1#m',
    'http://127.0.0.1:99999/v1#m',
    'http://127.0.0.1:1/v1',
    'file:///etc/passwd#m',
    'claude-haiku-4-5',
    'http://user:pass@127.0.0.1:x/v1#m',
    'http://127.0.0.1:1/v1#' + 'm' * 100_000,
]:
    case('options', f'--lm {value[:40]}', ['afb_curate', '--out', 'out', '--lm', value], allowed=LOUD)
case('options', 'out is a FIFO', 'afb_curate --out out', fifo('out'), LOUD)
case('options', 'traces.db is a FIFO', 'afb_curate --out out', fifo('out/traces.db'), LOUD)
case(
    'options',
    'dataset.json is a link to a victim',
    'afb_curate --out out',
    both(put('victim', 'precious'), linked('out/dataset.json', '../victim')),
)
case(
    'options',
    'report.html is a folder',
    'afb_curate --out out',
    lambda d: (d / 'out/report.html').mkdir(parents=True),
    LOUD,
)
for words in (
    'afb_score',
    'afb_score none.json',
    'afb_score /etc/passwd',
    'afb_score /',
    'afb_judge --run none',
    'afb_judge --run /dev/null',
    'afb_judge --step x',
    'afb_judge --failures -1',
    'afb_review --run none --no_browser',
    'afb_review --port 99999999 --no_browser',
    'afb_review --port -1 --no_browser',
    'afb_review --step x --no_browser',
    'afb_lint --benchmark /etc/passwd',
    'afb_benchmark --max_tokens 0',
    'afb_benchmark --max_tokens -5',
    'afb_benchmark --labels /etc/passwd',
    'afb_benchmark --labels none',
    'afb_prompts',
    'afb_prompts x',
    'afb_prompts log --repo none',
    'afb_prompts log --repo /',
    'afb_prompts why --store /dev/null',
    'afb_prompts bisect a b --run true --threshold nan',
    'afb_curate --nonsense',
    'afb_curate x',
):
    case('options', words, words, allowed=LOUD)


# --- stores -----------------------------------------------------------------------------------------------------------
@lru_cache
def good_run():
    "The folder of a good run of one question, made once."
    d = Path(tempfile.mkdtemp())
    put('b.json', entries())(d)
    words = ['--book', str(SAMPLE), '--benchmark', 'b.json', '--out', 'run']
    code = 'from agentfastbook.cli.commands import afb_curate; afb_curate()'
    subprocess.run([sys.executable, '-c', code, *words], cwd=d, check=True, capture_output=True)
    atexit.register(shutil.rmtree, d)
    return d


def run_folder(d):
    shutil.copytree(good_run(), d, dirs_exist_ok=True)


def damaged(change):
    "A maker of a run whose traces.db was changed."

    def make(d):
        run_folder(d)
        path = d / 'run/traces.db'
        with sqlite3.connect(path) as db:
            db.execute('pragma wal_checkpoint(truncate)')
        db.close()
        change(path)

    return make


def middle(path):
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 200] = b'\xff' * 200
    path.write_bytes(data)


def sql(*statements):
    def change(path):
        with sqlite3.connect(path) as db:
            db.execute('pragma writable_schema=on')
            for statement in statements:
                db.execute(statement)
        db.close()

    return change


STORES = {
    'cut in the middle': lambda p: p.write_bytes(p.read_bytes()[:10_000]),
    'empty': lambda p: p.write_bytes(b''),
    'a text': lambda p: p.write_text('hello' * 1000),
    'random bytes': lambda p: p.write_bytes(os.urandom(50_000)),
    'damaged pages': middle,
    'damaged header': lambda p: p.write_bytes(b'X' * 50 + p.read_bytes()[50:]),
    'newer schema': sql('pragma user_version=9999'),
    'negative schema': sql('pragma user_version=-1'),
    'table missing': sql('drop table call'),
    'column missing': sql('alter table call rename column output to x'),
    'output is no JSON': sql("update call set output='{'"),
    'output is deep': sql(f"update call set output='{nested(20_000)}'"),
    'output is a number': sql("update call set output='5'"),
    'output is null': sql("update call set output='null'"),
    'spans outside': sql("update call set output='[[5, 999999999]]' where step='extract'"),
    'input is no dict': sql("update call set input='[]'"),
    'NaN in JSON': sql("update call set output='NaN'"),
    'bytes for text': sql("update call set engine=x'ff00fe'"),
    'seconds are text': sql("update call set seconds='x'"),
    'content lost': sql('delete from content'),
    'a view in place of a table': sql('alter table call rename to c2', 'create view call as select * from c2'),
    'a folder': lambda p: (p.unlink(), p.mkdir()),
    'a FIFO': lambda p: (p.unlink(), os.mkfifo(p)),
    'a link to /dev/zero': lambda p: (p.unlink(), p.symlink_to('/dev/zero')),
}
for label, change in STORES.items():
    case('stores', f'{label} (afb_judge)', 'afb_judge --run run', damaged(change))
    case('stores', f'{label} (afb_prompts why)', 'afb_prompts why --store run/traces.db --repo run', damaged(change))
    case(
        'stores',
        f'{label} (afb_curate goes on)',
        ['afb_curate', '--book', str(SAMPLE), '--benchmark', 'b.json', '--out', 'run'],
        damaged(change),
    )
for label, change in {
    'empty': '',
    'null': 'null',
    'a list': '[]',
    'cut': '{"questions": [',
    'nested': nested(100_000),
    'entries are numbers': '{"questions": [1, 2]}',
}.items():
    case(
        'stores',
        f'dataset.json {label} (afb_score)',
        ['afb_score', 'run/dataset.json', '--gold', str(SAMPLE / 'benchmark.json'), '--book', str(SAMPLE)],
        both(run_folder, put('run/dataset.json', change)),
        LOUD,
    )


# --- prompts' repositories --------------------------------------------------------------------------------------------
def repository(*changes):
    "A maker of a Git repository with a prompt, changed by a stranger."

    def make(d):
        put('repo/a.md', '---\npurpose: x\n---\nAnswer.\n')(d)
        put('victim', 'precious')(d)
        git = ['git', '-C', str(d / 'repo'), '-c', 'user.name=Ada', '-c', 'user.email=ada@example.org']
        for words in (['init', '-q', '-b', 'main'], ['add', '.'], ['commit', '-qm', 'one']):
            subprocess.run([*git, *words], check=True, capture_output=True)
        for change in changes:
            if callable(change):
                change(d / 'repo')
            else:
                subprocess.run([*git, *change], check=True, capture_output=True)

    return make


def script(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\ntouch "$(dirname "$0")/PWNED" PWNED\n')
    path.chmod(0o755)


def hooks(repo):
    for name in ('pre-commit', 'post-checkout', 'post-index-change', 'reference-transaction', 'fsmonitor-watchman'):
        script(repo / '.git/hooks' / name)


REPOSITORIES = {
    'hooks': [hooks],
    'a monitor of files': [lambda r: script(r / 'evil'), ['config', 'core.fsmonitor', './evil']],
    'a filter': [
        lambda r: script(r / 'evil'),
        ['config', 'filter.x.smudge', './evil'],
        lambda r: (r / '.gitattributes').write_text('*.md filter=x diff=x\n'),
    ],
    'a pager and an editor': [['config', 'core.pager', 'touch PWNED'], ['config', 'core.editor', 'touch PWNED']],
    'a config outside': [['config', 'include.path', '../../victim']],
    'a broken config': [lambda r: (r / '.git/config').write_text('[core\n')],
    'a prompt is a link': [linked('b.md', '../victim')],
    'a prompt is a FIFO': [fifo('b.md')],
    'a prompt is binary': [put('b.md', bytes(range(256)))],
    'a prompt of 5 MB': [put('b.md', 'x ' * 2_500_000)],
    'a deep prompt': [put('b.md', '---\na: ' + nested(5000) + '\n---\nx')],
    'YAML that calls': [put('b.md', '---\na: !!python/object/apply:os.system ["touch PWNED"]\n---\nx')],
    'YAML bomb': [
        put(
            'b.md',
            '---\n'
            + '\n'.join(f'a{i}: &a{i} [{", ".join(["*a"+str(i-1)]*9) if i else 1}]' for i in range(9))
            + '\n---\nx',
        )
    ],
    'no commit': [lambda r: [p.unlink() for p in (r / '.git/refs/heads').iterdir()]],
    'HEAD is garbage': [lambda r: (r / '.git/HEAD').write_text('garbage')],
    'HEAD points nowhere': [lambda r: (r / '.git/HEAD').write_text('ref: refs/heads/none\n')],
    'objects are gone': [lambda r: [p.unlink() for p in (r / '.git/objects').rglob('*') if p.is_file()]],
    'an alternate': [lambda r: (r / '.git/objects/info/alternates').write_text('/dev/zero\n')],
    '.git is a file': [
        lambda r: (subprocess.run(['rm', '-rf', r / '.git']), (r / '.git').write_text('gitdir: /proc/self'))
    ],
    'the index is garbage': [lambda r: (r / '.git/index').write_bytes(b'DIRC' + b'\xff' * 500)],
}
for label, changes in REPOSITORIES.items():
    for words in ('log', 'diff HEAD', 'bisect HEAD HEAD --run true'):
        case('prompts', f'{label} ({words.split()[0]})', f'afb_prompts {words} --repo repo', repository(*changes))
for words in (
    'log --at --help',
    'log --at HEAD~999',
    'log --at @{-1}',
    'log ../../victim',
    'diff a..b',
    'log --at \0',
    'log --at :/x',
    'log --at HEAD:a.md',
    'why zzz --store none.db',
):
    case(
        'prompts', words.replace('\0', '\\0'), ['afb_prompts', *words.split(' '), '--repo', 'repo'], repository(), LOUD
    )

# --- folders that somebody sent ---------------------------------------------------------------------------------------
TRAPS = (
    'voila',
    'glob',
    'json',
    'pandas',
    'agentfastbook',
    'sitecustomize',
    'usercustomize',
    'jupyter_server_config',
    'conftest',
    'torch',
    'sqlite3',
    'tqdm',
)
TRAP = "import pathlib\npathlib.Path(__file__).with_name('PWNED').write_text('x')\n"
for trap in TRAPS:
    case(
        'sent folders',
        f'{trap}.py beside the book',
        'afb_curate --book . --out out',
        both(put(f'{trap}.py', TRAP), put('01_good.md', PROSE)),
    )


# --- servers ----------------------------------------------------------------------------------------------------------
def chat(content='{"starts": [1]}', usage='{"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}', more=''):
    "A reply of an OpenAI-compatible server."
    return (
        f'{{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "usage": {usage}, {more}"choices": '
        f'[{{"index": 0, "finish_reason": "stop", "message": {{"role": "assistant", "content": {json.dumps(content)}}}}}]}}'
    )


def usage(tokens):
    return chat(usage=f'{{"prompt_tokens": {tokens}, "completion_tokens": {tokens}, "total_tokens": {tokens}}}')


SERVED = {}  # path of a server -> status, headers, body
for label, (status, headers, body) in {
    'a web page': (200, {'content-type': 'text/html'}, '<html>log in</html>'),
    'nothing': (200, {}, ''),
    'null': (200, {}, 'null'),
    'a list': (200, {}, '[]'),
    'an empty object': (200, {}, '{}'),
    'cut JSON': (200, {}, chat()[:50]),
    'nested JSON': (200, {}, nested(50_000)),
    'binary': (200, {}, bytes(range(256)).decode('latin-1')),
    'no choices': (200, {}, '{"choices": []}'),
    'choices are a number': (200, {}, '{"choices": 5}'),
    'choices are null': (200, {}, '{"choices": null}'),
    'a choice is null': (200, {}, '{"choices": [null]}'),
    'message is a text': (200, {}, '{"choices": [{"message": "x", "finish_reason": "stop"}]}'),
    'content is a number': (200, {}, '{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}'),
    'content is null': (200, {}, '{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
    'empty content': (200, {}, chat('')),
    'numbers out of range': (200, {}, chat('{"starts": [-1, 99999999999]}')),
    'numbers of 5,000 digits': (200, {}, chat('{"starts": [' + '9' * 5000 + ']}')),
    'infinite numbers': (200, {}, chat('{"starts": [1e999, NaN]}')),
    'texts for numbers': (200, {}, chat('{"starts": ["one"]}')),
    'lone surrogates': (200, {}, chat('{"starts": [1], "x": "\udc80"}')),
    'a reply of 5 MB': (200, {}, chat('word ' * 1_000_000)),
    'usage of 10^20': (200, {}, usage(10**20)),
    'usage as text': (200, {}, usage('"9"')),
    'negative usage': (200, {}, usage(-1_000_000)),
    'infinite usage': (200, {}, usage('1e999')),
    'usage is NaN': (200, {}, usage('NaN')),
    'usage is null': (200, {}, chat(usage='null')),
    'usage is a list': (200, {}, chat(usage='[1]')),
    'pause of an hour': (429, {'retry-after': '3600'}, '{}'),
    'negative pause': (400, {'retry-after': '-5'}, '{}'),
    'pause that is no number': (400, {'retry-after': 'NaN'}, '{}'),
    'elsewhere': (302, {'location': 'http://127.0.0.1:1/'}, ''),
    'elsewhere, for ever': (302, {'location': '/loop'}, ''),
    'a file': (302, {'location': 'file:///etc/passwd'}, ''),
    'not allowed': (403, {}, '<html>no</html>'),
    'not found': (404, {}, '{"error": 5}'),
    'an error of 1 MB': (400, {}, 'x' * 1_000_000),
    'escape codes in an error': (400, {}, '{"error": {"message": "\u001b[31m\u0007 red"}}'),
    'a key in an error': (401, {}, '{"error": {"message": "bad key sk-ant-api03-' + 'a1B2' * 22 + '"}}'),
}.items():
    SERVED[f'/{len(SERVED)}'] = status, headers, body
    words = ['afb_curate', '--book', str(SAMPLE), '--benchmark', 'b.json', '--out', 'out', '--lm']
    case('servers', label, [*words, f'@SERVER/{len(SERVED) - 1}#m'], put('b.json', entries()), LOUD)


class Stranger(BaseHTTPRequestHandler):
    "A server that answers every request to a path in the same way."

    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get('content-length') or 0))
        path = next((path for path in SERVED if self.path.startswith(path + '/')), '/0')
        status, headers, body = SERVED[path]
        data = body.encode('utf-8', 'surrogatepass')
        self.send_response(status)
        for name, value in {'content-type': 'application/json', 'content-length': len(data), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST


@contextmanager
def strangers():
    "The address of the server, in a process of its own."
    server = ThreadingHTTPServer(('127.0.0.1', 0), Stranger)
    process = get_context('fork').Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        process.kill()


# --- running them -----------------------------------------------------------------------------------------------------
def child(case, folder, address):
    "The command in a process of its own, as its script starts it; what it prints goes into two files."
    os.setsid()
    os.chdir(folder)
    for fd, name in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(os.open(f'{folder}.{name}', os.O_WRONLY | os.O_CREAT, 0o600), fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for key in [k for k in os.environ if k.endswith('_API_KEY')]:
        del os.environ[key]
    sys.argv = [word.replace('@SERVER', address) for word in case.words]
    try:
        COMMANDS[case.words[0]]()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70
    return 0


def run(case, seconds, address):
    "What became of a case: outcome, words, seconds."
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / 'case'
        folder.mkdir()
        case.make(folder)
        start, pid = time.monotonic(), os.fork()
        if not pid:
            code = 70
            try:
                code = child(case, folder, address)
            except BaseException as e:
                print(repr(e), file=sys.stderr)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() - start < seconds:
            time.sleep(0.005)
        took, hung = time.monotonic() - start, ended[0] == 0
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        if hung:
            os.waitpid(pid, 0)
        said = {k: Path(f'{folder}.{k}').read_text(encoding='utf-8', errors='replace') for k in ('stdout', 'stderr')}
        return outcome(case, folder, said, None if hung else os.waitstatus_to_exitcode(ended[1])), said, took


def outcome(case, folder, said, status):
    victim, text = folder / 'victim', said['stdout'] + said['stderr']
    if list(folder.rglob('PWNED')) or Path('PWNED').exists() or victim.exists() and victim.read_text() != 'precious':
        return 'executed'
    if status is None:
        return 'hang'
    if 'Traceback (most recent call last)' in text or status not in (0, 1, 2):
        return 'traceback'
    found = {0: 'done', 1: 'named', 2: 'refused'}[status]
    if found == 'refused' and not said['stderr'].strip() and not said['stdout'].strip():
        return 'silent'
    return found if found in case.allowed else 'silent'


def last_line(said):
    lines = [
        line
        for line in (said['stderr'] or said['stdout']).replace('\r', '\n').splitlines()
        if line.strip() and 'question/s]' not in line
    ]
    named = [line for line in lines if line.startswith(('failed:', 'error:', 'warning:'))]
    return ascii(' '.join((named or lines or [''])[-1].split()))[1:-1][:150]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('families', nargs='*', help='only families whose name begins so')
    parser.add_argument('--list', action='store_true', help='a line for each input')
    parser.add_argument('--seconds', type=float, default=10.0, help='longer is a hang (default: 10)')
    args = parser.parse_args()
    chosen = [c for c in CASES if not args.families or c.family.startswith(tuple(args.families))]
    counts, slowest = defaultdict(Counter), Counter()
    with strangers() as address:
        for c in chosen:
            found, said, took = run(c, args.seconds, address)
            counts[c.family][found] += 1
            slowest[c.family] = max(slowest[c.family], took)
            if args.list or found not in ANY:
                print(f'{found:9} {took:5.1f} s  {c.family}: {ascii(c.name)[1:-1]}  |  {last_line(said)}', flush=True)
    columns = ('done', 'named', 'refused', 'silent', 'traceback', 'executed', 'hang')
    print(f'\n{"family":30}' + ''.join(f'{c:>10}' for c in columns) + '   slowest')
    for family, found in counts.items():
        print(f'{family:30}' + ''.join(f'{found[c]:10}' for c in columns) + f'{slowest[family]:8.1f} s')
    total = sum(counts.values(), Counter())
    print(f'{len(chosen):<5} inputs' + ' ' * 18 + ' '.join(f'{total[c]:9}' for c in columns))
    if any(total[c] for c in columns if c not in ANY):
        sys.exit(1)


if __name__ == '__main__':
    main()
