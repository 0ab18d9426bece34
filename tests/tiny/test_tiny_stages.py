"Stages and sweeps that are killed go on; what was recorded leads back to the beginning."
import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import ROOT

pytest.importorskip('fastai')
pytest.importorskip('torch')

import numpy as np  # noqa: E402
import torch  # noqa: E402
from agentfastbook.text.spans import FastbookError  # noqa: E402
from agentfastbook.store.runs import Store  # noqa: E402
from agentfastbook.tiny.checkpoint import load_model, load_tokenizer  # noqa: E402
from agentfastbook.tiny.data import pack_blocks, story_texts, train_tokenizer  # noqa: E402
from agentfastbook.tiny.model import ModelConfig, TinyLM  # noqa: E402
from agentfastbook.tiny.stages import Stage, data_id, lineage, run_stages, weights_id  # noqa: E402
from agentfastbook.tiny.state import checkpoints  # noqa: E402
from agentfastbook.tiny.sweeps import plot_sweep, rate_sensitivity, sweep  # noqa: E402

CONFIG = ModelConfig(vocab_size=60, hidden=16, layers=1, heads=2, intermediate=32, positions=12)
PROGRAM = '''
import sys, time, numpy as np, torch
from agentfastbook.store.runs import Store
from agentfastbook.tiny.model import ModelConfig, TinyLM, lm_loss
from agentfastbook.tiny.stages import Stage, run_stages, weights_id
torch.set_num_threads(1)
torch.manual_seed(0)
model = TinyLM(ModelConfig(60, 16, 1, 2, 32, 12))
rng = np.random.default_rng(0)
data = lambda k: (rng.integers(60, size=(120, 1)) + k*np.arange(13)) % 60
def loss(logits, targets):
    if sys.argv[2] == 'slow': time.sleep(.01)
    return lm_loss(logits, targets)
stages = [Stage(name, data(k), steps=40, evaluate_every=10, batch_size=8, loss_func=loss, frozen=frozen)
          for k, (name, frozen) in enumerate([('one', ()), ('two', ('embed_tokens',)), ('three', ())], 1)]
with Store(sys.argv[1] + '/traces.db') as store:
    print(weights_id(run_stages(model, stages, sys.argv[1], store, device='cpu', quiet=True)))
'''


def blocks(step=1, n=120, seed=0):
    return (np.random.default_rng(seed).integers(60, size=(n, 1)) + step*np.arange(13)) % 60


def model():
    torch.manual_seed(0)
    return TinyLM(CONFIG)


def run_here(program, monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['-c', *map(str, words)])
    threads = torch.get_num_threads()
    try: exec(program, {'__name__': '__main__'})
    finally: torch.set_num_threads(threads)


def test_stages_killed_in_the_second_one_go_on(tmp_path, monkeypatch, capsys):
    whole, killed = tmp_path/'whole', tmp_path/'killed'
    for folder in (whole, killed): folder.mkdir()
    started = subprocess.Popen([sys.executable, '-c', PROGRAM, str(killed), 'slow'], cwd=ROOT)
    until = time.monotonic() + 180
    while not checkpoints(killed/'two'):
        assert started.poll() is None and time.monotonic() < until
        time.sleep(.005)
    started.kill()
    started.wait()
    assert not (killed/'three').exists(), 'it was killed too late'
    first = checkpoints(killed/'one')[-1]/'model.safetensors'
    made = first.stat().st_mtime_ns
    for folder in (killed, whole): run_here(PROGRAM, monkeypatch, folder, 'fast')
    resumed, uninterrupted = capsys.readouterr().out.split()
    assert resumed == uninterrupted
    assert first.stat().st_mtime_ns == made, 'the first stage was made again'
    with Store(killed/'traces.db') as store:
        assert lineage(store, resumed).stage.tolist() == ['one', 'two', 'three']
        assert store.runs().finished.isna().tolist() == [True, False]


def test_killed_between_the_last_step_and_the_record(tmp_path):
    "The stage is trained, but the store does not know it: nothing is trained again, and it is noted."
    stages = [Stage('one', blocks(), blocks(n=20, seed=1), steps=20, evaluate_every=10)]
    with Store(tmp_path/'a.db') as store: done = run_stages(model(), stages, tmp_path, store, device='cpu', quiet=True)
    before = [p.stat().st_mtime_ns for p in checkpoints(tmp_path/'one')]
    with Store(tmp_path/'b.db') as store:
        again = run_stages(model(), stages, tmp_path, store, device='cpu', quiet=True)
        assert weights_id(again) == weights_id(done)
        assert lineage(store, again).losses[0]['validation loss'] > 0
    assert [p.stat().st_mtime_ns for p in checkpoints(tmp_path/'one')] == before


def test_a_language_model_of_a_stage_can_be_read_with_its_tokenizer(tmp_path):
    texts = story_texts(30)
    tokenizer, other = train_tokenizer(texts, 300), train_tokenizer(texts[:5], 290)
    config = replace(CONFIG, vocab_size=300)
    stages = [Stage('language', pack_blocks(texts, tokenizer, 12), steps=4, evaluate_every=4)]
    with Store(tmp_path/'traces.db') as store:
        trained = run_stages(TinyLM(config), stages, tmp_path, store, tokenizer, device='cpu', quiet=True)
        assert weights_id(load_model(tmp_path/'language'/'model')) == weights_id(trained)
        assert load_tokenizer(tmp_path/'language'/'model').to_str() == tokenizer.to_str()
        again = [replace(stages[0], name='more')]
        grown = run_stages(load_model(tmp_path/'language'/'model'), again, tmp_path, store, tokenizer, device='cpu', quiet=True)
        assert lineage(store, grown).stage.tolist() == ['language', 'more'], 'also over two programs'
        torch.manual_seed(0)
        with pytest.raises(FastbookError, match='made with tokenizer = '):
            run_stages(load_model(tmp_path/'language'/'model'), again, tmp_path, store, other, device='cpu', quiet=True)
        with pytest.raises(FastbookError, match='tokenizer has 300 tokens, the model knows 60'):
            run_stages(model(), stages, tmp_path/'other', store, tokenizer, device='cpu', quiet=True)


def test_the_record_notes_what_changes_the_weights(tmp_path):
    "One different item, rate, frozen part or beginning makes another stage."
    base = Stage('one', blocks(), steps=2, evaluate_every=1)
    others = [replace(base, train=blocks(seed=1)), replace(base, lr=1e-4), replace(base, frozen=('embed',)),
              replace(base, batch_size=8), replace(base, steps=3)]
    with Store(tmp_path/'traces.db') as store:
        for i, stage in enumerate([base, *others]):
            run_stages(model(), [stage], tmp_path/str(i), store, device='cpu', quiet=True)
        assert store.calls(step='train').id.nunique() == 6
        run_stages(model(), [base], tmp_path/'0', store, device='cpu', quiet=True)
        assert len(store.calls(step='train').id.unique()) == 6
        for call in store.calls(step='train').itertuples():
            assert {'data', 'config', 'parent', 'frozen', 'tokenizer'} <= set(call.input)
            assert json.dumps(call.input)


def test_a_folder_that_was_lost_is_made_again(tmp_path):
    import shutil
    stages = [Stage('one', blocks(), steps=4, evaluate_every=2)]
    with Store(tmp_path/'traces.db') as store:
        first = run_stages(model(), stages, tmp_path, store, device='cpu', quiet=True)
        shutil.rmtree(tmp_path/'one')
        assert weights_id(run_stages(model(), stages, tmp_path, store, device='cpu', quiet=True)) == weights_id(first)


def test_fingerprints_follow_the_content():
    assert data_id(blocks()) == data_id(blocks().copy()) != data_id(blocks()[::-1])
    assert data_id(['ab', 'c']) != data_id(['a', 'bc'])
    assert data_id(blocks().astype(np.uint16)) != data_id(blocks())


def test_a_killed_sweep_goes_on(tmp_path, monkeypatch):
    program = '''
import sys, time, numpy as np, torch
from agentfastbook.tiny.model import ModelConfig
from agentfastbook.tiny.sweeps import sweep
torch.set_num_threads(1)
data = (np.random.default_rng(0).integers(60, size=(120, 1)) + np.arange(13)) % 60
def done(row):
    if sys.argv[2] == 'slow': print(row['rate'], flush=True); time.sleep(.2)
sweep(ModelConfig(60, 16, 1, 2, 32, 12), data[20:], data[:20], sys.argv[1], 8, (1e-3, 1e-2, 1.), {'plain': {}},
      evaluations=2, batch_size=8, device='cpu', done=done).to_json(sys.argv[1] + '/table.json')
'''
    started = subprocess.Popen([sys.executable, '-c', program, str(tmp_path/'killed'), 'slow'], cwd=ROOT, stdout=subprocess.PIPE)
    assert started.stdout.readline().strip() == b'0.001'
    started.kill()
    started.wait()
    started.stdout.close()
    first = tmp_path/'killed'/'plain-0.001'/'result.json'
    made = first.stat().st_mtime_ns
    assert not (tmp_path/'killed'/'table.json').exists()
    for name in ('killed', 'whole'): run_here(program, monkeypatch, tmp_path/name, 'fast')
    tables = [(tmp_path/name/'table.json').read_text() for name in ('killed', 'whole')]
    assert tables[0] == tables[1]
    assert first.stat().st_mtime_ns == made


def test_a_sweep_with_stabilisers(tmp_path):
    "QK norm bounds the attention logits at every rate; the plain model's grow with it."
    data = blocks(n=140)
    table = sweep(CONFIG, data[20:], data[:20], tmp_path, 20, (1e-3, 3e-1), {'plain': {}, 'QK norm': dict(qk_norm=True)},
                  evaluations=1, batch_size=8, device='cpu')
    highest = table.set_index(['variant', 'rate']).attention
    assert highest['plain', 3e-1] > 10*highest['plain', 1e-3]
    assert highest['plain', 3e-1] > 3*highest['QK norm', 3e-1]
    assert len(rate_sensitivity(table)) == 2 and len(plot_sweep(table).axes) == 2
