"Agreement of people and of tables, by hand and beside other people's programs."
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from agentfastbook.stats.agreement import alpha, kappa, ratings
from agentfastbook.stats.bootstrap import resample
from agentfastbook.stats.reconciliation import reconcile


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_kappa_is_that_of_statsmodels(pairs):
    cohens_kappa = pytest.importorskip('statsmodels.stats.inter_rater').cohens_kappa
    a, b = np.array(pairs).T
    if a.all() == a.any() and b.all() == b.any(): return  # one label each: statsmodels has no figure
    expected = cohens_kappa(np.bincount(2*a+b, minlength=4).reshape(2, 2), return_results=False)
    assert math.isclose(kappa(a, b, resamples=5).value, float(expected), abs_tol=1e-9)


@pytest.mark.parametrize('weights', ['linear', 'quadratic'])
def test_weighted_kappa_is_that_of_statsmodels(weights):
    cohens_kappa = pytest.importorskip('statsmodels.stats.inter_rater').cohens_kappa
    rng = np.random.default_rng(3)
    a = rng.integers(0, 3, 80)
    b = np.where(rng.random(80) < .6, a, rng.integers(0, 3, 80))
    expected = cohens_kappa(np.bincount(a*3+b, minlength=9).reshape(3, 3), wt=weights, return_results=False)
    assert kappa(a/2, b/2, weights=weights, resamples=10).value == pytest.approx(float(expected))


def test_alpha_by_hand():
    # Krippendorff (2011), example B: twelve units, two observers, no missing data, alpha = 0.095
    a, b = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert math.isclose(alpha(pd.DataFrame(dict(a=a, b=b))).value, .095, abs_tol=5e-4)


def test_a_person_against_themselves_later():
    first = [('c1', True, '2025-01-01'), ('c2', False, '2025-01-01'), ('c3', True, '2025-01-01')]
    again = [('c1', True, '2025-02-01'), ('c2', True, '2025-02-01')]
    table = pd.DataFrame(first + again, columns=['call', 'value', 'created']).assign(annotator='Ada')
    wide = ratings(table, rounds=True)
    assert wide.shape == (2, 2)
    assert kappa(wide['Ada, first'].tolist(), wide['Ada, again'].tolist()).value == 0.  # one of two, and one by chance


@given(st.dictionaries(st.text(min_size=1, max_size=6), st.integers(-5, 5), max_size=8), st.data())
@settings(deadline=None, max_examples=40)
def test_reconcile_finds_what_was_changed(table, data):
    a = pd.DataFrame(dict(key=list(table), value=list(table.values())), dtype=object)
    changed = data.draw(st.sets(st.sampled_from(sorted(table)))) if table else set()
    gone = data.draw(st.sets(st.sampled_from(sorted(table)))) if table else set()
    b = a[~a.key.isin(gone)].assign(value=lambda df: [v + 1 if k in changed else v for k, v in zip(df.key, df.value)])
    found = reconcile(a, b.sample(frac=1, random_state=1), 'key')
    assert set(found.only_a.key) == gone and len(found.only_b) == 0
    assert set(found.differing.key) == changed - gone if len(b) and len(a) else True
    assert found.agrees == (not gone and not changed)


def test_the_interval_is_wider_when_rows_hang_together():
    values = [1, 1, 1, 1, 0, 0, 0, 0]*3
    alone = resample(lambda rows: sum(values[r] for r in rows)/len(rows), 24)
    together = resample(lambda rows: sum(values[r] for r in rows)/len(rows), 24, [i//4 for i in range(24)])
    assert together.high - together.low > alone.high - alone.low
