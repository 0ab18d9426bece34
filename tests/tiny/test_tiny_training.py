"Training as it goes in real life: killed without warning, out of memory, with files that were cut off."
import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

pytest.importorskip('fastai')
pytest.importorskip('torch')

import numpy as np  # noqa: E402
import torch  # noqa: E402
from fastai.callback.core import Callback  # noqa: E402
from agentfastbook.text.spans import FastbookError  # noqa: E402
from agentfastbook.tiny.dynamics import Dynamics, Samples, read_log, read_samples  # noqa: E402
from agentfastbook.tiny.model import ModelConfig, TinyLM  # noqa: E402
from agentfastbook.tiny.muon import muon  # noqa: E402
from agentfastbook.tiny.state import checkpoints, load_checkpoint  # noqa: E402
from agentfastbook.tiny.training import Batches, fit, learner  # noqa: E402

CONFIG = ModelConfig(vocab_size=60, hidden=32, layers=2, heads=2, intermediate=64, positions=24)
PROGRAM = '''
import sys, numpy as np, torch
from fastai.callback.core import Callback
from agentfastbook.tiny.model import ModelConfig, TinyLM
from agentfastbook.tiny.training import fit, learner
torch.set_num_threads(1)
folder, pause = sys.argv[1], sys.argv[2] == 'slow'
class Dropping(torch.nn.Module):  # random numbers in the model, too
    def __init__(self):
        super().__init__()
        self.lm, self.drop = TinyLM(ModelConfig(60, 32, 2, 2, 64, 24)), torch.nn.Dropout(.2)
    def forward(self, ids): return self.lm.logits(self.drop(self.lm.hidden_states(ids)))
class Slow(Callback):
    def after_batch(self):
        if pause and self.training: __import__('time').sleep(.02)
torch.manual_seed(0)
rng = np.random.default_rng(0)
blocks = (rng.integers(60, size=(300, 1)) + rng.integers(1, 5, size=(300, 1))*np.arange(25)) % 60
learn = learner(Dropping(), blocks[:250], blocks[250:], batch_size=8, device='cpu')
fit(learn, 160, 1e-2, 20, folder, cbs=[Slow()], quiet=True)
'''


def blocks(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(60, size=(n, 1)) + rng.integers(1, 5, size=(n, 1))*np.arange(25)) % 60


def model(**changes):
    torch.manual_seed(0)
    return TinyLM(ModelConfig(**{**vars(CONFIG), **changes}))


def wait_for(happened, process, seconds=180):
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < until, 'it ended, or took too long'
        time.sleep(.005)


def run_here(program, monkeypatch, *words):
    "The program in this process, which has the imports already."
    monkeypatch.setattr(sys, 'argv', ['-c', *map(str, words)])
    threads = torch.get_num_threads()
    try: exec(program, {'__name__': '__main__'})
    finally: torch.set_num_threads(threads)


def loss_curve(folder):
    log = read_log(folder/'log')
    return log[log.what.isin(['loss', 'validation loss', 'learning rate'])].reset_index(drop=True)


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path, monkeypatch):
    whole, killed = tmp_path/'whole', tmp_path/'killed'
    started = subprocess.Popen([sys.executable, '-c', PROGRAM, str(killed), 'slow'], cwd=ROOT)
    wait_for(lambda: checkpoints(killed), started)
    time.sleep(.1)  # somewhere in the next 20 steps
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    before = {name: path.read_bytes() for path in (killed/'log').iterdir() for name in [path.name]}
    for folder in (whole, killed): run_here(PROGRAM, monkeypatch, folder, 'fast')
    assert len(before) < 8, 'it was killed too late'
    assert {name: (killed/'log'/name).read_bytes() for name in sorted(before)[:-1]} == \
           {name: before[name] for name in sorted(before)[:-1]}, 'what was done before is not done again'
    assert loss_curve(killed).equals(loss_curve(whole))
    ends = [(folder/'step-00000160'/'model.safetensors').read_bytes() for folder in (whole, killed)]
    assert ends[0] == ends[1]
    assert [p.name for p in killed.iterdir() if p.name.startswith('.')] == [], 'halves of checkpoints are left'


def test_killed_at_any_moment_the_newest_checkpoint_is_whole(tmp_path):
    "Ten kills while a program does nothing but save."
    program = '''
import sys, torch
from agentfastbook.tiny.model import ModelConfig, TinyLM
from agentfastbook.tiny.state import save_checkpoint
model = TinyLM(ModelConfig(2000, 64, 2, 2, 64, 24))
optimizer = torch.optim.AdamW(model.parameters())
model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
optimizer.step()
for step in range(int(sys.argv[2]), 10**6): save_checkpoint(sys.argv[1], model, optimizer, step, keep=2)
'''
    other = TinyLM(ModelConfig(2000, 64, 2, 2, 64, 24))
    started = subprocess.Popen([sys.executable, '-c', program, str(tmp_path), '0'], cwd=ROOT)
    wait_for(lambda: len(checkpoints(tmp_path)) >= 2, started)
    time.sleep(.137)
    started.kill()
    started.wait()
    newest = checkpoints(tmp_path)[-1]
    assert load_checkpoint(newest, other, torch.optim.AdamW(other.parameters()))['step'] == int(newest.name[5:])


def test_logging_leaves_the_curve_alone_and_so_do_samples(tmp_path):
    def losses(name, **kwargs):
        fit(learner(model(), blocks(), blocks(40, 1), batch_size=8, device='cpu'), 40, 1e-2, 20, tmp_path/name, quiet=True, **kwargs)
        return loss_curve(tmp_path/name)
    def write(model): return [str(torch.rand(1).item()), 'ä "quoted"\nline']
    plain = losses('plain', log_every=1000)
    assert losses('logged', log_every=1, cbs=[Samples(write, tmp_path/'samples')]).equals(plain)
    samples = read_samples(tmp_path/'samples')
    assert samples.step.tolist() == [20, 20, 40, 40] and samples.text[1] == 'ä "quoted"\nline'
    assert read_log(tmp_path/'logged'/'log').what.nunique() == 7


def test_the_log_is_plain_parquet(tmp_path):
    import pyarrow.parquet as parquet
    fit(learner(model(), blocks(), batch_size=8, device='cpu'), 20, 1e-2, 20, tmp_path, log_every=10, quiet=True)
    read = parquet.read_table(tmp_path/'log'/'00000.parquet')
    assert read.column_names == ['step', 'what', 'group', 'statistic', 'value']
    groups = {(row['what'], row['group']) for row in read.to_pylist()}
    assert {('gradient', 'layers.1'), ('attention logit', 'layers.0'), ('logit', ''), ('parameter', 'norm')} <= groups


def test_gradients_are_logged_before_they_are_clipped(tmp_path):
    def steep(logits, targets): return 1000*torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    learn = learner(model(), blocks(), loss_func=steep, batch_size=8, device='cpu')
    fit(learn, 2, 1e-3, 2, tmp_path, log_every=1, quiet=True)
    log = read_log(tmp_path/'log')
    assert log[(log.what == 'gradient') & (log.statistic == 'norm')].value.max() > 10  # clipped to 1 in all


def test_qk_norm_keeps_attention_logits_small(tmp_path):
    largest = {}
    for norm in (False, True):
        small = model(qk_norm=norm)
        for layer in small.layers: layer.self_attn.q_proj.weight.data *= 300
        fit(learner(small, blocks(), batch_size=8, device='cpu'), 2, 1e-5, 2, tmp_path/str(norm), log_every=1, quiet=True)
        log = read_log(tmp_path/str(norm)/'log')
        largest[norm] = log[(log.what == 'attention logit') & (log.statistic == 'max')].value.max()
    assert largest[True] <= CONFIG.head_width**.5 + 1e-3  # two unit vectors, times the root of the width
    assert largest[False] > 2*largest[True]


def test_a_rate_that_is_far_too_high_is_named(tmp_path):
    class Boom(TinyLM):
        def forward(self, ids): return super().forward(ids)*torch.exp(self.norm.weight.abs().max()*1e3)
    torch.manual_seed(0)
    with pytest.raises(FastbookError, match=r"loss is (nan|inf) at step \d+ \(learning rate .*first bad number"):
        fit(learner(Boom(CONFIG), blocks(), batch_size=8, device='cpu'), 20, 1., 10, tmp_path, quiet=True)


def test_a_loss_that_breaks_only_in_evaluation_is_no_checkpoint(tmp_path):
    bad = blocks(8, 1)
    class Odd(TinyLM):
        def forward(self, ids): return super().forward(ids)*(1. if self.training else float('nan'))
    with pytest.raises(FastbookError, match='validation loss is nan at step 20 .*no checkpoint yet'):
        fit(learner(Odd(CONFIG), blocks(), bad, batch_size=8, device='cpu'), 40, 1e-3, 20, tmp_path, quiet=True)
    assert checkpoints(tmp_path) == []
    assert read_log(tmp_path/'log').step.max() == 20, 'what was logged before is kept'


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs /proc')
def test_real_memory_runs_out():
    "Under a limit of the address space, the message says which batch fits, and that one then trains."
    program = '''
import re, resource, numpy as np, torch
from agentfastbook.text.spans import FastbookError
from agentfastbook.tiny.model import ModelConfig, TinyLM
from agentfastbook.tiny.training import fit, learner
torch.set_num_threads(1)
def train(size):
    data = np.random.default_rng(0).integers(20_000, size=(size, 65))
    learn = learner(TinyLM(ModelConfig(20_000, 32, 1, 2, 64, 64)), data, batch_size=size, device='cpu')
    fit(learn, 1, 1e-3, 1, quiet=True)
train(1)
used = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used+500*2**20,)*2)
try: train(512)
except FastbookError as e: message = str(e)
print(message)
train(int(re.search('batch_size=([0-9]+)', message)[1]))
print('trained')
'''
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    message, trained = done.stdout.split('\n')[:2]
    assert 'out of memory with batches of 512' in message and 'there is no checkpoint yet' in message
    assert trained == 'trained'


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu_is_said():
    with pytest.raises(FastbookError, match="'cuda' was asked for, but"): learner(model(), blocks(), device='cuda')
    with pytest.raises(FastbookError, match='bf16=True needs a GPU'): learner(model(), blocks(), device='cpu', bf16=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_a_gpu_trains_in_bfloat16_compiled_and_goes_on(tmp_path):
    "The first three of four evaluations in one run, all four in another, from its checkpoint."
    learn = fit(learner(model(), blocks(), blocks(40, 1), batch_size=8), 40, 1e-2, 20, tmp_path, quiet=True)
    assert next(learn.model.parameters()).device.type == 'cuda' and hasattr(learn, 'mixed_precision')
    assert read_log(tmp_path/'log').query("what == 'loss'").value.iloc[-1] < 4


def test_nothing_is_pickled(tmp_path, monkeypatch):
    import pickle
    def refuse(*args, **kwargs): raise AssertionError('a pickle was written or read')
    for module, name in ((torch, 'save'), (torch, 'load'), (pickle, 'load'), (pickle, 'loads'), (pickle, 'dump')):
        monkeypatch.setattr(module, name, refuse)
    learn = learner(model(), blocks(), blocks(40, 1), batch_size=8, device='cpu')
    learn.path = tmp_path
    with learn.no_bar(): learn.lr_find(num_it=10, show_plot=False, suggest_funcs=None)
    fit(learn, 20, 1e-2, 10, tmp_path/'run', quiet=True)
    fit(learner(model(), blocks(), blocks(40, 1), batch_size=8, device='cpu'), 20, 1e-2, 10, tmp_path/'run', quiet=True)
    names = {path.suffix for path in tmp_path.rglob('*') if path.is_file()}
    assert names == {'.safetensors', '.json', '.parquet'}


@pytest.mark.parametrize('name', ['model.safetensors', 'training.safetensors', 'training.json'])
@pytest.mark.parametrize('left', [0, 7, 200])
def test_cut_off_checkpoints_are_named(tmp_path, name, left):
    fit(learner(model(), blocks(), batch_size=8, device='cpu'), 2, 1e-2, 1, tmp_path, quiet=True)
    path = checkpoints(tmp_path)[-1]/name
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(FastbookError, match='step-00000002'):
        fit(learner(model(), blocks(), batch_size=8, device='cpu'), 2, 1e-2, 1, tmp_path, quiet=True)


def test_a_run_with_another_optimiser_is_refused(tmp_path):
    def train(folder, other):
        net = model()
        fit(learner(net, blocks(), batch_size=8, optimizer=muon(net) if other else None, device='cpu'), 2, 1e-2, 1, folder, quiet=True)
    for first in (True, False):
        train(tmp_path/str(first), first)
        with pytest.raises(FastbookError, match='was made with the optimiser (Muon.*not AdamW|AdamW.*not Muon)'):
            train(tmp_path/str(first), not first)
        train(tmp_path/str(first), first)


def test_a_config_of_the_same_shapes_is_refused_too(tmp_path):
    fit(learner(model(), blocks(), batch_size=8, device='cpu'), 2, 1e-2, 1, tmp_path, quiet=True)
    with pytest.raises(FastbookError, match='made with config.heads = 2, not 4'):
        fit(learner(model(heads=4), blocks(), batch_size=8, device='cpu'), 2, 1e-2, 1, tmp_path, quiet=True)
    found = json.loads((checkpoints(tmp_path)[-1]/'training.json').read_text())
    assert found['info']['config']['heads'] == 2 and found['step'] == 2


def test_batches_of_few_items_fill_up():
    batches = Batches(blocks(3), batch_size=8, seed=1)
    ids, targets = batches.batch(0)
    assert ids.shape == targets.shape == (8, 24)
    assert torch.equal(ids[:, 1:], targets[:, :-1])


def test_a_model_without_attention_is_logged_as_well(tmp_path):
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = torch.nn.Embedding(60, 60)
        def forward(self, ids): return self.rows(ids)
    learn = learner(Table(), blocks(), batch_size=8, device='cpu')
    fit(learn, 4, 1e-2, 4, quiet=True, cbs=[Dynamics(tmp_path, every=2)])
    assert set(read_log(tmp_path).what) == {'loss', 'learning rate', 'gradient', 'parameter', 'logit'}


def test_a_run_with_muon_goes_on_with_the_same_losses(tmp_path):
    class Stop(Callback):
        def __init__(self, after): self.after, self.seen = after, 0
        def after_batch(self):
            self.seen += self.training
            if self.seen == self.after: raise RuntimeError('the power is gone')

    def train(folder, after=None):
        net = model()
        learn = learner(net, blocks(200), blocks(50, 1), batch_size=8, optimizer=muon(net), device='cpu')
        fit(learn, 80, 1e-2, 20, folder, cbs=[Stop(after)], quiet=True)

    train(tmp_path/'whole')
    with pytest.raises(RuntimeError, match='power'): train(tmp_path/'cut', after=50)
    train(tmp_path/'cut')
    assert loss_curve(tmp_path/'cut').equals(loss_curve(tmp_path/'whole'))
