"Functions that read texts are linear or nearly, and give what slow, obviously right ones give; `benchmarks/texts.py` measures them."
import re, time

import pytest
from hypothesis import given, settings, strategies as st

from agentfastbook.judges import checks
from agentfastbook.text import quotes as core,differences
from agentfastbook.books import defects as lint
from agentfastbook.engines import lm_decompose
from agentfastbook.stats import matching
from agentfastbook.prompts import shortening as shorten,templates
from agentfastbook.look import steps
from agentfastbook.books.questions import find_components, parse_benchmark
from agentfastbook.text.spans import FastbookError, Span, sentences
from agentfastbook.text.quotes import find_all, locate, locate_all, locate_next, nearest
from agentfastbook.engines.decompose import decompose_spans
from agentfastbook.judges.judge import Case
from agentfastbook.text.html import highlight

PIECES = st.sampled_from('a b not 3 -3 non-a ... … [...] ](a.bc) ](#x) ](b ( ) [ ] " ! . .5 - / 2/3 _ a_b don’t % A é ab.cde) .aa# '.split()
                         + [' ', ' ', '\n\n'])
TEXTS = st.lists(PIECES, max_size=25).map(''.join)
SPACED = st.lists(st.sampled_from('a b c d not 3 (a b) A a. ... c,'.split()), max_size=25).map(' '.join)


@st.composite
def quotes(draw, texts):
    "A text and a quote: a part of it, two parts with an ellipsis, or anything."
    text = draw(texts)
    a, b, c, d = sorted(draw(st.integers(0, len(text))) for _ in range(4))
    kind = draw(st.sampled_from(['part', 'parts', 'other']))
    quote = {'part': text[a:b], 'parts': f'{text[a:b]} ... {text[c:d]}', 'other': draw(texts)}[kind]
    return quote.upper() if draw(st.booleans()) else quote, text


# Slow and obviously right: every place is tried, everything is looked at anew

URL = r'\]\((?:\w+:|[./#])[^)\s]*\)|\]\([^)\s]*\.\w{2,5}(?:#[^)\s]*)?\)'
TOKEN = re.compile(f'(?P<skip>{URL})|{core._NUMBER}|{core._WORD}|{core._SYMBOL}')


def slow_words(text):
    folded = core.fold(text)
    found = [m for m in TOKEN.finditer(folded.text) if not m['skip']]
    return folded, [m.group().replace(' ', '') for m in found], [m.span() for m in found]


def slow_locate_all(quote, text):
    folded_quote, wanted, at = slow_words(quote)
    folded, words, spans = slow_words(text)
    if not wanted: return [Span(m.start(), m.end()) for m in re.finditer(re.escape(quote), text)] if quote.strip() else []
    lead, tail, res = folded_quote.text[:at[0][0]].lstrip(), folded_quote.text[at[-1][1]:].rstrip(), []
    for i in range(len(words)-len(wanted)+1):
        if words[i:i+len(wanted)] != wanted: continue
        if i and words[i-1] in core._NEGATIONS and folded.text[spans[i-1][1]:spans[i][0]] == '-': continue
        start, end = spans[i][0], spans[i+len(wanted)-1][1]
        before, behind = list(lead), list(tail)[::-1]
        while start and before and folded.text[start-1] == before.pop(): start -= 1
        while behind and folded.text[end:end+1] == behind.pop(): end += 1
        res.append(folded.span(start, end))
    return res


def slow_elided(quote, text):
    parts = [p for p in re.split(r'\[?(?:\.{3,}|…)\]?', quote) if slow_words(p)[1]]
    res = []
    for span in slow_locate_all(parts[0], text) if len(parts) > 1 else []:
        for part in parts[1:]:
            after = next((s for s in slow_locate_all(part, text) if s.start >= span.end), None)
            if after is None or not slow_may_skip(text[span.end:after.start]): break
            span = Span(span.start, after.end)
        else: res.append(span)
    return res


def slow_may_skip(gap):
    strict = any(w in core._NEGATIONS or w.endswith("n't") or any(c.isdigit() for c in w) for w in slow_words(gap)[1])
    return len(gap) <= core._GAP and '\n\n' not in gap and not strict


def slow_locate(quote, text, near=None):
    found = slow_locate_all(quote, text) or slow_elided(quote, text)
    if near is not None: return min(found, key=lambda s: abs(s.start-near), default=None)
    return next((s for s in found if s.of(text) == quote), found[0] if found else None)


def slow_find_components(answer, components):
    taken, res = [], []
    for pieces in components:
        spans = []
        for piece in pieces:
            literal = [Span(i, i+len(piece)) for i in range(len(answer)) if piece and answer.startswith(piece, i)]
            places = literal or slow_locate_all(piece, answer)
            least = min(places, key=lambda s: sum(s.overlaps(t) for t in taken), default=None)
            spans.append(least or slow_locate(piece, answer))
        res.append(() if None in spans else tuple(sorted(spans)))
        taken += res[-1]
    return res


def slow_align(answer, words):
    best, ways = {0: 0}, {0: []}  # last matched word of the answer, from 1 (0: none) -> gain and places
    for word in words:
        after, led = {k: v-10 for k, v in best.items()}, dict(ways)
        for j in (j for j, w in enumerate(answer) if w == word):
            def gain(k): return best[k]+20-(min(40, 10+j-k) if 0 < k < j else 0)
            k = max((k for k in sorted(best) if k <= j), key=gain)
            if gain(k) > after.get(j+1, -10**9): after[j+1], led[j+1] = gain(k), ways[k]+[j]
        best, ways = after, led
    return ways[max(sorted(best), key=best.get)]


@given(st.text('ab', max_size=8), st.text('ab', max_size=40))
def test_all_places_of_a_text(piece, text):
    assert find_all(piece, text) == [i for i in range(len(text)) if piece and text.startswith(piece, i)]


@given(st.lists(st.integers(0, 30), min_size=1).map(sorted), st.integers(0, 30))
def test_the_nearest_place(starts, at): assert nearest(starts, at) == min(range(len(starts)), key=lambda i: abs(starts[i]-at))


@settings(max_examples=400)
@given(st.one_of(quotes(TEXTS), quotes(SPACED)), st.none() | st.integers(0, 60))
def test_locate_finds_what_a_slow_one_finds(pair, near):
    quote, text = pair
    places = slow_locate_all(quote, text)
    assert locate_all(quote, text) == places
    assert locate(quote, text, near) == slow_locate(quote, text, near)
    if slow_words(quote)[1]: assert locate_next(quote, text, near or 0) == next((s for s in places if s.start >= (near or 0)), None)


@settings(max_examples=300)
@given(SPACED, st.data())
def test_components_are_found_where_a_slow_search_finds_them(answer, data):
    at = st.integers(0, len(answer))
    piece = st.builds(lambda a, n, up: answer[a:a+n].upper() if up else answer[a:a+n], at, st.integers(0, 6), st.booleans())
    components = data.draw(st.lists(st.lists(piece, min_size=1, max_size=2), max_size=8))
    assert find_components(answer, components) == slow_find_components(answer, components)


@settings(max_examples=300)
@given(st.lists(st.sampled_from('abcd'), max_size=50), st.lists(st.sampled_from('abcdx'), max_size=12))
def test_alignment_is_the_best_one(answer, words):
    text = matching._Answer(' '.join(answer))
    assert matching._align(text.places, len(answer), words) == slow_align(answer, words)
    found = text.find(words)[1]
    assert found is None or found.tolist() == slow_align(answer, words)


@given(st.text('ab .', max_size=40), st.text('ab .', max_size=40))
def test_a_difference_keeps_both_texts(old, new):
    runs = list(differences.word_runs(old, new))
    assert ''.join(t for kind, t in runs if kind != 'new') == old and ''.join(t for kind, t in runs if kind != 'old') == new
    assert all(t for _, t in runs) and all(a != b for (a, _), (b, _) in zip(runs, runs[1:]))
    gone, added = steps.differences(old, new)
    assert [s.of(old) for s in gone] == [t for kind, t in runs if kind == 'old']
    assert [s.of(new) for s in added] == [t for kind, t in runs if kind == 'new']


@given(st.lists(st.lists(st.sampled_from('a b c d e no not'.split()), max_size=7).map(' '.join), max_size=12))
def test_repeated_sentences_are_those_that_a_slow_search_finds(texts):
    def repeats(a, b):
        x, y = set(a.split()), set(b.split())
        return len(x) > 2 and len(x&y) >= shorten.SAME*len(x|y) and x&shorten._NEGATIONS == y&shorten._NEGATIONS
    assert shorten._repeated(texts) == [next((j for j in range(i) if repeats(texts[i], texts[j])), None) for i in range(len(texts))]


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: Span(p[0], p[0]+p[1])), max_size=3)


@given(st.lists(SPANS, max_size=6), st.integers(0, 2))
def test_checks_of_words_in_pieces_say_what_slow_ones_say(pieces, most):
    text = 'yeast eats sugar. water makes dough, slowly. salt slows yeast down, heat wakes bread.'
    output = [dict(text=' '.join(s.of(text) for s in spans), spans=[(s.start, s.end) for s in spans]) for spans in pieces]
    case = Case('1', '1', 'decompose', {'question': '?', 'gold_answer': text}, output, text)
    words, taken = checks.content_words(text), [s for spans in pieces for s in spans]
    covered = {w for w in words if any(s.contains(w) for s in taken)}
    whole = all(any(s.contains(w) and w in covered for w in words) for s in sentences(text))
    assert checks.check_coverage(case).passed == (whole and len(covered) >= .9*len(words))
    inside = [{w for w in words if any(s.overlaps(w) for s in spans)} for spans in pieces]
    pairs = [(i, j) for j in range(len(pieces)) for i in range(j) if len(inside[i] & inside[j]) > most]
    said = checks.check_overlap(case, most)
    assert said.passed == (not pairs)
    if pairs: assert f'component {min(pairs)[0]+1} and component {min(pairs)[1]+1} ' in said.critique


@given(st.lists(st.sampled_from(['<fact>', '</fact>', '<component>', '</component>', 'a', ' ', '</f']), max_size=20).map(''.join))
def test_tags_are_read_as_by_a_regular_expression(text):
    slow = re.finditer(r'<(component|fact)>(.*?)</\1>', text, re.S)
    assert lm_decompose.read_tags(text) == [m[2].strip() for m in slow if m[2].strip()]


@given(st.lists(st.sampled_from('a b c'.split()), max_size=12).map(' '.join), st.lists(st.sampled_from('a b,a b,c,A,x'.split(',')), max_size=12))
def test_facts_are_located_each_at_a_place_of_its_own(answer, texts):
    res, after = [], 0
    for text in texts:
        places = locate_all(text, answer)
        free = [p for p in places if p not in res] or places
        res.append(min(free, key=lambda p: (p.start < after, p.start), default=None))
        if res[-1]: after = res[-1].end
    assert lm_decompose.locate_components(texts, answer) == res


def test_a_chain_of_too_many_ellipses_is_rejected_in_time():
    "Every beginning fits for a thousand steps and then fails."
    text = 'a '*30_000
    assert locate(' ... '.join(['a']*20), text).start == 0
    assert locate(' ... '.join(['a']*1000+['end']), text+'b '*400+'end') is None


def raw(answer, parts): return {'questions': [dict(chapter=1, question_number=1, question_text='Why?', gold_standard_answer=answer,
                                                   answer_context=[dict(answer_component=p, context=[]) for p in parts])]}


def cut(text, n): return [text[i:i+n] for i in range(0, len(text), n)]


def duplicates():
    found = lint.lint(parse_benchmark(raw('The yeast eats sugar. '*4000, ['The yeast eats sugar.']*3000)))
    assert (found.defect == 'component repeated in answer').sum() == 3000
    assert found[found.defect == 'duplicate component'].value.iloc[-1].startswith('with component 10 and 2989 more: The yeast')



YEAST, WORDS, LETTERS = 'The yeast eats sugar. '*4500, 'a '*50_000, 'a'*100_000
NUMBERS = ' '.join(str(i*i % 997) for i in range(25_000))
HOSTILE = {  # what took from half a minute to hours
    'links cut off': lambda: locate('](.aa#'*16_000, '](.aa#'*16_000),
    'links that end nowhere': lambda: locate('](a.b', '](a.'*25_000),
    'elided letters': lambda: locate('a ... b ... c', 'a b c '*16_000),
    'elided letters that fail': lambda: locate('a ... b ... d', 'a b c '*16_000+'d'),
    'half a text that repeats itself': lambda: locate('a '*25_000, WORDS),
    'nearly half of it': lambda: locate('a '*25_000+'b', WORDS),
    'marks around': lambda: locate('('*100_000+'a', '( a'*30_000),
    'equal components': lambda: find_components(YEAST, [['The yeast eats sugar.']]*3000),
    'equal components in other case': lambda: find_components(YEAST, [['THE YEAST EATS SUGAR.']]*3000),
    'components of one letter': lambda: find_components(LETTERS, [['a'*33]]*3000),
    'growing components': lambda: find_components(WORDS, [['A '*i] for i in range(1, 300)]),
    'duplicates': duplicates,
    'spaces in a sentence': lambda: decompose_spans('a'+' '*100_000+'b'),
    'a piece that is not verbatim': lambda: matching.label_components(YEAST, [YEAST], ['yeast sugar '*20]*3000),
    'pieces that are not verbatim': lambda: matching.score_decomposition([(NUMBERS, cut(NUMBERS, 33), cut(NUMBERS, 37))]),
    'two texts without a common word': lambda: differences.word_diff(WORDS, 'b '*50_000),
    'two texts turned round': lambda: differences.word_diff(YEAST, ' '.join(YEAST.split()[::-1])),
    'open tags': lambda: lm_decompose.read_tags('<component>'*9_000+'</fact>'*2_000),
    'equal facts': lambda: lm_decompose.locate_components(['The yeast eats sugar.']*6000, YEAST),
    'equal sentences': lambda: shorten.propose_cuts(templates.Prompt('x', YEAST)),
    'sentences alike': lambda: shorten.propose_cuts(templates.Prompt('x', ' '.join(f'the w{i} w{i+1} w{i+2}.' for i in range(5000)))),
    'open fields': lambda: templates.Prompt('x', '{{'*50_000),
    'nested marks': lambda: highlight(LETTERS, [(Span(i, 100_000-i), i) for i in range(0, 50_000, 10)], numbered=True),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_texts_take_seconds(name):
    start = time.process_time()
    HOSTILE[name]()
    assert time.process_time()-start < 10


def test_what_cannot_be_compared_in_time_is_named():
    with pytest.raises(FastbookError, match='of 30,000 words that is not verbatim'):
        matching.cover(WORDS+'b', ['b '+'a '*29_999])
    assert matching.cover(WORDS, ['a '*29_999+'b'])[0].invented


@pytest.mark.parametrize('value', ['['*50_000, '{a: '*20_000, '2020-13-45', '*x', '!!python/object:os.system x'])
def test_front_matter_that_cannot_be_read_is_named(value):
    with pytest.raises(FastbookError, match='is not YAML'): templates.parse_prompt(f'---\nname: a\nmodel: {value}\n---\nx')


def test_front_matter_that_grows_is_refused():
    bomb = ', '.join(f"&a{i} [{', '.join([f'*a{i-1}']*9) if i else 1}]" for i in range(9))
    with pytest.raises(FastbookError, match="has 72 aliases"): templates.parse_prompt(f'---\nname: a\nmodel: [{bomb}]\n---\nx')
