"""Train a small story model on two plots of the grammar and keep what it writes at 11 moments of the run.

python benchmarks/training_run.py [--steps 2000] [--batch 16] [--threads 1] [--out nbs/tutorials/training_run.csv.xz]
The table has a row for each text: step, prompt (the first sentence of a story that the model has never seen), text
(how the model goes on). The tutorial on error analysis of a training run reads it. Printed for each step: how many
stories are sound by the grammar's own rules, and what is first wrong with the others. Beside it, the naive way of
`tiny_story.py`: words drawn one by one, each after the two before it, counted in the same stories.

python benchmarks/training_run.py --draws 100
reads the table and asks how often the interval of a rate, from the checks in code and 25 labels, holds the truth; beside
it, the rate of the checks alone, and the interval of the labels alone (Jeffreys)."""
import argparse
import tempfile
import time
from collections import Counter

import numpy as np
import pandas as pd
import torch
from agentfastbook.judges.alignment import rate
from agentfastbook.stats.intervals import share_limits
from agentfastbook.tiny.data import one_batch, split_texts, text_batches, train_tokenizer
from agentfastbook.tiny.dynamics import Samples, read_samples
from agentfastbook.tiny.quality import TEXT_CHECKS, rates_by_step, text_case
from agentfastbook.tiny.generation import write
from agentfastbook.tiny.model import ModelConfig, TinyLM, count_parameters, start_copying
from agentfastbook.tiny.stories import check_story, make_story
from agentfastbook.tiny.training import fit, learner
from tiny_story import chain

PLOTS = ('lost', 'thief')
MOMENTS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 33) # of 40 evaluations


def report(name, texts):
    "Print the share of sound stories with its interval, and what is first wrong with the others."
    found = [check_story(text) for text in texts]
    wrong = Counter(min(o, key=lambda p: p.span.start).kind for o in found if o)
    print(f'{name:14} {rate([not problems for problems in found])}  first problem: {dict(wrong)}', flush=True)


def first_sentence(story): return story.text[:story.events[0].span.end]


class Writer:
    "Goes on with the prompts at the chosen evaluations; at the others it writes nothing."
    def __init__(self, tokenizer, prompts): self.tokenizer, self.prompts, self.turn = tokenizer, prompts, 0

    def __call__(self, model):
        self.turn += 1
        if self.turn not in MOMENTS: return []
        texts = [o.text for o in write(model, self.tokenizer, self.prompts, 150, .5)]
        report(f'evaluation {self.turn}', [p + t for p, t in zip(self.prompts, texts)])
        return texts


def coverage(path, count, labels=25):
    "How often do intervals hold the truth, and how wide are they?"
    told = pd.read_csv(path, keep_default_na=False)
    truth = pd.Series([not check_story(o.prompt + o.text) for o in told.itertuples()])
    cases = [text_case(o.text, o.prompt, str(o.Index)) for o in told.itertuples()]
    judged = pd.Series([all(check(case).passed for check in TEXT_CHECKS.values()) for case in cases])
    share, rows = truth.groupby(told.step).mean().to_numpy(), []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        drawn = np.concatenate([rng.choice(o.index, labels, replace=False) for _, o in told.groupby('step')])
        found = rates_by_step(judged, truth[drawn], told.step)
        hits = truth[drawn].groupby(told.step[drawn]).sum().to_numpy()
        low, high = share_limits(hits, np.full(len(hits), labels))
        rows.append(pd.DataFrame(dict(
            step=found.step, truth=share, judged=found.judged, rate=found.rate,
            inside=(found.low <= share + 1e-9) & (share <= found.high + 1e-9), width=found.high - found.low,
            inside_alone=(low <= share + 1e-9) & (share <= high + 1e-9), width_alone=high - low)))
    table = pd.concat(rows).astype(float)
    print(table.groupby('step').mean().round(3).to_string())
    print(table[['inside', 'width', 'inside_alone', 'width_alone']].mean().round(3).to_string(), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--seeds', type=int, default=30_000, help='stories made, of which those of two plots are kept')
    parser.add_argument('--prompts', type=int, default=100)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--lr', type=float, default=5e-3)
    parser.add_argument('--out', default='nbs/tutorials/training_run.csv.xz')
    parser.add_argument('--draws', type=int, default=0, help='no training: draw labels so many times from the table')
    args = parser.parse_args()
    if args.draws: return coverage(args.out, args.draws)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stories = [o for o in map(make_story, range(args.seeds)) if o.plot in PLOTS]
    train, valid = split_texts([o.text for o in stories])
    first = {o.text: first_sentence(o) for o in stories}
    prompts = [first[text] for text in valid[:args.prompts]]
    tokenizer = train_tokenizer(train, 1024)
    config = ModelConfig(1024, 96, 3, 4, 288, 256)
    items, held_out = [text_batches(o, tokenizer, 256, args.batch) for o in (train, valid[:64])]
    print(f'{count_parameters(config):,} parameters, {len(train):,} stories, {args.steps} steps of {args.batch}')
    report('held out', valid[:args.prompts])
    report('two words', list(chain(train, 2, prompts)))
    model, start = start_copying(TinyLM(config)), time.process_time()
    learn = learner(model, items, held_out, batch_size=1, collate=one_batch, device='cpu')
    with tempfile.TemporaryDirectory() as folder:
        fit(learn, args.steps, args.lr, args.steps // 40, cbs=[Samples(Writer(tokenizer, prompts), folder)], quiet=True)
        told = read_samples(folder)
    print(f'{time.process_time() - start:.0f} s of processor time')
    told['prompt'] = prompts * len(MOMENTS)
    told[['step', 'prompt', 'text']].to_csv(args.out, index=False)


if __name__ == '__main__': main()
