"The monitor over many runs: false alarms, real changes, intervals for all looks together."
import numpy as np
import pandas as pd
import pytest

from agentfastbook.text.spans import FastbookError
from agentfastbook.judges.watch import always_limits, drift_evidence, monitor


def days(rng, rate, tpr=.95, tnr=.8, runs=100, rows=60, labels=8):
    "Results of many runs; rate and TPR may differ from run to run."
    truth = rng.random((runs, rows)) < np.broadcast_to(rate, runs)[:, None]
    judged = rng.random((runs, rows)) < np.where(truth, np.broadcast_to(tpr, runs)[:, None], 1-tnr)
    label = truth.astype(object)
    label[:, labels:] = None
    return pd.DataFrame(dict(run=np.repeat(np.arange(runs), rows), passed=judged.ravel().astype(object), label=label.ravel()))


def test_a_hundred_quiet_looks_raise_few_alarms():
    "At most 5% of quiet sequences; at most 3 of 20 leaves room for luck. A daily z-test cries in nearly every one."
    rng = np.random.default_rng(0)
    alarms = [monitor(days(rng, .9)).alarm.iloc[-1] != '' for _ in range(20)]
    assert sum(alarms) <= 3


def test_evidence_for_a_change_is_a_fair_bet():
    "Its mean is at most 1 whatever the rate, and it ever reaches 20 in at most 5% of 100 sequences of 60 runs."
    rng = np.random.default_rng(0)
    for rate in (.5, .95):
        won = np.array([drift_evidence(rng.binomial(20, rate, 60), np.full(60, 20))[0] for _ in range(100)])
        assert won[:, -1].mean() <= 1
        assert (won.max(1) >= 20).mean() <= .05


@pytest.mark.parametrize('rate', [.5, .9, .99])
def test_intervals_hold_at_all_looks_together(rate):
    "300 sequences of 1,000 rows, looked at after every row: at most 5% are ever missed."
    rng = np.random.default_rng(0)
    hits = (rng.random((300, 1000)) < rate).cumsum(1)
    low, high = always_limits(hits, np.broadcast_to(np.arange(1, 1001), hits.shape))
    assert ((low <= rate) & (rate <= high)).all(1).mean() >= .95


def test_worse_results_and_a_worse_judge_are_told_apart():
    rng, after = np.random.default_rng(1), np.arange(100) >= 50
    worse = monitor(days(rng, np.where(after, .75, .92)))
    assert worse.alarm.iloc[:50].eq('').all() and worse.alarm.iloc[-1] == 'rate' and abs(worse.since.iloc[-1]-50) <= 5
    judge = monitor(days(rng, .92, np.where(after, .65, .95)))
    assert 'judge' in judge.alarm.iloc[-1]


def test_an_alarm_stays():
    rng = np.random.default_rng(1)
    there_and_back = np.concatenate([np.full(30, .95), np.full(20, .6), np.full(50, .95)])
    alarm = monitor(days(rng, there_and_back)).alarm
    first = alarm.ne('').idxmax()
    assert 30 <= first < 50 and alarm[first:].ne('').all()


def test_runs_without_verdicts_or_labels_are_rows_of_the_table():
    table = pd.DataFrame(dict(run=['a', 'a', 'b', 'c'], passed=[True, False, None, True], label=[True, None, None, None]))
    found = monitor(table)
    assert found.run.tolist() == ['a', 'b', 'c'] and found.rows.tolist() == [2, 0, 1] and found.labels.tolist() == [1, 0, 0]
    assert found.low.notna().all() and found.high.notna().all()
    with pytest.raises(FastbookError, match="no column 'run'"): monitor(table.drop(columns='run'))
