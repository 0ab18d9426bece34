"""What checks in code are worth as judges of stories: held against the scores that the lab's author gave by hand.

python benchmarks/tiny_evaluation.py [--scores FILE]
For each check and the criterion it is nearest to: of the completions with score 1, how many pass (TPR); of those with
score 0, how many fail (TNR). Beside them the judge that passes everything: TPR 1, TNR 0, kappa 0. Then the share that
passes for each model, by the author and by the check."""
import argparse
import os
import re
from pathlib import Path

from agentfastbook.alignment import align
from agentfastbook.judge import ask_judge
from agentfastbook.tiny.evaluation import TEXT_CHECKS, read_scores

NEAREST = [('repetition', 'Plot', 'C'), ('repetition', 'Plot', 'D'), ('repetition', 'Creativity', 'C'),
           ('ending', 'Grammar', 'C'), ('ending', 'Plot', 'A'), ('tense', 'Grammar', 'B'),
           ('names', 'Context-Tracking', 'A'), ('names', 'Context-Tracking', 'B')]


def main():
    data = Path(os.environ.get('AFB_DATA') or Path(__file__).parents[2] / 'shared' / 'data')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--scores', default=data / 'tinyscalelab' / '2025-04-30-manual-scores.csv')
    cases, scores = read_scores(parser.parse_args().scores)
    passed = {name: {case.id: ask_judge(check, case).passed for case in cases} for name, check in TEXT_CHECKS.items()}
    model = {case.id: case.engine for case in cases}
    print(f'{len(cases)} completions, {len(scores)} scores')
    print('check       criterion             n   TPR                   TNR                   kappa')
    for check, category, label in NEAREST:
        mine = scores[(scores.category == category) & (scores.label == label)]
        sure = mine[mine.score != .5]
        found = align([passed[check][i] for i in sure.id], [bool(score) for score in sure.score])
        print(f'{check:11} {category + " " + label:19} {len(sure):3}   {found.tpr}  {found.tnr}  {found.kappa.value:.2f}')
    models = sorted(set(model.values()), key=lambda name: int(re.findall(r'\d+', name)[-1]))
    print('\nshare that passes            ' + '  '.join(f'{name.split("-")[-1]:>10}' for name in models))
    for check, category, label in NEAREST:
        mine = scores[(scores.category == category) & (scores.label == label)]
        shares = []
        for name in models:
            rows = mine[mine.id.map(model) == name]
            shares.append(f'{rows.score.mean():.2f} / {sum(passed[check][i] for i in rows.id) / len(rows):.2f}')
        print(f'{category + " " + label:18} / {check:10} ' + '  '.join(f'{share:>10}' for share in shares))


if __name__ == '__main__': main()
