"Metrics against independent second opinions: the benchmark's published definitions, an independent scorer, TREC's program, a person."
import importlib.util, json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from agentfastbook.books.questions import load_benchmark, unquote
from agentfastbook.books.chapters import passages, read_book, sample_path
from agentfastbook.text.spans import Span, sentences
from agentfastbook.stats.agreement import kappa
from agentfastbook.stats.matching import LABELS, cover, decomposition_sums, label_components, score_decomposition, score_labels
from agentfastbook.stats.metrics import (Extraction, Ranking, alpha_ndcg, character_f1, find_hits, modified_mrr,
    modified_recall, recall_at_budget, retrieval_sums, score_extraction, score_retrieval)
from agentfastbook.stats.bootstrap import compare, interval, paired_interval

HITS = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(lambda shape: arrays(bool, shape))


@pytest.fixture
def real(data): return load_benchmark(data/'fastbook'/'fastbook-benchmark.json'), read_book(data/'fastbook')


def values(table): return table.set_index('measure').value


# --- retrieval

def published(question, retrieved, cutoff=10):
    "Answer component MRR@k and Recall@k, from their description in the benchmark's README."
    from ftfy import fix_text
    top = [fix_text(p) for p in retrieved[:cutoff]]
    ranks = [next((rank for rank, p in enumerate(top, 1) if any(fix_text(c) in p for c in component['context'])), None)
             for component in question['answer_context']]
    return (0. if None in ranks else 1/max(ranks)), sum(r is not None for r in ranks)/len(ranks)


@pytest.mark.skipif(not importlib.util.find_spec('ftfy'), reason='ftfy, which the published code uses, is not installed')
@pytest.mark.parametrize('max_tokens', [100, 500])
def test_modified_mrr_and_recall_are_the_published_ones(real, max_tokens):
    benchmark, book = real
    rng, cut = np.random.default_rng(0), {c.number: [p.text for p in passages(c, max_tokens)] for c in book}
    for item, question in zip(benchmark.raw['questions'], benchmark):
        for n in (1, 3, len(cut[question.chapter])):
            ranked = list(rng.permutation(cut[question.chapter])[:n])
            hits = find_hits([[c.text for c in x.contexts] for x in question.components], ranked)
            assert (modified_mrr(hits), modified_recall(hits)) == pytest.approx(published(item, ranked), abs=1e-9)


def test_spans_and_strings_give_the_same_hits(real):
    benchmark, book = real
    for question in benchmark:
        chapter = book[question.chapter]
        cut = passages(chapter, 200)
        texts = [[c.text for c in x.contexts] for x in question.components]
        places = [[Span(i, i+len(t)) for t in ts for i in range(len(chapter.text)) if chapter.text.startswith(t, i)] for ts in texts] \
            if question.id == '8/25' else [[s for t in ts if (i := chapter.text.find(t)) >= 0 for s in [Span(i, i+len(t))]] for ts in texts]
        assert (find_hits(texts, [p.text for p in cut]) == find_hits(places, [p.span for p in cut])).all()


@given(HITS, st.integers(1, 15))
def test_bounds_and_order_of_retrieval_metrics(hits, k):
    mrr, recall = modified_mrr(hits, k), modified_recall(hits, k)
    assert 0 <= mrr <= 1 and 0 <= recall <= 1 and (mrr > 0) == (recall == 1)
    assert modified_recall(hits, k+1) >= recall and modified_mrr(hits, k+1) >= mrr
    tokens = [7]*len(hits)
    assert recall_at_budget(hits, tokens, 7*k) == recall
    assert alpha_ndcg(hits, hits, k) >= 0


def trec_measures(hits, pools, k):
    "Subtopic recall and alpha-nDCG as TREC's own program computes them: question -> {'strec', 'alpha_ndcg'}; k is at most 20."
    ir_measures = pytest.importorskip('ir_measures', reason='ir-measures is not installed')
    pytest.importorskip('pyndeval', reason='pyndeval is not installed')
    def name(i): return f'{10**6-i:07}'  # of two equal passages TREC's ideal ranking takes the greater name: the earlier
    qrels = [ir_measures.Qrel(q, name(i), 1, str(c)) for q, rows in pools.items() for i, c in np.argwhere(rows)]
    run = [ir_measures.ScoredDoc(q, name(i), float(len(rows)-i)) for q, rows in hits.items() for i in range(len(rows))]
    wanted = {ir_measures.StRecall@k: 'strec', ir_measures.alpha_nDCG@k: 'alpha_ndcg'}
    res = {q: {} for q in hits}
    for m in ir_measures.iter_calc(list(wanted), qrels, run): res[m.query_id][wanted[m.measure]] = m.value
    return res


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(HITS, st.integers(0, 12)), min_size=1, max_size=3), st.integers(1, 20))
def test_trec_program_agrees(questions, k):
    pools = {f'q{i}': pool for i, (pool, _) in enumerate(questions)}
    hits = {f'q{i}': pool[:max(1, n)] for i, (pool, n) in enumerate(questions)}
    theirs = trec_measures(hits, pools, k)
    for name, pool in pools.items():
        findable = pool.any(0)
        if not findable.any(): continue
        assert theirs[name]['strec'] == pytest.approx(modified_recall(hits[name][:, findable], k), abs=1e-9)
        assert theirs[name]['alpha_ndcg'] == pytest.approx(alpha_ndcg(hits[name], pool, k), abs=1e-9)


def test_trec_program_agrees_on_the_real_benchmark(real):
    benchmark, book = real
    rng, cut = np.random.default_rng(1), {c.number: [p.text for p in passages(c, 200)] for c in book}
    pools = {q.id: rng.permutation(find_hits([[c.text for c in x.contexts] for x in q.components], cut[q.chapter])) for q in benchmark}
    theirs, checked = trec_measures({q: p[:40] for q, p in pools.items()}, pools, 20), 0
    for name, pool in pools.items():
        findable = pool.any(0)
        if not findable.any(): continue
        checked += 1
        assert theirs[name]['strec'] == pytest.approx(modified_recall(pool[:40, findable], 20), abs=1e-9)
        assert theirs[name]['alpha_ndcg'] == pytest.approx(alpha_ndcg(pool[:40], pool, 20), abs=1e-9)
    assert checked > 105


def test_findable_only_is_never_worse(real):
    benchmark, book = real
    rankings = []
    for q in benchmark:
        cut = passages(book[q.chapter], 500)
        hits = find_hits([[c.text for c in x.contexts] for x in q.components], [p.text for p in cut])
        rankings.append(Ranking(hits, hits.any(0), [len(p.text.split()) for p in cut], q.id))
    table = values(score_retrieval(rankings))
    for measure in ('MRR@10', 'Recall@10', 'Recall at 2000 tokens'): assert table[f'{measure}, findable'] >= table[measure]
    assert (retrieval_sums(rankings)['MRR@10'][1] == 1).all()


# --- intervals

@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=40))
def test_intervals_hold_the_figure_and_are_seeded(pairs):
    top, below = zip(*pairs)
    found = interval(top, below, resamples=200)
    assert found == interval(top, below, resamples=200)
    assert min(a/b for a, b in pairs) - 1e-9 <= found.low <= found.high <= max(a/b for a, b in pairs) + 1e-9
    nothing = paired_interval((top, below), (top, below), resamples=200)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_intervals_cover_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    for i in range(200):
        found = interval(rng.uniform(size=100), seed=i, resamples=500)
        inside += found.low <= .5 <= found.high
    assert 180 <= inside <= 200


def test_clusters_widen_an_interval():
    rng = np.random.default_rng(0)
    of_question = rng.uniform(size=50).repeat(10)
    alone, together = interval(of_question), interval(of_question, clusters=np.arange(50).repeat(10))
    assert together.value == pytest.approx(alone.value) and together.high-together.low > 2*(alone.high-alone.low)


# --- decomposition

def systems(answer):
    "Splitters of all sorts: coarse, fine, scrambled, reworded, empty."
    units = [s.of(answer) for s in sentences(answer)]
    words = answer.split()
    return dict(whole=[answer], sentences=units, twice=units*2, lists=[units[i:i+2] for i in range(0, len(units), 2)],
                clauses=[p.strip() for u in units for p in u.split(',') if p.strip()],
                reworded=[u.lower().replace(' the ', ' its ').replace('is', 'seems') for u in units],
                scrambled=[' '.join(words[i::3]) for i in range(3) if words[i::3]], nothing=[])


@pytest.mark.parametrize('name', sorted(systems('a')))
def test_decomposition_agrees_with_the_independent_scorer(name, real, scorer):
    gold = [(q['gold_standard_answer'], [c['answer_component'] for c in q['answer_context']]) for q in real[0].raw['questions']]
    pairs = [(answer, components, systems(answer)[name]) for answer, components in gold]
    ours, theirs = values(score_decomposition(pairs)), scorer.decomposition(pairs)
    for measure in ('soft_f1', 'f1_80', 'verbatim'): assert ours[measure] == pytest.approx(theirs[measure], abs=1e-9)
    assert decomposition_sums(pairs)['verbatim'][1].sum() == theirs['n_pred']
    assert ours['components_per_gold'] == pytest.approx(theirs['n_pred']/theirs['n_gold'], abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from('salt yeast gas and so it the'.split()), min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_perfect_decomposition_scores_one(parts):
    components = [' '.join(p) for p in parts]
    answer = '. '.join(components) + '.'
    scores = values(score_decomposition([(answer, components, components[::-1])]))
    assert scores['soft_f1'] <= 1 + 1e-9 and scores['verbatim'] == 1
    assert values(score_decomposition([(answer, components, components)])).drop('boundary_f1').tolist() == pytest.approx([1]*5)
    assert all(c.words.shape == (sum(map(len, parts)),) for c in cover(answer, components))


def decisions(row):
    "The author's yes-or-no decisions on one answer, and those of the library, in the same order."
    given = row['haiku_annotations']
    theirs = [given[name][i] for i in range(len(row['haiku_components'])) for name in LABELS]+row['ground_truth_annotations']
    labels = label_components(unquote(row['gold_standard_answer']), row['ground_truth_components'], row['haiku_components'])
    return theirs, [name in found for found in labels.predicted for name in LABELS]+labels.missing


def test_kappa_with_the_author(data):
    rows = json.loads((data/'agentfastbook'/'evals-haiku-3.5.json').read_text())
    theirs, ours = (sum(side, []) for side in zip(*map(decisions, rows)))
    assert sum(len(r['haiku_components']) for r in rows) == 138 and len(ours) == 625
    assert kappa(ours, theirs, resamples=10).value >= .97


def test_label_shares_of_haiku(data):
    rows = json.loads((data/'agentfastbook'/'evals-haiku-3.5.json').read_text())
    table = values(score_labels([(unquote(r['gold_standard_answer']), r['ground_truth_components'], r['haiku_components']) for r in rows]))
    assert table['exact'] == pytest.approx(31/138, abs=.03) and table['extra'] == pytest.approx(11/138, abs=.03)


# --- extraction

def predictions(rng, chapter, question):
    "Contexts of all sorts: the gold ones, sentences, spans that cut words, texts that are not there."
    units = [s.of(chapter.text) for s in sentences(chapter.text)]
    gold = [c.text for x in question.components for c in x.contexts]
    return [list(rng.choice(gold, min(len(gold), 2))) if gold else [], list(rng.choice(units, 4)), [c[2:40] for c in gold],
            ['not in the chapter'], [f'{gold[0]}\n'] if gold else []]


def test_extraction_agrees_with_the_independent_scorer(real, scorer):
    benchmark, book = real
    rng, raw = np.random.default_rng(3), {(q['chapter'], q['question_number']): q for q in benchmark.raw['questions']}
    predicted = {(q.chapter, q.number): [p for p in predictions(rng, book[q.chapter], q) if rng.random() < .6] for q in benchmark}
    items = [Extraction(book[q.chapter].text, [[c.text for c in x.contexts] for x in q.components], predicted[q.chapter, q.number])
             for q in benchmark]
    layout = {key: {'answer_context': [{'context': cs} for cs in contexts]} for key, contexts in predicted.items()}
    theirs = scorer.extraction(layout, raw, {c.number: c.text for c in book})
    ours = values(score_extraction(items))
    for measure in ('precision', 'recall', 'f1', 'component_recall', 'context_verbatim'):
        assert ours[measure] == pytest.approx(theirs[measure], abs=1e-9), measure
    assert 0 < ours['context_verbatim'] < 1 and ours['component_recall, findable'] >= ours['component_recall']


@given(st.text('ab .\n', min_size=1, max_size=30), st.data())
def test_character_f1_is_symmetric_and_bounded(text, data):
    spans = st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(lambda p: Span(min(p), max(p))), max_size=4)
    first, second = data.draw(spans), data.draw(spans)
    assert character_f1(text, first, second) == character_f1(text, second, first)
    assert 0 <= character_f1(text, first, second) <= 1
    if any(s.of(text).strip() for s in first): assert character_f1(text, first, first) == 1


def test_compare_finds_a_real_difference(real):
    pairs = {name: [(q.gold_answer, [c.text for c in q.components], systems(q.gold_answer)[name]) for q in real[0]]
             for name in ('whole', 'sentences')}
    table = compare(decomposition_sums(pairs['sentences']), decomposition_sums(pairs['whole'])).set_index('measure')
    assert table.low['recoverable_recall'] > 0 and table.low['boundary_f1'] > 0
    assert table.low['soft_f1'] < 0 < table.high['soft_f1']


@pytest.mark.filterwarnings('error')
def test_borders_that_are_nowhere_have_no_figure():
    "Whole answers on both sides: no border to find and none found is neither 0 nor a part of any draw."
    whole, split = ('Salt dissolves.', ['Salt dissolves.'], ['Salt dissolves.']), ('Salt. Sugar.', ['Salt', 'Sugar'], ['Salt', 'Sugar'])
    table = score_decomposition([whole]*3).set_index('measure')
    assert table.loc['boundary_f1'].isna().all() and (table.drop('boundary_f1') == 1).all(axis=None)
    mixed = score_decomposition([whole]*3+[split]).set_index('measure').loc['boundary_f1']
    assert mixed.tolist() == [1, 1, 1]  # draws of whole answers alone are left out
    missed = score_decomposition([whole, (split[0], split[1], [split[0]])]).set_index('measure').value
    assert missed['boundary_f1'] == 0  # the person has borders, the engine none
    sums = decomposition_sums([whole]*3)
    assert compare(sums, sums).set_index('measure').loc['boundary_f1'].isna().all()
    mixed = decomposition_sums([whole]*3+[split])
    assert compare(mixed, mixed).set_index('measure').loc['boundary_f1'].tolist() == [1, 1, 0, 0, 0]


def test_a_dataset_scored_with_itself_has_no_zero(tmp_path):
    from agentfastbook.engines.scoring import score
    benchmark = load_benchmark(sample_path()/'benchmark.json')
    own = score(benchmark, benchmark)
    assert (own[own.step != 'decomposition, whole answer'].value == 1).all()
    rows = json.loads((sample_path()/'benchmark.json').read_text(encoding='utf-8'))
    for q in rows['questions']:
        q['gold_standard_answer'] = 'Salt dissolves.'
        q['answer_context'] = [dict(q['answer_context'][0], answer_component='Salt dissolves.')]
    (tmp_path/'whole.json').write_text(json.dumps(rows), encoding='utf-8')
    one = load_benchmark(tmp_path/'whole.json')
    own = score(one, one).set_index('measure')
    assert own.loc['boundary_f1'].drop(columns='step').isna().all(axis=None) and (own.drop('boundary_f1').value == 1).all()
