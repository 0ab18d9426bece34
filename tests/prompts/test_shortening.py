"The proof behind a shorter prompt keeps its promise: alone, and over a whole run of cuts."
import numpy as np
import pytest
from scipy.stats import beta

from agentfastbook.text.spans import FastbookError
from agentfastbook.prompts.shortening import _lower_bound, prove_non_inferior, shorten
from agentfastbook.prompts.templates import Prompt


@pytest.mark.parametrize('n,lost,alpha', [(10, 0, .05), (100, 3, .05), (200, 0, .005), (500, 40, .01)])
def test_right_or_wrong_is_the_exact_bound(n, lost, alpha):
    "Clopper and Pearson's upper bound of the share that is lost, up to the last digits."
    exact = beta.ppf(1-alpha, lost+1, n-lost)
    assert -_lower_bound(-(np.arange(n) < lost).astype(float), alpha) == pytest.approx(exact, rel=1e-3)


def outcomes(rng, n, lost, won):
    u = rng.random(n)
    return np.where(u < lost, -1., np.where(u < lost+won, 1., 0.))


KINDS = {'right or wrong': lambda rng, n, loss: outcomes(rng, n, loss, 0),
         'churn': lambda rng, n, loss: outcomes(rng, n, .1+loss, .1),
         'halves': lambda rng, n, loss: -.5*(rng.random(n) < 2*loss),
         'rare and small': lambda rng, n, loss: np.where(rng.random(n) < loss*2/3, -1., -loss/3/(1-loss*2/3)),
         'F1': lambda rng, n, loss: np.clip(rng.normal(-loss, .2, n), -1, 1)}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('n,margin', [(10, .2), (40, .05), (100, .02)])
def test_a_prompt_that_is_worse_by_the_margin_is_seldom_accepted(kind, n, margin):
    "A t test accepts up to 87% of these. 100 draws: .12 is .05 and 3.2 standard errors."
    rng, known = np.random.default_rng(0), {}
    def accepted(d):
        key = tuple(np.sort(d))
        if key not in known: known[key] = _lower_bound(d, .05) > -margin
        return known[key]
    assert np.mean([accepted(KINDS[kind](rng, n, margin)) for _ in range(100)]) <= .12


def test_an_equal_prompt_is_proven_when_there_are_questions_enough():
    rng = np.random.default_rng(0)
    old = rng.uniform(.3, .9, 150)
    assert prove_non_inferior(old, old, .05).accepted
    assert np.mean([prove_non_inferior(old, np.clip(old+rng.normal(0, .1, 150), 0, 1), .05).accepted for _ in range(10)]) > .9
    assert not prove_non_inferior(old[:30], old[:30], .05).accepted  # 30 questions can't show it


def cutting(rng, n, losses):
    "A prompt with examples, each of which saves some questions from going wrong: what `shorten` needs, and the true loss."
    words = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'][:len(losses)]
    prompt = Prompt('p', 'Do it.\n\n{{examples}}\n', examples=tuple(f'{w*(40-4*i)}\n' for i, w in enumerate(words)))
    needs = rng.random((len(losses), n)) < np.array(losses)[:, None]
    def gone(p): return [i for i, e in enumerate(prompt.examples) if e not in p.examples]
    def evaluate(p): return 1.-needs[gone(p)].any(0)
    def loss(p): return 1-np.prod([1-losses[i] for i in gone(p)])
    return prompt, evaluate, loss


@pytest.mark.parametrize('n,losses,margin', [(10, [.15]*6, .2), (60, [.03]*6, .1), (60, [.1, .02]*3, .1)])
def test_a_whole_run_seldom_ends_worse_than_it_began(n, losses, margin):
    "60 runs: .13 is .05 and 2.9 standard errors; with a t test for each cut, 91% of the first kind ended worse."
    rng, worse = np.random.default_rng(0), 0
    for _ in range(60):
        prompt, evaluate, loss = cutting(rng, n, losses)
        worse += loss(shorten(prompt, evaluate, margin).new) >= margin
    assert worse/60 <= .13


def test_a_run_of_harmless_cuts_is_accepted():
    prompt, evaluate, _ = cutting(np.random.default_rng(0), 100, [0, 0, 0, 0])
    assert shorten(prompt, evaluate, .05).new.examples == ()


def test_one_bad_cut_does_not_stop_the_others():
    prompt, evaluate, _ = cutting(np.random.default_rng(0), 200, [.5, 0, 0])
    assert shorten(prompt, evaluate, .05).new.examples == prompt.examples[:1]


def test_what_can_not_be_tested_is_refused():
    right = [1.]*20
    for options, words in ((dict(margin=5), '5% as 0.05'), (dict(margin=.1, alpha=5), '5% as 0.05'),
                           (dict(new=[None]+right[1:]), 'missing'), (dict(new=[float('nan')]+right[1:]), 'missing'),
                           (dict(new=[-1]+right[1:]), 'scale them'), (dict(old=['a']*20), 'give numbers')):
        with pytest.raises(FastbookError, match=words): prove_non_inferior(**dict(dict(old=right, new=right, margin=.1) | options))
