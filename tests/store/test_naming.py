"A name covers all that a result depends on, is the same in another process, or is refused."
import functools
import importlib
import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from agentfastbook.store import naming
from agentfastbook.books.questions import Component, load_benchmark
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.text.spans import FastbookError
from agentfastbook.judges.judge import judge_run, judge_version
from agentfastbook.store.naming import engine_name, engine_version
from agentfastbook.engines.pipeline import curate
from agentfastbook.prompts.asking import Asker
from agentfastbook.engines.retrieve import BM25, Retriever
from agentfastbook.store.runs import Store
from conftest import ROOT

N, TABLE = 1, dict(a=[1, 2], b={'x', 'y'})


def in_module(source, name='f'):
    "A function of a module that was just written."
    module = {'__name__': '__main__'}
    exec(source, module)
    return module[name]


EDITS = {  # what is edited: source before, source after
    'code': ('def f(q): return q[:1]', 'def f(q): return q[:2]'),
    'default': ('def f(q, n=1): return q[:n]', 'def f(q, n=2): return q[:n]'),
    'keyword default': ('def f(q, *, n=1): return q[:n]', 'def f(q, *, n=2): return q[:n]'),
    'lambda inside': ('def f(q): return sorted(q, key=lambda s: len(s))', 'def f(q): return sorted(q, key=lambda s: -len(s))'),
    'function inside': ('def f(q):\n def g(x): return x+1\n return g(q)', 'def f(q):\n def g(x): return x+2\n return g(q)'),
    'comprehension': ('def f(q): return [x+1 for x in q]', 'def f(q): return [x+2 for x in q]'),
    'closure': ('def m(n):\n def f(q): return q[:n]\n return f\nf = m(1)', 'def m(n):\n def f(q): return q[:n]\n return f\nf = m(2)'),
    'closure of an inner lambda': ('def m(n): return lambda q: list(map(lambda x: x+n, q))\nf = m(1)',
                                   'def m(n): return lambda q: list(map(lambda x: x+n, q))\nf = m(2)'),
    'global': ('N = 1\ndef f(q): return q[:N]', 'N = 2\ndef f(q): return q[:N]'),
    'global of an inner function': ('N = 1\ndef f(q): return [x for x in map(lambda x: x+N, q)]',
                                    'N = 2\ndef f(q): return [x for x in map(lambda x: x+N, q)]'),
    'global table': ('T = {"a": [1, {2}]}\ndef f(q): return T', 'T = {"a": [1, {3}]}\ndef f(q): return T'),
    'helper': ('def g(x): return x\ndef f(q): return g(q)', 'def g(x): return -x\ndef f(q): return g(q)'),
    "helper's global": ('N = 1\ndef g(x): return x+N\ndef f(q): return g(q)', 'N = 2\ndef g(x): return x+N\ndef f(q): return g(q)'),
    'partial': ('from functools import partial\ndef g(q, n): return n\nf = partial(g, n=1)',
                'from functools import partial\ndef g(q, n): return n\nf = partial(g, n=2)'),
    'function of a partial': ('from functools import partial\ndef g(q, n): return n\nf = partial(g, n=1)',
                              'from functools import partial\ndef g(q, n): return -n\nf = partial(g, n=1)'),
    'setting': ('class C:\n def __init__(self, n): self.n = n\n def __call__(self, q): return self.n\nf = C(1)',
                'class C:\n def __init__(self, n): self.n = n\n def __call__(self, q): return self.n\nf = C(2)'),
    'setting that the repr hides': (
        'class C:\n n = 1\n def __call__(self, q): return self.n\n def __repr__(self): return "C"\nf = C()\nf.n = 1',
        'class C:\n n = 1\n def __call__(self, q): return self.n\n def __repr__(self): return "C"\nf = C()\nf.n = 2'),
    'slot': ('class C:\n __slots__ = ("n",)\n def __call__(self, q): return self.n\nf = C()\nf.n = 1',
             'class C:\n __slots__ = ("n",)\n def __call__(self, q): return self.n\nf = C()\nf.n = 2'),
    'method': ('class C:\n def __call__(self, q): return self.g()\n def g(self): return 1\nf = C()',
               'class C:\n def __call__(self, q): return self.g()\n def g(self): return 2\nf = C()'),
    'method of a base': ('class B:\n def g(self): return 1\nclass C(B):\n def __call__(self, q): return self.g()\nf = C()',
                         'class B:\n def g(self): return 2\nclass C(B):\n def __call__(self, q): return self.g()\nf = C()'),
    'property': ('class C:\n @property\n def n(self): return 1\n def __call__(self, q): return self.n\nf = C()',
                 'class C:\n @property\n def n(self): return 2\n def __call__(self, q): return self.n\nf = C()'),
    'bound method': ('class C:\n def __init__(self, n): self.n = n\n def g(self, q): return self.n\nf = C(1).g',
                     'class C:\n def __init__(self, n): self.n = n\n def g(self, q): return self.n\nf = C(2).g'),
    'dataclass': ('from dataclasses import dataclass\n@dataclass\nclass C:\n n:int=1\n def __call__(self, q): return self.n\nf = C()',
                  'from dataclasses import dataclass\n@dataclass\nclass C:\n n:int=2\n def __call__(self, q): return self.n\nf = C()'),
    'decorated': ('import functools\ndef d(g):\n @functools.wraps(g)\n def w(q): return g(q)\n return w\n@d\ndef f(q): return 1',
                  'import functools\ndef d(g):\n @functools.wraps(g)\n def w(q): return g(q)\n return w\n@d\ndef f(q): return 2'),
    'decorator': ('import functools\ndef d(g):\n @functools.wraps(g)\n def w(q): return g(q)\n return w\n@d\ndef f(q): return 1',
                  'import functools\ndef d(g):\n @functools.wraps(g)\n def w(q): return -g(q)\n return w\n@d\ndef f(q): return 1'),
    'cached': ('import functools\n@functools.lru_cache\ndef f(q): return 1', 'import functools\n@functools.lru_cache\ndef f(q): return 2'),
    'array': ('import numpy as np\nW = np.arange(3)\ndef f(q): return W', 'import numpy as np\nW = np.arange(4)\ndef f(q): return W'),
    'pattern': ('import re\nP = re.compile("a")\ndef f(q): return P', 'import re\nP = re.compile("b")\ndef f(q): return P'),
    'function of a package': ('import numpy as np\ndef f(q): return np.sum(q)', 'import numpy as np\ndef f(q): return np.max(q)'),
    'one that calls itself': ('def f(q): return f(q-1) if q else 0', 'def f(q): return f(q-1) if q else 1'),
}


@pytest.mark.parametrize('what', EDITS)
def test_an_edit_is_another_name(what):
    before, after = EDITS[what]
    assert engine_version(in_module(before)) == engine_version(in_module(before))
    assert engine_version(in_module(before)) == engine_version(in_module('\n\n# moved down\n'+before))
    assert engine_version(in_module(before)) != engine_version(in_module(after))


def test_the_same_name_in_every_process(tmp_path):
    script = tmp_path/'names.py'
    script.write_text(f'import sys\nsys.path[:0] = {[str(ROOT/"tests"), str(ROOT/"tests"/"store")]!r}\nfrom test_naming import *\n'
                      'print([engine_version(in_module(s)) for pair in EDITS.values() for s in pair])\n'
                      'def reads(q): return TABLE, {"yeast", "gas", "dough"}, q in {"a", "b", "c"}\nprint(engine_version(reads))\n')
    said = {subprocess.run([sys.executable, script], text=True, capture_output=True, check=True,
                           env={**os.environ, 'PYTHONHASHSEED': seed}).stdout for seed in '123'}
    assert len(said) == 1 and said.pop().strip()


def test_a_helper_in_a_module_of_the_user(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)  # within a second, a file of the same size is not read again
    helper = tmp_path/'my_helper.py'
    uses = ['import my_helper\ndef f(q): return my_helper.clean(q)', 'from my_helper import clean\ndef f(q): return clean(q)',
            'def f(q):\n from my_helper import clean\n return clean(q)', 'def f(q):\n import my_helper\n return my_helper.clean(q)']
    def names(body):
        helper.write_text(f'def clean(x): return {body}\n')
        importlib.invalidate_caches()
        sys.modules.pop('my_helper', None)
        return [engine_version(in_module(use)) for use in uses]
    before = names('x.strip()')
    assert names('x.strip()') == before
    assert all(a != b for a, b in zip(before, names('x.lower()')))
    sys.modules.pop('my_helper', None)


def test_a_module_of_the_user_with_the_name_of_one_of_pythons(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)  # within a second, a file of the same size is not read again
    def name(body):
        (tmp_path/'this.py').write_text(f'def clean(x): return {body}\n')
        importlib.invalidate_caches()
        naming._package.cache_clear()
        sys.modules.pop('this', None)
        return engine_version(in_module('from this import clean\ndef f(q): return clean(q)'))
    assert name('x.strip()') == name('x.strip()') != name('x.lower()')
    sys.modules.pop('this', None)
    naming._package.cache_clear()
    assert naming._package('json') == naming._package('sys') == naming._package('itertools') != ''


def test_a_version_of_a_function_counts_also_as_a_number():
    def engine(q): return [q]
    engine.version = 1
    first = engine_version(engine)
    engine.version = 2
    assert engine_version(engine) != first


@pytest.mark.parametrize('make', [lambda tmp: open(tmp/'x', 'w'), lambda tmp: sqlite3.connect(':memory:'), lambda tmp: (i for i in 'ab')])
def test_what_cannot_be_read_is_refused(make, tmp_path):
    thing = make(tmp_path)
    def closes_over(): return lambda q: thing
    def by_default(q, thing=thing): return thing
    class Holds:
        def __init__(self): self.inside = [thing]
        def __call__(self, q): return self.inside
    for engine in (closes_over(), by_default, Holds(), functools.partial(len, thing)):
        with pytest.raises(FastbookError, match=r"can't be read .*engine\.version = '1'"): engine_name(engine)
    by_default.version = '1'
    assert engine_name(by_default).endswith('by_default 1')


def test_a_package_goes_by_its_version(monkeypatch):
    before = engine_version(np.sum), engine_version(lambda q: np.sum(q))
    monkeypatch.setattr(naming, '_version', lambda top, found: '99')
    naming._package.cache_clear()
    after = engine_version(np.sum), engine_version(lambda q: np.sum(q))
    naming._package.cache_clear()
    assert before[0] != after[0]


def make(n):
    def first_words(question): return [Component(' '.join(question.gold_answer.split()[:n]))]
    return first_words


def test_a_changed_engine_is_asked_in_the_same_folder(tmp_path):
    "One word, then five words: the second run must not return the first one's results."
    book, benchmark = read_book(sample_path()), load_benchmark(sample_path()/'benchmark.json')
    answer = benchmark.questions[0].gold_answer.split()
    for n in (1, 5):
        found = curate(book, benchmark, tmp_path, decompose=make(n), progress=False)
        assert found.questions[0].components[0].text == ' '.join(answer[:n])
    store = Store(tmp_path/'traces.db')
    def limit(n): return lambda case: len(case.pieces[0]) <= n
    assert judge_run(store, dict(short=limit(0)))['passed'].tolist() != judge_run(store, dict(short=limit(10**9)))['passed'].tolist()
    assert judge_version(limit(1)) != judge_version(limit(2))


def test_a_judge_with_a_changing_state_keeps_its_version_for_a_run(tmp_path):
    book, benchmark = read_book(sample_path()), load_benchmark(sample_path()/'benchmark.json')
    curate(book, benchmark, tmp_path, progress=False)
    class Counts:
        def __init__(self): self.n = 0
        def __call__(self, case): self.n += 1; return True
    judged = judge_run(Store(tmp_path/'traces.db'), dict(counts=Counts()))
    assert len(judged) and judged.version.nunique() == 1


def test_an_edited_index_is_another_retriever():
    def all_of(passages): return BM25(passages)
    def few_of(passages): return BM25(passages[:1])
    assert engine_name(Retriever(all_of)) != engine_name(Retriever(few_of))
    assert engine_name(Retriever()) == engine_name(Retriever())


def test_nothing_is_asked_before_an_engine_is_refused(tmp_path):
    thing, asked = sqlite3.connect(':memory:'), []
    def decompose(question): asked.append(question); return thing
    with pytest.raises(FastbookError, match='thing'):
        curate(read_book(sample_path()), sample_path()/'benchmark.json', tmp_path/'out', decompose=decompose, progress=False)
    assert asked == [] and not (tmp_path/'out'/'traces.db').exists()


def test_naming_is_fast_with_an_index_in_memory():
    chapter, retriever = read_book(sample_path())[1], Retriever()
    retriever('yeast', chapter)
    start = time.perf_counter()
    engine_name(retriever)
    assert time.perf_counter()-start < 1


def test_another_name_does_not_pay_a_model_twice(tmp_path):
    "The same requests to the same model come from the record, whatever the engines around it are called."
    from agentfastbook.lm.calls import LM
    from agentfastbook.engines.lm_decompose import LMDecomposer
    from agentfastbook.lm.reply import Reply, Usage
    sent = []
    class Numbers(LM):
        def _send(self, request, timeout, on_text):
            sent.append(request)
            return Reply('', dict(starts=list(range(1, 40))), Usage(1, 1), stop_reason='tool_use')
    benchmark = sample_path()/'benchmark.json'
    for n in (1, 2):
        def extract(component, ranked, chapter, n=n): return []
        curate(sample_path(), benchmark, tmp_path, decompose=LMDecomposer(Numbers('numbers')), extract=extract, progress=False)
        if n == 1: first = len(sent)
    assert first and len(sent) == first
