"Properties of the rule decomposer that must hold for any text whatsoever."
import pickle

import pytest
from hypothesis import given,settings,strategies as st

from agentfastbook.books.questions import Question,load_benchmark
from agentfastbook.books.chapters import sample_path
from agentfastbook.engines.decompose import GRANULARITIES,RuleDecomposer,answer_units,decompose_spans,glue_units,show_components

# what a random text is made of: openers, marks, line ends, list items, code, other scripts, lone surrogates, NULs
pieces = st.sampled_from(['Therefore ', 'it ', 'If ', 'e.g. ', 'We ', 'yeast ', 'a) ', '(2) ', '1. ', '- ', ':', '; ', ', ',
                          '. ', '! ', '? ', '...', '"', ')', '\n', '\n\n', '\r\n', '\r\n\r\n', '\t', ' ', 'x = f(y)\n',
                          '    return x\n', '酵母は生きている', '。', '！', 'التربة حية', '\ud800', '\0', '\u2028', '\ufeff', 'e\u0301', '🍞'])
mixed = st.lists(pieces, max_size=60).map(''.join)
texts = st.one_of(st.text(), mixed, st.text(st.characters(codec=None), max_size=200))
granularities = st.sampled_from(sorted(GRANULARITIES))

def visible(text): return ''.join(text.split())

def check_spans(spans, text):
    assert all(0 <= s.start < s.end <= len(text) for s in spans), "inside the text and not empty"
    assert all(a.end <= b.start for a,b in zip(spans, spans[1:])), "in order, not overlapping"
    assert all(s.of(text) == s.of(text).strip() for s in spans), "no white space at the ends"
    assert visible(''.join(s.of(text) for s in spans)) == visible(text), "everything visible is covered"

@settings(max_examples=400, deadline=None)
@given(texts, granularities)
def test_spans_cover_any_text(text, granularity): check_spans(decompose_spans(text, granularity), text)

@settings(max_examples=200, deadline=None)
@given(texts)
def test_units_cover_any_text(text): check_spans(answer_units(text), text)

@settings(max_examples=200, deadline=None)
@given(texts)
def test_finer_granularities_only_add_cuts(text):
    whole,standard,fine = ({s.start for s in decompose_spans(text, g)} for g in ('whole','standard','fine'))
    units = {u.start for u in answer_units(text)}
    assert whole <= standard <= units and whole <= fine <= units
    assert len(decompose_spans(text, 'whole')) == bool(text.strip())

@settings(max_examples=200, deadline=None)
@given(texts, st.integers(0, 20))
def test_gluing_keeps_borders(text, min_words):
    units = answer_units(text)
    spans = glue_units(text, units, (), cohesion=False, min_words=min_words)
    check_spans(spans, text)
    assert {s.start for s in spans} <= {u.start for u in units} and {s.end for s in spans} <= {u.end for u in units}
    if min_words == 0: assert spans == units

@settings(max_examples=200, deadline=None)
@given(texts, granularities)
def test_components_are_verbatim(text, granularity):
    question = Question(1, 1, 'Why?', text)
    for c in RuleDecomposer(granularity)(question):
        assert [s.of(text) for s in c.spans] == [c.text]
        assert c.query == f'Why? {c.text}'

@settings(max_examples=100, deadline=None)
@given(texts)
def test_shown_text_is_escaped_and_complete(text):
    spans = decompose_spans(text)
    html = show_components(text, spans)
    assert html.count('<mark') == html.count('</mark>') == html.count('<sup>') == len(spans)
    html.encode() # no lone surrogates

@pytest.mark.parametrize('question', list(load_benchmark(sample_path()/'benchmark.json')), ids=lambda q: q.id)
@pytest.mark.parametrize('granularity', sorted(GRANULARITIES))
def test_sample_answers(question, granularity):
    check_spans([s for c in RuleDecomposer(granularity)(question) for s in c.spans], question.gold_answer)

def test_engines_survive_pickling():
    for granularity in GRANULARITIES:
        engine = RuleDecomposer(granularity)
        assert pickle.loads(pickle.dumps(engine)) == engine

@pytest.mark.parametrize('piece', ['.', '?! ', 'word ', 'A short one. ', 'ab\n', 'x = 1\n\n', ':\n\n', '; ', 'a) ', 'a; ', '. ', '酵母。',
                                   '\n', ' ', '(', '\0'])
def test_long_answers(piece):
    text = piece*(200_000//len(piece))
    for granularity in GRANULARITIES: check_spans(decompose_spans(text, granularity), text)
