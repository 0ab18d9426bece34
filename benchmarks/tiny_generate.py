"""How much faster text is written with a cache of keys and values than by computing them again for each token.

python benchmarks/tiny_generate.py [--batch 32] [--length 200] [--configs nano] [--rounds 3]
Both ways write the same tokens (checked). Seconds of processor time, the best of the rounds."""
import argparse
import time

import torch
from agentfastbook.tiny.generation import generate
from agentfastbook.tiny.model import CONFIGS, TinyLM


def seconds(write, rounds):
    "Processor time of the fastest round, and what was written."
    times = []
    for _ in range(rounds):
        start = time.process_time()
        texts = write()
        times.append(time.process_time() - start)
    return min(times), texts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--length', type=int, default=200)
    parser.add_argument('--configs', nargs='+', default=['nano'], choices=CONFIGS)
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    print(f'{args.batch} texts of {args.length} tokens, {torch.get_num_threads()} threads')
    print('model    with cache   recomputed    ratio')
    for name in args.configs:
        torch.manual_seed(0)
        model, prompts = TinyLM(CONFIGS[name]), [[0, 1, 2]] * args.batch
        generate(model, prompts, 4, end=None)  # warm up
        fast, texts = seconds(lambda: generate(model, prompts, args.length, end=None), args.rounds)
        slow, again = seconds(lambda: generate(model, prompts, args.length, end=None, cache=False), 1)
        same = sum(one == other for one, other in zip(texts, again))
        print(f'{name:6} {fast:10.2f} s {slow:10.2f} s {slow / fast:8.1f}    {same} of {args.batch} texts the same')


if __name__ == '__main__': main()
