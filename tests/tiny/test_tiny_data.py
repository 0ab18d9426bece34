"Stories, splits, tokens, blocks: whatever text comes in, nothing leaks and nothing is lost."
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from agentfastbook.text.spans import FastbookError
from agentfastbook.tiny.data import (END, pack_blocks, split_of, split_texts, story_texts, text_batches, texts_of,
                                     tiny_stories, train_tokenizer)
from agentfastbook.tiny.stories import check_story, make_story
from hypothesis import given, settings
from hypothesis import strategies as st

STORIES = story_texts(300)
TOKENIZER = train_tokenizer(STORIES, 600)
texts = st.lists(st.text(st.characters(exclude_categories=['Cs']), max_size=60), max_size=30)


@settings(max_examples=60)
@given(st.integers(0, 10**9))
def test_every_story_is_sound(seed):
    story = make_story(seed)
    assert check_story(story.text) == []
    assert all(event.span.of(story.text) for event in story.events)
    assert all(name in story.text for name in story.names)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.data())
def test_a_story_without_one_event_that_must_be_is_found_out(seed, data):
    story = make_story(seed)
    i = data.draw(st.integers(0, len(story.events) - 1))
    kept = [event.span.of(story.text) for j, event in enumerate(story.events) if j != i]
    optional = not check_story(' '.join(kept))
    others = [event.kind for event in story.events]
    assert not optional or story.events[i].kind in ('meet', 'sad', 'wrong', 'home', 'plea', 'break', 'calm', 'hide', 'laugh',
                                                    'wait', 'doubt', 'regret', 'talk', 'play', 'has'), others


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_any_text_can_be_checked(text):
    assert isinstance(check_story(text), list)


def test_stories_are_the_same_in_every_process():
    code = 'from agentfastbook.tiny.stories import make_story; print(make_story(12).text)'
    told = [subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                           env={**os.environ, 'PYTHONHASHSEED': seed}).stdout for seed in ('0', '7')]
    assert told[0] == told[1] == make_story(12).text + '\n'


@settings(max_examples=60)
@given(texts, st.floats(0, 1))
def test_no_text_is_in_both_splits(texts, valid):
    def words(text): return ' '.join(text.casefold().split())
    train, held_out = split_texts(texts, valid)
    assert not {words(text) for text in train} & {words(text) for text in held_out}
    assert {words(text) for text in texts if text.strip()} == {words(text) for text in train + held_out}


@settings(max_examples=60)
@given(st.text(max_size=80))
def test_a_copy_goes_where_the_text_went(text):
    assert split_of(text) == split_of(f'  {text}\n') == split_of(text.replace(' ', '  '))


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=['Cs']), max_size=200).filter(lambda text: END not in text))
def test_any_text_comes_back_from_its_tokens(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_each_token_is_predicted_once(count, positions):
    some = STORIES[:count]
    everything = [0] + [i for text in some for i in [*TOKENIZER.encode(text).ids, 0]]
    if len(everything) - 1 < positions:
        with pytest.raises(FastbookError, match='do not fill one block'): pack_blocks(some, TOKENIZER, positions)
        return
    blocks = pack_blocks(some, TOKENIZER, positions)
    assert blocks[:, 1:].ravel().tolist() == everything[1:blocks[:, 1:].size + 1]
    assert len(everything) - 1 - blocks[:, 1:].size < positions
    assert (blocks[1:, 0] == blocks[:-1, -1]).all()


def save_dataset(folder, *parts):
    "A split in files, as Hugging Face keeps it."
    for i, part in enumerate(parts):
        pd.DataFrame(dict(text=part)).to_parquet(folder/f'train-{i:05}-of-{len(parts):05}.parquet')


def test_a_dataset_is_streamed_file_by_file(tmp_path):
    save_dataset(tmp_path, STORIES[:100], [' ', *STORIES[100:150], None, ''])
    stream = tiny_stories(name=tmp_path)
    assert [next(stream) for _ in range(3)] == STORIES[:3]
    assert [*stream] == STORIES[3:150]
    assert [*tiny_stories(count=120, name=tmp_path)] == STORIES[:120]
    assert [*tiny_stories(count=1000, name=str(tmp_path))] == STORIES[:150]


def test_a_stream_that_breaks_says_where_and_what_came_before_is_not_lost(tmp_path):
    save_dataset(tmp_path, STORIES[:100], STORIES[100:])
    second = tmp_path/'train-00001-of-00002.parquet'
    second.write_bytes(second.read_bytes()[:-100])
    got = []
    with pytest.raises(FastbookError, match="split 'train' of dataset .* broke off after 100 rows"):
        for story in tiny_stories(name=tmp_path): got.append(story)
    assert got == STORIES[:100]
    assert [*tiny_stories(count=100, name=tmp_path)] == STORIES[:100], 'what is not wanted is not read'


def test_a_dataset_that_is_none_says_why(tmp_path):
    with pytest.raises(FastbookError, match="doesn't contain any data files"): next(tiny_stories(name=tmp_path))
    with pytest.raises(FastbookError, match='could not be read.*Hugging Face needs a network'): next(tiny_stories(name=tmp_path/'no'))
    save_dataset(tmp_path, ['', None])
    assert [*tiny_stories(name=tmp_path)] == []


def test_batches_hold_each_text_at_most_once():
    batches = text_batches(STORIES, TOKENIZER, 512, 16)
    rows = [tuple(row[row >= 0]) for batch in batches for row in batch]
    assert len(rows) == len(set(rows)) >= 280
    assert {batch.shape[0] for batch in batches} == {16}
    assert np.mean(np.concatenate([(batch < 0).ravel() for batch in batches])) < .1


@pytest.mark.parametrize('content', [b'', b' \n\t', END.encode()])
def test_empty_files_are_named(tmp_path, content):
    (tmp_path/'empty.txt').write_bytes(content)
    with pytest.raises(FastbookError, match='are empty'): texts_of(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path/'ok.txt').write_text('fine')
    (tmp_path/'bad.txt').write_bytes(b'\xff\xfe\x00\x01')
    with pytest.raises(FastbookError, match='bad.txt.*not UTF-8'): texts_of(tmp_path)


def test_a_corpus_smaller_than_a_block_says_so(tmp_path):
    (tmp_path/'short.txt').write_text('Once upon a time.')
    with pytest.raises(FastbookError, match='1 texts of .* do not fill one block of 256'):
        pack_blocks(texts_of(tmp_path), TOKENIZER, 256)
