"""Do the intervals behind a judge's verdicts keep their promise? Coverage and width on a grid, beside known tools.

    python benchmarks/judge.py                 # a part of the grid, in about a minute
    python benchmarks/judge.py --full          # the whole grid, 2,430 cells; writes benchmarks/judge.csv
    python benchmarks/judge.py --tools         # judgy, ppi-python and labels alone (pip install judgy ppi-python)
    python benchmarks/judge.py --alarm         # false alarms of the monitor over 100 days
    python benchmarks/judge.py --speed         # one estimate at 100,000 verdicts
    python benchmarks/judge.py --sittings      # balanced labels of the rows themselves, strata, several samples, runs
    python benchmarks/judge.py --proof         # how often a prompt that is worse by the margin is accepted

A cell is a true rate, the judge's TPR and TNR, a number of labels and of further rows, the way labels are chosen, and
rows that stand alone or come in fives. Five rows of a question share a rate from a Beta distribution with an
intra-class correlation of .3, and so do the judge's errors on them. Labels of the random design are those of whole
questions; by verdict and balanced, they are drawn row by row. Coverage is the share of repetitions in which the 95%
interval holds the true rate.
"""
import argparse
import itertools
import time

import numpy as np
import pandas as pd
from scipy.stats import betabinom, binom

from agentfastbook.stats.estimation import estimate
from agentfastbook.stats.intervals import damped_effect, error_rate_limits, mixture_limits, share_limits, strata_limits
from agentfastbook.judges.watch import estimate_runs, monitor
from agentfastbook.look.sampling import sample_random
from agentfastbook.prompts.shortening import _share_below

RATES, GOOD, LABELS, ROWS = (.5, .7, .8, .9, .97), (.75, .9, .98), (40, 100, 200), (100, 1000, 5000)
DESIGNS = 'random', 'by verdict', 'balanced'
CORRELATION = .3


def cluster_of(rng, rate, shape):
    "A rate for each cluster, with mean `rate` and the intra-class correlation."
    s = 1/CORRELATION-1
    return rng.beta(rate*s, (1-rate)*s, shape)[..., None]


def draw(rng, rate, tpr, tnr, repeats, clusters, size):
    "(repeats, clusters, size) truth and verdicts."
    shape = repeats, clusters, size
    if size == 1: rates = rate, tpr, 1-tnr
    else: rates = [cluster_of(rng, r, (repeats, clusters)) for r in (rate, tpr, 1-tnr)]
    truth = rng.random(shape, dtype=np.float32) < rates[0]
    return truth, rng.random(shape, dtype=np.float32) < np.where(truth, rates[1], rates[2])


def tallies(rng, rate, tpr, tnr, repeats, clusters, size):
    "(repeats, size+1) how many clusters have 0, 1, .. rows that the judge passes."
    chance = np.zeros(size+1)
    for k, share in enumerate(shares(size, rate)):
        both_classes = np.convolve(shares(k, tpr), shares(size-k, 1-tnr))
        chance += share*both_classes
    return rng.multinomial(clusters, chance/chance.sum(), repeats)


def shares(n, p):
    "How likely 0, 1, .. n of the n rows of a cluster are."
    if n <= 1: return np.array([1-p, p][:n+1]) if n else np.ones(1)
    s = 1/CORRELATION-1
    return betabinom.pmf(np.arange(n+1), n, p*s, (1-p)*s)


def pick(rng, kind, quota):
    "A random choice of at most `quota` rows among those marked in `kind`."
    keys = np.where(kind, rng.random(kind.shape, dtype=np.float32), 2).reshape(len(kind), -1)
    last = np.partition(keys, min(quota, keys.shape[1])-1, axis=1)[:, min(quota, keys.shape[1])-1]
    return kind & (keys.reshape(kind.shape) <= np.minimum(last, 1)[:, None, None])


def effect_of(parts, chosen):
    "`intervals.design_effect` for each repetition."
    parts, sizes = np.where(chosen, parts, 0), chosen.sum(-1)
    n, count = np.maximum(sizes.sum(-1), 1), (sizes > 0).sum(-1)
    rows, size = (parts**2).sum((-1, -2)), (sizes**2).sum(-1)/n
    seen = (parts.sum(-1)**2).sum(-1)/np.maximum(rows, 1e-30)*count/np.maximum(count-1, 1)*(n-1)/n
    return damped_effect(np.where(rows > 0, seen, size), count, size)


def passes(judged, more, size):
    "Rows that the judge passes, rows in all, and the effect of their clusters."
    k = np.arange(size+1)
    sums = judged.sum(-1)
    passed, rows = sums.sum(-1)+more@k, judged[0].size+more[0].sum()*size
    share, clusters = passed/rows, rows//size
    if size == 1: return passed, rows, 1.
    squares = ((sums-size*share[:, None])**2).sum(-1)+(more*(k-size*share[:, None])**2).sum(-1)
    seen = squares/np.maximum(rows*share*(1-share), 1e-30)*clusters/(clusters-1)*(rows-1)/rows
    return passed, rows, damped_effect(np.where((share > 0) & (share < 1), seen, size), clusters, size)


def counts(*masks): return np.stack([m.sum((-1, -2)) for m in masks], -1).astype(float)


def both(values, mask):
    "The second of two values where the mask holds, else the first."
    return np.where(mask, values[:, 1][:, None, None], values[:, 0][:, None, None])


def mixture(truth, judged, chosen, more, size):
    "The estimate from labels at random or by verdict."
    hits, n = (counts(*(m & k for k in (~judged, judged))) for m in (chosen & truth, chosen))
    passed, total, rows_effect = passes(judged, more, size)
    rows = np.stack([total-passed, passed], -1)
    if size == 1: return mixture_limits(hits, n, rows)
    parts = both(rows/total/np.maximum(n, 1), judged)*(truth-both((hits+.5)/(n+1), judged))
    return mixture_limits(hits, n, rows, effect_of(parts, chosen)[:, None], rows_effect)


def by_class(truth, judged, chosen, others, more, size):
    "Rogan and Gladen's estimate; the judge's rate is that of `others` and `more`."
    hits, n = (counts(m & truth, m & ~truth) for m in (chosen & judged, chosen))
    passed, total, rows_effect = passes(others, more, size)
    if size == 1: return error_rate_limits(hits, n, passed, total)
    parts = judged-both(((hits+.5)/(n+1))[:, ::-1], truth)
    effect = np.stack([effect_of(parts, chosen & truth), effect_of(parts, chosen & ~truth)], -1)
    return error_rate_limits(hits, n, passed, total, effect, rows_effect)


def sample(rng, design, rate, tpr, tnr, labels, rows, size, repeats):
    "Truth, verdicts, which of these rows are labelled, and tallies of further clusters."
    judge = rate, tpr, tnr, repeats
    if design == 'random':
        truth, judged = draw(rng, *judge, labels//size, size)
        return truth, judged, np.ones_like(truth), tallies(rng, *judge, rows//size, size)
    if design == 'by verdict': # fewer labels of a verdict where there are fewer rows of it
        truth, judged = draw(rng, *judge, (labels+rows)//size, size)
        chosen = pick(rng, judged, labels//2) | pick(rng, ~judged, labels-labels//2)
        return truth, judged, chosen, np.zeros((repeats, size+1), int)
    truth, judged = draw(rng, *judge, int(labels/(1-rate)/size*.6)+80//size, size)
    flat = truth.reshape(repeats, -1)
    chosen = np.where(flat, flat.cumsum(1) <= labels//2, (~flat).cumsum(1) <= labels-labels//2).reshape(truth.shape)
    return truth, judged, chosen, tallies(rng, *judge, rows//size, size)


def single(rng, design, rate, tpr, tnr, labels, rows, repeats):
    "Counts where rows stand alone: hits, labels and rows of each kind, and those of each class for Rogan-Gladen."
    share = rate*tpr+(1-rate)*(1-tnr)
    if design == 'balanced':
        n = np.broadcast_to([labels//2, labels-labels//2], (repeats, 2))
        return None, (rng.binomial(n, [tpr, 1-tnr]), n, rng.binomial(rows, share, repeats), rows)
    right = np.array([rate*(1-tpr)/(1-share), rate*tpr/share])
    if design == 'random':
        passed = rng.binomial(labels, share, repeats)
        n = np.stack([labels-passed, passed], -1)
        total = n+np.stack([rows-(more := rng.binomial(rows, share, repeats)), more], -1)
    else:
        passed = rng.binomial(labels+rows, share, repeats)
        total = np.stack([labels+rows-passed, passed], -1)
        n = np.minimum(total, [labels-labels//2, labels//2])
    hits = rng.binomial(n, right)
    classes = np.stack([hits[:, 1], n[:, 1]-hits[:, 1]], -1), np.stack([hits.sum(1), labels-hits.sum(1)], -1)
    return (hits, n, total), (*classes, total[:, 1], labels+rows)


def single_cell(rng, design, rate, tpr, tnr, labels, rows, repeats):
    "Like `cell`, for rows that stand alone."
    cells, classes = single(rng, design, rate, tpr, tnr, labels, rows, repeats)
    value, low, high = mixture_limits(*cells) if cells else error_rate_limits(*classes)
    wide = [np.nan, np.nan]
    if design == 'random':
        passed = cells[0].sum(1)
        wide = [(x[-1]-x[-2]).mean() for x in (share_limits(passed, labels), error_rate_limits(*classes))]
    return scores(rate, low, high, wide)


def class_labels(rng, rate, passes, quota, size, repeats):
    "Labels of one class, cluster by cluster until there are enough: how many of them the judge passes, and the effect."
    chance = shares(size, rate)[1:]
    k = rng.choice(np.arange(1, size+1), (repeats, quota), p=chance/chance.sum())
    k = np.clip(quota-k.cumsum(1)+k, 0, k)
    s = 1/CORRELATION-1
    hits = rng.binomial(k, rng.beta(passes*s, (1-passes)*s, k.shape))
    centre, count = ((hits.sum(1)+.5)/(quota+1))[:, None], (k > 0).sum(1)
    rows = (hits*(1-centre)**2+(k-hits)*centre**2).sum(1)
    seen = ((hits-k*centre)**2).sum(1)/rows*count/np.maximum(count-1, 1)*(quota-1)/quota
    width = (k**2).sum(1)/quota
    return hits.sum(1), damped_effect(np.where(count > 1, seen, width), count, width)


def balanced_cell(rng, rate, tpr, tnr, labels, rows, size, repeats):
    "Like `cell`, for balanced labels in clusters: the judge's errors in the two classes are independent."
    quotas = np.array([labels//2, labels-labels//2])
    parts = [class_labels(rng, r, p, q, size, repeats) for r, p, q in zip((rate, 1-rate), (tpr, 1-tnr), quotas)]
    hits, effect = (np.stack(x, -1) for x in zip(*parts))
    more = tallies(rng, rate, tpr, tnr, repeats, rows//size, size)
    passed, total, rows_effect = passes(np.zeros((repeats, 0, size), bool), more, size)
    found = error_rate_limits(hits, np.broadcast_to(quotas, hits.shape), passed, total, effect, rows_effect)
    return scores(rate, *found[1:], (np.nan, np.nan))


def scores(rate, low, high, wide):
    return dict(coverage=((low <= rate) & (rate <= high)).mean(), below=(high < rate).mean(), above=(low > rate).mean(),
                width=(high-low).mean(), labels_alone=wide[0], rogan_gladen=wide[1])


def cell(rng, design, rate, tpr, tnr, labels, rows, size, repeats, check=0):
    "Coverage and mean width of a cell, and the widths of labels alone and of Rogan-Gladen for the random design."
    found, wide = [], []
    step = max(1, min(repeats, 2_000_000//(labels+rows)))
    for start in range(0, repeats, step):
        data = sample(rng, design, rate, tpr, tnr, labels, rows, size, min(step, repeats-start))
        truth, judged, chosen, more = data
        if design == 'balanced': res = by_class(truth, judged, chosen, judged[:, :0], more, size)
        else: res = mixture(*data, size)
        found.append(res)
        if design == 'random':
            passed = truth.sum((1, 2))
            effect = effect_of(truth-((passed+.5)/(labels+1))[:, None, None], chosen) if size > 1 else 1.
            others = share_limits(passed/effect, labels/effect), by_class(truth, judged, chosen, judged, more, size)
            wide.append([(x[-1]-x[-2]).mean() for x in others])
        if check and start == 0: compare(design, data, res, size, check)
    value, low, high = (np.concatenate(x) for x in zip(*found))
    alone, corrected = np.mean(wide, 0) if wide else (np.nan, np.nan)
    return scores(rate, low, high, (alone, corrected))


def compare(design, data, res, size, check):
    "What is simulated on arrays is what `estimate` says."
    for i, (truth, judged, chosen, more) in enumerate(zip(*(d[:check] for d in data))):
        further = np.concatenate([np.arange(size) < k for k, c in enumerate(more) for _ in range(c)] or [[]])
        known = chosen.ravel() if design == 'balanced' else np.ones(judged.size, bool)
        verdicts = pd.Series(np.concatenate([judged.ravel()[known], further.astype(bool)]))
        clusters = np.concatenate([np.repeat(np.arange(len(judged)), size)[known], 10**6+np.arange(len(further))//size])
        labels = pd.Series(truth.ravel()[known])[chosen.ravel()[known]]
        one = estimate(verdicts, labels, design, clusters=None if size == 1 else pd.Series(clusters),
                       elsewhere=design == 'balanced')
        np.testing.assert_allclose([one.value, one.low, one.high], [x[i] for x in res], atol=1e-9)


def grid(full):
    "All cells, or a part of them."
    if full: return list(itertools.product(DESIGNS, (1, 5), RATES, GOOD, GOOD, LABELS, ROWS))
    return list(itertools.product(DESIGNS, (1, 5), (.5, .8, .97), (.75, .98), (.9,), (40, 200), (100, 1000)))


def coverage(full, repeats, check=1):
    "A row for each cell; some repetitions of every cell are compared with `estimate`."
    rng, rows = np.random.default_rng(42), []
    for design, size, *judge in sorted(grid(full), key=lambda c: c[1]):
        slow = size > 1 and design != 'balanced'
        got = cell(rng, design, *judge, size, repeats//2 if slow else check, check)
        if size == 1: got = single_cell(rng, design, *judge, repeats)
        elif not slow: got = balanced_cell(rng, *judge, size, repeats//2)
        rows.append(dict(zip(('design', 'clusters', 'rate', 'tpr', 'tnr', 'labels', 'rows'), (design, size, *judge)), **got))
        if full and len(rows) % 135 == 0: save(pd.DataFrame(rows))
    return pd.DataFrame(rows)


def save(df): df.drop(columns=['below', 'above']).round(4).to_csv(__file__.replace('.py', '.csv'), index=False)


def summary(df):
    "Coverage by design and clusters."
    groups = df.groupby(['design', 'clusters'], sort=False)
    inside = df.coverage.between(.94, .97)
    table = groups.coverage.agg(cells='size', lowest='min', median='median', highest='max')
    return table.assign(below_94=groups.coverage.apply(lambda c: (c < .94).mean()),
                        within=inside.groupby([df.design, df.clusters], sort=False).mean(),
                        above_97=groups.coverage.apply(lambda c: (c > .97).mean()),
                        width=groups.width.mean())


def wilson_width(rate, labels):
    "Mean width of Wilson's interval of labels alone."
    x, z = np.arange(labels+1), 1.96
    return (binom.pmf(x, labels, rate)*2*z/(labels+z*z)*np.sqrt(x*(labels-x)/labels+z*z/4)).sum()


def report(df):
    print(summary(df).round(3).to_string())
    drawn = df[df.design == 'random']
    alone = drawn[drawn.clusters == 1]
    ratio = alone.width/[wilson_width(*c) for c in zip(alone.rate, alone.labels)]
    print(f'width / labels alone by Wilson, single rows: mean {ratio.mean():.3f}, highest {ratio.max():.3f}')
    for name in ('labels_alone', 'rogan_gladen'):
        ratio = drawn.width/drawn[name]
        print(f'width / {name}, random labels: mean {ratio.mean():.3f}, median {ratio.median():.3f}, '
              f'lowest {ratio.min():.3f}, highest {ratio.max():.3f}, of mean widths '
              f'{drawn.width.mean()/drawn[name].mean():.3f}')


def alarm(repeats=300, days=100, rows=100, labels=10):
    "How often a quiet hundred days raise an alarm, and how soon a real change does; a daily z-test beside."
    rng = np.random.default_rng(0)

    def table(rate, tpr):
        truth = rng.random((days, rows)) < np.broadcast_to(rate, days)[:, None]
        judged = rng.random((days, rows)) < np.where(truth, np.broadcast_to(tpr, days)[:, None], .2)
        label = truth.astype(object)
        label[:, labels:] = None
        return pd.DataFrame(dict(run=np.repeat(np.arange(days), rows), passed=judged.ravel().astype(object),
                                 label=label.ravel()))

    def naive(frame):
        "A two-sample z-test of each day against the first ten, at 5%."
        share = frame.groupby('run').passed.mean().to_numpy(float)
        base = share[:10].mean()
        error = np.sqrt(base*(1-base)*(1/rows+1/rows/10))
        return bool((abs(share[10:]-base) > 1.96*error).any())

    half = days//2
    after = np.arange(days) >= half
    for name, rate, tpr in (('quiet', .9, .95), ('rate .9 to .8', np.where(after, .8, .9), .95),
                            ('judge .95 to .8', .9, np.where(after, .8, .95))):
        said, plain, delays, held = [], [], [], []
        for _ in range(repeats if name == 'quiet' else repeats//8):
            frame = table(rate, tpr)
            found = monitor(frame)
            said.append(found.alarm.iloc[-1])
            plain.append(naive(frame))
            if said[-1]: delays.append(found.alarm.ne('').idxmax()-half)
            held.append(bool(((found.low <= .9) & (.9 <= found.high)).all()))
        line = f'{name}: alarm {np.mean([bool(s) for s in said]):.3f}, daily z-test {np.mean(plain):.3f}'
        if name == 'quiet': line += f', interval holds the rate on all days {np.mean(held):.3f}'
        else: line += f", median {np.median(delays):.0f} days after the change; {pd.Series(said).value_counts().to_dict()}"
        print(line)


def inside(found, rate): return ((found[1] <= rate+1e-9) & (rate-1e-9 <= found[2])).mean()


def balanced_of_these(rng, repeats):
    "Coverage where the balanced labels are of the rows themselves, with and without these rows in the judge's rate."
    for rate, (tpr, tnr), labels, rows in itertools.product((.5, .8, .9, .97), ((1, 1), (.99, .7), (.9, .9), (.75, .95), (.98, .98)),
                                                            (20, 40, 100, 200), (200, 1000, 5000)):
        good = rng.binomial(rows, rate, repeats)
        total = np.stack([good, rows-good], -1)
        passed = rng.binomial(total, [tpr, 1-tnr])
        n = np.minimum(total, labels//2)
        hits = rng.hypergeometric(passed, total-passed, n)
        kept = (n > 0).all(1) & (hits[:, 0]*n[:, 1] > hits[:, 1]*n[:, 0])  # the others are refused
        hits, n, passed = hits[kept], n[kept], passed[kept].sum(1)
        yield dict(kind='balanced', now=inside(error_rate_limits(hits, n, passed, np.full(len(n), rows)), rate),
                   before=inside(error_rate_limits(hits, n, passed-hits.sum(1), np.maximum(rows-n.sum(1), 1)), rate))


def strata_counts(rng, rates, sizes, labels, tpr, tnr, repeats):
    "(repeats, strata, verdicts) true passes among the labels, labels and rows of each cell."
    cells = []
    for rate, rows, n in zip(rates, sizes, labels):
        share = rate*tpr+(1-rate)*(1-tnr)
        passed = rng.binomial(rows, share, repeats)
        k = rng.hypergeometric(passed, rows-passed, min(n, rows))
        hits = rng.binomial(min(n, rows)-k, rate*(1-tpr)/(1-share)), rng.binomial(k, rate*tpr/share)
        cells.append([np.stack(x, -1).astype(float) for x in (hits, (min(n, rows)-k, k), (rows-passed, passed))])
    return [np.stack(x, 1) for x in zip(*cells)]


def strata_cells():
    "Two strata that differ in size, rate and labelled share; five strata with few labels each."
    judges = (.9, .8), (.6, .95), (1., 1.), (.55, .55)
    sizes = (((200, 2000), (40, 40)), ((200, 2000), (20, 100)), ((1000, 1000), (100, 20)), ((1000, 1000), (20, 100)),
             ((500, 1500), (10, 100)), ((500, 1500), (100, 10)), ((60, 3000), (60, 60)))
    for rates in ((.5, .9), (.9, .5), (.95, .95), (.3, .6), (.99, .8), (.8, .99), (.6, .9)):
        for (rows, labels), judge in itertools.product(sizes, judges): yield 'two', rates, rows, labels, judge
    share = np.array([.05, .1, .2, .25, .4])
    for rate in (.2, .35, .9, .97):
        rates = 1/(1+np.exp(-(np.log(rate/(1-rate))+np.array([-1.5, .8, 0, -.5, 1.]))))
        rates = np.clip(rates-(rates@share-rate), .005, .995)
        for judge, labels, rows in itertools.product(((.6, .95), (.99, .7), (.55, .55), (1., 1.)), (10, 25, 60, 400), (700, 20000)):
            yield 'five', rates, (share*rows).astype(int), [labels//5]*5, judge


def strata_coverage(rng, repeats):
    "Coverage of strata that are known, of samples that are weighted, and of all labels pooled as one random sample."
    for kind, rates, sizes, labels, judge in strata_cells():
        hits, n, rows = strata_counts(rng, rates, sizes, labels, *judge, repeats)
        rate = np.dot(rates, sizes)/sum(sizes)
        before = inside(mixture_limits(*(x.sum(1) for x in (hits, n, rows))), rate)
        cells = inside(mixture_limits(*(x.reshape(repeats, -1) for x in (hits, n, rows))), rate)
        yield dict(kind=f'{kind} strata', now=inside(strata_limits(hits, n, rows), rate), before=cells)
        if kind == 'five': continue
        shares = (n+.5)*(np.array(sizes)/np.array(labels))[:, None]
        shared = shares/shares.sum(1, keepdims=True)*rows.sum(1, keepdims=True)
        yield dict(kind='two samples', now=inside(strata_limits(hits, n, shared), rate), before=before)


def run_coverage(rng, repeats):
    "Through `estimate` and `estimate_runs`: two chapters or runs, each with a random sample of its own."
    for rates, rows, labels in itertools.product(((.5, .9), (.6, .9), (.9, .5), (.95, .99)), ((200, 2000), (500, 700)), ((40, 40), (60, 20))):
        held = {'estimate': [], 'estimate_runs': []}
        for _ in range(repeats):
            truth = np.concatenate([rng.random(n) < r for n, r in zip(rows, rates)])
            df = pd.DataFrame(dict(run=np.repeat([1, 2], rows), label=truth, question=np.arange(sum(rows)),
                                   passed=np.where(truth, rng.random(sum(rows)) < .9, rng.random(sum(rows)) < .2)))
            drawn = pd.concat([sample_random(df[df.run == i], n, int(rng.integers(1e9))) for i, n in zip((1, 2), labels)])
            rate = np.dot(rates, rows)/sum(rows)
            for name, one in (('estimate', estimate(df.passed, drawn.label, sampling=drawn.sampling)),
                              ('estimate_runs', estimate_runs(df.drop(columns='label').join(drawn[['label', 'sampling']])))):
                held[name].append(one.low <= rate <= one.high)
        for name, found in held.items(): yield dict(kind=name, now=np.mean(found), before=np.nan)


def sittings(repeats):
    "Cells, lowest and median coverage, and cells below .93 and .92; before: as if labels had been one random sample."
    rng = np.random.default_rng(5)
    runs = run_coverage(rng, repeats//10)
    df = pd.DataFrame([*balanced_of_these(rng, repeats), *strata_coverage(rng, repeats//2), *runs])
    groups = df.groupby('kind', sort=False)
    table = groups.now.agg(cells='size', lowest='min', median='median')
    table = table.assign(**{f'below_{b:.2f}'[-3:]: groups.now.apply(lambda c, b=b: (c < b).sum()) for b in (.93, .92)})
    print(table.assign(before_lowest=groups.before.min(), before_below_93=groups.before.apply(lambda c: (c < .93).sum())).round(3).to_string())


def differences(rng):
    "Kinds of differences of a new prompt from the old one, whose mean is -loss: name -> function of questions and loss."
    def outcomes(n, lost, won):
        u = rng.random(n)
        return np.where(u < lost, -1., np.where(u < lost+won, 1., 0.))
    return {'right or wrong': lambda n, loss: outcomes(n, loss, 0), 'churn of 5%': lambda n, loss: outcomes(n, .05+loss, .05),
            'churn of 10%': lambda n, loss: outcomes(n, .1+loss, .1), 'halves': lambda n, loss: -.5*(rng.random(n) < 2*loss),
            'quarters': lambda n, loss: -.25*(rng.random(n) < 4*loss),
            'rare and small': lambda n, loss: np.where(rng.random(n) < loss*2/3, -1., -loss/3/(1-loss*2/3)),
            'F1, wide': lambda n, loss: np.clip(rng.normal(-loss, .2, n), -1, 1),
            'F1, narrow': lambda n, loss: np.clip(rng.normal(-loss, .05, n), -1, 1),
            'skewed': lambda n, loss: -rng.beta(.3, .3*(1-loss)/loss, n),
            'most unchanged': lambda n, loss: np.where(rng.random(n) < .7, 0, np.clip(rng.normal(-loss/.3, .1, n), -1, 1))}


def proof(repeats):
    "How often a prompt that is worse by the margin is accepted, by the bound and by a t test, and one that is as good."
    from scipy.stats import t as student
    rng, rows, known = np.random.default_rng(1), [], {}

    def bound(d, level, margin):
        "Is the lower bound above -margin? The same as in `prove_non_inferior`, without looking for the bound itself."
        kinds, counts = np.unique(np.append(d, -1.), return_counts=True)
        key = margin, *kinds, *counts
        if len(kinds) > 4 or key not in known:
            known[key] = _share_below(kinds+margin, counts) if (kinds*counts).sum() > -margin*counts.sum() else 1.
        return known[key] <= level

    def plain(d, level, margin): return d.mean()-student.ppf(1-level, len(d)-1)*d.std(ddof=1)/len(d)**.5 > -margin

    for level, (name, draw), margin, n in itertools.product((.05, .005), differences(rng).items(), (.02, .05, .1, .2),
                                                            (5, 10, 20, 50, 100, 200, 500)):
        count = repeats if name in ('right or wrong', 'halves', 'quarters') or 'churn' in name else max(repeats//(1+n//100), 100)
        worse = [draw(n, margin) for _ in range(count)]
        for test, decide in (('bound', bound), ('t test', plain)):
            accepted = np.mean([decide(d, level, margin) for d in worse])
            rows.append(dict(level=level, test=test, differences=name, margin=margin, questions=n, accepted=accepted,
                             too_often=accepted > level+2.6*np.sqrt(level*(1-level)/count)))
    df = pd.DataFrame(rows)
    print(df.groupby(['level', 'test']).agg(cells=('accepted', 'size'), too_often=('too_often', 'sum'), mean=('accepted', 'mean'),
                                            highest=('accepted', 'max')).round(4).to_string())
    print(df[df.too_often & (df.test == 'bound')].to_string() if (df.too_often & (df.test == 'bound')).any() else 'the bound: no cell too often')


def tools(repeats=300):
    "Coverage of judgy, ppi-python and labels alone in some cells, beside `estimate`."
    from judgy import estimate_success_rate
    from ppi_py import ppi_mean_ci
    rng = np.random.default_rng(0)
    for design, rate, tpr, tnr, labels, rows in (('random', .8, .9, .9, 100, 1000), ('random', .97, .9, .9, 100, 1000),
                                                 ('by verdict', .9, .9, .9, 100, 1000),
                                                 ('balanced', .8, .9, .9, 100, 1000), ('balanced', .97, .9, .75, 100, 1000)):
        data = sample(rng, design, rate, tpr, tnr, labels, rows, 1, repeats)
        ends = {name: [] for name in ('estimate', 'judgy', 'ppi-python', 'labels alone')}
        for truth, judged, chosen, more in zip(*data):
            y, j, mask = truth.ravel(), judged.ravel(), chosen.ravel()
            others = np.repeat([0, 1], more) if more.any() else j[~mask].astype(int)
            verdicts, said = np.concatenate([j[mask], others.astype(bool)]), y[mask]
            one = estimate(pd.Series(verdicts), pd.Series(said), design, elsewhere=design == 'balanced')
            ends['estimate'].append((one.low, one.high))
            try: ends['judgy'].append(estimate_success_rate(said.astype(int), j[mask].astype(int), others, 500)[1:])
            except (ValueError, RuntimeError): ends['judgy'].append((0., 1.))
            ppi = ppi_mean_ci(said.astype(float), j[mask].astype(float), others.astype(float), alpha=.05)
            ends['ppi-python'].append([float(x[0]) for x in ppi])
            ends['labels alone'].append([float(x) for x in share_limits(said.sum(), len(said))])
        print(f'{design}, rate {rate}, TPR {tpr}, TNR {tnr}, {labels} labels, {rows} rows: coverage (width)')
        for name, found in ends.items():
            low, high = np.array(found).T
            print(f'    {name:13s} {((low <= rate) & (rate <= high)).mean():.3f} ({(high-low).mean():.3f})')


def speed():
    rng = np.random.default_rng(0)
    truth = rng.random(100_000) < .9
    verdicts = pd.Series(np.where(truth, rng.random(100_000) < .95, rng.random(100_000) < .2))
    at = rng.permutation(100_000)[:200]
    labels, questions = pd.Series(truth[at], index=at), np.arange(100_000)//5
    for name, options in (('rows alone', {}), ('clusters', dict(clusters=questions))):
        times = []
        for _ in range(7):
            start = time.process_time()
            estimate(verdicts, labels, 'random', **options)
            times.append(time.process_time()-start)
        print(f'one estimate at 100,000 verdicts, {name}: {1000*np.median(times):.0f} ms of one core')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('full', 'tools', 'alarm', 'speed', 'sittings', 'proof'): parser.add_argument(f'--{name}', action='store_true')
    parser.add_argument('--repeats', type=int, default=4000, help='of a cell with single rows; half of it with clusters')
    args = parser.parse_args()
    for name, do in (('speed', speed), ('alarm', alarm), ('tools', tools)):
        if getattr(args, name): return do()
    for name, do in (('sittings', sittings), ('proof', proof)):
        if getattr(args, name): return do(args.repeats)
    df = coverage(args.full, args.repeats)
    report(df)
    if args.full: save(df)


if __name__ == '__main__': main()
