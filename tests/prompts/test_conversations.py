"Conversations: whatever is said, forked, merged, pinned and left out, no byte is lost and no budget exceeded."
import importlib.util
import subprocess
import tempfile
from pathlib import Path

import pytest
from agentfastbook.prompts.conversations import Conversation
from agentfastbook.text.spans import FastbookError
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.templates import estimate_tokens
from conftest import ROOT
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
            with pytest.raises(FastbookError): self.talks[self.i].include(other, findings)
            return
        self.talks[self.i].include(other, findings)
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


def real_tokenizers():
    "Those that are installed, at least MiniLM's; see benchmarks/tokens.py, which names packages with more."
    spec = importlib.util.spec_from_file_location('token_benchmark', ROOT/'benchmarks'/'tokens.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pytest.importorskip('tokenizers')
    known = module.tokenizers([])
    if not known: pytest.skip('no tokenizer is installed')
    return module, known


def test_no_tokenizer_counts_more_than_the_estimate():
    "On prose, code, tables, many scripts, emoji and noise."
    module, known = real_tokenizers()
    for kind, text in module.texts().items():
        for name, count in known.items(): assert count(text) <= estimate_tokens(text), (kind, name)


def test_a_budget_holds_by_the_models_own_tokenizer(tmp_path):
    "Counted by the estimate, a window fits a real tokenizer, too; counted by that tokenizer, it fits, too."
    module, known = real_tokenizers()
    talk = Conversation(PromptRepo(tmp_path/'prompts'), 'talk')
    for kind, text in module.texts().items(): talk.say(f'{kind}\n{text[:400]}'.replace('\0', ' '))
    for count in known.values():
        for budget in (1200, 3000):
            careful, exact = talk.context(budget), talk.context(budget, count)
            assert count(careful.text) <= careful.tokens <= budget
            assert count(exact.text) == exact.tokens <= budget
