"""Train the `nano` story model of the tutorial and count how many of its stories are sound.

python benchmarks/tiny_story.py [--steps 5000] [--batch 8] [--threads 2] [--save FOLDER] [--run FOLDER]
A story is sound if `check_story` finds nothing wrong with it. Beside it, the naive way: words drawn one by one, each
after the two (or four) before it, counted in the same stories. With --run, a killed run goes on where it was."""
import argparse
import random
import time
from collections import Counter, defaultdict

import torch
from agentfastbook.counting import wilson
from agentfastbook.tiny.checkpoint import save_model
from agentfastbook.tiny.data import one_batch, split_texts, story_texts, text_batches, train_tokenizer
from agentfastbook.tiny.generate import write
from agentfastbook.tiny.model import CONFIGS, TinyLM, count_parameters, start_copying
from agentfastbook.tiny.stories import check_story
from agentfastbook.tiny.training import fit, learner

SAMPLES = 200


def report(name, texts):
    "Print the share of sound stories with its interval, and what is wrong with the others."
    found = [check_story(text) for text in texts]
    wrong = Counter(problems[0].kind for problems in found if problems)
    print(f'{name:24} {wilson(len(found) - wrong.total(), len(found))}  first problem: {dict(wrong)}', flush=True)


def chain(texts, before, count):
    "Stories written word by word: each word is drawn from those that followed the `before` words before it."
    follows, rng = defaultdict(list), random.Random(0)
    for text in texts:
        words = [''] * before + text.split(' ') + ['']
        for i in range(before, len(words)): follows[tuple(words[i - before:i])].append(words[i])
    for _ in range(count):
        words = [''] * before
        while word := rng.choice(follows[tuple(words[-before:])]): words.append(word)
        yield ' '.join(words[before:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=5000)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--stories', type=int, default=20_000)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--lr', type=float, default=4e-3)
    parser.add_argument('--save', help='save the model in this folder')
    parser.add_argument('--run', help='checkpoints and log of the run')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    train, valid = split_texts(story_texts(args.stories))
    tokenizer = train_tokenizer(train[:5000], CONFIGS['nano'].vocab_size)
    positions = CONFIGS['nano'].positions
    items, held_out = [text_batches(texts, tokenizer, positions, args.batch) for texts in (train, valid[:160])]
    for before in (2, 4): report(f'{before} words before', chain(train, before, SAMPLES))
    report('stories held out', valid[:SAMPLES])
    print(f'nano: {count_parameters(CONFIGS["nano"]):,} parameters, {len(train):,} stories, '
          f'{args.steps} steps of {args.batch} stories, {args.threads} threads', flush=True)
    model, wall, cpu = start_copying(TinyLM(CONFIGS['nano'])), time.perf_counter(), time.process_time()
    learn = learner(model, items, held_out, batch_size=1, collate=one_batch, device='cpu')
    learn = fit(learn, args.steps, args.lr, args.steps // 10, args.run)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f'trained in {wall:.0f} s, {cpu:.0f} s of processor time: {cpu / 120:.1f} minutes of two cores', flush=True)
    if args.save: save_model(model, args.save, tokenizer, steps=args.steps, stories=args.stories)
    for temperature in (.5, .7, 1.):
        told = write(model, tokenizer, [''] * SAMPLES, 255, temperature)
        report(f'nano, temperature {temperature}', [o.text for o in told])
    for o in write(model, tokenizer, [''] * 3, 255, .7, seed=1): print(f'\n{o.text}')


if __name__ == '__main__': main()
