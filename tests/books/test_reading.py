"Books, benchmarks and labels that others made: what can't be read is named, and nothing is measured over nothing."
import json
import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from agentfastbook.books.questions import Benchmark, load_benchmark, save_benchmark
from agentfastbook.books.chapters import questionnaire, read_book, read_chapter, sample_path
from agentfastbook.cli.commands import afb_benchmark, afb_curate, afb_lint, afb_score
from agentfastbook.text.spans import FastbookError, content_id
from agentfastbook.text.files import read_file
from agentfastbook.engines.scoring import score_labels
from agentfastbook.books.defects import lint
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.scoring import score

SAMPLE = sample_path()
ENTRY = dict(chapter=1, question_number=1, question_text='What rises?', gold_standard_answer='The dough rises.', answer_context=[])


@pytest.fixture
def sample(): return load_benchmark(SAMPLE/'benchmark.json')


def notebook(*sources): return json.dumps(dict(cells=[dict(cell_type='markdown', source=s) for s in sources]))


def status(command, **options):
    "The exit status of a command, called as a function."
    try: command(**{k: v if isinstance(v, int) else str(v) for k, v in options.items()})
    except SystemExit as e: return e.code
    return 0


# --- chapters

REAL = {'01_intro': ('c9e3915e7111ec16', 33), '04_mnist_basics': ('ef5d3d4b8b803d91', 37), '08_collab': ('6f22a8ab370c5c33', 31),
        '13_convolutions': ('66f25382798197e4', 40)}


def test_the_text_of_the_real_chapters_is_what_it_was(data):
    chapters = {c.id: (content_id(c.text), len(questionnaire(c.path))) for c in read_book(data/'fastbook')}
    assert chapters == REAL, 'offsets in published datasets point into this text'


def test_the_text_of_the_sample_is_what_it_was():
    assert [(content_id(c.text), len(questionnaire(c.path))) for c in read_book(SAMPLE)] == [('4310c057be965188', 12), ('71d3d63fc0fafda7', 11)]


NO_END = ['## Questionnaire design', '### Questionnaire', '# Questionnaire', 'See `## Questionnaire`.', '~~~\n## Questionnaire\n~~~', '> ## Questionnaire',
          '- ## Questionnaire', '    ## Questionnaire', '<!--\n## Questionnaire\n-->', '$$\n## Questionnaire\n$$', '##Questionnaire', '## Questionnaire?']


@pytest.mark.parametrize('text', NO_END)
def test_what_only_mentions_the_questionnaire_does_not_end_a_chapter(text, tmp_path):
    (tmp_path/'01_a.md').write_text(f'First.\n\n{text}\n\nLast.')
    (tmp_path/'02_b.ipynb').write_text(notebook('First.', text, 'Last.'))
    assert [c.text for c in read_book(tmp_path)] == [f'First.\n\n{text}\n\nLast.\n', f'First.\n{text}\nLast.\n']
    assert questionnaire(tmp_path/'01_a.md') == questionnaire(tmp_path/'02_b.ipynb') == []


@pytest.mark.parametrize('heading', ['## Questionnaire', '##   Questionnaire  ', '## Questionnaire ##', 'Questionnaire\n---'])
def test_the_heading_alone_ends_it(heading, tmp_path):
    (tmp_path/'01_a.md').write_text(f'First.\n\n{heading}\n\n1. Why?')
    (tmp_path/'02_b.ipynb').write_text(notebook('First.', f'An end:\n\n{heading}', '1. Why?', 'Last.'))
    assert [c.text for c in read_book(tmp_path)] == ['First.\n\n\n', 'First.\n']
    assert questionnaire(tmp_path/'01_a.md') == questionnaire(tmp_path/'02_b.ipynb') == ['Why?']


@pytest.fixture
def book(tmp_path):
    "The sample in a folder of its own."
    return shutil.copytree(SAMPLE, tmp_path/'book')


def test_files_beside_a_chapter_hide_nothing(book, tmp_path):
    for name in ('01_sourdough.html', '01_sourdough.pdf', '02_rain.py', '01_sourdough'): (book/name).write_bytes(b'%PDF\xff')
    found = curate(book, None, tmp_path/'out', progress=False)
    assert len(found.questions) == 23 and not found.errors


@pytest.mark.parametrize('name, better', [('²_a.ipynb', '02_a.ipynb'), ('①_x.md', '01_x.md'), ('⑩_x.md', '10_x.md'), ('½_x.md', '01_x.md')])
def test_numbers_that_are_no_digits_are_named(name, better, book):
    (book/name).write_text('{}')
    read = read_book(book)
    assert len(read) == 2 and better in read.errors[name]


def test_reasons_are_said_without_a_benchmark(tmp_path):
    (tmp_path/'book').mkdir()
    (tmp_path/'book'/'01_old.ipynb').write_text('{"worksheets": [], "nbformat": 3}')
    with pytest.raises(FastbookError, match='01_old.ipynb.*old version.*nbconvert'): curate(tmp_path/'book', None, tmp_path/'out', progress=False)


def test_links_pipes_and_devices_are_refused_at_once(book, tmp_path):
    (tmp_path/'secret.md').write_text('# Secret')
    (tmp_path/'secrets').mkdir()
    (tmp_path/'secrets'/'x.md').write_text('# Secret')
    links = {'03_out.md': tmp_path/'secret.md', '04_up.md': '../secret.md', '05_circle.md': '05_circle.md', '06_folder.md': tmp_path/'secrets',
             '07_zero.md': '/dev/zero', '08_none.md': 'none.md', '09_passwd.md': '/etc/passwd', '10_up.md': 'up/x.md'}
    for name, target in links.items(): (book/name).symlink_to(target)
    (book/'up').symlink_to(tmp_path/'secrets')
    os.mkfifo(book/'11_pipe.md')
    os.mkfifo(book/'12_pipe.ipynb')
    (book/'13_near.md').symlink_to('README.md')
    read = read_book(book)
    assert sorted(read.errors) == sorted([*links, '11_pipe.md', '12_pipe.ipynb']) and [c.number for c in read] == [1, 2, 13]
    assert 'Secret' not in ''.join(c.text for c in read)
    (tmp_path/'linked').symlink_to(book)
    assert [c.number for c in read_book(tmp_path/'linked')] == [1, 2, 13], 'the folder itself may be a link'


def test_pipes_and_devices_as_benchmark_and_labels(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for path in (tmp_path/'pipe', '/dev/zero', '/dev/null', tmp_path):
        for read in (load_benchmark, score_labels, read_file):
            with pytest.raises(FastbookError, match='it is a (pipe|device|folder)'): read(path)


MONSTERS = ['{"cells": %s}' % c for c in ('{}', '7', 'null', '"x"', '[null]', '[[]]', '[{}]', '[{"cell_type": 1}]', '[{"cell_type": "code", "source": [1]}]',
            '[{"cell_type": "code", "source": {}}]', '[{"cell_type": "code", "source": %s}]' % ('9'*5000))] + ['', '[', '['*50_000, 'null', '[1]', '\x00', '{"cells": []}', '9'*5000]


@pytest.mark.parametrize('content', MONSTERS, ids=range(len(MONSTERS)))
def test_one_bad_notebook_does_not_stop_the_book(content, book):
    (book/'03_bad.ipynb').write_text(content)
    read = read_book(book)
    assert [c.number for c in read] == [1, 2] and '03_bad.ipynb' in read.errors['03_bad.ipynb']


@pytest.mark.parametrize('content', [b'\xff\xfea\x00', 'süß'.encode('latin-1'), b'%PDF-1.7 \xff\xfe'])
def test_one_bad_text_does_not_stop_the_book(content, book):
    (book/'03_bad.md').write_bytes(content)
    read = read_book(book)
    assert [c.number for c in read] == [1, 2] and list(read.errors) == ['03_bad.md']


@pytest.mark.parametrize('outputs', [7, {}, 'x', None, [7, None, [], {'text': {}}, {'data': []}, {'data': {'text/plain': 5}}]])
def test_outputs_of_any_kind(outputs, tmp_path):
    (tmp_path/'01_a.ipynb').write_text(json.dumps(dict(cells=[dict(cell_type='code', source='1', outputs=outputs)])))
    assert read_chapter(tmp_path/'01_a.ipynb', outputs=True).text == '1\n'


@pytest.mark.parametrize('text', ['['*5000, '> '*5000, '>'*5000, '- '*5000, '\n'.join(' '*i+'- a' for i in range(300)), '('*5000, '![['*5000, '\r'*5000])
def test_nested_markdown_is_read(text, tmp_path):
    (tmp_path/'01_a.md').write_text(f'{text}\n\n## Questionnaire\n\n1. Why?', newline='')
    chapter = read_chapter(tmp_path/'01_a.md')
    assert ''.join(''.join(b.span.of(chapter.text).split()) for b in chapter.blocks) == ''.join(chapter.text.split())


# --- benchmark files

def spans(value): return dict(ENTRY, answer_context=[{'answer_component': 'dough', 'context': ['x'], 'context_spans': value}])


BAD = [json.dumps(e) for e in (spans(5), spans({}), spans('x'), spans([5]), spans([{'start': 1, 'end': 2, 'cell': []}]), spans([{'start': True, 'end': 2}]),
       spans([{'start': 10**20, 'end': 10**21}]), dict(ENTRY, chapter=10**20), dict(ENTRY, gold_standard_answer='x'*1_000_001), dict(ENTRY, chapter=float('nan')))]
BAD += [json.dumps(dict(ENTRY, question_number='@')).replace('"@"', digits) for digits in ('9'*4000, '9'*5000, '-'+'9'*5000, '1e999')]
BAD += ['{"chapter": 1, "chapter": 2, '+json.dumps(ENTRY)[1:], json.dumps(spans([{'start': '@', 'end': 2}])).replace('"@"', '9'*5000)]


@pytest.mark.parametrize('bad', BAD, ids=range(len(BAD)))
def test_one_bad_entry_spoils_itself_only(bad, book, tmp_path):
    text = '{"questions": [%s, %s, %s]}' % (json.dumps(dict(ENTRY, question_number=7)), bad, json.dumps(dict(ENTRY, question_number=8)))
    (tmp_path/'b.json').write_text(text)
    benchmark = load_benchmark(tmp_path/'b.json')
    assert [q.number for q in benchmark] == [7, 8] and [e.index for e in benchmark.errors] == [1]
    assert 20 < len(benchmark.errors[0].message) < 300
    assert save_benchmark(benchmark, tmp_path/'c.json').read_text() == text
    assert 'unreadable question' in set(lint(benchmark).defect)
    found = curate(book, benchmark, tmp_path/'out', progress=False)
    assert len(found.questions) == 2 and len(found.errors) == 1


@pytest.mark.parametrize('value', [[], {}, 7, None, [[[]]]])
def test_fields_that_nobody_reads_may_be_anything(value, sample):
    raw = json.loads(json.dumps(sample.raw))
    for q in raw['questions']:
        for c in q['answer_context']: c['scoring_type'] = value
    from agentfastbook.books.questions import parse_benchmark
    assert len(lint(parse_benchmark(raw))) > 10


def test_labels_entry_by_entry(tmp_path):
    good = dict(gold_standard_answer='It rises.', ground_truth_components=['It rises'], haiku_components=['It rises'], ground_truth_annotations=[False],
                haiku_annotations={k: [k == 'exact'] for k in ('exact', 'partial', 'extra', 'hallucination')})
    (tmp_path/'l.json').write_text(json.dumps([None, good, dict(good, haiku_components=7), {}, dict(good, haiku_annotations=None)]))
    table = score_labels(tmp_path/'l.json')
    assert table.decisions.tolist() == [1, 1, 1, 1, 1, 5] and list(table.attrs['errors']) == ['entry 0', 'entry 2', 'entry 3', 'entry 4']


# --- scores

def test_scores_of_other_questions_are_refused(sample):
    def changed(**changes): return Benchmark([replace(sample.questions[0], **changes), *sample.questions[1:]])
    first = sample.questions[0]
    for other, words in [(changed(text='What else?'), f'1 of 21 questions are others in the dataset, first {first.id}'),
                         (changed(gold_answer='So.', components=()), '1 of 21 gold answers are others')]:
        with pytest.raises(FastbookError, match=words): score(other, sample)
    with pytest.raises(FastbookError, match='1 of 21 gold questions have no components'): score(sample, changed(components=()))
    same = changed(text=f' {first.text.upper()}\n')
    pd.testing.assert_frame_equal(score(same, sample), score(sample, sample))


def test_commands_say_what_they_compare(book, tmp_path, capsys, sample):
    bare = [{k: v for k, v in q.items() if not k.endswith('_context')} for q in sample.raw['questions']]
    (tmp_path/'bare.json').write_text(json.dumps(dict(questions=bare)))
    other = [dict(q, question_text=f'{q["question_text"]} Why?') for q in sample.raw['questions']]
    (tmp_path/'other.json').write_text(json.dumps(dict(questions=other)))
    gold = SAMPLE/'benchmark.json'
    for command, options, expected, words in [
            (afb_score, dict(pred=gold, gold=tmp_path/'bare.json'), 2, 'have no components to compare with'),
            (afb_score, dict(pred=tmp_path/'other.json'), 2, 'this is about the bundled sample'),
            (afb_score, dict(pred=tmp_path/'other.json', gold=gold), 2, 'questions are others in the dataset'),
            (afb_score, dict(pred=gold, gold=gold), 0, 'no --book is given'),
            (afb_benchmark, dict(book=book, benchmark=tmp_path/'bare.json'), 2, 'none of the 21 questions has components'),
            (afb_benchmark, dict(benchmark=gold), 2, 'give its folder with --book'),
            (afb_curate, dict(benchmark=gold, out=tmp_path/'out'), 2, 'give its folder with --book'),
            (afb_lint, dict(benchmark=tmp_path/'bare.json', book=book, counts=1), 1, 'there are no ceilings'),
            (afb_lint, dict(counts=1), 1, 'this is about the bundled sample')]:
        assert status(command, **options) == expected
        assert words in ''.join(capsys.readouterr()), words
    assert not (tmp_path/'out').exists()


def test_what_is_left_out_of_a_score_is_said(book, tmp_path, capsys):
    (book/'02_rain.ipynb').write_text('{}')
    assert status(afb_score, pred=SAMPLE/'benchmark.json', gold=SAMPLE/'benchmark.json', book=book) == 1
    said = capsys.readouterr().err
    assert "failed: 02_rain.ipynb: '02_rain.ipynb' has no list of 'cells'" in said and 'the book has no chapter 2' in said


@pytest.mark.parametrize('text, cause', [('蜂蜜不会变质因为它的含水量很低', 'no spaces between words'), ('パンはふくらみます', 'no spaces between words'),
                                         ('Brot geht auf', 'are the questions about this book, and in its language')])
def test_a_dataset_without_contexts_is_a_failure(text, cause, tmp_path, capsys):
    "The chapter is about something else, so that nothing is found whatever the engines can do."
    (tmp_path/'book').mkdir()
    (tmp_path/'book'/'01_a.md').write_text('# Tides\n\nThe moon pulls the sea.\n')
    (tmp_path/'b.json').write_text(json.dumps(dict(questions=[dict(ENTRY, question_text=text, gold_standard_answer=text)])))
    assert status(afb_curate, book=tmp_path/'book', benchmark=tmp_path/'b.json', out=tmp_path/'out') == 1
    said = capsys.readouterr()
    assert 'warning: no text was found for 1 of 1 components' in said.err and cause in said.err and '(most found nothing)' in said.out
    assert '<b>Warning:</b> no text was found for 1 of 1 components' in (tmp_path/'out'/'report.html').read_text()
