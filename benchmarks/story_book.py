"""A book of made-up stories with questions, of which every border between facts and every source is known.

A person needs hours to take a hundred answers apart and to mark in a book what supports each part. The story grammar
knows all that beforehand: it told each event itself, so it knows where the event stands, and it has other words for it.
An answer is composed of events in their other words; what comes out is an ordinary book with an ordinary benchmark.
The bundled task model learned from such answers (tiny_tasks_train.py), and is tested on others (tiny_tasks.py).
"""
import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from agentfastbook.books.chapters import Book, read_chapter
from agentfastbook.books.questions import Benchmark, Component, Context, Question
from agentfastbook.text.spans import FastbookError, Span
from agentfastbook.tiny.stories import make_story, retell

_MARKS = ('', ';', 'a)') # between sentences, inside a sentence, counted

def _lower(text, names): return text if text.split()[0].strip("',.!?") in names else text[0].lower()+text[1:]

def join_facts(
    facts:Sequence[str], # one sentence or more each
    mark:str='', # '': one after the other; ';': in one sentence; 'a)': counted
    names:Sequence[str]=(), # words that keep their capital
)->tuple[str,list[Span]]: # an answer, and where the facts are in it
    "Facts as one answer."
    if mark not in _MARKS: raise FastbookError(f"facts can't be joined with {mark!r}; choose one of {_MARKS}")
    text,spans = '',[]
    for i,fact in enumerate(facts):
        if mark == 'a)': fact = f'{chr(97+i)}) {fact}'
        if mark == ';' and i: fact = _lower(fact, names)
        if mark == ';' and i < len(facts)-1: fact = fact.removesuffix('.')+';'
        text = f'{text} {fact}' if text else fact
        spans.append(Span(len(text)-len(fact), len(text)))
    return text,spans

_SIZE = 12 # stories in a chapter

def _title(story):
    "Such as 'Mia and the red ball'."
    facts = {k: v for event in reversed(story.events) for k,v in event.facts.items()}
    other = next(facts[k] for k in ('friend','thing','animal','plant','cake','prize','fear') if k in facts)
    return f"{facts['hero']} and {other if other in story.names or other.startswith('the ') else f'the {other}'}"

def _read(number, stories):
    "A chapter, and where each story begins in its text."
    parts = [f'# Stories {number}\n\n', *(f'## {_title(s)}\n\n{s.text}\n\n' for s in stories)]
    with TemporaryDirectory() as folder:
        (Path(folder)/f'{number}_stories.md').write_text(''.join(parts), encoding='utf-8')
        chapter,at,starts = read_chapter(Path(folder)/f'{number}_stories.md'),0,[]
    for part,story in zip(parts, [None, *stories]):
        if story: starts.append(at+part.index(story.text))
        at += len(part)
    return chapter,starts

def _question(story, number, chapter, start):
    "A question about a story that stands in the chapter from `start` on."
    rng = random.Random(f'question {story.seed}')
    told = [(event, retell(story, event)) for event in story.events]
    told = [(event, fact) for event,fact in told if fact and fact not in chapter.text
            and chapter.text.count(event.span.of(story.text)) == 1] # no other story may say the same
    chosen = sorted(rng.sample(range(len(told)), min(rng.choice([1, 2, 3, 4]), len(told))))
    events,facts = zip(*[told[i] for i in chosen])
    mark = rng.choice(_MARKS)
    if mark == ';' and not all(f.endswith('.') and f.count('.') == 1 and f[0] != '"' for f in facts): mark = ''
    answer,spans = join_facts(facts, mark, story.names)
    sources = [event.span.shift(start) for event in events]
    components = [Component(span.of(answer), (span,), (Context(source.of(chapter.text), source),))
                  for span,source in zip(spans, sources)]
    return Question(chapter.number, number, f'What is told of {_title(story)}?', answer, tuple(components))

def story_book(
    stories:int=120, # how many
    seed:int=0, # number of the first one; with a step of `stories`, books share no story
    first:int=101, # number of the first chapter; above those of the book that the stories stand beside
)->tuple[Book,Benchmark]: # chapters of stories, and a question about each story
    "A book of stories and questions about it, with all borders and sources known."
    if stories < 1: raise FastbookError(f"a book of {stories} stories is none; give 1 or more")
    chapters,questions = [],[]
    for at in range(0, stories, _SIZE):
        told = [make_story(seed+i) for i in range(at, min(at+_SIZE, stories))]
        chapter,starts = _read(first+at//_SIZE, told)
        chapters.append(chapter)
        questions += [_question(s, i+1, chapter, start) for i,(s,start) in enumerate(zip(told, starts))]
    return Book(Path('stories'), tuple(chapters)),Benchmark(questions)
