"Benchmark files: nothing is lost, nothing bad goes unnoticed, and other tools can read what is exported."
import importlib.util, json

import pytest
from hypothesis import given, settings, strategies as st

from agentfastbook.books.questions import (Benchmark, Component, Context, Question, find_components, load_benchmark, locate_contexts,
                                     parse_benchmark, read_question, save_benchmark, to_v1, unquote)
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.text.spans import FastbookError, Span
from agentfastbook.books.export import export_beir, export_huggingface, export_trec
from agentfastbook.books.defects import RULES, ceilings, lint, repair, statistics

TEXT = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), min_size=1, max_size=40)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3), max_leaves=8)


@pytest.fixture
def real(data): return load_benchmark(data/'fastbook'/'fastbook-benchmark.json'), read_book(data/'fastbook')


@pytest.fixture
def sample(): return load_benchmark(sample_path()/'benchmark.json'), read_book(sample_path())


def item(**changes):
    return {'chapter': 1, 'question_number': 1, 'question_text': 'Why?', 'gold_standard_answer': 'So it is.',
            'answer_context': [{'answer_component': 'it is', 'context': ['Bread']}], **changes}


# --- strings and places

@given(TEXT)
def test_unquote_takes_only_quotes_and_white_space(text):
    clean = unquote(text)
    assert clean in text and clean == clean.strip()
    assert set(text.replace(clean, '', 1)) <= set('"') | {c for c in text if c.isspace()}


@given(TEXT.filter(lambda t: '"' not in t and t.strip()))
def test_unquote_undoes_quoting(text):
    assert unquote(f'"{text}"') == unquote(f'"{text}') == unquote(f'{text}"') == text.strip()


@given(TEXT, st.lists(st.tuples(st.integers(0, 39), st.integers(1, 20)), max_size=6))
def test_slices_of_an_answer_are_found_to_the_letter(answer, cuts):
    pieces = [answer[a:a+n] for a, n in cuts if answer[a:a+n].strip()]
    for piece, spans in zip(pieces, find_components(answer, [[p] for p in pieces])):
        assert [s.of(answer) for s in spans] == [piece]


# --- load and save

def test_real_file_comes_back_byte_for_byte(real, data, tmp_path):
    source = (data/'fastbook'/'fastbook-benchmark.json').read_bytes()
    assert save_benchmark(real[0], tmp_path/'b.json').read_bytes() == source


@pytest.mark.parametrize('layout', [dict(indent=4), dict(indent=1, ensure_ascii=False), dict(separators=(',', ':')), dict(indent='\t')])
@pytest.mark.parametrize('end', ['', '\n', '\r\n'])
def test_any_layout_comes_back_byte_for_byte(layout, end, tmp_path):
    source = ('\ufeff' + json.dumps({'questions': [item(note='é – “x”', question_text='a\u2028b')]}, **layout) + end).encode()
    (tmp_path/'b.json').write_bytes(source)
    assert save_benchmark(load_benchmark(tmp_path/'b.json'), tmp_path/'c.json').read_bytes() == source


def test_changed_content_is_saved_and_stable(real, tmp_path):
    benchmark, _ = real
    benchmark.raw['questions'][0]['question_text'] = 'Changed – é?'
    first = save_benchmark(benchmark, tmp_path/'b.json').read_bytes()
    again = load_benchmark(tmp_path/'b.json')
    assert again.raw == benchmark.raw and save_benchmark(again, tmp_path/'c.json').read_bytes() == first


def test_saving_never_leaves_half_a_file(sample, tmp_path, monkeypatch):
    path = save_benchmark(sample[0], tmp_path/'b.json')
    before = path.read_bytes()
    monkeypatch.setattr('os.replace', lambda *_: (_ for _ in ()).throw(OSError('killed')))
    with pytest.raises(FastbookError, match='what was there is as before'): save_benchmark(Benchmark(sample[0].questions[:1]), path)
    assert path.read_bytes() == before


CONTEXT = st.builds(Context, TEXT, st.none() | st.just(Span(3, 9)), st.just(4)).map(lambda c: c if c.span else Context(c.text))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT.map(unquote).filter(bool), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=3),
                          st.lists(CONTEXT, max_size=2), st.booleans(), st.booleans()), min_size=1, max_size=4))
def test_what_is_made_can_be_saved_and_loaded(made):
    questions = []
    for n, (answer, cuts, contexts, explicit, extraneous) in enumerate(made):
        spans = tuple(sorted({Span(a, min(len(answer), a+k)) for a, k in cuts if answer[a:a+k].strip()}))
        text = ' '.join(s.of(answer) for s in spans) or 'elsewhere'
        questions.append(Question(1, n, 'Why?', answer, (Component(text, spans, tuple(contexts), '', explicit, extraneous),)))
    raw = json.loads(json.dumps(to_v1(questions)))
    loaded = parse_benchmark(raw)
    assert not loaded.errors
    assert [q.components[0].spans for q in loaded] == [q.components[0].spans or loaded.questions[i].components[0].spans
                                                       for i, q in enumerate(questions)]
    assert [q.components[0].contexts for q in loaded] == [q.components[0].contexts for q in questions]
    assert to_v1(parse_benchmark(to_v1(loaded.questions)).questions) == to_v1(loaded.questions)


# --- bad input

@pytest.mark.parametrize('text, message', [
    ('', 'not valid JSON at line 1'), ('{"questions": [', 'truncated'), ('[]', "under the key 'questions'"), ('null', "under the key"),
    ('{"questions": []}', 'list of questions is empty'), ('{"questions": [3, null]}', 'no usable question; the first of 2'),
    ('{"questions": "x"}', 'must be an object with a list'), ('['*50_000, 'nested too deeply')])
def test_bad_files_are_named(text, message, tmp_path):
    (tmp_path/'bench.json').write_text(text)
    with pytest.raises(FastbookError, match='bench.json') as e: load_benchmark(tmp_path/'bench.json')
    assert message in str(e.value)


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(FastbookError, match="no benchmark file 'none.json'"): load_benchmark(tmp_path/'none.json')
    with pytest.raises(FastbookError, match="can't read"): load_benchmark(tmp_path)
    (tmp_path/'b.json').write_bytes('{"é": 1}'.encode('latin-1'))
    with pytest.raises(FastbookError, match='not UTF-8 at byte 2'): load_benchmark(tmp_path/'b.json')


BAD = [item(chapter='1'), item(chapter=None), item(question_number=1.5), item(question_text=[]), item(gold_standard_answer=None),
       item(gold_standard_answer='""'), item(gold_standard_answer=' \n'), item(gold_standard_answer='a\0'), item(question_text='\udc00'),
       item(answer_context={}), item(answer_context=[None]), item(answer_context=[{'answer_component': []}]),
       item(answer_context=[{'answer_component': 'it', 'context': 'x\ud800'}]), item(answer_context=[{'answer_component': 'it', 'context': [None]}]),
       item(answer_context=[{'answer_component': 'it', 'component_spans': [{'start': 5, 'end': 2}]}]),
       item(answer_context=[{'answer_component': 'it', 'component_spans': [{'start': 5, 'end': 99}]}]),
       item(answer_context=[{'answer_component': 'it', 'context': ['a'], 'context_spans': [{'start': 'x', 'end': 2}]}]),
       item(question_context=[{}]), [], 'text', None, 7]


@pytest.mark.parametrize('bad', BAD, ids=range(len(BAD)))
def test_one_bad_question_does_not_stop_the_load(bad, tmp_path):
    raw = {'questions': [item(question_number=7), bad, item(question_number=8)]}
    (tmp_path/'b.json').write_text(json.dumps(raw))
    benchmark = load_benchmark(tmp_path/'b.json')
    assert [q.number for q in benchmark] == [7, 8]
    error, = benchmark.errors
    assert error.index == 1 and len(error.message) > 20
    assert json.loads(save_benchmark(benchmark, tmp_path/'c.json').read_text()) == raw
    assert 'unreadable question' in set(lint(benchmark).defect)


def test_duplicate_numbers_are_reported():
    benchmark = parse_benchmark({'questions': [item(), item(question_text='Again?')]})
    assert benchmark[1, 1].text == 'Why?' and 'question 1/1 occurs twice' in benchmark.errors[0].message


@given(JSON, st.sampled_from(sorted(item())), JSON)
def test_any_json_is_read_or_refused_in_words(question, key, value):
    for candidate in (question, item(**{key: value}), item(answer_context=[value]), item(answer_context=[{'answer_component': value}])):
        try: assert read_question(candidate).gold_answer
        except FastbookError as e: assert str(e)


@pytest.mark.parametrize('answer', ['x', 'Ja.', '日本語の答え。', 'תשובה בעברית', 'a\r\nb', 'word '*10_000, '<script>alert(1)</script>'])
def test_odd_answers_work(answer):
    question = read_question(item(gold_standard_answer=answer, answer_context=[{'answer_component': answer}]))
    assert question.components[0].spans == (Span(0, len(answer.strip())),)


# --- the real benchmark

def test_every_component_of_the_real_benchmark_is_in_its_answer(real):
    components = [(q, c) for q in real[0] for c in q.components]
    assert (len(real[0]), len(real[0].errors), len(components)) == (118, 0, 224)
    assert all(c.spans for _, c in components)
    assert all(' '.join(s.of(q.gold_answer) for s in c.spans) == c.text for q, c in components)
    assert not any(q.gold_answer.startswith('"') or q.text.startswith('"') for q in real[0])


def test_lint_finds_what_is_known_of_the_real_benchmark(real):
    table = lint(*real)
    counted = table.groupby('defect').size()
    expected = {'list component': 6, 'output in context': 6, 'escaped character': 1, 'context reworded': 1, 'no context': 18,
                'context repeated in chapter': 1, 'duplicate component': 4, 'nested component': 2, 'crossing components': 1,
                'flag as string': 224, 'constant field': 1, 'unbalanced quote': 5}
    assert {k: counted[k] for k in expected} == expected
    assert set(table[table.defect == 'list component'].question) == {'1/14', '1/17', '1/20', '1/28', '4/7', '13/21'}
    assert table[table.value.str.startswith('gold_standard_answer')].defect.tolist() == ['wrapped in quotes']*118
    assert set(table.defect) <= set(RULES) and table.notna().drop(columns='component').all(axis=None)


def test_ceilings_and_statistics_of_the_real_benchmark(real):
    values = ceilings(*real).set_index('measure').value
    assert values['findable components'] == 201
    assert values['MRR@10'] == pytest.approx(102/118) and values['Recall@10'] == pytest.approx(.948588, abs=1e-6)
    counts = statistics(real[0])
    assert counts.questions.tolist() == [30, 31, 23, 34, 118]          # as published for chapters 1, 4, 8, 13
    assert counts.components.tolist() == [78, 73, 31, 42, 224]
    assert counts['without context'].tolist() == [8, 8, 1, 1, 18]
    assert counts.implicit.tolist() == [8, 10, 3, 7, 28]
    assert counts.extraneous.tolist() == [7, 8, 1, 1, 17]


def test_repair_gives_every_real_context_a_place(real, tmp_path):
    benchmark, book = real
    fixed = repair(benchmark, book)
    contexts = [(q, c) for q in fixed for x in q.components for c in x.contexts]
    assert all(c.span.of(book[q.chapter].text) == c.text and c.cell is not None for q, c in contexts)
    assert sum(bool(c.output) for _, c in contexts) == 6
    assert set(lint(fixed, book).defect) == {'no context', 'nested component', 'crossing components', 'component repeated in answer',
                                             'context repeated in chapter'}
    path = save_benchmark(fixed, tmp_path/'v2.json')
    assert load_benchmark(path).questions == fixed.questions
    assert save_benchmark(load_benchmark(path), tmp_path/'again.json').read_bytes() == path.read_bytes()


def test_located_contexts_survive_a_dataset_file(real, tmp_path):
    located = locate_contexts(*real)
    path = save_benchmark(Benchmark(located.questions), tmp_path/'dataset.json')
    assert load_benchmark(path).questions == located.questions


# --- other people's tools

def test_trec_files_are_read_by_ir_measures(sample, tmp_path):
    ir_measures = pytest.importorskip('ir_measures', reason='ir-measures is not installed')
    files = export_trec(*sample, tmp_path)
    plain, diversity = [list(ir_measures.read_trec_qrels(str(f))) for f in files[1:]]
    assert {q.query_id for q in plain} <= {q.id for q in sample[0]} and len(diversity) > len(plain)
    assert {q.iteration for q in diversity} > {'1', '2', '3'}
    run = [ir_measures.ScoredDoc(q.query_id, q.doc_id, 1.) for q in plain]
    assert ir_measures.calc_aggregate([ir_measures.StRecall@20], diversity, run)[ir_measures.StRecall@20] == 1


def test_beir_files_fit_together(real, tmp_path):
    corpus, queries, qrels = export_beir(*real, tmp_path)
    passages, questions = [{json.loads(line)['_id'] for line in f.open()} for f in (corpus, queries)]
    pairs = [line.rstrip('\n').split('\t') for line in qrels.open()][1:]
    assert {q for q, _, _ in pairs} <= questions and {p for _, p, _ in pairs} <= passages
    assert len(questions) == 118 and len({q for q, _, _ in pairs}) > 105


def test_huggingface_card_and_rows(real, tmp_path):
    benchmark, book = real
    source = 'Questions of the fastai book, whose text may not be redistributed; answers of its forum.'
    data, card = export_huggingface(repair(benchmark, book), tmp_path, 'fastbook', source)
    rows = [json.loads(line) for line in data.open()]
    assert len(rows) == 118 and source in card.read_text()
    for row in rows:
        for component in row['components']:
            assert all(c['text'] is None and c['end'] > c['start'] for c in component['contexts'])


@pytest.mark.skipif(not importlib.util.find_spec('datasets'), reason='datasets is not installed')
def test_huggingface_datasets_reads_it(sample, tmp_path):
    from datasets import load_dataset
    export_huggingface(repair(*sample), tmp_path, 'sample', 'Written for tests.')
    assert len(load_dataset(str(tmp_path), split='test', cache_dir=str(tmp_path/'cache'))) == len(sample[0])
