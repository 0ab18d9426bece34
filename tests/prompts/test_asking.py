"Prompts that are kept in a repository: programs that begin at once, and one that was killed."
import subprocess
import sys

import pytest
from agentfastbook.prompts.asking import Prompts
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.templates import packaged_prompt
from agentfastbook.text.spans import FastbookError

NAMES = ('decompose/point', 'extract/list', 'decompose/standalone')
CODE = f'import sys; from agentfastbook.prompts.asking import Prompts; p = Prompts(sys.argv[1]); [p(n) for n in {NAMES}]'


def test_a_prompt_that_was_written_and_not_committed_is_committed(tmp_path):
    "Another program is just at it, or was killed; but nobody's own words are committed for them."
    repo, ours = PromptRepo(tmp_path/'prompts'), packaged_prompt(NAMES[0])
    repo.write(ours)
    assert Prompts(repo.path)(ours.name).prompt == ours and repo.status() == {}
    repo.write_text(NAMES[1], packaged_prompt(NAMES[1]).markdown()+'Another line.\n')
    with pytest.raises(FastbookError, match='changed since the last commit'): Prompts(repo.path)(NAMES[1])


def test_programs_that_begin_at_once_keep_each_prompt_once(tmp_path):
    for i in range(3):
        begun = [subprocess.Popen([sys.executable, '-c', CODE, tmp_path/f'{i}']) for _ in range(3)]
        assert [p.wait() for p in begun] == [0, 0, 0]
        assert len(PromptRepo(tmp_path/f'{i}').log()) == 3
