"""How long do the functions that read free text take on hostile texts? python benchmarks/texts.py [--size 100000]

Each function reads each pattern, repeated up to the size, in a process that is ended after 10 seconds. Seconds are those of
the processor. Growth is that of the worst pattern from half of the size: 2 for linear time, 4 for quadratic time. A
`FastbookError` is a fine answer; any other error is named. A row is marked with ! if a cell takes a second or more.
Functions that compare two texts get hostile texts on both sides, equal up to the last character. Functions of a chapter get
one that has been read: reading is a function of its own.
"""
import argparse,base64,gc,json,multiprocessing,random,re,resource,tempfile,time,warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import scipy.optimize,scipy.sparse # by functions that need them: not a part of their time

from agentfastbook.books import questions as bm,export,defects as lint
from agentfastbook.judges import checks
from agentfastbook.look import coding,grouping
from agentfastbook.text import spans as core,quotes,files,differences
from agentfastbook.engines import extract,lm_decompose
from agentfastbook.engines import lm_extract,retrieve
from agentfastbook.judges import lm_judge
from agentfastbook.stats import matching,metrics
from agentfastbook.lm import reply
from agentfastbook.text import secrets,html as show
from agentfastbook.prompts import shortening as shorten,templates
from agentfastbook.look import steps
from agentfastbook.look import views
from agentfastbook.books.chapters import passages,questionnaire,read_book,read_chapter
from agentfastbook.engines.decompose import RuleDecomposer,decompose_spans,show_components
from agentfastbook.judges.judge import Case
from agentfastbook.tiny.encode import plain_words

LIMIT = 10 # seconds of the processor for a text

def _random_words(n):
    rng = random.Random(0)
    return ' '.join(''.join(rng.choices('abcdefghijklmnop', k=rng.randint(1, 8))) for _ in range(n//4))

def _subsets(n):
    "Sentences of three words out of thirty."
    rng,words = random.Random(0),_random_words(400).split()[:30]
    return ' '.join(f"{' '.join(rng.sample(words, 3))}." for _ in range(n//15))

def _base64(n): return base64.b64encode(random.Random(0).randbytes(n)).decode()
def _growing(n): return ' '.join('a'*i for i in range(1, int((2*n)**.5)+2))
def _front(n): return '---\nname: x\npurpose: '+'--- '*(n//4)
def _nested(n): return ''.join(f"{'  '*(i % 60)}- a\n" for i in range(n//30))
def _fibonacci(n):
    a,b = 'a','ab'
    while len(b) < n: a,b = b,b+a
    return b

PATTERNS = { # name: what is repeated, or a function of the number of characters
    'links cut off': '](.aa#', 'ellipses': 'a ... b ... c ', 'ellipsis of one word': 'a ... ', 'one word': 'a ', 'one letter': 'a',
    'abab': 'ab', 'brackets': '(', 'closed brackets': '[](', 'stars': '*',
    'underscores': '_', 'words and underscores': 'a__', 'backticks': '`', 'backtick runs': '`a``b```c',
    'dollars': '$', 'open tags': '<component>',
    'html comments': '<!-- ', 'html': '<div><p>a', 'tables': '| a | b |\n|---|---|\n', 'table cells': '|a', 'lists': '- a\n',
    'nested lists': _nested, 'quotes': '> ', 'deep quotes': '>',
    'quoted lists': '> - a\n', 'headings in a row': '#\n', 'blank lines': 'a\n\n',
    'spaces': ' ', 'word after spaces': 'a' + ' '*50, 'quotation marks': '"',
    'curly quotes': '“a” ‘b’ ', 'dashes': '—',
    'dots': '.', 'stops': '. ', 'ellipsis characters': '…', 'digits': '1', 'numbers': '1.5 -2 ',
    'versions': '1.2.3.', 'negations': 'not ', "n't": "don't ",
    'equal sentences': 'The yeast eats sugar. ', 'abbreviations': 'e.g. ', 'questions': 'a?! ',
    'semicolons': 'one two three four five six; ',
    'Chinese': '酵母吃糖。', 'Chinese without stops': '酵母吃糖', 'combining marks': 'e\u0301',
    'emoji': '👩\u200d👩\u200d👧 ', 'right to left': '\u202eאב ', 'zero width': '\u200b', 'NUL': '\0', 'surrogates': '\ud800',
    'entities': '&amp;', 'addresses': 'https://a.b/c?d=e#f ', 'paths': 'a/b.c', 'base64': _base64, 'CRLF': 'a\r\n',
    'fences': '```\na\n', 'front matter': _front,
    'references': '[a]: b\n', 'images': '![](', 'fields': '{{a}} ',
    'backslashes': '\\', 'keys': 'sk-1',
    'private keys': '-----BEGIN ', 'URLs with users': '://a:b', 'JSON': '{"a":',
    'random words': _random_words, 'growing words': _growing, 'Fibonacci words': _fibonacci, 'sets of words': _subsets,
    'long words': 'a'*1000+' ', 'camel case': 'aB', 'sharp s': 'ß',
}

def text_of(
    pattern:str, # name in `PATTERNS`
    size:int, # characters
)->str:
    "A pattern, repeated."
    what = PATTERNS[pattern]
    return what(size)[:size] if callable(what) else (what*(size//len(what)+1))[:size]

# What is measured: functions of one text

_FOLDER = Path(tempfile.mkdtemp(prefix='texts-'))

def _changed(text): return text[:-1]+('z' if text[-1:] != 'z' else 'y')
def _chunks(text, n): return [text[i:i+len(text)//n+1] for i in range(0, len(text), len(text)//n+1)]

def _file(text, name, folder='f'):
    path = _FOLDER/folder/name
    path.parent.mkdir(exist_ok=True)
    return files.write_file(path, [text])

def _md(text): return read_chapter(_file('# T\n\n'+text.replace('\ud800', '\ufffd'), '01_a.md'))

def _nb(text):
    cells = [dict(cell_type=k, source=s, metadata={}, outputs=[]) for s in _chunks(text, 400) for k in ('markdown','code')]
    return read_chapter(_file(json.dumps(dict(cells=cells)), '01_a.ipynb', 'n'))

def _book(text):
    _file('# T\n\n'+text.replace('\ud800', '\ufffd'), '01_a.md', 'b')
    return read_book(_FOLDER/'b')

def _raw(answer, parts, contexts=()):
    entries = [dict(answer_component=p, context=list(contexts)) for p in parts]
    return {'questions': [dict(chapter=1, question_number=1, question_text='Why?', gold_standard_answer=answer,
                               answer_context=entries, question_context=[])]}

def _question(text): return bm.Question(1, 1, text[:1000], text)
def _component(text): return bm.Component(text, query=f'Why? {text}')

def _chapter(text): return text,_md(text)
def _text_and_book(text): return text,_book(text)

def _extract(chapter, component):
    ranked = retrieve.Retriever()(component, chapter)
    return extract.RuleExtractor()(component, ranked, chapter)

def _whole(chapter): return [retrieve.RankedPassage(p, 1.) for p in passages(chapter, 10**6)]

def _extract_all(text, chapter):
    return extract.RuleExtractor()(_component(text[:200]), _whole(chapter), chapter)

def _case(text, step, pieces):
    output = [dict(text=text[a:b], spans=[(a, b)]) for a,b in pieces]
    return Case('1', '1', step, {'gold_answer': text, 'question': 'Why?'}, output, text)

def _pieces(text, n): return [(i, min(i+len(text)//n+1, len(text))) for i in range(0, len(text), len(text)//n+1)]

def _checks(text):
    case = _case(text, 'decompose', _pieces(text, 1000))
    return [check(case) for check in checks.CHECKS['decompose'].values()]

def _prompt(text): return templates.Prompt('x', text if '{{a}}' in text else text+' {{a}}', {'a': 'b'})

def _codes(text):
    notes = pd.DataFrame(dict(item='1', text=_chunks(text, 200)))
    return coding.open_codes(notes)

def _lines(text): return [text[i:i+33] for i in range(0, len(text), 33)]

FUNCTIONS = { # name: function of a text; or how a text is prepared, and a function of what that gives
    'fold': quotes.fold,
    'locate: itself': lambda t: quotes.locate(t, t),
    'locate: but for the end': lambda t: quotes.locate(_changed(t), t),
    'locate: half': lambda t: quotes.locate(t[:len(t)//2], t),
    'locate: half in capitals': lambda t: quotes.locate(t[:len(t)//2].upper(), t, near=len(t)//2),
    'locate: half, but for the end': lambda t: quotes.locate(_changed(t[:len(t)//2]), t),
    'locate: short': lambda t: quotes.locate(t[:20], t, near=len(t)//2),
    'locate: marks around': lambda t: quotes.locate('('*len(t)+t[:20]+')'*len(t), t),
    'locate: one ellipsis': lambda t: quotes.locate(f'{t[:9]} ... {_changed(t[:9])}', t),
    'locate: ellipsis far away': lambda t: quotes.locate(f'{t[:9]} ... end', t+' end'),
    'locate: all elided': lambda t: quotes.locate(' ... '.join(_chunks(t, 5000)), t),
    'locate: elided, but for the end': lambda t: quotes.locate(' ... '.join([*_chunks(t, 5000), 'end']), t+'. '*400+'end'),
    'locate_all: short': lambda t: quotes.locate_all(t[:5], t),
    'sentences': core.sentences,
    'count_tokens': core.count_tokens,
    'content_id': lambda t: core.content_id(t) if t.isprintable() else None,
    'read_chapter: Markdown': _md,
    'read_chapter: notebook': _nb,
    'questionnaire': lambda t: questionnaire(_file('## Questionnaire\n\n1. '+t.replace('\ud800', '?'), '01_q.md')),
    'passages': (_chapter, lambda t, c: passages(c, 20)),
    'unquote': lambda t: bm.unquote('"'+t),
    'find_components: itself': lambda t: bm.find_components(t, [[t], [t.upper()], [_changed(t)]]),
    'find_components: equal': lambda t: bm.find_components(t, [[t[:33]]]*3000),
    'find_components: equal but for case': lambda t: bm.find_components(t, [[t[:33].swapcase()]]*3000),
    'find_components: pieces': lambda t: bm.find_components(t, [[p] for p in _lines(t)]+[_lines(t)]),
    'find_components: growing': lambda t: bm.find_components(t, [[t[:i]] for i in range(1, int((2*len(t))**.5))]),
    'find_components: lost pieces': lambda t: bm.find_components(t, [[_changed(p)] for p in _lines(t)]),
    'parse_benchmark': lambda t: bm.parse_benchmark(_raw(t, _lines(t))),
    'locate_contexts': (_text_and_book, lambda t, b: bm.locate_contexts(bm.parse_benchmark(_raw('x', ['x'], _lines(t))), b)),
    'lint: equal components': lambda t: lint.lint(bm.parse_benchmark(_raw(t, [t[:33] or 'x']*3000))),
    'lint: components': lambda t: lint.lint(bm.parse_benchmark(_raw(t, _lines(t)))),
    'lint: nested components': lambda t: lint.lint(bm.parse_benchmark(_raw(t, [t[:100+i] for i in range(400)]))),
    'lint: contexts': (_text_and_book, lambda t, b: lint.lint(
        bm.parse_benchmark(_raw('x', ['x'], [t[:50], *_chunks(t.upper(), 100)])), b)),
    'ceilings': (_text_and_book, lambda t, b: lint.ceilings(
        bm.parse_benchmark(_raw('x', ['x'], _chunks(t, 100))), b, 200)),
    'repair': (_text_and_book, lambda t, b: lint.repair(bm.parse_benchmark(_raw('x', ['x'], _chunks(t, 100))), b)),
    'decompose_spans': lambda t: [decompose_spans(t, g) for g in ('standard','fine','whole')],
    'RuleDecomposer': lambda t: RuleDecomposer()(_question(t)),
    'show_components': lambda t: show_components(t, decompose_spans(t)),
    'score_decomposition': lambda t: matching.score_decomposition([(t, _lines(t), _lines(t))]),
    'score_decomposition: reworded': lambda t: matching.score_decomposition([(t, [t], [_changed(t), t[:9]+' x'])]),
    'label_components': lambda t: matching.label_components(t, _lines(t), [_changed(p) for p in _lines(t)]),
    'word_diff': lambda t: differences.word_diff(t, t[len(t)//2:]+_changed(t[:len(t)//2])),
    'mark_words': lambda t: differences.mark_words(t, _random_words(len(t))),
    'differences of steps': lambda t: steps.differences(t, t[::-1]),
    'sentence_blocks': (_chapter, lambda t, c: extract.sentence_blocks(c)),
    'RuleExtractor: its own text': (_chapter, lambda t, c: _extract(c, _component(t))),
    'RuleExtractor: a sentence': (_chapter, lambda t, c: _extract(c, _component(t[:200]))),
    'RuleExtractor: a passage': (_chapter, _extract_all),
    'terms': retrieve.terms,
    'BM25': lambda t: retrieve.BM25(_chunks(t, 200)).search(t),
    'show_ranked': lambda t: retrieve.show_ranked([retrieve.RankedPassage(p, 1.) for p in _chunks(t, 100)], t[:100]),
    'matched_words': lambda t: steps.matched_words(t, t),
    'visible': show.visible,
    'highlight': lambda t: show.highlight(t, [(core.Span(i, min(i+9, len(t))), i) for i in range(0, len(t), 3)], numbered=True),
    'highlight: nested': lambda t: show.highlight(t, [(core.Span(i, len(t)-i), i) for i in range(0, len(t)//2, 17)]),
    'view_html': lambda t: views.view_html(views.View('1', t, (views.Panel('a', t),), (views.Part('a', t),), (('a', t),))),
    'find_secrets': secrets.find_secrets,
    'mask_secrets': secrets.mask_secrets,
    'redact': reply.redact,
    'parse_prompt': lambda t: templates.parse_prompt('---\nname: x\n---\n'+t),
    'parse_prompt: front matter': lambda t: templates.parse_prompt('---\n'+t),
    'fill': lambda t: templates.fill(_prompt(t), {'a': t}),
    'estimate_tokens': templates.estimate_tokens,
    'propose_cuts': lambda t: shorten.apply_cuts(_prompt(t), shorten.propose_cuts(_prompt(t))),
    'unused passages': lambda t: shorten._is_quoted(t, _changed(t[len(t)//2:])),
    'read_tags': lm_decompose.read_tags,
    'locate_components': lambda t: lm_decompose.snap(lm_decompose.locate_components(_lines(t), t), t, merge=True),
    'locate_components: equal': lambda t: lm_decompose.locate_components([t[:33]]*3000, t),
    'read_starts': lambda t: lm_decompose.read_starts(list(range(1, len(t)//2, 2)), [t]),
    'numbered_sentences': (_chapter, lambda t, c: lm_extract.numbered_sentences(_whole(c), c)),
    'read_verdict': lambda t: lm_judge.read_verdict(dict(verdict='pass', critique=t, evidence=t), Case('1', '1', 'text', {}, t, t)),
    'content_words': checks.content_words,
    'numbers_in': checks.numbers_in,
    'checks': _checks,
    'open_codes and suggest_modes': lambda t: grouping.suggest_modes(_codes(t)),
    'occurrences': lambda t: (metrics.occurrences(t[:len(t)//2], t), metrics.occurrences(t[:5], t)),
    'character_f1': lambda t: metrics.character_f1(t, [t[:len(t)//2]], [t[:len(t)//3]]),
    'plain_words': plain_words,
}

def measure(
    name:str, # of a function
    pattern:str, # name in `PATTERNS`
    size:int, # characters
)->tuple[float,str]: # seconds, and the error's name
    "Run one cell."
    text,error,function = text_of(pattern, size),'',FUNCTIONS[name]
    prepare,function = function if isinstance(function, tuple) else (lambda t: (t,), function)
    start = time.process_time()
    try:
        given = prepare(text)
        start = time.process_time()
        function(*given)
    except core.FastbookError: pass
    except Exception as e: error = f'{type(e).__name__}: {e}'[:100]
    return time.process_time()-start,error

def _work(name, patterns, size, pipe):
    warnings.simplefilter('ignore')
    gc.freeze() # what was imported is not looked at again while the clock runs
    for pattern in patterns:
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time())+LIMIT+1, -1))
        pipe.send(measure(name, pattern, size))

def run(
    name:str, # of a function
    patterns:list[str], # names in `PATTERNS`
    size:int, # characters
)->dict: # for each pattern its seconds and error; one that was ended has the limit and 'not finished'
    "Run a function's cells in a process that is ended and begun anew where it hangs."
    res,context = {},multiprocessing.get_context('fork')
    while len(res) < len(patterns):
        ours,theirs = context.Pipe()
        child = context.Process(target=_work, args=(name, patterns[len(res):], size, theirs), daemon=True)
        child.start()
        theirs.close()
        for pattern in patterns[len(res):]:
            try: res[pattern] = ours.recv() if ours.poll(10*LIMIT) else (LIMIT, 'not finished')
            except EOFError: res[pattern] = (LIMIT, 'not finished')
            if res[pattern][1] == 'not finished': break
        child.kill()
        child.join()
        ours.close()
    return res

def row(
    name:str, # of a function
    patterns:list[str], # names in `PATTERNS`
    size:int, # characters
)->tuple[list[str],int,int]: # lines, cells of a second or more, unexpected errors
    "A row of the table; below it the other cells of a second or more, and errors."
    found = run(name, patterns, size)
    worst = max(patterns, key=lambda p: found[p][0])
    seconds,half = found[worst][0],run(name, [worst], size//2)[worst][0]
    slow = [p for p in patterns if found[p][0] >= 1]
    bad = [p for p in patterns if found[p][1] not in ('','not finished')]
    growth = f'{seconds/half:7.1f}' if half > .001 else '      -'
    lines = [f"{name:38} {worst:26} {seconds:8.2f} {growth} {'! ' if slow else ''}{found[worst][1]}"]
    lines += [f'    {p:61} {found[p][0]:8.2f} {found[p][1]}' for p in dict.fromkeys([*slow, *bad]) if p != worst]
    return lines,len(slow),len(bad)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=100_000, help='characters of a text')
    parser.add_argument('--function', default='', help='regular expression: only these functions')
    parser.add_argument('--pattern', default='', help='regular expression: only these patterns')
    parser.add_argument('--workers', type=int, default=1, help='functions at a time')
    args = parser.parse_args()
    patterns = [p for p in PATTERNS if re.search(args.pattern, p)]
    names = [n for n in FUNCTIONS if re.search(args.function, n)]
    print(f"{len(names)} functions, {len(patterns)} patterns, {args.size:,} characters")
    print(f"{'function':38} {'worst pattern':26} {'seconds':>8} {'growth':>7}", flush=True)
    slow = bad = 0
    with ThreadPoolExecutor(args.workers) as pool:
        for lines,n,m in pool.map(partial(row, patterns=patterns, size=args.size), names):
            slow,bad = slow+n,bad+m
            print('\n'.join(lines), flush=True)
    print(f"{len(names)*len(patterns)} cells: {slow} of a second or more, {bad} unexpected errors")

if __name__ == '__main__': main()
