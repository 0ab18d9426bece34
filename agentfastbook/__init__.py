"""Curate retrieval datasets from textbooks: split gold answers into facts, find their passages, keep the verbatim text.

    >>> from agentfastbook import curate, load_benchmark, read_book, review, sample, sample_path, score, Store
    >>> book = read_book(sample_path())                  # a folder of notebooks or Markdown files, 01_name.ipynb
    >>> gold = load_benchmark(sample_path()/'benchmark.json')   # questions, gold answers, components by hand
    >>> run = curate(book, gold, 'afb_out')              # by rules; a run that was stopped goes on
    >>> run.summary
    '21 questions curated, 0 failed; 40 components, 37 of them with 47 contexts'
    >>> table = score(run, gold, book)                   # step, measure, value, low, high
    >>> calls = Store('afb_out/traces.db').calls()       # what every step was given, and what it gave
    >>> some = sample(calls, 9, 'stratified', by='step') # what to look at first
    >>> page = review('afb_out', 'extract')              # read, label and correct: show it in a notebook

A language model decomposes with `curate(..., decompose=LMDecomposer(open_lm('claude-haiku-4-5')))`, a class of
`agentfastbook.engines.lm_decompose`; `estimate` gives the true pass rate behind a judge's verdicts. The command `afb`
does the same from a shell.
"""
__version__ = "0.1.0"

_HOMES = {'read_book': 'books.chapters', 'sample_path': 'books.chapters', 'load_benchmark': 'books.questions',
          'curate': 'engines.pipeline', 'score': 'engines.scoring', 'sample': 'look.sampling', 'review': 'look.page',
          'estimate': 'stats.estimation', 'open_lm': 'lm.local', 'Store': 'store.runs'}
__all__ = list(_HOMES)


def __getattr__(name):
    "A public name, from its module, which is imported when the name is first used."
    if name not in _HOMES: raise AttributeError(f"module 'agentfastbook' has no attribute {name!r}")
    from importlib import import_module
    found = globals()[name] = _described(getattr(import_module(f'agentfastbook.{_HOMES[name]}'), name))
    return found


def __dir__(): return sorted({*globals(), *__all__})


def _described(thing):
    "The same function or class; its docstring also has the comments of its parameters, for `help`."
    from fastcore.docments import docments
    comments = docments(thing, full=True)
    lines = [f'    {name}: {about.docment}' for name, about in comments.items() if name != 'return' and about.docment]
    returned = comments['return'].docment if 'return' in comments else None
    if returned: lines += ['', f'Returns: {returned}']
    if lines: thing.__doc__ = '\n'.join([thing.__doc__ or '', '', 'Parameters:', *lines])
    return thing
