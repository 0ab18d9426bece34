"Properties of folding, locating and cutting sentences that hold for any text."
import random, re, string

from hypothesis import assume, example, given, strategies as st

from agentfastbook.text.spans import Span, count_tokens, sentences
from agentfastbook.text.quotes import fold, locate, locate_all

ANY = st.text(st.characters(), max_size=300)
WORDS = st.lists(st.sampled_from('the yeast eats sugar 1.5 −3 12% makes gas state-of-the-art don’t résumé 酵母 x2 f_n'.split()), min_size=1, max_size=30)


@given(ANY)
def test_fold_maps_every_character_back(text):
    folded = fold(text)
    assert len(folded.text) == len(folded.starts) == len(folded.ends)
    assert folded.starts == sorted(folded.starts) and folded.ends == sorted(folded.ends)
    assert all(0 <= s < e <= len(text) for s, e in zip(folded.starts, folded.ends))


@given(ANY)
def test_fold_twice_is_fold_once(text):
    once = fold(text).text
    assert fold(once).text == once


@given(st.text(string.printable, max_size=200), st.data())
def test_a_folded_slice_comes_from_its_span(text, data):
    folded = fold(text)
    assume(folded.text)
    start = data.draw(st.integers(0, len(folded.text)-1))
    end = data.draw(st.integers(start+1, len(folded.text)))
    assert fold(folded.span(start, end).of(text)).text == folded.text[start:end]


@given(WORDS, st.data())
def test_a_run_of_whole_words_is_found(words, data):
    start = data.draw(st.integers(0, len(words)-1))
    end = data.draw(st.integers(start+1, len(words)))
    text, quote = ' '.join(words), ' '.join(words[start:end])
    assert any(s.of(text) == quote for s in locate_all(quote, text))
    assert locate(quote, text).of(text) == quote


DISGUISES = [str.upper, lambda s: s.replace(' ', '\r\n\t '), lambda s: s.replace('’', "'"), lambda s: f'“{s}”', lambda s: f'…{s}...',
             lambda s: s.replace(' ', '** '), lambda s: s.replace('−', '-'), lambda s: s.replace('-', '–'), lambda s: f'> _{s}_', lambda s: s.replace(' ', ' \u200b')]


@given(WORDS, st.lists(st.sampled_from(DISGUISES), max_size=4))
def test_a_disguised_quote_is_found_where_it_stands(words, disguises):
    text = 'Before it. ' + ' '.join(words) + ' And after.'
    quote = ' '.join(words)
    for disguise in disguises: quote = disguise(quote)
    found = locate(quote, text)
    assert found is not None and ' '.join(words) in found.of(text)


CHANGES = ['not', '7', 'never', 'salt']


@given(WORDS, st.sampled_from(CHANGES), st.data())
def test_another_word_in_the_quote_is_never_accepted(words, word, data):
    at = data.draw(st.integers(0, len(words)))
    text, quote = ' '.join(words), ' '.join(words[:at]+[word]+words[at:])
    assert locate(quote, text) is None


@given(WORDS, st.sampled_from(CHANGES), st.data())
def test_a_word_left_out_of_the_quote_is_never_accepted(words, word, data):
    assume(len(words) > 1)
    at = data.draw(st.integers(1, len(words)-1))
    text, quote = ' '.join(words[:at]+[word]+words[at:]), ' '.join(words)
    found = locate(quote, text)
    assert found is None or word not in found.of(text).split()


@given(ANY, ANY)
@example('0', '0.5')
@example('5', '-5')
def test_what_is_found_has_the_words_of_the_quote(quote, text):
    for span in locate_all(quote, text):
        assert 0 <= span.start < span.end <= len(text)
        assert [w for w in re.findall(r'\d+', fold(quote).text)] == [w for w in re.findall(r'\d+', fold(span.of(text)).text)]


@given(ANY)
@example('a.\n\nb\r\nc? D!')
def test_sentences_hold_all_but_white_space(text):
    spans = sentences(text)
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:]))
    assert ''.join(''.join(s.of(text).split()) for s in spans) == ''.join(text.split())
    assert all(s.of(text) == s.of(text).strip() for s in spans)


@given(ANY, ANY)
def test_tokens_add_up(a, b): assert count_tokens(a+'\n'+b) == count_tokens(a)+count_tokens(b)


def test_long_texts_take_linear_time():
    "A chapter-sized quote in a book-sized text; quadratic work would not come back."
    rng = random.Random(0)
    text = ' '.join(''.join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(200_000))
    assert locate(text[600_000:650_000].split(' ', 1)[1].rsplit(' ', 1)[0], text).start > 600_000
    assert len(sentences('Yeast eats sugar. '*50_000)) == 50_000
    assert locate('x'*50_000, 'y'*1_000_000) is None
    for run in ('.', '?! ', '。', "'", '\n', 'x. ', '...x'): assert sentences(run*100_000+'x')
