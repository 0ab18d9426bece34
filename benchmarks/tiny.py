"""How fast tiny models train: python benchmarks/tiny.py

Prints Markdown tables. `fit` against a plain PyTorch loop of the same model, optimiser, clipping and schedule, in turns in
one run (processor seconds, or the clock with a GPU); the share of the step time that logging the dynamics takes; and, where there is a GPU, the model FLOPs utilisation
of the 25M and 125M models in bfloat16, compiled. On two cores it takes about three minutes; --configs nano is faster.
The exit status is 1 if a limit is missed.

    python benchmarks/tiny.py --sweep DIR   # instead: the learning-rate sweep of a small model on 2,000 made stories

It makes 28 runs (seven rates, four variants), writes DIR/sweep.csv, and goes on where it was if it is stopped.
"""
import argparse,statistics,sys,tempfile,time
from pathlib import Path

import numpy as np
import torch
from agentfastbook.tiny.dynamics import Dynamics
from agentfastbook.tiny.model import CONFIGS,ModelConfig,TinyLM,lm_loss,pick_device
from agentfastbook.tiny.training import Batches,fit,learner
from fastai.callback.core import Callback

THROUGHPUT,LOGGING,UTILISATION = .95,.05,{'25m': .25, '125m': .40}
SWEPT = ModelConfig(1024, 128, 4, 4, 384, 256) # of the learning-rate sweep
BATCH = dict(cpu={'nano': 16, '5m': 2, '25m': 2}, cuda={'nano': 256, '5m': 64, '25m': 64, '60m': 64, '125m': 64})
PEAK = {'H200': 989e12, 'H100': 989e12, 'A100': 312e12, 'L40S': 362e12, 'L4': 121e12, 'A10G': 70e12, '4090': 165e12,
        '3090': 71e12, 'T4': 65e12} # dense bfloat16 FLOP/s that the maker states (T4: float16)

def table(rows):
    print('| '+' | '.join(rows[0])+' |\n|'+'---|'*len(rows[0]))
    for row in rows: print('| '+' | '.join(str(v) for v in row.values())+' |')
    print(flush=True)

def now():
    "Seconds; without a GPU those that this process computed, since other programs may use the processor, too."
    if not torch.cuda.is_available(): return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()

def blocks_for(config): return np.random.default_rng(42).integers(config.vocab_size, size=(256, config.positions+1))

class Timed(Callback):
    "Seconds of the training part of a run, after some steps to warm up."
    order = 200
    def __init__(self, warm): self.warm = warm
    def before_batch(self):
        if self.training and self.iter == self.warm: self.start = now()
    def after_train(self): self.seconds = now()-self.start

def time_fit(model, data, batch_size, device, steps, warm):
    "Seconds of a step of `fit`."
    timed = Timed(warm)
    fit(learner(model, data, batch_size=batch_size, device=device), steps+warm, 1e-3, steps+warm, cbs=[timed], quiet=True)
    return timed.seconds/steps

def time_plain(model, data, batch_size, device, steps, warm):
    "Seconds of a step of the loop that one would write by hand."
    device = pick_device(device)
    gpu = device.type == 'cuda'
    model.to(device).train()
    if gpu: model.compile()
    batches = Batches(data, batch_size, seed=42)
    batches.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps+warm+1, pct_start=.25)
    losses = []
    for step in range(steps+warm):
        if step == warm: start = now()
        ids,targets = batches.batch(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu): loss = lm_loss(model(ids), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return (now()-start)/steps

def throughput(names, device, steps, rounds):
    "`fit` and the plain loop in turns; the median of the rounds' ratios."
    rows,ratios = [],[]
    for name in names:
        config,size = CONFIGS[name],BATCH[pick_device(device).type][name]
        data,times = blocks_for(config),[]
        for turn in range(rounds):
            both = {}
            for way in (time_fit,time_plain)[::1 if turn % 2 else -1]: # neither is always first
                torch.manual_seed(42)
                both[way] = way(TinyLM(config), data, size, device, steps, warm=max(2, steps//4))
            times.append((both[time_fit], both[time_plain]))
        ours,plain = map(statistics.median, zip(*times))
        ratios.append(statistics.median(p/o for o,p in times))
        tokens = size*config.positions
        rows.append({'model': name, 'batch': f'{size} x {config.positions}', 'fit, tokens/s': f'{tokens/ours:,.0f}',
                     'plain loop, tokens/s': f'{tokens/plain:,.0f}', 'ratio, median': f'{ratios[-1]:.3f}',
                     'lowest': f'{min(p/o for o,p in times):.3f}', 'highest': f'{max(p/o for o,p in times):.3f}',
                     'wanted': f'>= {THROUGHPUT}'})
    table(rows)
    return all(r >= THROUGHPUT for r in ratios)

class TimedDynamics(Dynamics):
    "The log, with a stopwatch in each of its events."
    spent = 0.
    def __call__(self, event):
        start = now()
        super().__call__(event)
        self.spent += now()-start

def logging(names, device, steps):
    "Time inside the log's events over the time of all, every 20 steps (the default), parts written at the end."
    rows,shares = [],[]
    for name in names:
        config,size = CONFIGS[name],BATCH[pick_device(device).type][name]
        with tempfile.TemporaryDirectory() as folder:
            timed,log = Timed(2),TimedDynamics(Path(folder))
            learn = learner(TinyLM(config), blocks_for(config), batch_size=size, device=device)
            fit(learn, steps, 1e-3, steps, cbs=[timed, log], quiet=True)
        shares.append(log.spent/timed.seconds)
        rows.append({'model': name, 'steps': steps, 'share of the time': f'{shares[-1]:.2%}', 'wanted': f'< {LOGGING:.0%}'})
    table(rows)
    return all(share < LOGGING for share in shares)

def flops_per_token(config):
    "Of forward and backward: 6 for each weight that multiplies, and the attention's 12 * layers * hidden * positions."
    block = 4*config.hidden**2+3*config.hidden*config.intermediate
    weights = config.layers*block+config.vocab_size*config.hidden
    return 6*weights+12*config.layers*config.hidden*config.positions/2 # causal: half of the pairs

def utilisation(names, steps):
    "FLOPs that the model needs over those that the GPU could make."
    if not torch.cuda.is_available():
        print('Model FLOPs utilisation: NOT MEASURED, there is no GPU here.\n')
        return True
    gpu = torch.cuda.get_device_name()
    peak = next((flops for part,flops in PEAK.items() if part in gpu), None)
    if peak is None:
        print(f'Model FLOPs utilisation: not measured, the peak of {gpu!r} is not known; add it to PEAK.\n')
        return True
    rows,reached = [],[]
    for name in names:
        config,size = CONFIGS[name],BATCH['cuda'][name]
        seconds = time_fit(TinyLM(config), blocks_for(config), size, 'cuda', steps, warm=20)
        reached.append(flops_per_token(config)*size*config.positions/seconds/peak >= UTILISATION[name])
        rows.append({'model': name, 'GPU': gpu, 'batch': f'{size} x {config.positions}',
                     'tokens/s': f'{size*config.positions/seconds:,.0f}',
                     'MFU': f'{flops_per_token(config)*size*config.positions/seconds/peak:.3f}',
                     'wanted': f'>= {UTILISATION[name]}', 'memory, GiB': f'{torch.cuda.max_memory_allocated()/2**30:.1f}'})
    table(rows)
    return all(reached)

def run_sweep(folder, device, steps, names):
    "Rows as they come, then the sensitivity of each variant."
    from agentfastbook.tiny.data import pack_blocks,split_texts,story_texts,train_tokenizer
    from agentfastbook.tiny.sweeps import VARIANTS,rate_sensitivity,sweep
    texts,others = split_texts(story_texts(2000))
    tokenizer = train_tokenizer(texts, SWEPT.vocab_size)
    train,valid = [pack_blocks(part, tokenizer, SWEPT.positions) for part in (texts,others)]
    show = lambda row: print({k: round(v, 4) if isinstance(v, float) else v for k,v in row.items()}, flush=True)
    found = sweep(SWEPT, train, valid[:32], folder, steps,
                  variants={name: VARIANTS[name] for name in names or VARIANTS}, evaluations=2, batch_size=4, device=device, done=show)
    found.drop(columns='problem').round(5).to_csv(Path(folder)/'sweep.csv', index=False)
    print()
    table([{k: f'{v:.3g}' if isinstance(v, float) else v for k,v in row.items()}
           for row in rate_sensitivity(found).to_dict('records')])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='+', default=['nano','5m'], choices=list(CONFIGS))
    parser.add_argument('--device', default='auto')
    parser.add_argument('--steps', type=int, default=12, help='of each measurement; a GPU deserves 100')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--sweep', metavar='DIR', help='make the learning-rate sweep in this folder, and nothing else')
    parser.add_argument('--sweep-steps', type=int, default=60)
    parser.add_argument('--variants', nargs='+', help="of the sweep, such as plain 'QK norm, z-loss'; all four if left away")
    args = parser.parse_args()
    if args.sweep: return run_sweep(args.sweep, args.device, args.sweep_steps, args.variants)
    print(f'PyTorch {torch.__version__}, {pick_device(args.device)}, {torch.get_num_threads()} threads\n')
    passed = [throughput(args.configs, args.device, args.steps, args.rounds),
              logging(args.configs, args.device, max(40, args.steps)), utilisation(list(UTILISATION), max(50, args.steps))]
    sys.exit(0 if all(passed) else 1)

if __name__ == '__main__': main()
