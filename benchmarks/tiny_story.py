"""Train the `nano` story model of the tutorial and count how many of its stories are sound.

python benchmarks/tiny_story.py [--steps 5000] [--plots lost thief ...] [--copies 1] [--optimizer muon] [--threads 2]
    [--save FOLDER] [--run FOLDER]
A story is sound if `check_story` finds nothing wrong with it. Beside it, the naive way: words drawn one by one, each
after the two (or four) before it, counted in the same stories. Without names after --plots, stories of all plots are
told. With --run, a killed run goes on where it was. About five minutes on two cores."""
import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace

import torch
from agentfastbook.judges.alignment import rate
from agentfastbook.tiny.checkpoint import save_model
from agentfastbook.tiny.data import one_batch, split_texts, story_texts, text_batches, train_tokenizer
from agentfastbook.tiny.generation import write
from agentfastbook.tiny.model import CONFIGS, TinyLM, count_parameters, start_copying
from agentfastbook.tiny.muon import muon
from agentfastbook.tiny.stories import check_story, plot_names
from agentfastbook.tiny.training import CopyWeight, fit, learner

SAMPLES = 200
PLOTS = 'thief rescue broken seed'.split()


def report(name, texts):
    "Print the share of sound stories with its interval, and what is wrong with the others."
    found = [check_story(text) for text in texts]
    wrong = Counter(problems[0].kind for problems in found if problems)
    print(f'{name:24} {rate([not problems for problems in found])}  first problem: {dict(wrong)}', flush=True)


def chain(texts, before, prompts):
    "Prompts continued word by word: each word is drawn from those that followed the `before` words before it."
    follows, rng = defaultdict(list), random.Random(0)
    for text in texts:
        words = [''] * before + text.split(' ') + ['']
        for i in range(before, len(words)): follows[tuple(words[i - before:i])].append(words[i])
    for prompt in prompts:
        words = [''] * before + prompt.split()
        while word := rng.choice(follows.get(tuple(words[-before:]), [''])): words.append(word)
        yield ' '.join(words[before:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=5000)
    parser.add_argument('--batch', type=int, default=8, help='stories in a step')
    parser.add_argument('--plots', nargs='*', default=PLOTS, help=f'default: {" ".join(PLOTS)}')
    parser.add_argument('--stories', type=int, default=36_000)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--lr', type=float, default=7.5e-3)
    parser.add_argument('--copies', type=float, default=1., help='weight of CopyWeight; 0 is without')
    parser.add_argument('--plain', action='store_true', help='without start_copying')
    parser.add_argument('--optimizer', choices=('muon', 'adamw'), default='muon')
    parser.add_argument('--seed', type=int, default=0, help='of the first weights')
    parser.add_argument('--save', help='save the model in this folder')
    parser.add_argument('--run', help='checkpoints and log of the run')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    train, valid = split_texts(story_texts(args.stories, plots=args.plots))
    tokenizer = train_tokenizer(train[:5000], CONFIGS['nano'].vocab_size)
    config = replace(CONFIGS['nano'], vocab_size=tokenizer.get_vocab_size())
    items, held_out = [text_batches(texts, tokenizer, config.positions, args.batch) for texts in (train, valid[:160])]
    print(f'{len(train):,} stories of {len(args.plots) or len(plot_names())} plots made, tokenized and sorted into '
          f'batches in {time.perf_counter() - start:.0f} s', flush=True)
    for before in (2, 4): report(f'{before} words before', chain(train, before, [''] * SAMPLES))
    report('stories held out', valid[:SAMPLES])
    print(f'nano: {count_parameters(config):,} parameters, {args.steps} steps of {args.batch} stories, '
          f'{args.optimizer}, {"" if args.plain else "start_copying, "}copies weigh {1 + args.copies:g}, '
          f'{args.threads} threads', flush=True)
    model = TinyLM(config) if args.plain else start_copying(TinyLM(config))
    wall, cpu = time.perf_counter(), time.process_time()
    learn = learner(model, items, held_out, batch_size=1, collate=one_batch, device='cpu',
                    optimizer=muon(model) if args.optimizer == 'muon' else None)
    cbs = [CopyWeight(args.copies)] if args.copies else []
    learn = fit(learn, args.steps, args.lr, args.steps // 10, args.run, cbs=cbs, quiet=not sys.stdout.isatty(),
                pct_start=.05, moms=[.9, .9, .9])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f'trained in {wall:.0f} s, {cpu:.0f} s of processor time; '
          f'loss held out {learn.recorder.values[-1][-1]:.3f}', flush=True)
    for temperature in (.3, .5, .7, 1.):
        told = [o.text for o in write(model, tokenizer, [''] * SAMPLES, 255, temperature)]
        report(f'nano, temperature {temperature}', told)
        print(f'{"":24} {len(set(told))} different stories, {len(set(told) & set(train))} from the training part')
    for o in write(model, tokenizer, [''] * 3, 255, .3, seed=1): print(f'\n{o.text}')
    if args.save: save_model(model.half(), args.save, tokenizer, steps=args.steps, plots=args.plots)


if __name__ == '__main__': main()
