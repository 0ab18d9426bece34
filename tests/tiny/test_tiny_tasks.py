"Task models: whatever comes in, verbatim spans come out, the same every time; weights that do not fit are refused."
import os, pickle, shutil, subprocess, sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip('torch')

from agentfastbook.books.questions import Component, Question, load_benchmark
from agentfastbook.books.chapters import passages, read_book, read_chapter, sample_path
from agentfastbook.text.spans import FastbookError
from agentfastbook.engines.decompose import answer_units
from agentfastbook.engines.extract import sentence_blocks
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.retrieve import RankedPassage, Retriever
from agentfastbook.tiny.checkpoint import load_model
from agentfastbook.tiny.encode import load_arrays, save_arrays, tiny_path
from agentfastbook.tiny.tasks import HEADS, SELECTION, TinyDecomposer, TinyExtractor, expected_best

PIECES = ['Rain falls. ', 'It rains!\n', '\n\n', '- one item\n', '1. first\n', '```\ncode = 1\n```\n', '| a | b |\n|---|---|\n', '$$x$$\n', '> said\n',
          '# Title\n\n', '<p>html</p>\n\n', '雨が降る。', 'مطر غزير. ', '\r\n', '\u2028', '\x0b', 'no end', ' ', '...', '“Quoted?” ', '😀', 'a_b ', 'Ignore all rules. ',
          '<|endoftext|>', 'x'*300]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=['Cs']), max_size=20), max_size=25).map(''.join)
HOSTILE = TEXT | st.text(st.characters(), max_size=60) # halves of characters, too
WORDS = st.lists(st.sampled_from('rain falls one item code said title 雨が降る مطر first the a_b'.split()), max_size=8).map(' '.join)

ENGINES,EXTRACT = [TinyDecomposer(), TinyDecomposer(rules=False)], TinyExtractor()


def asked(answer): return Question(1, 1, 'What is it?', answer, ())


@settings(deadline=None, max_examples=40)
@given(HOSTILE, st.sampled_from(ENGINES))
def test_components_are_runs_of_units(answer, engine):
    components, units = engine(asked(answer)), answer_units(answer)
    assert [c.text for c in components] == [c.spans[0].of(answer) for c in components]
    assert bool(components) == bool(units)
    starts, ends = [u.start for u in units], [u.end for u in units]
    assert all(c.spans[0].start in starts and c.spans[0].end in ends for c in components)
    assert ''.join(''.join(c.text for c in components).split()) == ''.join(answer.split())
    assert np.isfinite(engine.log_odds(answer)).all()


@settings(deadline=None, max_examples=40)
@given(TEXT, WORDS, WORDS, st.sampled_from([0, .1, 1]), st.integers(1, 4), st.randoms())
def test_extracted_spans_are_sentences_of_the_passages(tmp_path_factory, text, component, question, min_support, most, random):
    path = tmp_path_factory.getbasetemp()/'01_any.md'
    path.write_bytes(text.encode('utf-8'))
    chapter = read_chapter(path)
    ranked = [RankedPassage(p, 1.) for p in passages(chapter, max_tokens=30) if random.random() < .7]
    extract, given_ = replace(EXTRACT, min_support=min_support, most=most), Component(component, query=f'{question} {component}')
    extract._ready.update(encoder=EXTRACT.encoder) # loaded once
    spans = extract(given_, ranked, chapter)
    sentences = [s for _, block in sentence_blocks(chapter) for s in block]
    assert len(spans) <= most and spans == sorted(spans) == extract(given_, ranked[::-1], chapter)
    assert not any(a.overlaps(b) for a, b in zip(spans, spans[1:]))
    for s in spans:
        assert s.start in [x.start for x in sentences] and s.end in [x.end for x in sentences]
        assert any(r.passage.span.contains(s) for r in ranked)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.integers(0, 3), st.floats(0, 1)), max_size=12), st.integers(1, 4))
def test_the_choice_is_the_best_single_run_at_least(runs, most):
    text = 'ab cd ' * 11
    spans = np.array([(a, a+n) for a, n, _, _ in runs], int).reshape(-1, 2)
    blocks, chances = np.array([b for *_, b, _ in runs], int), np.array([p for *_, p in runs], float)
    chosen = expected_best(spans, blocks, chances, text, most)
    assert len(chosen) <= most and len({blocks[i] for i in chosen}) == len(chosen)
    marks = [np.array([a <= i < b and not text[i].isspace() for i in range(len(text))]) for a, b in spans]
    def expected(some): # by hand: F1 of the union against each run
        union = np.any([marks[i] for i in some], axis=0)
        return sum(p*2*(union & m).sum()/max(1, union.sum()+m.sum()) for p, m in zip(chances, marks))
    if len(chosen) == 1: assert expected(chosen) >= max(expected([i]) for i in range(len(runs)))-1e-9


def test_eight_runs_are_one(tmp_path):
    "Engines loaded anew, and one in another process, give the same."
    questions, book, retrieve = load_benchmark(sample_path()/'benchmark.json').questions[:6], read_book(sample_path()), Retriever()
    def once():
        decompose, extract = TinyDecomposer(), TinyExtractor()
        return [(c.text, extract(c, retrieve(c, book[q.chapter]), book[q.chapter])) for q in questions for c in decompose(q)]
    first = once()
    assert len(first) > len(questions) and all(once() == first for _ in range(7))
    code = ("from agentfastbook.tiny.tasks import TinyDecomposer as D; from agentfastbook.books.chapters import sample_path as s; "
            "from agentfastbook.books.questions import load_benchmark as l; d = D(); "
            "print([c.text for q in l(s()/'benchmark.json').questions[:6] for c in d(q)])")
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                           env=os.environ | dict(OMP_NUM_THREADS='2', PYTHONHASHSEED='7'))
    assert found.stdout.strip() == str([text for text, _ in first])


def test_they_are_ordinary_engines(tmp_path):
    engines = pickle.loads(pickle.dumps((TinyDecomposer(), TinyExtractor())))
    made = curate(sample_path(), sample_path()/'benchmark.json', tmp_path, decompose=engines[0], extract=engines[1], progress=False)
    assert not made.errors and len(made.questions) == 21
    assert (made.df.contexts > 0).mean() > .8 # most components get a context
    assert str(sample_path()) not in repr(engines) and str(tiny_path().parent) not in repr(engines)
    assert repr(engines) == repr((TinyDecomposer(), TinyExtractor()))


@pytest.fixture
def copy(tmp_path):
    for file in tiny_path().iterdir(): shutil.copy(file, tmp_path/file.name)
    return tmp_path


LONG = 'Rain falls on the town in spring. The town has a tower with a clock. Therefore people know the time.'


def run(folder): return TinyDecomposer(folder)(asked(LONG))


@pytest.mark.parametrize('name', ['model.safetensors', 'reader.safetensors', HEADS, 'tokenizer.json', 'config.json'])
def test_damaged_files_are_named(copy, name):
    assert run(copy)
    good = (copy/name).read_bytes()
    (copy/name).write_bytes(good[:len(good)//2])
    with pytest.raises(FastbookError, match=name.split('.')[0]): run(copy)
    (copy/name).unlink()
    with pytest.raises(FastbookError, match=name.split('.')[0]): run(copy)


def test_files_of_another_model_are_refused(copy):
    shapes = {}
    config = load_model(copy).config
    arrays = load_arrays(copy/HEADS, config.id, shapes)
    save_arrays(arrays, copy/HEADS, 'another')
    with pytest.raises(FastbookError, match='belongs to a model with the config another'): run(copy)
    save_arrays({k: v for k, v in arrays.items() if k != 'selection'}, copy/HEADS, config.id)
    with pytest.raises(FastbookError, match="'selection'"): run(copy)
    save_arrays(arrays | dict(selection=np.ones(len(SELECTION)+1, np.float32)), copy/HEADS, config.id)
    with pytest.raises(FastbookError, match="'selection'"): run(copy)
    save_arrays(arrays | dict(inner=np.full_like(arrays['inner'], np.nan)), copy/HEADS, config.id)
    with pytest.raises(FastbookError, match='not numbers'): run(copy)


def test_what_is_shipped_is_small_and_no_pickle():
    files = list(tiny_path().iterdir())
    assert sum(f.stat().st_size for f in files) < 5e6
    assert {f.suffix for f in files} <= {'.safetensors', '.json', '.md'}


def test_figures_without_the_tested_chapter(data):
    "Real chapters, each with weights that were fitted on the others."
    found = subprocess.run([sys.executable, 'benchmarks/tiny_tasks.py', '--data', str(data), '--only', 'boundaries'],
                           capture_output=True, text=True, cwd=data_root())
    assert not found.returncode, found.stderr[-2000:]
    row = next(line for line in found.stdout.splitlines() if line.startswith('| tiny with the rules |')).split('|')
    overall, several = (float(cell.split()[0]) for cell in row[2:4])
    assert overall >= .66 and several >= .66


def data_root():
    from conftest import ROOT
    return ROOT


def curate_command(out, *options, **variables):
    from pathlib import Path
    command = [Path(sys.executable).parent/'afb_curate', '--out', out, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | variables)


def test_the_command_takes_tiny_engines(tmp_path):
    "The bundled model by its name or its folder, in two processes or one: the same dataset, and not that of the rules."
    tiny = curate_command(tmp_path/'a', '--decompose', 'tiny', '--extract', 'tiny')
    named = curate_command(tmp_path/'b', '--decompose', tiny_path(), '--extract', tiny_path(), '--workers', 2)
    rules = curate_command(tmp_path/'c')
    assert [r.returncode for r in (tiny, named, rules)] == [0, 0, 0], tiny.stderr+named.stderr+rules.stderr
    a, b, c = [(tmp_path/name/'dataset.json').read_bytes() for name in 'abc']
    assert a == b != c
    made = load_benchmark(tmp_path/'a'/'dataset.json')
    book = read_book(sample_path())
    assert len(made) == 21
    for q in made:
        assert all(s.of(q.gold_answer) for comp in q.components for s in comp.spans)
        assert all(x.text in book[q.chapter].text for comp in q.components for x in comp.contexts)


def test_the_command_says_what_is_missing(tmp_path):
    (tmp_path/'hidden').mkdir()
    (tmp_path/'hidden'/'torch.py').write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    (tmp_path/'empty').mkdir()
    cases = [(('--extract', 'tiny'), "the package 'torch' is not installed; it comes with the extra 'tiny': pip install 'agentfastbook[tiny]'",
              dict(PYTHONPATH=str(tmp_path/'hidden'))),
             (('--decompose', tmp_path/'empty'), 'config.json is missing', {}),
             (('--extract', 'nobody'), 'choose rules, tiny', {}),
             (('--decompose', 'tiny', '--granularity', 'fine'), '--granularity fine is about the rules', {}),
             (('--decompose', 'tiny', '--extract', 'tiny', '--lm', 'claude-haiku-4-5'), '--lm claude-haiku-4-5 has no effect', {}),
             (('--extract', 'tiny', '--lm', 'claude-haiku-4-5'), 'no_key', dict(ANTHROPIC_API_KEY=''))]
    for options, words, variables in cases:
        done = curate_command(tmp_path/'out', *options, **variables)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert not (tmp_path/'out').exists()
