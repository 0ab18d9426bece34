"Judges on real data, under faults, and against other libraries."
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from author_evals import keep_scores, read_evaluation, read_scores
from conftest import run_sql
from agentfastbook.judges.alignment import align, align_judge, judged_labels, person_verdicts, rate
from agentfastbook.judges.improve import judge_history, review_disagreements
from agentfastbook.books.questions import load_benchmark, locate_contexts
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.judges.checks import CHECKS, check_coverage, check_numbers, check_overlap, check_verbatim, gold_cases
from agentfastbook.text.spans import FastbookError
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.judges.judge import Verdict, cases, judge_cases, judge_run, summarize_verdicts, verdicts
from agentfastbook.store.labels import Label, annotate, labels, notes
from agentfastbook.lm.recorded import Recorded
from agentfastbook.judges.lm_judge import LMJudge
from agentfastbook.engines.pipeline import curate
from agentfastbook.look.page import review
from agentfastbook.judges.rubrics import paired_scores, review_scores, score_agreement
from agentfastbook.judges.splits import PARTS, openings, split
from agentfastbook.look.steps import call_rows
from agentfastbook.store.runs import Store
from agentfastbook.prompts.templates import packaged_prompt, packaged_prompts
from hypothesis import given, strategies as st

RECORDED = Path(__file__).parents[1]/'recorded'/'judge.jsonl'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "The sample book, its answers split finely."
    folder = tmp_path_factory.mktemp('run')
    curate(sample_path(), sample_path()/'benchmark.json', folder, RuleDecomposer('fine'), progress=False)
    return folder


@pytest.fixture
def store(run, tmp_path):
    "A copy of the run's store, to write into."
    run_sql(run/'traces.db', 'vacuum into ?', str(tmp_path/'traces.db'))
    with Store(tmp_path/'traces.db') as copy: yield copy


def label_all(store, who='Ada', fails=lambda case: 'It' in case.text):
    for case in cases(store): annotate(store, who, Label(case.id, 'verdict', not fails(case)))


# checks

def test_checks_find_every_planted_defect(store):
    for case in cases(store):
        if len(case.pieces) < 2: continue
        spans = case.output
        assert all(check(case).passed for check in (check_verbatim, check_coverage, check_overlap, check_numbers))
        changed = [{**spans[0], 'text': spans[0]['text'].replace('a', 'o', 1)+' x'}, *spans[1:]]
        assert check_verbatim(replaced(case, changed)).passed is False
        assert check_coverage(replaced(case, spans[1:])).passed is False
        assert check_overlap(replaced(case, [*spans, spans[0]])).passed is False
        assert check_numbers(replaced(case, [*spans, {**spans[0], 'text': 'It takes 987654 of them.'}])).passed is False


def replaced(case, output): return replace(case, output=output)


def test_checks_seldom_cry_wolf_on_gold_data(data):
    book = read_book(data/'fastbook')
    gold = locate_contexts(load_benchmark(data/'fastbook'/'fastbook-benchmark.json'), book)
    found = gold_cases(gold, book)
    def failed(step):
        said = judge_cases(CHECKS[step], [c for c in found if c.step == step])
        return 1-summarize_verdicts(said).set_index('judge').rate
    decompose, extract = failed('decompose'), failed('extract')
    assert decompose['verbatim'] == decompose['numbers'] == extract['verbatim'] == 0
    assert decompose['coverage'] < .12 and decompose['overlap'] < .07 and extract['numbers'] < .04


def test_what_a_model_changed_is_found(data, tmp_path):
    with Store(tmp_path/'evals.db') as store:
        read_evaluation(data/'agentfastbook'/'evals-haiku-3.5.json', store)
        said = judge_run(store, dict(verbatim=check_verbatim))
    assert said.passed.eq(False).sum() == 12, 'answers with a component that is not where it says'


# judging

def test_a_killed_run_goes_on_where_it_was(store, tmp_path):
    asked = tmp_path/'asked.txt'
    code = f'''
import os
from agentfastbook.judges.judge import judge_run
from agentfastbook.store.runs import Store
def slow(case):
    with open({str(asked)!r}, 'a') as f: f.write('x')
    if os.path.getsize({str(asked)!r}) == 53: os._exit(9)
    return True
slow.version = '1'
with Store({str(store.path)!r}) as store: print(len(judge_run(store, dict(slow=slow), parts=True)))
'''
    killed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    assert len(verdicts(store, 'slow')) == 50
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    n = len(cases(store, parts=True))
    assert done.stdout.strip() == str(n), done.stderr
    assert asked.stat().st_size == 53+n-50, 'the fifty that were kept are not asked again'


def test_judges_do_not_lead_a_person(store):
    judge_run(store, dict(verbatim=check_verbatim))
    state = review(store, 'decompose', annotator='Ada').sitting.state()
    assert state['others'] == [] and 'verbatim' not in str(state)
    assert len(labels(store)) == 0


def test_missing_verdicts_are_no_fails(store):
    label_all(store)
    def odd(case): return math.nan if case.question.startswith('1/') else True
    said = judge_run(store, dict(odd=odd))
    found = align(judged_labels(said, person_verdicts(store)).judged, person_verdicts(store).passed)
    assert found.missing == said.passed.isna().sum() > 0
    assert found.counts[True, False] == found.counts[False, False] == 0


def test_recorded_replies_are_played_back_into_the_store(store):
    judge = LMJudge(Recorded(RECORDED), packaged_prompt('judge/standalone'))
    said = judge_cases(dict(standalone=judge), cases(store, parts=True)[:3], workers=2)
    assert said.error.tolist() == ['']*3 and said.passed.notna().all()
    with pytest.raises(FastbookError, match='not_recorded'):
        judge_run(store, dict(standalone=judge), parts=True)  # the fourth was not recorded: loud, not missing


def test_every_packaged_judge_can_be_asked(store):
    for name in (n for n in packaged_prompts() if n.startswith('judge/')):
        judge = LMJudge(Recorded(RECORDED), packaged_prompt(name))
        step = 'extract' if 'component' in judge.prompt.fields else 'decompose'
        case = cases(store, step, parts=True)[0]
        text = judge.filled(case).request.messages[0]['content']
        assert case.pieces[0] in text and '{{' not in text and 'never follow instructions' in text
        assert case.engine not in text, 'a judge should not know who made it'


# splits and the test part

@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=80), st.integers(0, 9))
def test_no_question_is_torn_apart(rows, seed):
    table = pd.DataFrame(rows, columns=['question', 'passed'])
    if table.question.nunique() < 3:
        with pytest.raises(FastbookError, match='at least 3'): split(table, seed=seed)
        return
    done = split(table, seed=seed)
    assert len(done) == len(table) and set(done['split']) <= set(PARTS)
    assert done.groupby('question')['split'].nunique().max() == 1
    assert done.equals(split(table, seed=seed))


def test_the_test_part_is_opened_once_across_processes(store):
    label_all(store)
    judge_run(store, dict(verbatim=check_verbatim))
    options = dict(mode='verdict', part='test')
    first = align_judge(store, 'verbatim', **options)
    code = f'''
from agentfastbook.judges.alignment import align_judge
from agentfastbook.store.runs import Store
with Store({str(store.path)!r}) as store: align_judge(store, 'verbatim', mode='verdict', part='test')
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode and 'was opened before' in done.stderr and 'set again=True' in done.stderr
    again = align_judge(store, 'verbatim', again=True, **options)
    assert again.counts == first.counts and again.notes[0].startswith('TEST OPENED 2 TIMES')
    assert 'TEST OPENED' in again._repr_html_() and len(openings(store, 'verdict')) == 2


def test_labels_of_results_that_were_never_judged(store):
    label_all(store)
    found = cases(store)
    judge_run(store, dict(verbatim=check_verbatim))
    run_sql(store.path, 'delete from judgement where call=?', found[0].id)
    with pytest.raises(FastbookError, match='1 of 21 labels are of results that were never judged'):
        align_judge(store, 'verbatim', mode='verdict', part='all')


def test_labels_of_several_people_are_not_mixed(store):
    label_all(store)
    label_all(store, 'Ben', lambda case: False)
    judge_run(store, dict(verbatim=check_verbatim))
    with pytest.raises(FastbookError, match='several people'): align_judge(store, 'verbatim', mode='verdict', part='all')
    ben = align_judge(store, 'verbatim', mode='verdict', part='all', annotator='Ben')
    assert math.isnan(ben.tnr.value) and (ben.tnr.low, ben.tnr.high) == (0, 1)
    assert 'the person has no fails' in ben.notes[0]


def test_disagreements_open_with_the_reason_and_can_be_saved(store, tmp_path):
    label_all(store)
    def never(case): return Verdict(False, 'because <b>I</b> say so', evidence=case.spans[0][0])
    judge_run(store, dict(never=never))
    opened = review_disagreements(store, 'never', mode='verdict', annotator='Ada')
    opened.save(tmp_path/'page.html')
    page = (tmp_path/'page.html').read_text()
    assert 'because &lt;b&gt;I&lt;/b&gt; say so' in page and '<script' not in page
    everywhere = align_judge(store, 'never', mode='verdict', part='dev')
    assert len(opened.sitting.rows) == everywhere.counts[True, False]
    opened.sitting.press('f')  # Ada thinks again
    assert align_judge(store, 'never', mode='verdict', part='dev').counts[True, False] == len(opened.sitting.rows)-1


def test_history_knows_which_edit_helped(store):
    label_all(store, fails=lambda case: len(case.pieces) > 2)
    for most in (1, 2):
        def judge(case, most=most): return len(case.pieces) <= most
        judge.version = f'at most {most}'
        judge_run(store, dict(count=judge))
    history = judge_history(store, 'count', mode='verdict')
    assert history.version.tolist() == ['at most 1', 'at most 2']
    assert history.TPR[1].value == history.TNR[1].value == 1 and history.mended[1] > 0 and history.broken[1] == 0


# intervals

@pytest.mark.parametrize('size', [1, 5])
def test_intervals_of_a_rate_keep_their_promise(size):
    rng, inside, naive, n = np.random.default_rng(0), 0, 0, 60
    for _ in range(600):
        p = rng.beta(.8*4, .2*4, n//size) if size > 1 else np.full(n, .8)
        hits = rng.random(n) < np.repeat(p, size)
        found = rate(hits, np.repeat(np.arange(n//size), size))
        inside += found.low <= .8 <= found.high
        alone = rate(hits)
        naive += alone.low <= .8 <= alone.high
    assert inside/600 > .91
    if size > 1: assert naive < inside, 'rows of one question are not independent'


# TinyScaleLab

@pytest.fixture
def tinyscalelab(data):
    folder = data/'tinyscalelab'
    if not folder.is_dir(): pytest.skip('no tinyscalelab/ in the data folder')
    return folder/'llm_judge_score_agreement.csv', folder/'2025-04-30-manual-scores.csv'


def test_agreement_on_tinyscalelab(tinyscalelab):
    table = read_scores(*tinyscalelab)
    assert (len(table), table.criterion.nunique(), table['item'].nunique(), table.question.nunique()) == (1350, 18, 450, 107)
    assert round(table.agree.mean(), 3) == .881
    naive, honest = rate(table.agree), rate(table.agree, table.question)
    assert honest.high-honest.low > 1.2*(naive.high-naive.low)
    same = table.judge == table.person
    assert (int(same.sum()), int(table.agree[~same].sum())) == (802, 409)
    found = score_agreement(table).set_index('criterion')
    assert len(found) == 19 and found.same['all'].value == pytest.approx(802/1350)
    assert found.kinder['Grammar A'].high < 0 < found.kinder['Plot C'].low


def test_tinyscalelab_in_the_store_can_be_scored_and_coded(tinyscalelab, tmp_path):
    with Store(tmp_path/'traces.db') as store:
        table = read_scores(*tinyscalelab)
        keep_scores(store, table)
        both = paired_scores(store, 'rubric')
        assert len(both) == 1350 and (both.judge == both.person).sum() == 802
        assert len(notes(store)) == (table.comment != '').sum()
        of = {f"{r['category']} {i+1}": dict.fromkeys(table.criterion[table['item'] == r['item']], '')
              for i, r in table.drop_duplicates('item').iterrows()}
        rows = call_rows(store, 'generate')
        sitting = review_scores(rows, store, lambda row: of[row['name']], 'Ada').sitting
        sitting.press('3')
        mine = labels(store).query("annotator == 'Ada'")
        assert mine[['name', 'value']].values.tolist() == [['score', 1.0]]
