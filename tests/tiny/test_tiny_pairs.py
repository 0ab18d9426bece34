"Composed questions: every border and every source is where it is said to be."
import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st

from agentfastbook.books.chapters import passages
from agentfastbook.books.defects import lint
from agentfastbook.tiny.pairs import join_facts, retell, story_book
from agentfastbook.tiny.stories import make_story

FACT = st.text(st.sampled_from('ab;).( "'), min_size=1, max_size=12).map(lambda s: f'It {s.strip()} x.')


@given(st.lists(FACT, max_size=8), st.sampled_from(['', ';', 'a)']))
def test_facts_cover_their_answer(facts, mark):
    answer, spans = join_facts(facts, mark)
    assert len(spans) == len(facts) and ' '.join(s.of(answer) for s in spans) == answer
    assert all(fact[2:-1] in s.of(answer) for s, fact in zip(spans, facts))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**9), st.integers(1, 30))
def test_all_is_verbatim(seed, stories):
    book, questions = story_book(stories, seed)
    assert len(questions) == stories and len({q.id for q in questions}) == stories
    for q in questions:
        text = book[q.chapter].text
        assert ' '.join(c.text for c in q.components) == q.gold_answer
        for c in q.components:
            assert c.spans[0].of(q.gold_answer) == c.text
            assert c.contexts[0].span.of(text) == c.contexts[0].text and c.text not in text


def test_real_stories_have_the_sources():
    "Sources are the events that were told again, each in the story that its question is about."
    book, questions = story_book(36, 500)
    for i, q in enumerate(questions):
        story = make_story(500+i)
        events = {e.span.of(story.text): e for e in story.events}
        for c in q.components:
            event = events[c.contexts[0].text]
            words = retell(story, event)
            assert words[1:].removesuffix('.') in c.text
            start = c.contexts[0].span.start-event.span.start
            assert book[q.chapter].text[start:start+len(story.text)] == story.text


def test_they_are_ordinary_questions():
    book, questions = story_book(240)
    assert set(lint(questions, book).defect) == {'constant field', 'flag as string'} # of the file's layout
    assert all(passages(chapter, max_tokens=200) for chapter in book)


def test_another_process_makes_the_same():
    code = ("from agentfastbook.tiny.pairs import story_book as b; from hashlib import sha256; "
            "print(sha256(repr(b(30, 7)).encode()).hexdigest())")
    runs = {subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                           env={'PYTHONHASHSEED': seed}).stdout for seed in '12'}
    assert len(runs) == 1
