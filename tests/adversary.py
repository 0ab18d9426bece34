"A model that writes the facts of an answer in tags, every one of them changed in the same way."
import re

from agentfastbook.engines.decompose import answer_units
from agentfastbook.lm.calls import LM
from agentfastbook.lm.door import Door
from agentfastbook.lm.reply import Reply, Usage

CHANGES = {
    'rewords': lambda s: re.sub(r'\b(the|a|is|are)\b', 'some', s, count=1, flags=re.I),
    'invents': lambda s: f'According to a study of 1987, {s}',
    'repeats': lambda s: f'{s} {s}',
    'changes a number': lambda s: re.sub(r'\d+', lambda m: str(int(m[0])+1), s, count=1),
    'negates': lambda s: re.sub(r'\b(is|are|can|makes?|gives?|does|do)\b', r'\1 not', s, count=1),
    'drops a negation': lambda s: re.sub(r"\b(not |no |never )|n't\b", '', s, count=1),
    'turns around': lambda s: ' '.join(s.split()[::-1]),
}


class Adversary(LM):
    "Writes every piece of the answer as a fact, changed."
    def __init__(self, change):
        super().__init__('adversary', Door())
        self.change = change

    def _send(self, request, timeout, on_text):
        answer = request.messages[-1]['content'].split('\n', 1)[1].rsplit('\n', 1)[0]
        facts = [self.change(u.of(answer)) for u in answer_units(answer)]
        text = ''.join(f'<component>{f}</component>' for f in facts)
        return Reply(text, usage=Usage(100, 100), model=self.model, stop_reason='end_turn')
