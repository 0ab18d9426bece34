"The store under accidents: old files, kills, damaged pages, monsters; and who is told apart"
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_sql
from hypothesis import given, settings, strategies as st

from agentfastbook.judges.alignment import person_verdicts
from agentfastbook.books.questions import Benchmark, Component, Context, Question
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.judges.checks import CHECKS
from agentfastbook.look.coding import Codebook, mark_first, open_codes
from agentfastbook.text.spans import FastbookError, Span, content_id
from agentfastbook.look.counting import outcomes_of, transitions
from agentfastbook.store.exchange import read_table, write_table
from agentfastbook.books.export import export_beir, export_huggingface, export_trec
from agentfastbook.judges.judge import cases, judge_run, verdicts
from agentfastbook.store.labels import Label, Note, annotate, labels, notes
from agentfastbook.store.reviews import reviewed_spans, span_label
from agentfastbook.engines.pipeline import curate
from agentfastbook.look.page import review, save_reviews
from agentfastbook.look.steps import pair_rows, trace_rows
from agentfastbook.store.claims import Claims
from agentfastbook.store.runs import Call, Item, Store

ROOT = Path(__file__).parents[2]


def python(code, *args, **options):
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, **options)


# Told apart

def test_the_same_question_asked_twice_is_two_calls_each_with_its_label(tmp_path):
    with Store(tmp_path/'t.db') as store:
        run = store.start_run({})
        for i, (answer, good) in enumerate([('good soup', True), ('BAD soup', False)]):
            call = Call('answer', 'bot', dict(question='vegan soup?'), answer, usd=None)
            store.save_item(run, Item(f'trace {i}', f'q/{i}', (call,)))
            annotate(store, 'Ada', Label(call.id, 'verdict', good), sampling=dict(how='random', probability=1))
        assert [(c.question, c.output) for c in cases(store, 'answer')] == [('q/0', 'good soup'), ('q/1', 'BAD soup')]
        said = person_verdicts(store, 'verdict', 'answer')
        assert said[['question', 'passed']].values.tolist() == [['q/0', True], ['q/1', False]]


def test_101_labels_of_47_questions_are_101(tmp_path):
    "Synthetic questions repeat, answers differ or are equal: attempts tell them apart."
    with Store(tmp_path/'t.db') as store:
        run, asked = store.start_run({}), {}
        for i in range(101):
            question = f'question {i % 47}'
            asked[question] = attempt = asked.get(question, 0)+1
            call = Call('answer', 'bot', dict(question=question), 'the same answer', attempt=attempt)
            store.save_item(run, Item(f'trace {i}', f'{i}', (call,)))
            annotate(store, 'Ada', Label(call.id, 'verdict', i % 3 == 0))
        said = labels(store)
        assert (len(said), said.call.nunique(), int(said.value.sum())) == (101, 101, 34)
        assert len(person_verdicts(store, 'verdict', 'answer')) == 101


def test_a_rerun_shares_the_calls_and_their_labels_stay(tmp_path):
    out = tmp_path/'out'
    curate(sample_path(), sample_path()/'benchmark.json', out, progress=False)
    with Store(out/'traces.db') as store:
        before = [c.id for c in store.read_calls()]
        call = store.calls(step='extract').iloc[0].id
        annotate(store, 'Ada', Label(call, 'verdict', False))
        run_sql(store.path, "update item set error='killed'") # as if nothing had been finished
    curate(sample_path(), sample_path()/'benchmark.json', out, progress=False)
    with Store(out/'traces.db') as store:
        assert [c.id for c in store.read_calls()] == before
        assert store.calls().number.min() == 1, 'no call belongs to an earlier attempt'
        assert labels(store)[['call', 'value']].values.tolist() == [[call, False]]


def test_a_failure_never_takes_the_place_of_what_is_finished_and_keeps_its_labels(tmp_path):
    good, bad = Call('ask', 'bot', {}, 'yes'), Call('ask', 'bot', {}, error='no index')
    with Store(tmp_path/'t.db') as store:
        run = store.start_run({})
        store.save_item(run, Item('i', '1/1', (bad,), 'no index'))
        annotate(store, 'Ada', Note(bad.id, 'no index at all'))
        store.save_item(run, Item('i', '1/1', (good,)))
        store.save_item(run, Item('i', '1/1', (bad,), 'no index'))
        assert store.find_item('i').calls == (good,) and store.runs().failed.tolist() == [0]
        assert store.calls()[['id', 'number']].values.tolist() == [[bad.id, 0], [good.id, 1]]
        assert open_codes(notes(store), store.calls())[['item', 'step', 'call']].values.tolist() == [['1/1', 'ask', bad.id]]
        store.save_item(run, Item('i', '1/1', (bad, good)))
        assert store.calls()[['id', 'number']].values.tolist() == [[bad.id, 1], [good.id, 2]]


@given(st.lists(st.tuples(st.sampled_from('ab'), st.sampled_from([None, 'x', 'y']), st.integers(1, 2)), max_size=12))
@settings(max_examples=30, deadline=None)
def test_every_answer_and_attempt_is_a_row(asked):
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)/'t.db') as store:
        run = store.start_run({})
        made = [Call('ask', 'bot', dict(q=q), out, '' if out else 'failed', attempt=n) for q, out, n in asked]
        for i, call in enumerate(made): store.save_item(run, Item(f'item {i}', str(i), (call,), call.error))
        assert {c.id for c in made} <= set(store.calls().id)
        assert len({c.id for c in made}) == len(set(asked)) and len(store.calls()) == len(made)
        for call in made:
            found = store.find_made(call.key)
            assert found.key == call.key and (not found.error or all(c.error for c in made if c.key == call.key))


# Old stores

VERSION_3 = """
create table run(id integer primary key, started text not null, finished text, config text not null);
create table item(id text primary key, name text not null, error text not null);
create table call(id text primary key, step text not null, engine text not null, input text not null, output text not null,
    error text not null, seconds real not null, prompt text not null, raw text not null,
    input_tokens integer not null, output_tokens integer not null, usd real);
create table run_item(run integer not null references run, item text not null references item, primary key(run, item));
create table item_call(item text not null references item, position integer not null, call text not null references call,
    primary key(item, position)) without rowid;
create table content(id text primary key, text blob not null);
create table act(id integer primary key, created text not null, annotator text not null, sampling text not null, undone text);
create table label(id integer primary key, act integer not null references act, call text not null, part text not null,
    name text not null, value text not null, why text not null, content text not null);
create table note(id integer primary key, act integer not null references act, call text not null, part text not null,
    text text not null, content text not null);
create index label_call on label(call);
create index note_call on note(call);
create table judgement(id integer primary key, created text not null, judge text not null, version text not null,
    call text not null, part text not null, passed integer, score real, critique text not null, confidence real,
    evidence text not null, error text not null, content text not null);
create index judgement_call on judgement(call);
create table split(mode text not null, question text not null, part text not null, primary key(mode, question));
create table opened(id integer primary key, created text not null, mode text not null, judge text not null,
    version text not null, labels text not null, result text not null);
insert into run values (1, '2026-01-01T00:00:00+00:00', null, '{}');
insert into act values (1, '2026-01-01T00:00:00+00:00', 'Ada', '{"how": "random", "probability": 0.5}', null);
pragma user_version=3;
"""
STEPS = ('decompose', 'retrieve', 'extract')


def old_store(path, traces=3):
    "A store of version 3: each trace with three calls, a label, a note on a call and on a trace, and a verdict."
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_3)
        for i in range(traces):
            db.execute('insert into item values (?,?,?)', (f'item {i}', f'1/{i}', ''))
            db.execute('insert into run_item values (1,?)', (f'item {i}',))
            for n, step in enumerate(STEPS):
                old = Call(step, 'rules', dict(of=i)).key
                output = json.dumps([step, i])
                db.execute('insert into call values (?,?,?,?,?,?,?,?,?,?,?,?)',
                           (old, step, 'rules', json.dumps(dict(of=i)), output, '', 0, '', '', 0, 0, 0))
                db.execute('insert into item_call values (?,?,?)', (f'item {i}', n, old))
            asked = Call('decompose', 'rules', dict(of=i)).key
            seen = content_id(json.dumps(['decompose', i]))
            db.execute("insert into label(act,call,part,name,value,why,content) values (1,?,'','verdict','true','',?)", (asked, seen))
            db.execute("insert into note(act,call,part,text,content) values (1,?,'',?,'')", (asked, f'note {i}'))
            db.execute("insert into note(act,call,part,text,content) values (1,?,'call 2',?,'')", (f'item {i}', f'trace note {i}'))
            db.execute("""insert into judgement(created,judge,version,call,part,passed,critique,evidence,error,content)
                values ('','empty','v',?,'',1,'','null','',?)""", (asked, seen))
        asker = Call('ask', 'model', dict(parts='p')).key # an item that has the id of its call, as an Asker made them
        db.execute('insert into item values (?,?,?)', (asker, 'ask 1', ''))
        db.execute('insert into run_item values (1,?)', (asker,))
        db.execute('insert into call values (?,?,?,?,?,?,?,?,?,?,?,?)', (asker, 'ask', 'model', '{"parts": "p"}', '"yes"', '', 0, '', 'yes', 0, 0, 0))
        db.execute('insert into item_call values (?,0,?)', (asker, asker))
        for name, seen in (('on the call', content_id('"yes"')), ('on the trace', content_id(['"yes"']))):
            db.execute("insert into label(act,call,part,name,value,why,content) values (1,?,'',?,'true','',?)", (asker, name, seen))
    db.close()
    return path


def check_moved(path, traces=3):
    with Store(path) as store:
        assert run_sql(path, 'pragma user_version') == [(5,)] and run_sql(path, 'pragma integrity_check') == [('ok',)]
        calls = store.calls()
        assert len(calls) == 3*traces+1 and calls.number.min() == 1
        for row in calls.itertuples():
            assert row.id == Call(row.step, row.engine, row.input, row.output, raw=row.raw).id and row.asked == row.was
        by_id = calls.set_index('id')
        said = labels(store)
        verdict = said[said['name'] == 'verdict']
        assert [by_id.loc[c].output for c in verdict.call] == [['decompose', i] for i in range(traces)]
        assert said.sampling.iloc[0] == dict(how='random', probability=.5)
        asked = Call('ask', 'model', dict(parts='p'), 'yes', raw='yes')
        on = dict(zip(said['name'], said.call))
        assert (on['on the call'], on['on the trace']) == (asked.id, asked.key)
        assert store.find_made(asked.key) == asked == store.find_call(asked.key) # by the old id, too
        assert len(verdicts(store)) == traces and set(verdicts(store).call) == set(verdict.call)
        codes = open_codes(notes(store), calls)
        assert codes.step.tolist() == ['decompose', 'retrieve']*traces
        old = [[content_id(f'1/{i}', 'decompose', Call('decompose', 'rules', dict(of=i)).key, '', 'Ada', f'note {i}'),
                content_id(f'1/{i}', '', f'item {i}', 'call 2', 'Ada', f'trace note {i}')] for i in range(traces)]
        assert codes.note.tolist() == sum(old, []) # so a codebook, which is a file of its own, fits


def test_an_old_store_moves_its_labels_notes_and_verdicts_to_the_new_ids(tmp_path):
    check_moved(old_store(tmp_path/'traces.db'))
    check_moved(tmp_path/'traces.db') # and a second time there is nothing to do


def test_a_codebook_made_before_fits_after(tmp_path):
    old_store(tmp_path/'traces.db')
    book = Codebook(tmp_path/'codes.jsonl')
    book.add('Ada', 'merged')
    book.assign('Ada', 'merged', [content_id('1/1', 'decompose', Call('decompose', 'rules', dict(of=1)).key, '', 'Ada', 'note 1')])
    with Store(tmp_path/'traces.db') as store: codes = open_codes(notes(store), store.calls())
    assert codes.merge(Codebook(tmp_path/'codes.jsonl').table(), on='note').text.tolist() == ['note 1']


def test_a_label_with_an_old_id_finds_its_call(tmp_path):
    with Store(old_store(tmp_path/'traces.db')) as store:
        annotate(store, 'Ben', Label(Call('extract', 'rules', dict(of=2)).key, 'wrong'))
        assert store.calls().set_index('id').loc[labels(store).call.iloc[-1]].output == ['extract', 2]


def test_an_old_store_with_one_broken_entry_is_opened_and_the_entry_is_named(tmp_path):
    old_store(tmp_path/'traces.db')
    with sqlite3.connect(tmp_path/'traces.db') as db: db.execute("update call set output='{broken' where step='extract' and input like '%1%'")
    db.close()
    with Store(tmp_path/'traces.db') as store:
        assert store.find_item('item 0')
        with pytest.raises(FastbookError, match='the input or output of call .* is no JSON'): store.find_item('item 1')


def test_an_old_store_that_may_only_be_read_says_what_to_do(tmp_path):
    with pytest.raises(FastbookError, match='is of an older version .* may only be read; make it writable, or copy it'):
        Store(old_store(tmp_path/'traces.db'), readonly=True)


def test_many_processes_open_an_old_store_at_once(tmp_path):
    old_store(tmp_path/'traces.db', 200)
    code = 'import sys; from agentfastbook.store.runs import Store; Store(sys.argv[1]).close()'
    all_ = [python(code, tmp_path/'traces.db') for _ in range(4)]
    assert [p.communicate()[1] for p in all_] == ['']*4
    check_moved(tmp_path/'traces.db', 200)


KILLED = """import os, signal, sys
from agentfastbook.store import database
step, real = int(sys.argv[2]), database.content_id
count = 0
def dying(*args):
    global count
    count += 1
    if count == step: os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
database.content_id = dying
database.Database(sys.argv[1])
"""


@pytest.mark.parametrize('step', [1, 40, 91])
def test_a_kill_in_the_middle_of_the_migration_leaves_the_old_store(tmp_path, step):
    path = old_store(tmp_path/'traces.db', 30)
    killed = python(KILLED, path, step)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    with sqlite3.connect(f'file:{path}?mode=ro', uri=True) as db:
        assert db.execute('pragma user_version').fetchone()[0] == 3
        assert db.execute('select count(*) from call').fetchone()[0] == 91
    db.close()
    check_moved(path, 30)


def version_4(path):
    "A store as version 4 left it, with a call, a label, and claims that were kept outside of the schema."
    with Store(path) as store:
        call = Call('ask', 'bot', {}, 'yes')
        store.save_item(store.start_run({}), Item('i', '1/1', (call,)))
        annotate(store, 'Ada', Label(call.id, 'verdict', True))
    run_sql(path, "insert into claimed values ('bake', 'an owner that is gone', 0, 'a call of $.01')")
    run_sql(path, 'pragma user_version=4')
    return path


def test_claims_of_a_version_4_store_stay_and_belong_to_the_schema(tmp_path):
    path = version_4(tmp_path/'traces.db')
    with Store(path) as store: assert labels(store).value.tolist() == [True] and store.find_item('i').calls[0].output == 'yes'
    assert run_sql(path, 'pragma user_version') == [(5,)]
    assert Claims(path).take('bake') == 'a call of $.01'


def test_a_version_4_store_without_claims_gets_the_table(tmp_path):
    run_sql(version_4(tmp_path/'traces.db'), 'drop table claimed')
    claims = Claims(tmp_path/'traces.db')
    assert claims.take('bake') is True and Claims(tmp_path/'traces.db').take('bake') is False


def test_a_version_4_store_that_may_only_be_read_is_read(tmp_path):
    path = version_4(tmp_path/'traces.db')
    with Store(path, readonly=True) as store: assert len(store.calls()) == len(labels(store)) == 1
    assert run_sql(path, 'pragma user_version') == [(4,)]


def test_claims_may_be_there_before_the_store(tmp_path):
    run_sql(tmp_path/'traces.db', 'create table claimed(key text primary key, owner text not null, since real not null, stake text not null)')
    with Store(tmp_path/'traces.db') as store: assert len(store.runs()) == 0


LABELLING = """import sys
from agentfastbook.store.labels import *
from agentfastbook.store.runs import Store
with Store(sys.argv[1]) as store:
    call = store.calls().id[0]
    for i in range(10**9):
        annotate(store, 'Ada', Label(call, 'verdict', i), Label(call, 'twin', i), Note(call, str(i)))
        print(i, flush=True)
"""


def test_a_kill_in_the_middle_of_labels_leaves_whole_acts_and_none_that_was_told_is_lost(tmp_path):
    path = old_store(tmp_path/'traces.db')
    for _ in range(3):
        process = python(LABELLING, path)
        for _ in range(20): told = int(process.stdout.readline())
        process.kill()
        told = max([told, *map(int, process.communicate()[0].split())])
        with Store(path) as store:
            given = {r.name: r.value for r in labels(store).itertuples() if r.annotator == 'Ada'}
            assert given['verdict'] == given['twin'] >= told
            assert str(given['twin']) in set(notes(store).text)


# Damaged, locked, something else

def messages(path, run):
    "What opening and every way of reading and writing says; None where it works."
    def said(do):
        try: do()
        except FastbookError as e: return str(e)
    try: store = Store(path, timeout=.1)
    except FastbookError as e: return [str(e)]
    with store:
        return [said(do) for do in (store.runs, store.calls, lambda: store.find_item('x'), lambda: store.find_made('x'),
            lambda: store.content('x'), lambda: labels(store), lambda: notes(store), lambda: verdicts(store),
            lambda: cases(store), lambda: trace_rows(store), lambda: judge_run(store, CHECKS['decompose']),
            lambda: store.start_run({}), lambda: store.save_item(1, Item('x', 'x', (Call('a', 'b', {}),))),
            lambda: store.add_content('x'*100_000), lambda: annotate(store, 'Ada', Label('x', 'y')))]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp('run')
    curate(sample_path(), sample_path()/'benchmark.json', out, progress=False)
    with sqlite3.connect(out/'traces.db') as db: db.execute('pragma wal_checkpoint(truncate)')
    db.close()
    return out


@pytest.mark.parametrize('seed', range(6))
def test_damaged_pages_are_our_error_in_every_method(run, tmp_path, seed):
    import random
    data, draw = bytearray((run/'traces.db').read_bytes()), random.Random(seed)
    for _ in range(5*4**(seed % 3)):
        at = draw.randrange(100 if seed < 5 else 0, len(data)-600)
        data[at:at+600] = draw.randbytes(600)
    (tmp_path/'traces.db').write_bytes(data)
    told = [m for m in messages(tmp_path/'traces.db', run) if m]
    assert all("'traces.db'" in m or 'call' in m for m in told)


@pytest.mark.parametrize('keep', [50, 1000, 5000, .5, .9])
def test_a_truncated_store_is_our_error(run, tmp_path, keep):
    data = (run/'traces.db').read_bytes()
    (tmp_path/'traces.db').write_bytes(data[:int(keep*len(data)) if keep < 1 else keep])
    told = [m for m in messages(tmp_path/'traces.db', run) if m]
    assert told and all('damaged' in m or 'give the path of a store file' in m for m in told)


def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path/'folder').mkdir()
    os.mkfifo(tmp_path/'fifo')
    with sqlite3.connect(tmp_path/'places.sqlite') as db: db.execute('create table moz_places(id)')
    db.close()
    before = (tmp_path/'places.sqlite').read_bytes()
    start = time.monotonic()
    for name, why in dict(folder='it is a folder', fifo='it is no regular file').items():
        with pytest.raises(FastbookError, match=f"can't open the store '{name}': {why}; give the path"): Store(tmp_path/name)
    with pytest.raises(FastbookError, match='it is a database of another program, with moz_places'): Store(tmp_path/'places.sqlite')
    with pytest.raises(FastbookError, match='a path holds no NUL'): Store(tmp_path/'text\0.db')
    assert (tmp_path/'places.sqlite').read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ['fifo', 'folder', 'places.sqlite']
    assert time.monotonic()-start < 10


def test_a_locked_store_and_a_closed_one(run, tmp_path):
    shutil.copy(run/'traces.db', tmp_path/'traces.db')
    other = sqlite3.connect(tmp_path/'traces.db', isolation_level=None)
    with Store(tmp_path/'traces.db', timeout=.1) as store:
        other.execute('begin immediate')
        with pytest.raises(FastbookError, match='database is locked; nothing was saved: .* close the other program'): store.start_run({})
        other.execute('rollback')
    for do in (store.runs, lambda: store.start_run({})):
        with pytest.raises(FastbookError, match="the store 'traces.db': Cannot operate on a closed database.*open it again"): do()
    other.close()


@pytest.mark.parametrize('command', ['afb_judge', 'afb_review'])
@pytest.mark.parametrize('damage', ['pages', 'folder', 'text', 'fifo'])
def test_commands_say_what_is_wrong_with_a_store(run, tmp_path, command, damage):
    out = tmp_path/'out'
    shutil.copytree(run, out)
    path = out/'traces.db'
    if damage == 'pages':
        data = bytearray(path.read_bytes())
        data[4096:] = b'\xff'*(len(data)-4096)
        path.write_bytes(data)
    else:
        path.unlink()
        if damage == 'folder': path.mkdir()
        if damage == 'text': path.write_text('no database '*1000)
        if damage == 'fifo': os.mkfifo(path)
    done = python(f'from agentfastbook.cli.reading import {command}; {command}({str(out)!r})')
    _, told = done.communicate(timeout=60)
    assert done.returncode == 2 and told.count('\n') == 1 and told.startswith('error: ') and 'traces.db' in told


# Monsters

@pytest.mark.parametrize('field,value,kept', [
    ('input_tokens', 10**20, None), ('input_tokens', -1, None), ('output_tokens', '12', None), ('output_tokens', 1.5, None),
    ('output_tokens', 10**5000, None), ('usd', float('inf'), None), ('usd', -1e-9, None), ('usd', 'free', None),
    ('seconds', float('nan'), None), ('attempt', 0, None), ('output', {1, 2}, None), ('output', 10**5000, None), ('raw', 7, None),
    ('usd', float('nan'), (None,)), ('input_tokens', 2**63-1, (2**63-1,)), ('output', 10**1000, (10**1000,)), ('output_tokens', 3., (3,)),
    ('error', '\ud800', ('\\ud800',)), ('raw', 'x'*5_000_000, ('x'*5_000_000,))], ids=range(19))
def test_a_monster_is_refused_by_name_or_kept(tmp_path, field, value, kept):
    call = Call(**{**dict(step='ask', engine='bot', input={}), field: value})
    with Store(tmp_path/'t.db') as store:
        run = store.start_run({})
        if kept is None:
            with pytest.raises(FastbookError, match="of step 'ask'|can't be part of an id"): store.save_item(run, Item('i', '1/1', (call,)))
            assert store.find_item('i') is None
        else:
            store.save_item(run, Item('i', '1/1', (call,)))
            assert getattr(store.find_item('i').calls[0], field) == kept[0]
        store.save_item(run, Item('next', '1/2', (Call('ask', 'bot', {}),)))


def test_labels_with_monsters(tmp_path):
    with Store(tmp_path/'t.db') as store:
        text = store.add_content('text')
        for value in ({1}, 10**5000, object()):
            with pytest.raises(FastbookError, match="the value of label 'verdict' is no JSON data, nothing was saved"):
                annotate(store, 'Ada', Label(text, 'verdict', value))
        annotate(store, 'Ada\ud800', Label(text, 'x'*1_000_000, 'y'*1_000_000, why='\ud800\0'), Note(text, 'z'*3_000_000))
        assert [len(v) for v in labels(store)[['name', 'value']].iloc[0]] == [1_000_000]*2 and len(notes(store).text[0]) == 3_000_000
        run_sql(store.path, "update act set created='the day after'")
        run_sql(store.path, "update label set value='{broken'")
        with pytest.raises(FastbookError, match='value of label 1 is no JSON'): labels(store)
        assert notes(store).created.tolist() == ['the day after']


def test_numbers_that_are_none_are_shown_as_unknown(run, tmp_path):
    "Written by hand into the file."
    shutil.copy(run/'traces.db', tmp_path/'traces.db')
    with Store(tmp_path/'traces.db') as store:
        run_sql(store.path, "update call set seconds='a while', usd='cheap', input_tokens=1e20, output_tokens='many'")
        assert set(store.calls().seconds) == {0} and store.calls().usd.isna().all()
        for step in ('trace', 'decompose', 'retrieve', 'extract'): assert review(store, step, annotator='Ada').sitting.state()['facts']
        assert len(judge_run(store, CHECKS['decompose'])) > 20


def test_half_characters_leave_in_every_export(tmp_path):
    "Made in code: readers of files refuse them."
    (tmp_path/'book').mkdir()
    (tmp_path/'book'/'01_bees.md').write_text('# Bees\n\nBees nurse larvae.')
    book, text = read_book(tmp_path/'book'), 'Bees nurse larvae.'
    part = Component('Bees \ud83d nurse.', (), (Context(text),))
    benchmark = Benchmark([Question(1, 1, 'What do \udfff bees do?', text, (part,))])
    files = [*export_beir(benchmark, book, tmp_path/'beir'), *export_trec(benchmark, book, tmp_path/'trec'),
             *export_huggingface(benchmark, tmp_path/'hf', 'bees', 'made \ud800 up', with_text=True)]
    for path in files: path.read_bytes().decode('utf-8')
    for path in (tmp_path/'beir'/'queries.jsonl', tmp_path/'trec'/'topics.tsv', tmp_path/'hf'/'README.md'):
        assert path.read_text().count('\ufffd') == 1, path
    assert json.loads((tmp_path/'hf'/'test.jsonl').read_text())['components'][0]['text'] == 'Bees \ufffd nurse.'


# Reviewed contexts

def test_reviewed_contexts_stay_once_an_answer_is_written(tmp_path):
    (tmp_path/'book').mkdir()
    (tmp_path/'book'/'01_bees.md').write_text('# Bees\n\nBees nurse larvae. Bees guard the entrance of the hive. Some gather nectar.\n\n'
                                              '## Questionnaire\n\n1. What do bees do at the entrance of the hive?\n')
    out = tmp_path/'out'
    def question(): return json.loads((out/'dataset.json').read_text())['questions'][0]
    done = curate(tmp_path/'book', None, out, progress=False)
    with Store(out/'traces.db') as store:
        call = store.calls(step='extract').iloc[0]
        text = store.content(call.input['chapter'])
        at = text.index('Some gather')
        annotate(store, 'Ada', span_label(call.id, 'add', Span(at, at+19)))
    data = json.loads((out/'dataset.json').read_text())
    data['questions'][0]['gold_standard_answer'] = 'They guard it. Some gather nectar.'
    (tmp_path/'benchmark.json').write_text(json.dumps(data))
    curate(tmp_path/'book', tmp_path/'benchmark.json', out, progress=False)
    kept = question()['question_context']
    assert [c['question_component'] for c in kept] == [done.questions[0].text]
    assert 'Some gather nectar.' in kept[0]['context'] and kept[0]['reviewed']['annotators'] == ['Ada']
    assert question()['answer_context']
    data['questions'][0].update(gold_standard_answer='They guard it.', question_text='And at the entrance?')
    (tmp_path/'benchmark.json').write_text(json.dumps(data))
    curate(tmp_path/'book', tmp_path/'benchmark.json', out, progress=False)
    assert 'former_context' not in question() and 'reviewed' not in json.dumps(question()) # another question
    data['questions'][0].update(question_text=done.questions[0].text.upper())
    (tmp_path/'benchmark.json').write_text(json.dumps(data))
    curate(tmp_path/'book', tmp_path/'benchmark.json', out, progress=False)
    assert [c['context'] for c in question()['question_context']] == [kept[0]['context']] # the same question again


def tea(folder, text, question, answer='Yes, it is hot.'):
    "A book of one chapter, and a benchmark of one question."
    folder.mkdir(exist_ok=True)
    (folder/'01_drinks.md').write_text(text)
    asked = dict(chapter=1, question_number=1, question_text=question, gold_standard_answer=answer)
    (folder/'benchmark.json').write_text(json.dumps(dict(questions=[asked])))
    return folder


def curated(folder, out):
    "The question's part of dataset.json, and the run."
    run = curate(folder, folder/'benchmark.json', out, progress=False)
    return json.loads((out/'dataset.json').read_text())['questions'][0], run


def decide(out, action, marked):
    "A decision about the first context, if any, of the question that was asked last."
    with Store(out/'traces.db') as store:
        call = store.calls(step='extract').iloc[-1]
        start = store.content(call.input['chapter']).index(marked)
        new, old = Span(start, start+len(marked)), Span(*call.output[0])
        annotate(store, 'Ada', span_label(call.id, action, old if action == 'reject' else new, old))


TEA = '# Drinks\n\nTea is hot. Yes, it is hot in the cup. Coffee is hot when it is fresh.\n'


def test_a_review_is_not_applied_to_another_question_with_its_number(tmp_path):
    out, book = tmp_path/'out', tmp_path/'book'
    curated(tea(book, TEA, 'Is tea hot?'), out)
    decide(out, 'fix', 'Tea is hot.')
    entry, _ = curated(tea(book, TEA, ' is  TEA hot?'), out)
    assert 'Tea is hot.' in entry['answer_context'][0]['context'] and entry['answer_context'][0]['reviewed']
    entry, _ = curated(tea(book, TEA, 'Is fresh coffee hot in the cup?'), out)
    alone, _ = curated(book, tmp_path/'alone')
    assert entry == alone # as if nothing had ever been reviewed here
    save_reviews(out)
    assert json.loads((out/'dataset.json').read_text())['questions'] == [alone]


@pytest.mark.parametrize('question', ['Is tea hot?', 'Is cocoa hot?'])
@pytest.mark.parametrize('action', ['fix', 'reject'])
def test_two_books_in_one_folder_keep_their_reviews_apart(tmp_path, question, action):
    out, book = tmp_path/'out', tmp_path/'book'
    curated(tea(book, TEA, 'Is tea hot?'), out)
    decide(out, action, 'Tea is hot.')
    reviewed, _ = curated(book, out)
    other = tea(tmp_path/'other', '# Cocoa\n\nIt is a drink of the Aztecs. Cocoa is hot, yes, and it is sweet.\n', question)
    entry, _ = curated(other, out)
    alone, _ = curated(other, tmp_path/'alone')
    assert entry == alone and alone['answer_context'][0]['context']
    save_reviews(out)
    assert json.loads((out/'dataset.json').read_text())['questions'] == [alone]
    tea(other, '# Kakao\n\nKakao ist heiß und süß.\n', 'Ist Kakao heiß?', 'Kakao ist heiß.')
    assert 'former_context' not in curated(other, out)[0]
    assert curated(book, out)[0] == reviewed and reviewed['answer_context'][0]['reviewed']


def test_a_review_stays_with_its_question_when_chapter_and_number_change(tmp_path):
    out, book = tmp_path/'out', tmp_path/'book'
    curated(tea(book, TEA, 'Is tea hot?'), out)
    decide(out, 'fix', 'Tea is hot.')
    (tea(book, TEA.replace('# Drinks', '# Hot drinks\n\nPreface.'), 'Is tea hot?'))
    data = json.loads((book/'benchmark.json').read_text())
    data['questions'][0]['question_number'] = 7
    (book/'benchmark.json').write_text(json.dumps(data))
    entry, run = curated(book, out)
    spans = entry['answer_context'][0]['context_spans']
    assert 'Tea is hot.' in entry['answer_context'][0]['context'] and entry['answer_context'][0]['reviewed']
    assert 'Tea is hot.' in [read_book(book)[1].text[s['start']:s['end']] for s in spans]
    tea(book, TEA, 'Is tea hot?', 'It is very hot indeed.') # another component: nothing is lost
    assert 'Tea is hot.' in curated(book, out)[0]['former_context'][0]['context']


def test_a_reviewed_context_has_its_cell_before_the_next_run(tmp_path):
    out, book = tmp_path/'out', tmp_path/'book'
    curated(tea(book, TEA, 'Is tea hot?'), out)
    (book/'01_drinks.md').unlink()
    sources = ['# Drinks', 'Coffee is hot when it is fresh.', 'Yes, it is hot in the cup.', 'Tea is hot.']
    cells = [dict(cell_type='markdown', metadata={}, source=s) for s in sources]
    (book/'01_drinks.ipynb').write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    curated(book, out)
    decide(out, 'fix', 'Tea is hot.')
    assert save_reviews(out) == 1
    at_once = (out/'dataset.json').read_bytes()
    places = json.loads(at_once)['questions'][0]['answer_context'][0]
    assert [s['cell'] for s in places['context_spans']] == [sources.index(c) for c in places['context']]
    assert 'Tea is hot.' in places['context']
    curated(book, out)
    assert (out/'dataset.json').read_bytes() == at_once


def test_what_a_person_rejected_is_no_reason_for_a_warning(tmp_path):
    out, book = tmp_path/'out', tmp_path/'book'
    entry, _ = curated(tea(book, '# Drinks\n\nYes, it is hot.\n', 'Is tea hot?'), out)
    assert len(entry['answer_context'][0]['context']) == 1
    decide(out, 'reject', 'Yes, it is hot.')
    entry, run = curated(book, out)
    assert entry['answer_context'][0]['context'] == [] and entry['answer_context'][0]['reviewed']
    assert run.warning == '' and 'most found nothing' not in run.summary
    assert 'Warning' not in (out/'report.html').read_text()
    _, run = curated(tea(book, '# Drinks\n\nNothing of use.\n', 'Is tea hot?'), out)
    assert 'no text was found for 1 of 1 components' in run.warning # nobody decided on this one


# Error analysis of whole traces

def test_notes_on_calls_of_traces_count_where_they_happened(run, tmp_path):
    shutil.copy(run/'traces.db', tmp_path/'traces.db')
    with Store(tmp_path/'traces.db') as store:
        calls = store.calls()
        sitting = review(store, 'trace', annotator='Ada').sitting
        read = sitting.rows.table['name'].tolist()
        for i in range(10):
            sitting.choose_part(i % 3)
            sitting.note('too low')
            sitting.go(1)
        codes = open_codes(notes(store), calls)
        expected = calls.set_index(['item', 'number']).step
        assert codes.step.tolist() == [expected[name, i % 3+1] for i, name in enumerate(read[:10])]
        assert set(codes.call) <= set(calls.id)
        found = transitions(outcomes_of(codes, read))
        assert found.failed.sum() == 10 and found.reached.iloc[0] == len(read)
        sitting.press('j')
        sitting.choose_part(1)
        sitting.press('1') # first failure
        assert mark_first(codes, labels(store), calls=calls)['first'].all()
        annotate(store, 'Ada', Note(sitting.id, 'all of it'))
        with pytest.raises(FastbookError, match='1 notes have no step, as they are about whole traces'):
            outcomes_of(open_codes(notes(store), store.calls()), read)


# Cells that a spreadsheet would run

CELLS = st.text(st.one_of(st.sampled_from('=+-@\'"\t\r\n ,;0159.e＝\x00'), st.characters(exclude_categories=['Cs'])), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS, st.one_of(st.none(), st.floats(allow_nan=False))), max_size=6), st.sampled_from(['.csv', '.jsonl']))
@settings(max_examples=200, deadline=None)
def test_tables_come_back_exactly_and_no_cell_can_be_run(rows, ending):
    df = pd.DataFrame(rows, columns=['text', '=why', 'usd'], dtype=object)
    path = write_table(df, Path(os.environ.get('TMPDIR', '/tmp'))/f'afb_table{os.getpid()}{ending}')
    try:
        back = read_table(path)
        assert back.astype(object).where(back.notna(), None).values.tolist() == df.values.tolist()
        if ending == '.csv' and rows:
            raw = pd.read_csv(path, dtype=str, keep_default_na=False)
            for text in [*raw.columns, *raw.iloc[:, :2].to_numpy().ravel()]:
                number = text.lstrip('-').replace('.', '', 1).replace('e', '', 1).replace('-', '', 1).replace('+', '', 1).isdigit()
                assert not text.lstrip().startswith(('=', '+', '@', '＝')) and (number or not text.lstrip().startswith('-'))
    finally: path.unlink()


# An item that was damaged

@pytest.mark.parametrize('change', ["input='[]'", "input='5'", "output='5'", "output='null'", "output='[[5, 999999999]]'", "output='{}'"])
def test_damaged_calls_are_shown_as_they_are_and_checks_of_them_are_missing(run, tmp_path, change):
    shutil.copy(run/'traces.db', tmp_path/'traces.db')
    with Store(tmp_path/'traces.db') as store:
        run_sql(store.path, f'update call set {change} where rowid < 4')
        for step, checks in CHECKS.items(): assert len(judge_run(store, checks, step)) >= 20*len(checks)
        for step in ('trace', *CHECKS):
            sitting = review(store, step, annotator='Ada').sitting
            for _ in range(3): assert sitting.state()['panels'] and sitting.press('j')
        assert len(pair_rows(store, same=True, runs=(1, 1)).table) == 21


@pytest.mark.parametrize('change,healed', [
    ("update call set output='5' where rowid=2", False), ("update call set output='{' where rowid=2", False),
    ("update call set input='[]' where rowid=2", False), ('delete from call where rowid=2', True)])
def test_a_damaged_call_fails_its_question_only_and_is_made_again(run, tmp_path, change, healed):
    out = tmp_path/'out'
    shutil.copytree(run, out)
    def again(): return curate(sample_path(), sample_path()/'benchmark.json', out, progress=False)
    run_sql(out/'traces.db', change)
    done = again()
    assert len(done.errors) == (0 if healed else 1) and len(done.questions)+len(done.errors) == 21
    if not healed:
        (name, told), = done.errors.items()
        assert 'delete' in told or 'mend' in told
        run_sql(out/'traces.db', 'delete from item where name=?', name)
        assert not again().errors
    assert (out/'dataset.json').read_bytes() == (run/'dataset.json').read_bytes()


def test_a_store_without_a_column_is_refused(run, tmp_path):
    shutil.copy(run/'traces.db', tmp_path/'traces.db')
    with sqlite3.connect(tmp_path/'traces.db') as db: db.execute('alter table call rename column output to x')
    db.close()
    with pytest.raises(FastbookError, match="lacks the column 'output' of table `call`"): Store(tmp_path/'traces.db')
