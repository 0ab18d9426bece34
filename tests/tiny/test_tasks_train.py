"The recipe of the bundled task model: choices and stages as they are said to be, and the whole of it, small."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_choosing as choosing
import tiny_tasks_train as recipe
import torch

from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.books.questions import load_benchmark
from agentfastbook.engines.decompose import answer_units
from agentfastbook.engines.retrieve import Retriever
from agentfastbook.engines.scoring import score_decomposers
from agentfastbook.store.runs import Store
from agentfastbook.text.spans import FastbookError
from agentfastbook.tiny.checkpoint import load_model
from agentfastbook.tiny.data import train_tokenizer
from agentfastbook.tiny.encode import load_arrays, plain_words, tiny_path
from agentfastbook.tiny.model import TinyLM
from agentfastbook.tiny.stages import lineage, run_stages, weights_id
from agentfastbook.tiny.tasks import HEADS, SELECTION, TinyDecomposer, TinyExtractor, imitate_rules, task_encoders
from conftest import ROOT
from story_book import story_book

BOOK = read_book(sample_path())
QUESTIONS = [q for q in load_benchmark(sample_path()/'benchmark.json').questions if q.components]
BLOCKS = [b.span.of(c.text) for c in BOOK for b in c.blocks]


def heads_of(folder): return load_arrays(Path(folder)/HEADS, load_model(folder).config.id, {})


@pytest.fixture(scope='module')
def encoder(): return task_encoders()['boundary']


# choices

CASE = choosing.Choice(np.array([[0., 1.], [1., 0.], [0., 0.]]), np.array([0., 1., .2]))


@pytest.mark.parametrize('aim', ['worth', 'likely'])
def test_the_feature_of_the_best_candidate_gets_a_weight(aim):
    light, heavy = (choosing.fit_choice([CASE], penalty=p, aim=aim) for p in (.01, 10.))
    assert light[0] > 1 > heavy[0] > 0 > light[1]  # a heavy penalty keeps it small


def test_the_penalty_holds_weights_near_their_start():
    assert choosing.fit_choice([CASE], start=np.array([5., 5.]), penalty=1000.) == pytest.approx([5, 5], abs=.01)
    with pytest.raises(FastbookError, match="aim 'luck' is not known"): choosing.fit_choice([CASE], aim='luck')
    with pytest.raises(FastbookError, match='nothing to choose from'): choosing.fit_choice([])


def test_ways_to_cut():
    assert choosing.ways_to_cut(np.array([1, 0])).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert len(choosing.ways_to_cut(np.zeros(10))) == 1 + 10 + 45  # all would be 1,024
    assert choosing.ways_to_cut(np.zeros(0)).tolist() == [[]]


def test_boundaries_are_chosen_better_than_by_never_cutting(encoder):
    found = [choosing.boundary_choice(q, heads_of(tiny_path()), encoder) for q in QUESTIONS]
    choices = [f[0] for f in found if f]
    fitted = choosing.fit_boundary(choices)
    best = [int(np.argmax(c.features @ fitted['boundary'])) for c in choices]
    assert np.mean([c.worth[b] for c, b in zip(choices, best)]) > np.mean([c.worth[0] for c in choices])
    assert [f is None for f in found] == [len(answer_units(q.gold_answer)) < 2 for q in QUESTIONS]
    assert [len(values) for values in fitted.values()] == [5, 3]


def test_sentences_are_chosen_better_with_all_measures():
    found = choosing.selection_choices([(q, BOOK[q.chapter]) for q in QUESTIONS], Retriever(), TinyExtractor())
    cases = [(runs, worth) for _, runs, worth in found]
    chosen, only = choosing.fit_selection(cases), choosing.fit_selection(cases, names=('words', 'length'))
    assert [n for n, w in zip(SELECTION, only) if w] == ['words', 'length'] and len(chosen) == len(SELECTION)
    assert all(0 <= worth.min() <= worth.max() <= 1 for _, worth in cases)

    def mean_worth(weights):
        return np.mean([worth[np.argmax(sum(w*runs.measures[n] for n, w in zip(SELECTION, weights)))]
                        for runs, worth in cases])
    assert mean_worth(chosen) > mean_worth(only)
    with pytest.raises(FastbookError, match='no component has a run'):
        choosing.fit_selection([(runs, worth*0) for runs, worth in cases])


# stages

def test_embeddings_are_counted():
    tokenizer = train_tokenizer([plain_words(b) for b in BLOCKS], 1200)
    table = recipe.start_embeddings(BLOCKS, tokenizer, dims=16)
    starter = tokenizer.token_to_id('Ġstarter')
    near = [tokenizer.id_to_token(int(i)).strip('Ġ') for i in np.argsort(-(table @ table[starter]))[:5]]
    assert table.shape == (1200, 16) and near[0] == 'starter' and {'flour', 'water'} & set(near)
    assert table == pytest.approx(recipe.start_embeddings(BLOCKS, tokenizer, dims=16), abs=1e-4)
    with pytest.raises(FastbookError, match='must be less than the 1200 tokens'):
        recipe.start_embeddings(BLOCKS, tokenizer, dims=1200)
    with pytest.raises(FastbookError, match='no two tokens'): recipe.start_embeddings(['bread', ''], tokenizer, 4, reach=1)


def test_borders_of_paragraphs_and_of_stories(encoder):
    with pytest.raises(FastbookError, match='two units or more'): recipe.imitation_pairs(encoder, ['One sentence.', ''])
    first = next(b for b in BLOCKS if 2 <= len(answer_units(b)) <= 10)
    assert len(recipe.imitation_pairs(encoder, BLOCKS, most=1)) == len(answer_units(first)) - 1
    told = story_book(24)[1]
    borders = recipe.story_pairs(encoder, told)
    assert len(borders) == sum(max(len(answer_units(q.gold_answer)) - 1, 0) for q in told)
    assert all(cuts[0] == cuts[1] for _, cuts in borders)  # the truth, for both


def test_the_form_is_learned_and_the_rest_is_frozen(encoder, tmp_path):
    items, trunk = recipe.imitation_pairs(encoder, BLOCKS), load_model(tiny_path())
    with Store(tmp_path/'traces.db') as store:
        guesser = run_stages(trunk, [recipe.form_stage(items[:70], items[70:], steps=20)], tmp_path, store,
                             device='cpu', quiet=True)
        agreed = lineage(store, guesser).losses[0]['agreement']
    rows, cuts = map(np.stack, zip(*items[70:]))
    assert agreed == pytest.approx(((imitate_rules(rows, guesser.heads) > 0) == cuts).mean(), abs=1e-6)
    assert guesser(torch.tensor(rows)).detach().numpy() == pytest.approx(imitate_rules(rows, guesser.heads), abs=1e-4)
    rounded = dict(trunk.half().float().named_parameters())  # the trunk is kept in 16 bits, as it is shipped
    assert all(p.equal(rounded[name]) for name, p in guesser.trunk.named_parameters())
    for name in ('boundary', 'selection'):
        assert guesser.heads[name].tolist() == recipe.new_heads(rows)[name].tolist()


def test_the_shipped_weights_have_the_fingerprint_with_which_their_lineage_ends():
    model = recipe.TaskModel(load_model(tiny_path()), heads_of(tiny_path()))
    bundled = json.loads((tiny_path()/'lineage.json').read_text())
    assert [row['stage'] for row in bundled] == ['language', 'form', 'task']
    assert weights_id(model) == bundled[-1]['weights']


def test_heads_of_another_trunk_are_refused(encoder, tmp_path):
    items, other = recipe.imitation_pairs(encoder, BLOCKS, most=5), TinyLM(load_model(tiny_path()).config)
    with Store(tmp_path/'traces.db') as store, pytest.raises(FastbookError, match='is not the trunk of these heads'):
        recipe.train_heads(other, tiny_path(), items, QUESTIONS[:3], BOOK, tmp_path, store, steps=2)


# the whole of it

def train(folder):
    command = [sys.executable, 'benchmarks/tiny_tasks_train.py', folder, '--data', 'nowhere', '--packages', 'fastcore',
               '--vocabulary', 1500, '--steps', 6, '--most', 80, '--stories', 12, '--head-steps', 20]
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_small_run_through_all_stages(tmp_path):
    "On the docstrings of one package, and on the sample book, whose author splits finer than the rules do."
    assert '21 questions of sample' in train(tmp_path)
    shipped = json.loads((tmp_path/'model'/'lineage.json').read_text())
    assert [(row['stage'], row['steps']) for row in shipped] == [('language', 6), ('form', 20), ('task', None)]
    assert [row['parent'] for row in shipped[1:]] == [row['weights'] for row in shipped[:-1]]
    assert weights_id(recipe.TaskModel(load_model(tmp_path/'model'), heads_of(tmp_path/'model'))) == shipped[-1]['weights']
    scores = score_decomposers(QUESTIONS, dict(fitted=TinyDecomposer(tmp_path/'model'), bundled=TinyDecomposer()))
    values = scores[scores.measure.eq('soft_f1') & scores.questions.eq('all')].set_index('engine').value
    assert values['fitted'] > values['bundled']  # on the answers it was fitted on, so this only shows that it learns
    before = sorted(p.stat().st_mtime_ns for p in tmp_path.rglob('step-*/*'))
    train(tmp_path)  # what is done already is not done again
    assert sorted(p.stat().st_mtime_ns for p in tmp_path.rglob('step-*/*')) == before
