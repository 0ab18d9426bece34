"""Stage 3 of the task model: weights that choose a way to cut an answer, and the sentences that support a fact.

Both tasks are a choice: of all ways to cut an answer, and of all runs of sentences, which one? Each candidate has a few
features, and a worth, which is what the measure of the task says about it. `fit_choice` finds weights for the features,
either such that the best candidates are likely (aim 'likely'), or such that what is drawn by these chances is worth most
(aim 'worth'). The penalty holds the weights near those that they start from, because a hundred answers are few.
"""
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from agentfastbook.books.chapters import Chapter
from agentfastbook.books.questions import Question
from agentfastbook.engines.decompose import answer_units
from agentfastbook.engines.extract import Runs
from agentfastbook.engines.scoring import gold_components
from agentfastbook.stats.matching import decomposition_sums
from agentfastbook.stats.metrics import occurrences
from agentfastbook.text.spans import FastbookError, Span
from agentfastbook.tiny.encode import TinyEncoder
from agentfastbook.tiny.tasks import SELECTION, TinyExtractor, boundary_features, imitate_rules, join_units, rule_cuts

@dataclass(frozen=True)
class Choice:
    "What can be chosen in one case, and how good each candidate would be."
    features:np.ndarray # (candidates, features)
    worth:np.ndarray # (candidates,) by the measure of the task, higher is better

def fit_choice(
    choices:Sequence[Choice], # the cases
    start:np.ndarray|None=None, # (features,) weights from which the penalty counts; None: 0
    penalty:float=.1, # on the squared distance from `start`, > 0
    aim:str='worth', # 'worth': the expected worth; 'likely': chances near exp(sharpness * worth)
    sharpness:float=30., # for 'likely'
)->np.ndarray: # (features,) weights
    "Weights under which good candidates have the highest sum."
    if aim not in ('worth', 'likely'): raise FastbookError(f"aim {aim!r} is not known; choose 'worth' or 'likely'")
    if not choices: raise FastbookError("there is nothing to choose from; give at least one case")
    start = np.zeros(choices[0].features.shape[1]) if start is None else np.asarray(start, float)
    wanted = [np.exp(sharpness*(c.worth-c.worth.max())) for c in choices]
    def loss(weights):
        value,slope = penalty*((weights-start)**2).sum(),2*penalty*(weights-start)
        for c,good in zip(choices, wanted):
            total = c.features @ weights
            chances = np.exp(total-total.max())
            chances /= chances.sum()
            if aim == 'worth': step,gain = chances*(c.worth-chances @ c.worth),chances @ c.worth
            else: step,gain = good/good.sum()-chances,good/good.sum() @ np.log(chances+1e-300)
            value,slope = value-gain/len(choices),slope-step @ c.features/len(choices)
        return value,slope
    return minimize(loss, start, jac=True, method='L-BFGS-B').x

_MOST_CUTS = 9 # borders of which all ways to cut are compared

def ways_to_cut(
    likely:np.ndarray, # (borders,) what the rules do
)->np.ndarray: # (ways, borders) 1 where a component begins
    "All ways to cut an answer; of a long one those that differ from `likely` at two borders at most."
    n = len(likely)
    if n <= _MOST_CUTS: return np.array(list(itertools.product([0, 1], repeat=n)), int).reshape(2**n, n)
    flips = [()] + [(i,) for i in range(n)] + list(itertools.combinations(range(n), 2))
    return np.array([[int(bool(c) != (i in f)) for i,c in enumerate(likely)] for f in flips])

def boundary_choice(
    question:Question, # with components by hand
    heads:dict[str,np.ndarray], # of stage 2
    encoder:TinyEncoder, # of words
    price:float=.7, # of a component, about the F1 to be reached
)->tuple[Choice,np.ndarray]|None: # and (ways, 2) twice the shared part, components on both sides; None: nothing to cut
    "The ways to cut an answer; features are the rules' cuts, the guessed log-odds, and the number of cuts."
    text = question.gold_answer
    units = answer_units(text)
    if len(units) < 2: return None
    rules = rule_cuts(text, units)
    guessed = imitate_rules(boundary_features(encoder, text, units), heads)
    borders = np.column_stack([rules, guessed, np.ones(len(rules))])
    ways = ways_to_cut(rules[:,0])
    gold = [[s.of(text) for s in c.spans] or [c.text] for c in question.components]
    pairs = [(text, gold, [s.of(text) for s in join_units(units, way)]) for way in ways]
    sums = np.array(decomposition_sums(pairs)['soft_f1']).T
    return Choice(ways @ borders, sums @ [1, -price]),sums

WITH_RULES,ALONE = np.array([2., 0., 0., 0., -1.]),np.array([1., 0., 0.]) # what the weights start from

def fit_boundary(
    choices:Sequence[Choice], # of answers with two units or more
    penalty:float=.1, # see `fit_choice`
)->dict[str,np.ndarray]: # weights with the rules and without
    "Stage 3 of the boundary head."
    alone = [Choice(c.features[:,2:], c.worth) for c in choices]
    return dict(boundary=fit_choice(choices, WITH_RULES, penalty), boundary_alone=fit_choice(alone, ALONE, penalty))

def run_worth(
    runs:Runs, # of a component
    gold:list[Span], # what a person marked, in the chapter's text
    text:str, # of the chapter
)->np.ndarray: # (runs,) 0..1
    "Character F1 of each run alone."
    solid,marked = np.array([not c.isspace() for c in text], bool),np.zeros(len(text), bool)
    for s in gold: marked[s.start:s.end] = True
    both,size = (np.r_[0, np.cumsum(x)] for x in (solid & marked, solid))
    a,b = runs.spans.reshape(-1, 2).T
    return 2*(both[b]-both[a])/np.maximum(size[b]-size[a]+both[-1], 1)

def selection_choices(
    items:Sequence[tuple[Question,Chapter]], # with components and contexts by hand
    retrieve:Callable, # component, chapter -> ranked passages
    extract:TinyExtractor, # measures the runs
)->list[tuple[Question,Runs,np.ndarray]]: # with the worth of each run; without components that have no context there
    "What can be extracted for each gold component."
    res = []
    for q,chapter in items:
        for c,given in zip(gold_components(q), q.components):
            gold = [s for x in given.contexts for s in occurrences(x.text, chapter.text)]
            if not gold: continue
            runs = extract.measure(c, retrieve(c, chapter), chapter)
            if len(runs): res.append((q, runs, run_worth(runs, gold, chapter.text)))
    return res

def fit_selection(
    cases:Sequence[tuple[Runs,np.ndarray]], # runs and their worth
    names:tuple[str,...]=SELECTION, # measures that get a weight; the others get 0
    penalty:float=.02, # see `fit_choice`
    sharpen:float=2., # factor of the weights: the higher, the more does the likeliest run count
)->np.ndarray: # (measures,) weights, in the order of `SELECTION`
    "Stage 3 of the selection head."
    pairs = [(np.column_stack([r.measures[n] for n in names]), w) for r,w in cases if w.max() > .3]
    if not pairs: raise FastbookError("no component has a run that overlaps with its contexts; give more passages")
    spread = np.concatenate([x for x,_ in pairs]).std(0)+1e-9
    found = fit_choice([Choice(x/spread, w) for x,w in pairs], penalty=penalty/2, aim='likely')/spread*sharpen
    return np.array([dict(zip(names, found)).get(n, 0.) for n in SELECTION])
