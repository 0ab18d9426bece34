"Numbers that can't be, and names that nobody used: an error with a remedy, never a NaN, a zero or a perfect result."
import math

import numpy as np
import pandas as pd
import pytest

from agentfastbook.stats import bootstrap,estimation as estimate,intervals,metrics,reliability
from agentfastbook.judges import alignment,watch as monitor
from agentfastbook.stats.agreement import alpha, kappa, ratings
from agentfastbook.stats.reconciliation import reconcile
from agentfastbook.judges.alignment import align, align_judge, labelled_part, person_verdicts
from agentfastbook.judges.improve import judge_history, judged_rows
from agentfastbook.judges.checks import check_verbatim
from agentfastbook.text.spans import FastbookError
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.books.chapters import sample_path
from agentfastbook.judges.judge import cases, judge_run, verdicts
from agentfastbook.store.labels import Label, annotate
from agentfastbook.judges.watch import judged_runs
from agentfastbook.engines.pipeline import curate
from agentfastbook.judges.splits import openings
from agentfastbook.store.runs import Store

ROWS = [True]*15+[False]*5
RUNS = pd.DataFrame(dict(run=1, question=range(20), passed=ROWS, label=ROWS, sampling=[dict(how='random', probability=1.)]*20))

CONFIDENT = {
    'interval': lambda c: bootstrap.interval(ROWS, confidence=c),
    'paired_interval': lambda c: bootstrap.paired_interval((ROWS, ROWS), (ROWS, ROWS), confidence=c),
    'resample': lambda c: bootstrap.resample(lambda rows: 1., 20, confidence=c),
    'share_limits': lambda c: intervals.share_limits(3, 5, c),
    'mixture_limits': lambda c: intervals.mixture_limits([1, 2], [3, 4], [5, 6], confidence=c),
    'strata_limits': lambda c: intervals.strata_limits([[1, 2]], [[3, 4]], [[5, 6]], confidence=c),
    'error_rate_limits': lambda c: intervals.error_rate_limits([3, 1], [4, 4], 5, 9, confidence=c),
    'always_limits': lambda c: monitor.always_limits(3, 5, c),
    'monitor': lambda c: monitor.monitor(RUNS, c),
    'monitor, alarm': lambda c: monitor.monitor(RUNS, alarm=c),
    'estimate': lambda c: estimate.estimate(ROWS, ROWS, 'random', confidence=c),
    'estimate_runs': lambda c: monitor.estimate_runs(RUNS, confidence=c),
    'rate': lambda c: alignment.rate(ROWS, confidence=c),
    'pass_power': lambda c: reliability.pass_power(ROWS, range(20), confidence=c),
    'compare_runs': lambda c: reliability.compare_runs((dict(enumerate(ROWS)),)*2, (dict(enumerate(ROWS)),)*2, confidence=c),
}


@pytest.mark.parametrize('name', CONFIDENT)
def test_an_impossible_confidence_is_refused(name):
    CONFIDENT[name](.9)
    for odd in (95, 1, 0, -.5, math.nan, None, '.95', True):
        with pytest.raises(FastbookError, match='(confidence|alarm) is '): CONFIDENT[name](odd)


ODD = {
    'no rows': (lambda: bootstrap.interval([]), 'no values'),
    'a missing value': (lambda: bootstrap.interval([1, None]), 'missing'),
    'a missing denominator': (lambda: bootstrap.interval([1, 2], [1, math.nan]), 'missing'),
    'infinite': (lambda: bootstrap.interval([1, math.inf]), 'not finite'),
    'other length': (lambda: bootstrap.interval([1, 2], [1]), '1 denominators for 2 rows'),
    'no draws': (lambda: bootstrap.interval([1, 2], resamples=0), 'resamples is 0'),
    'no table of hits': (lambda: metrics.modified_mrr([[1, math.nan]]), 'not a table'),
    'no hits above n': (lambda: intervals.share_limits(6, 5), 'between 0 and n'),
    'no negative rows': (lambda: intervals.mixture_limits([1], [2], [-5]), 'counts of rows'),
    'a part without value': (lambda: intervals.design_effect([1., math.nan], [1, 2]), 'missing'),
    'texts as verdicts': (lambda: monitor.monitor(RUNS.assign(passed='pass')), "says 'pass'"),
    'more hits than rows': (lambda: monitor.drift_evidence([2], [1]), 'between 0 and n'),
    'a text as outcome': (lambda: reliability.pass_power(['yes'], ['a']), "outcome is 'yes'"),
    'a missing outcome': (lambda: alignment.rate([True, None]), 'missing'),
    'texts against flags': (lambda: kappa(['True'], [True]), 'could never agree'),
    'another order': (lambda: kappa(pd.Series([1, 2]), pd.Series([1, 2], index=[1, 0])), 'different indexes'),
    'another order, align': (lambda: align(pd.Series([True]), pd.Series([True], index=[1])), 'different indexes'),
    'ranks of texts': (lambda: alpha(pd.DataFrame(dict(a=['x'], b=['y'])), 'ordinal'), 'no number'),
    'no labels': (lambda: alpha(pd.DataFrame(dict(a=[None], b=[math.nan]))), 'no labels'),
}


@pytest.mark.parametrize('name', ODD)
def test_what_would_quietly_be_another_figure_is_refused(name):
    call, words = ODD[name]
    with pytest.raises(FastbookError, match=words): call()


def test_the_same_values_agree_whatever_holds_them():
    first = [True, False, True, True, False]
    for second in (pd.Series(first, dtype=object), pd.Series(first, dtype='boolean'), np.array(first), [1, 0, 1, 1, 0], [1., 0., 1., 1., 0.]):
        assert kappa(first, second).value == 1
    assert kappa([*first, math.nan], [*first, True]).value == kappa([*first, None], [*first, pd.NA]).value == 1
    scores = pd.DataFrame(dict(a=pd.array([1, 0, pd.NA], dtype='Int64'), b=[1, 0, 1]))
    assert alpha(scores).value == 1
    assert alignment.rate(pd.Series(first, index=[0]*5)).value == .6  # a repeated index is no harm
    for verdicts_ in (pd.Series(first, dtype='boolean'), np.array(first), pd.Series([1., 0., 1., 1., 0.]), first):
        assert estimate.estimate(verdicts_, first, 'random').value == .6


def test_a_label_that_was_taken_back_is_none():
    rows = pd.DataFrame(dict(call='c', annotator='ana', value=[True, None], created=['2025-01-01', '2025-01-02']))
    assert ratings(rows).values.tolist() == [[None]]


def test_tables_that_share_only_the_key_do_not_agree():
    a = pd.DataFrame(dict(id=[1, 2], f1=[.5, 1.]))
    found = reconcile(a, a.rename(columns=dict(f1='F1')), 'id')
    assert not found.agrees and 'nothing to compare' in repr(found) and 'only in a: f1' in repr(found)
    assert reconcile(a[:0], a[:0], 'id').agrees and reconcile(a, a, 'id').agrees, 'the same columns, no difference'


def test_keys_of_other_types_are_compared_as_text():
    a, b = pd.DataFrame(dict(id=[1, 2], x=[1, 2])), pd.DataFrame(dict(id=['1', '2'], x=[1, 2]))
    found = reconcile(a, b, 'id')
    assert found.agrees and 'number in a and string in b, compared as text' in repr(found)


def test_the_same_quotes_around_151_values_are_one_line():
    b = pd.DataFrame(dict(id=range(151), gold=[f'answer {i}' for i in range(151)]))
    found = reconcile(b.assign(gold='"'+b.gold+'"'), b, 'id')
    assert [n for n in found.notes if '151 of 151' in n and 'wrapping quotes' in n]


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp('names')
    curate(sample_path(), sample_path()/'benchmark.json', folder, RuleDecomposer('fine'), progress=False)
    with Store(folder/'traces.db') as store:
        judge_run(store, dict(verbatim=check_verbatim))
        for i, case in enumerate(cases(store)):
            annotate(store, 'Ada', Label(case.id, 'verdict', i % 3 > 0), Label(case.id, 'too fine', i % 3 == 0))
        yield store


UNKNOWN = {
    'mode, forgotten': (lambda s: align_judge(s, 'verbatim'), "nobody gave a label 'verbatim'.*too fine, verdict"),
    'mode': (lambda s: person_verdicts(s, 'to fine'), 'too fine, verdict'),
    'mode, history': (lambda s: judge_history(s, 'verbatim', mode='to fine'), 'too fine, verdict'),
    'mode, runs': (lambda s: judged_runs(s, 'verbatim', check_verbatim, mode='to fine'), 'too fine, verdict'),
    'mode, openings': (lambda s: openings(s, 'to fine'), 'were ever split'),
    'judge': (lambda s: align_judge(s, 'verbatm', mode='too fine'), 'has no verdicts'),
    'judge, verdicts': (lambda s: verdicts(s, 'verbatm'), 'it knows verbatim'),
    'judge, rows': (lambda s: judged_rows(s, 'verbatm'), 'has no verdicts'),
    'version': (lambda s: labelled_part(s, 'verbatim', 'too fine', version='v9'), "no version 'v9', only"),
    'version, verdicts': (lambda s: verdicts(s, 'verbatim', 'v9'), "version 'v9' is not there"),
    'run': (lambda s: person_verdicts(s, run=9), 'has runs: 1'),
    'run, verdicts': (lambda s: verdicts(s, run=9), "it knows 1"),
    'run, rows': (lambda s: judged_rows(s, 'verbatim', run=9), 'run 9 is not in the store'),
    'step': (lambda s: person_verdicts(s, step='decompos'), 'has steps'),
    'step, rows': (lambda s: judged_rows(s, 'verbatim', 'decompos'), 'has no calls of step'),
    'annotator': (lambda s: person_verdicts(s, annotator='Bob'), 'labels of Ada'),
    'part': (lambda s: align_judge(s, 'verbatim', 'too fine', 'exam'), 'train, dev, test or all'),
}


@pytest.mark.parametrize('name', UNKNOWN)
def test_an_unknown_name_is_an_error_that_lists_the_known(name, store):
    call, words = UNKNOWN[name]
    with pytest.raises(FastbookError, match=words): call(store)


def test_all_labels_are_test_labels_too(store):
    for part in ('test', 'all'):
        with pytest.raises(FastbookError, match='holds the test labels'): labelled_part(store, 'verbatim', 'too fine', part)
        with pytest.raises(FastbookError, match='would make it a dev part'): judge_history(store, 'verbatim', 'too fine', part)
    align_judge(store, 'verbatim', 'too fine', 'all')
    assert openings(store, 'too fine').result[0]['part'] == 'all'
    with pytest.raises(FastbookError, match='was opened before'): align_judge(store, 'verbatim', 'too fine', 'test')


@pytest.mark.parametrize('tolerance', [0, .02])
def test_equal_values_are_equal_whatever_else_their_column_holds(tolerance):
    "A text among numbers is one difference; numbers, gaps and lists beside it are as equal as in a column of their own."
    a = pd.DataFrame(dict(item=range(5), v=pd.Series([.5, .25, math.nan, [1], True], dtype=object)))
    b = pd.DataFrame(dict(item=range(5), v=pd.Series(['0.5', .25, None, [1], np.True_], dtype=object)))
    found = reconcile(a, b, 'item', tolerance)
    assert found.equal == 4 and found.differing.values.tolist() == [[0, 'v', .5, '0.5', None]]
    near = reconcile(a, b.assign(v=['0.5', .26, pd.NA, [1], True]), 'item', tolerance).differing
    assert near.item.tolist() == ([0] if tolerance else [0, 1])
    assert reconcile(a[2:3], b[2:3], 'item').agrees  # NaN and None are both missing
    assert not reconcile(a[2:3], a[1:2].assign(item=2), 'item').agrees


def test_what_is_no_table_is_refused():
    a = pd.DataFrame(dict(item=[1], v=[1]))
    for call in (lambda: reconcile(None, a, 'item'), lambda: reconcile(a, None, 'item'), lambda: ratings(None), lambda: alpha(None)):
        with pytest.raises(FastbookError, match='is None, no table'): call()
