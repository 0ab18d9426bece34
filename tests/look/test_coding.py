"Coding, grouping, counting and exchange: properties, faults, and the benchmark author's own file."
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from author_evals import read_evaluation

from agentfastbook.look.coding import Codebook, Mode, open_codes
from agentfastbook.text.spans import FastbookError
from agentfastbook.look.counting import (code_notes, count_modes, odds_ratio, outcomes_of, saturation, saturation_curve,
                                    transitions)
from agentfastbook.stats.estimation import estimate
from agentfastbook.store.exchange import (from_evaluation_events, from_inspect, from_openinference, notes_to_labels,
                                    read_table, to_evaluation_events, to_inspect, to_openinference, write_table)
from agentfastbook.look.grouping import Grouping, grouping_widget, suggest_modes
from agentfastbook.store.labels import labels, notes
from agentfastbook.store.runs import Store


def note_table(texts, **columns):
    return open_codes(pd.DataFrame(dict(item=[f'1/{i}' for i in range(len(texts))], text=texts, **columns)))


# -- the codebook ------------------------------------------------------------------------------------------------------

NAMES, NOTES = st.sampled_from('abcde'), st.lists(st.sampled_from(['n1', 'n2', 'n3', 'n4']), max_size=3)
ACTS = st.one_of(
    st.tuples(st.just('add'), NAMES), st.tuples(st.sampled_from(['assign', 'unassign']), NAMES, NOTES),
    st.tuples(st.just('rename'), NAMES, NAMES), st.tuples(st.just('merge'), st.lists(NAMES, min_size=1, max_size=3), NAMES),
    st.tuples(st.just('split'), NAMES, NAMES, NOTES), st.tuples(st.just('undo')))


@given(st.lists(st.tuples(st.sampled_from(['Ada', 'Ben']), ACTS), max_size=25))
@settings(deadline=None, max_examples=80)
def test_every_moment_can_be_replayed(acts):
    book, seen = Codebook(), []
    for who, (act, *args) in acts:
        before = book.state()
        try: getattr(book, act)(who, *args)
        except FastbookError: assert book.state() == before  # an error changes nothing
        seen += [book.state()]*(len(book.changes) - len(seen))
        state = book.state()
        assert all(name in state.modes for names in state.coded.values() for name in names)
        assert all(len(set(names)) == len(names) for names in state.coded.values())
        assert all(mode.name == name for name, mode in state.modes.items())
    for n, state in enumerate(seen, 1): assert book.state(n) == state


@given(st.lists(st.tuples(st.sampled_from('abc'), NOTES), max_size=8))
@settings(deadline=None)
def test_undoing_everything_leaves_nothing(assigned):
    book = Codebook()
    book.add('Ada', *'abc')
    for mode, ids in assigned: book.assign('Ada', mode, ids)
    for _ in range(len(book.changes)): book.undo('Ada')
    assert book.state() == Codebook().state()
    with pytest.raises(FastbookError, match='no change by'): book.undo('Ada')


def test_merging_and_splitting_move_notes_and_lose_none():
    book = Codebook()
    book.add('Ada', 'x', Mode('y', 'why', 'extract', 'specification'), 'z')
    for mode, ids in dict(x=['n1', 'n2'], y=['n2', 'n3'], z=['n4']).items(): book.assign('Ada', mode, ids)
    book.merge('Ada', ['y', 'x'], 'xy')  # n2 was in both, and is in the merged one once
    assert book.table().groupby('mode').note.apply(sorted).to_dict() == {'xy': ['n1', 'n2', 'n3'], 'z': ['n4']}
    assert book.state().modes['xy'] == Mode('xy', 'why', 'extract', 'specification')
    book.split('Ada', 'xy', 'new', ['n3', 'n4'], description='half of it')  # n4 was never in xy
    assert book.table().groupby('mode').note.apply(sorted).to_dict() == {'new': ['n3'], 'xy': ['n1', 'n2'], 'z': ['n4']}
    assert list(book.state().modes) == ['xy', 'z', 'new']


def _write_codes(path, who):
    book = Codebook(path)
    for i in range(20): book.add(who, f'{who} {i}')


def test_two_people_write_one_file_at_once(tmp_path):
    path, context = tmp_path/'codes.jsonl', multiprocessing.get_context('spawn')
    people = [context.Process(target=_write_codes, args=(path, who)) for who in ('Ada', 'Ben')]
    for p in people: p.start()
    for p in people: p.join(60)
    assert [p.exitcode for p in people] == [0, 0]
    assert len(Codebook(path).state().modes) == 40


def test_two_people_rename_the_same_mode(tmp_path):
    one, other = Codebook(tmp_path/'codes.jsonl'), Codebook(tmp_path/'codes.jsonl')
    one.add('Ada', 'x')
    other.rename('Ben', 'x', 'y')
    with pytest.raises(FastbookError, match="no failure mode 'x'"): one.rename('Ada', 'x', 'z')
    assert list(Codebook(tmp_path/'codes.jsonl').state().modes) == ['y']


def test_a_killed_process_loses_no_act(tmp_path):
    path = tmp_path/'codes.jsonl'
    code = (f'from agentfastbook.look.coding import Codebook\nimport time\nbook = Codebook({str(path)!r})\n'
            'book.add("Ada", "x")\nbook.assign("Ada", "x", ["n1"])\nprint("done", flush=True)\ntime.sleep(60)')
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'done\n'
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert Codebook(path).state().coded == {('n1', 'Ada'): ('x',)}


def test_a_codebook_that_cannot_be_written_says_so(tmp_path):
    book = Codebook(tmp_path/'missing folder'/'codes.jsonl')
    with pytest.raises(FastbookError, match="can't write the codebook"): book.add('Ada', 'x')
    assert book.state().modes == {}


# -- grouping ----------------------------------------------------------------------------------------------------------

def test_a_sitting_by_keys_in_the_widget(tmp_path):
    pytest.importorskip('ipywidgets')
    codes = note_table([f'note {i} is too {"long" if i % 2 else "short"}' for i in range(25)])
    sitting = Grouping(codes, Codebook(tmp_path/'codes.jsonl'), 'Ada')
    picture, keys, text = grouping_widget(sitting).children
    typed = ''

    def press(more):
        nonlocal typed
        typed += more
        keys.value = typed

    press('n')
    text.value = 'too short'
    press('jn')
    text.value = 'too long'
    for i in range(2, 25): press('j' + ('2' if i % 2 else '1'))
    assert sitting.progress == '25 of 25 notes coded'
    press('u')
    assert sitting.progress == '24 of 25 notes coded' and '24 of 25' in picture.value
    counts = Codebook(tmp_path/'codes.jsonl').table()['mode'].value_counts().to_dict()
    assert counts == {'too short': 12, 'too long': 12}


def test_a_key_is_fast_with_many_notes(tmp_path):
    codes = note_table([f'note {i}' for i in range(2000)])
    book = Codebook(tmp_path/'codes.jsonl')
    book.add('Ada', *'abcdefghi')
    for i in range(0, 500): book.assign('Ada', 'a', codes.note[4*i:4*i+4])
    sitting = Grouping(codes, book, 'Ada')
    start = time.perf_counter()
    for key in '2j3j4j5j6j': sitting.press(key)._repr_html_()
    assert (time.perf_counter() - start)/10 < .1


@given(st.lists(st.text(max_size=30), max_size=12), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_suggestions_are_disjoint_groups_of_the_notes(texts, distance):
    codes = note_table(texts) if texts else note_table(['x'])[:0]
    found = suggest_modes(codes, distance)
    members = [n for s in found for n in s.notes]
    assert len(members) == len(set(members)) and set(members) <= set(codes.note)
    assert all(len(s.notes) > 1 for s in found)


# -- counting ----------------------------------------------------------------------------------------------------------

INCIDENCES = st.lists(st.sets(st.sampled_from('abcdef')), min_size=1, max_size=12)


def coded_of(incidences):
    rows = [(f'1/{i}', mode, f'{i}{mode}') for i, modes in enumerate(incidences) for mode in sorted(modes)]
    return pd.DataFrame(rows, columns=['item', 'mode', 'note']), [f'1/{i}' for i in range(len(incidences))]


@given(INCIDENCES)
@settings(deadline=None)
def test_the_saturation_curve_rises_to_what_was_seen(incidences):
    coded, read = coded_of(incidences)
    curve, found = saturation_curve(coded, read), saturation(coded, read)
    assert curve.seen.iloc[-1] == found.seen == len(set().union(*incidences))
    assert curve['mean'].is_monotonic_increasing or len(read) == 1 or math.isclose(curve['mean'].min(), curve['mean'].max())
    assert math.isclose(curve['mean'].iloc[-1], found.seen, abs_tol=1e-9)
    assert math.isclose(curve['mean'].iloc[0], sum(map(len, incidences))/len(incidences), abs_tol=1e-9)
    assert 0 <= found.expected <= found.unseen + 1e-12


def test_chao_by_hand():
    # five traces; a in all, b in two, c, d and e in one each: (5-1)/5 * 3*2 / (2*(1+1)) = 1.2 unseen
    coded, read = coded_of([set('ab'), set('ab'), set('ac'), set('ad'), set('ae')])
    found = saturation(coded, read, ahead=1)
    assert (found.seen, found.once) == (5, 3) and math.isclose(found.unseen, 1.2)
    assert math.isclose(found.expected, 1.2*3/(5*1.2 + 3))  # one more trace
    assert 'read on' in str(saturation(coded, read))


@given(st.lists(st.lists(st.tuples(st.sampled_from('abc'), st.booleans()), min_size=1, max_size=6), min_size=1, max_size=8))
@settings(deadline=None)
def test_every_trace_fails_first_at_most_once(traces):
    rows = [(i, step, passed) for i, trace in enumerate(traces) for step, passed in trace]
    found = transitions(pd.DataFrame(rows, columns=['item', 'step', 'passed']))
    assert found.failed.sum() == sum(not all(p for _, p in trace) for trace in traces)
    assert found[found.before == 'start'].reached.sum() == len(traces)
    assert (found.failed <= found.reached).all()


def test_traces_in_which_all_is_well():
    none = pd.DataFrame(columns=['item', 'step'])
    assert transitions(outcomes_of(none, ['1/1', '1/2'])).failed.tolist() == [0, 0, 0]


def test_odds_ratio_is_symmetric_and_inverts():
    up, down = [True]*9 + [False]*11, [True]*6 + [False]*10 + [True]*4
    one, other = odds_ratio(up, down), odds_ratio([not u for u in up], down)
    assert math.isclose(odds_ratio(down, up).value, one.value, rel_tol=1e-6)
    assert math.isclose(other.value, 1/one.value, rel_tol=1e-4) and math.isclose(other.low, 1/one.high, rel_tol=1e-3)


# -- exchange ----------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=20)
VALUES = st.one_of(st.booleans(), st.integers(-9, 9), TEXT, st.none(), st.dictionaries(TEXT, st.integers(-9, 9), max_size=2))
LABELS = st.lists(st.fixed_dictionaries(dict(created=TEXT, annotator=TEXT, call=TEXT, part=TEXT, name=st.text('abc', min_size=1),
                                             value=VALUES, why=TEXT, sampling=st.dictionaries(TEXT, TEXT, max_size=1),
                                             content=TEXT)), min_size=1, max_size=4)


def plain(df): return df.astype(object).where(df.notna(), None).to_dict('records')


@pytest.mark.parametrize('ending', ['.csv', '.parquet', '.jsonl'])
@given(rows=LABELS)
@settings(deadline=None, max_examples=40)
def test_files_come_back_as_they_went(tmp_path_factory, ending, rows):
    table = pd.DataFrame({k: pd.Series([r[k] for r in rows], dtype=object) for k in rows[0]})
    path = tmp_path_factory.mktemp('x')/f'labels{ending}'
    assert plain(read_table(write_table(table, path))) == rows


CELLS = st.one_of(st.none(), st.booleans()), st.one_of(st.sampled_from(['True', 'false', "'TRUE", 'yes', '1', '[', ';']), TEXT)


@pytest.mark.parametrize('ending', ['.csv', '.parquet', '.jsonl'])
@given(rows=st.lists(st.tuples(*CELLS, TEXT), min_size=1, max_size=4).filter(lambda rows: any(r[0] is not None for r in rows)),
       names=st.permutations(['judge', 'text', 'output']))
@settings(deadline=None, max_examples=40)
def test_booleans_come_back_as_booleans_and_their_names_as_texts(tmp_path_factory, ending, rows, names):
    table = pd.DataFrame(rows, columns=['judge', 'text', 'output'], dtype=object)[names]
    path = tmp_path_factory.mktemp('x')/f'flags{ending}'
    assert plain(read_table(write_table(table, path))) == plain(table)


@pytest.mark.parametrize('ending', ['.csv', '.parquet', '.jsonl'])
@pytest.mark.parametrize('dtype', [object, 'boolean'])
def test_what_a_file_holds_can_be_estimated_from(tmp_path, ending, dtype):
    judge, good = [True, False, True, True]*10, [True, None, None, True]*5+[None, False]*10
    table = pd.DataFrame(dict(judge=judge, good=pd.Series(good, dtype=dtype)))
    back = read_table(write_table(table, tmp_path/f'rows{ending}'))
    assert estimate(back.judge, back.good, 'random') == estimate(judge, good, 'random')


def test_a_table_of_ones_own_is_read_as_it_is(tmp_path):
    "Texts in columns that are JSON or numbers elsewhere stay texts; JSON, numbers and gaps are still read as such."
    path = tmp_path/'chat.csv'
    path.write_text('input,output,value,number,seconds\nHi,"Hello, you",1,first,.5\n[1],,{},2,\n', encoding='utf-8')
    assert plain(read_table(path)) == [dict(input='Hi', output='Hello, you', value=1, number='first', seconds=.5),
                                       dict(input='[1]', output='', value={}, number='2', seconds=None)]
    pd.DataFrame(dict(output=['Hello'], input=['[1]'], value=[2])).to_parquet(tmp_path/'chat.parquet')
    assert plain(read_table(tmp_path/'chat.parquet')) == [dict(output='Hello', input=[1], value=2)]
    counts = pd.DataFrame(dict(number=[1, None, 3]))  # floats, as pandas holds whole numbers with gaps
    assert plain(read_table(write_table(counts, path))) == plain(counts)


@pytest.mark.parametrize('mark', [',', ';', '\t', '|'])
def test_columns_are_told_apart_whatever_separates_them(tmp_path, mark):
    path = tmp_path/'other.csv'
    path.write_text('\n'.join(mark.join(row) for row in (['"a,x"', 'b'], ['1', '"2;,3\t|"'], ['TRUE', ''])), encoding='utf-8')
    assert plain(read_table(path)) == [{'a,x': '1', 'b': '2;,3\t|'}, {'a,x': 'TRUE', 'b': ''}]
    for name in (f'a{mark}b', f'{mark}a', f'"{mark}"'):
        table = pd.DataFrame({name: [f'1{mark}2', '']})
        assert plain(read_table(write_table(table, path))) == plain(table)
    path.write_text(f'a{mark}b\n1{mark}2{mark}3\n', encoding='utf-8')
    with pytest.raises(FastbookError, match='row 1 .* has 3 cells, but there are 2 columns'): read_table(path)


@given(rows=LABELS)
@settings(deadline=None, max_examples=40)
def test_events_come_back_as_they_went(rows):
    table = pd.DataFrame({k: pd.Series([r[k] for r in rows], dtype=object) for k in rows[0]})
    assert plain(from_evaluation_events(json.loads(json.dumps(to_evaluation_events(table)))))  == rows


# -- the author's own file ---------------------------------------------------------------------------------------------

@pytest.fixture
def author(data, tmp_path):
    with Store(tmp_path/'traces.db') as store:
        yield read_evaluation(data/'agentfastbook'/'evals-haiku-3.5.json', store), store


def test_the_authors_file_has_all_its_labels_and_notes(author):
    benchmark, store = author
    calls, given_labels = store.calls(), labels(store)
    assert (len(calls), calls.output.map(len).sum(), sum(len(q.components) for q in benchmark)) == (31, 138, 73)
    assert given_labels['name'].value_counts().to_dict() == {'partial': 98, 'exact': 31, 'extra': 11, 'missing': 3, 'hallucination': 2}
    assert len(notes(store)) == 31 and not benchmark.errors
    assert set(given_labels.call) <= set(calls.id)


def test_the_authors_file_survives_every_format(author, tmp_path):
    _, store = author
    calls, said = store.calls(), pd.concat([labels(store), notes_to_labels(notes(store))])
    columns = ['created', 'annotator', 'call', 'part', 'name', 'value', 'why', 'sampling', 'content']

    def in_order(df): return sorted(plain(df), key=str)

    for ending in ('.csv', '.parquet', '.jsonl'):
        assert plain(read_table(write_table(calls, tmp_path/f'calls{ending}'))) == plain(calls)
    for out, back in ((to_openinference, from_openinference), (to_inspect, from_inspect)):
        calls_back, said_back = back(json.loads(json.dumps(out(calls, said))))
        assert in_order(calls_back[calls.columns]) == in_order(calls)
        assert in_order(said_back) == in_order(said[columns])
    assert in_order(from_evaluation_events(to_evaluation_events(said))) == in_order(said[columns])


def test_the_authors_notes_can_be_coded_and_counted(author):
    _, store = author
    codes = open_codes(notes(store), store.calls())
    assert codes.step.eq('decompose').all() and len(codes) == 31
    groups = [{codes['item'][codes.note == n].iloc[0] for n in s.notes} for s in suggest_modes(codes)]
    assert {'4/11', '4/18', '4/23', '4/29'} in groups  # 'Exact match, no comments.'
    book = Codebook()
    book.add('reader', 'no comments')
    book.assign('reader', 'no comments', codes.note[codes.text.str.contains('no comments')])
    counts = count_modes(code_notes(codes, book.table()), codes['item'])
    assert counts[['mode', 'traces']].values.tolist() == [['no comments', 4]]


@pytest.mark.parametrize('line', [
    '{', '7', '{"act": "explode", "who": "Ada", "at": "", "modes": ["a"], "notes": []}', '{"act": "undo", "who": "Ada", "at": "", "modes": [], "notes": []}',
    '{"act": "add", "who": "Ada", "at": "", "modes": ["a"], "notes": [], "detail": {"colour": "red"}}',
    '{"act": "add", "who": "Ada", "at": "", "modes": ["a"], "notes": [], "detail": 5}', '{"act": "describe", "who": "Ada", "at": "", "modes": [], "notes": []}',
    '{"act": "add", "who": "Ada", "at": "", "modes": [5], "notes": []}', '['*100_000, '{"act": "add", "modes": 5, "notes": []}'])
def test_a_codebook_with_one_bad_line_names_it(tmp_path, line):
    (tmp_path/'codes.jsonl').write_text(line+'\n')
    with pytest.raises(FastbookError, match='line 1 of the codebook|change 0 of the codebook|no failure mode'): Codebook(tmp_path/'codes.jsonl')


def test_a_codebook_that_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path/'fifo')
    (tmp_path/'latin.jsonl').write_bytes(b'\xff')
    for name, why in {'fifo': 'regular file', '.': 'regular file', 'latin.jsonl': 'not UTF-8'}.items():
        with pytest.raises(FastbookError, match=why): Codebook(tmp_path/name)
