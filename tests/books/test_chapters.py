"Passages: properties for any Markdown, and the real chapters and contexts."
import json, tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from agentfastbook.books.questions import load_benchmark, locate_contexts
from agentfastbook.books.chapters import passages, read_book, read_chapter
from agentfastbook.text.spans import Span, count_tokens

LINES = st.sampled_from(['# One', '## Two', 'Some text.', 'It has:', '- a', '- b', '1. c', '```', '| a | b |', '|---|---|', '$$', '> quote', '',
                         '    code', '<div>', '***', 'long '*40, '[a]: http://b.c', 'Title', '===', 'שלום', '\t- tab', '\x0c'])
CELLS = st.lists(st.tuples(st.sampled_from(['markdown', 'code', 'raw']), st.lists(LINES, max_size=12), st.sampled_from(['\n', '\r\n'])), min_size=1, max_size=8)


def chapter_of(cells):
    made = [dict(cell_type=kind, source=newline.join(lines)) for kind, lines, newline in cells]
    path = Path(tempfile.mkdtemp())/'01_any.ipynb'
    path.write_text(json.dumps(dict(cells=made)))
    return read_chapter(path)


@settings(deadline=None, max_examples=200)
@given(CELLS, st.integers(1, 60))
def test_passages_of_any_notebook(cells, size):
    chapter = chapter_of(cells)
    assert chapter.text == ''.join(n.join(ls)+'\n' for k, ls, n in cells if k != 'raw')
    blocks = [b.span for b in chapter.blocks]
    assert all(a.end <= b.start for a, b in zip(blocks, blocks[1:]))
    assert ''.join(''.join(s.of(chapter.text).split()) for s in blocks) == ''.join(chapter.text.split())
    found = passages(chapter, size)
    assert [b for p in found for b in p.blocks] == blocks, 'every block is in exactly one passage'
    kinds = {b.span: b.kind for b in chapter.blocks}
    for p in found:
        assert p.text == p.span.of(chapter.text) and p.text == p.text.strip()
        body = [b for b in p.blocks if kinds[b] != 'heading']
        assert len(body) <= 1 or sum(count_tokens(b.of(chapter.text)) for b in p.blocks) <= size
        seen_body = False
        for b in p.blocks:
            assert not (kinds[b] == 'heading' and seen_body), 'a passage does not run on into the next section'
            seen_body |= kinds[b] != 'heading'


@pytest.mark.parametrize('size', [50, 100, 200, 500, 1000])
def test_no_context_of_the_benchmark_is_broken(data, size):
    book = read_book(data/'fastbook')
    benchmark = locate_contexts(load_benchmark(data/'fastbook'/'fastbook-benchmark.json'), book)
    whole, broken = 0, []
    for chapter in book:
        spans = [p.span for p in passages(chapter, size)]
        for q in benchmark:
            for c in q.components if q.chapter == chapter.number else ():
                for x in c.contexts:
                    if x.span is None: continue
                    if any(s.contains(x.span) for s in spans): whole += 1
                    else: broken.append((q.id, x.text[:80]))
    assert whole > 230 and not broken


def test_the_canonical_text_is_the_scorers(data, scorer):
    for chapter in read_book(data/'fastbook'):
        assert chapter.text == scorer.chapter_text(data/'fastbook'/f'{chapter.id}.ipynb')


def test_outputs_change_no_default_offset(data):
    path = next((data/'fastbook').glob('01_*.ipynb'))
    plain, printed = read_chapter(path), read_chapter(path, outputs=True)
    assert '```python\n1+1\n```\nOutput:\n2' in printed.text and 'Output:\n2' not in plain.text
    assert len(printed.blocks) >= len(plain.blocks)
