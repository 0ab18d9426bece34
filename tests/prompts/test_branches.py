"Prompts in Git: what the library says agrees with the git program, and nothing is lost when a process dies."
import os
import signal
import subprocess
import sys
import time

import pytest
from agentfastbook.text.spans import FastbookError
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.templates import Prompt, fill, parse_prompt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from git_program import ENVIRONMENT, commit, git, write

@pytest.fixture
def made_by_git(tmp_path):
    "A repository with a merge, a renaming and tags, made by the git program."
    path = tmp_path/'prompts'
    git(tmp_path, 'init', '-q', '-b', 'main', 'prompts')
    write(path, 'a', *(f'line {i}' for i in range(9)))
    commit(path, 'one')
    git(path, 'tag', 'light')
    git(path, 'checkout', '-qb', 'side')
    write(path, 'a', *(f'line {i}' for i in range(8)), 'line 8, said at the side')
    commit(path, 'side')
    git(path, 'checkout', '-q', 'main')
    write(path, 'a', 'line 0, said on the main branch', *(f'line {i}' for i in range(1, 9)))
    write(path, 'b', 'another')
    commit(path, 'main')
    git(path, 'merge', '-q', '--no-edit', 'side')
    git(path, 'mv', 'a.md', 'renamed.md')
    commit(path, 'rename')
    git(path, 'tag', '-a', 'annotated', '-m', 'why')
    return path


def assert_agrees(path, name):
    "log, diff, blame and fsck, of the library and of the git program."
    repo = PromptRepo(path)
    assert git(path, 'fsck', '--strict') == ''
    commits = git(path, 'log', '--format=%H').split()
    assert list(repo.log().commit) == commits
    merges = set(git(path, 'log', '--merges', '--format=%H').split())  # `git log --follow` leaves them out
    followed = git(path, 'log', '--follow', '--no-merges', '--format=%H', '--', f'{name}.md').split()
    assert [c for c in repo.log(name).commit if c not in merges] == followed
    blamed = git(path, 'blame', '--root', '-l', '-s', f'{name}.md').splitlines()
    assert list(repo.blame(name).commit) == [line.split()[0] for line in blamed]
    for old, new in zip(commits[1:], commits):
        assert repo.diff(old, new).patch == git(path, 'diff', '-M', old, new)


def test_reads_what_git_made(made_by_git):
    repo = PromptRepo(made_by_git)
    assert repo.names() == ['b', 'renamed']
    assert repo.names('light') == ['a']
    assert set(repo.tags()) == {'light', 'annotated'}
    assert repo.tags()['annotated'] == git(made_by_git, 'rev-parse', 'HEAD').strip()
    body = repo.read('renamed').body
    assert 'said at the side' in body and 'said on the main branch' in body
    assert_agrees(made_by_git, 'renamed')
    assert list(repo.log('b').message) == ['main']


def test_log_of_a_file_that_was_merged(made_by_git):
    "The merge is listed where both sides changed the file, and passed through where only one did."
    repo = PromptRepo(made_by_git)
    for name in 'ab':
        assert list(repo.log(name, 'HEAD~1').commit) == \
            git(made_by_git, 'log', '--format=%H', 'HEAD~1', '--', f'{name}.md').split()


def test_git_reads_what_the_library_made(tmp_path):
    path = tmp_path/'prompts'
    repo = PromptRepo(path, author='Ada')
    for i in range(5):
        write(path, 'deep/a', *(f'line {j} {"new" if j < i else "old"}' for j in range(6)))
        repo.commit(f'edit {i}')
    assert_agrees(path, 'deep/a')
    assert git(path, 'status', '--porcelain') == ''
    assert git(path, 'log', '--stat').count('deep/a.md') == 5
    assert git(path, 'log', '-1', '--format=%an').strip() == 'Ada'


EDIT = st.tuples(st.sampled_from('abc'), st.lists(st.sampled_from(['one', 'two', 'three {x}', 'vier ü']), max_size=5))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(EDIT, st.sampled_from(['fork', 'merge'])), max_size=12))
def test_random_edits_forks_and_merges(tmp_path_factory, steps):
    "Every committed text can be read again; Git finds no fault; conflicts are settled and leave nothing open."
    path = tmp_path_factory.mktemp('random')/'prompts'
    repo = PromptRepo(path, author='Ada')
    write(path, 'a', 'start')
    kept = {repo.commit('start'): {'a': (path/'a.md').read_text(encoding='utf-8')}}
    for i, step in enumerate(steps):
        if step == 'fork':
            repo.branch(f'b{i}')
            repo.switch(f'b{i}')
            continue
        if step == 'merge':
            done = repo.merge(sorted(repo.branches())[i % len(repo.branches())])
            for c in done.conflicts: repo.resolve(c.name, c.ours or c.theirs)
            id = done.commit or repo.commit('merged')
        else:
            write(path, step[0], *step[1])
            if not repo.status(): continue
            id = repo.commit(f'edit {i}')
        kept[id] = {name: repo.read_text(name) for name in repo.names()}
    for id, texts in kept.items():
        assert {name: repo.read_text(name, id) for name in repo.names(id)} == texts
    assert git(path, 'status', '--porcelain') == ''
    assert git(path, 'fsck', '--strict', '--no-dangling') == ''


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab{}\n \\x%$é', max_size=60), st.text(alphabet='ab{}\n \\x%$', max_size=40))
def test_a_value_comes_through_untouched(value, around):
    body = around.replace('{{', '{ {').replace('}}', '} }')
    if (body + '{{x}}').count('{{') > 1 or '{{{' in body + '{{x}}' or '}}}' in '{{x}}' + body: return
    prompt = Prompt('p', f'{body}{{{{x}}}}{body}', {'x': 'any text'})
    assert ''.join(part.text for part in fill(prompt, {'x': value})) == body + value + body
    assert parse_prompt(prompt.markdown()) == prompt


KILLED = '''
import os, sys
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.templates import Prompt
repo = PromptRepo(sys.argv[1])
repo.write(Prompt('a', 'written, not committed\\n'))
os.kill(os.getpid(), 9)
'''
ENDLESS = '''
import sys
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.templates import Prompt
repo = PromptRepo(sys.argv[1])
for i in range(10_000):
    repo.write(Prompt('a', f'text {i}\\n'))
    repo.commit(f'commit {i}')
    print(i, flush=True)
'''


def test_killed_between_writing_and_committing(tmp_path):
    path = tmp_path/'prompts'
    repo = PromptRepo(path)
    repo.write(Prompt('a', 'old\n'))
    first = repo.commit('first')
    subprocess.run([sys.executable, '-c', KILLED, str(path)])
    assert repo.status() == {'a.md': 'modified'}
    assert repo.read('a').body == 'written, not committed\n'
    assert repo.read('a', first).body == 'old\n'
    repo.commit('what was written')
    assert git(path, 'fsck', '--strict') == ''


def left_locks(path):
    return [p for p in (path/'.git').rglob('*.lock') if p.name != 'agentfastbook.lock']


def test_killed_at_any_moment(tmp_path):
    "After a kill the last commit is whole, and the next writer can go on."
    for wait in (.0, .013, .029):
        path = tmp_path/f'prompts{wait}'
        process = subprocess.Popen([sys.executable, '-c', ENDLESS, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        repo = PromptRepo(path)
        assert repo.read('a', 'HEAD').body.startswith('text ')
        repo.write(Prompt('a', 'after\n'))
        for lock in left_locks(path): lock.unlink()  # Git's own locks stay behind, as after a killed `git commit`
        repo.commit('after')
        assert git(path, 'fsck', '--strict', '--no-dangling') == ''


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path/'prompts'
    PromptRepo(path)
    code = ENDLESS.replace('10_000', '25').replace("'a'", 'sys.argv[2]').replace("f'commit {i}'", "f'{i}', sys.argv[2]")
    writers = [subprocess.Popen([sys.executable, '-c', code, str(path), name], stdout=subprocess.DEVNULL) for name in 'ab']
    assert [w.wait() for w in writers] == [0, 0]
    assert len(PromptRepo(path).log()) == 50
    assert git(path, 'fsck', '--strict', '--no-dangling') == ''
    assert git(path, 'status', '--porcelain') == ''


@pytest.mark.parametrize('lock', ['index.lock', 'refs/heads/main.lock', 'refs/heads/side.lock', 'refs/tags/v1.lock', 'HEAD.lock'])
def test_an_open_lock_of_git_is_an_error_with_a_remedy(tmp_path, lock):
    path = tmp_path/'prompts'
    repo = PromptRepo(path)
    repo.write(Prompt('a', 'text\n'))
    repo.commit('first')
    repo.write(Prompt('a', 'other\n'))
    (path/'.git'/lock).parent.mkdir(exist_ok=True)
    (path/'.git'/lock).touch()
    writing = {'side': lambda: repo.branch('side'), 'tags': lambda: repo.tag('v1'),
               'HEAD': lambda: (repo.restore('a', discard=True), repo.branch('side'), repo.switch('side'))}
    kind = next((k for k in writing if k in lock), None)
    with pytest.raises(FastbookError, match=f'remove .git/{lock}'): writing.get(kind, lambda: repo.commit('locked'))()
    assert git(path, 'fsck', '--strict', '--no-dangling') == ''
    (path/'.git'/lock).unlink()
    assert repo.read('a', 'HEAD').body == 'text\n'
    if kind != 'HEAD': assert repo.status() == {'a.md': 'modified'} and repo.commit('again')


def test_keys_never_reach_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv('MY_API_KEY', 'plainlookingvalue')
    repo = PromptRepo(tmp_path/'prompts')
    for text in ('sk-ant-api03-' + 'a1' * 20, 'x-api-key: ' + 'b2' * 16, 'before plainlookingvalue after'):
        with pytest.raises(FastbookError, match='looks like a key'): repo.write(Prompt('a', text))
        write(tmp_path/'prompts', 'a', text)  # an editor can write it; it is not committed
        with pytest.raises(FastbookError, match='looks like a key') as caught: repo.commit('keys')
        assert text not in str(caught.value)
    assert repo.log().empty
    objects = [p for p in (tmp_path/'prompts'/'.git'/'objects').rglob('*') if p.is_file()]
    assert objects == []


def test_git_merges_what_the_library_conflicts(tmp_path):
    "The text with conflict marks is Git's own."
    path = tmp_path/'prompts'
    repo = PromptRepo(path, author='Ada')
    write(path, 'a', 'one', 'two', 'three')
    repo.commit('start')
    repo.branch('side')
    write(path, 'a', 'one', 'two at home', 'three')
    repo.commit('home')
    repo.switch('side')
    write(path, 'a', 'one', 'two at the side', 'three')
    repo.commit('side')
    repo.switch('main')
    ours = repo.merge('side').conflicts[0]
    repo.abort()
    assert git(path, 'status', '--porcelain') == ''
    subprocess.run(['git', '-C', str(path), 'merge', 'side'], capture_output=True, env=ENVIRONMENT)
    assert [c.name for c in repo.conflicts()] == ['a']
    theirs = (path/'a.md').read_text(encoding='utf-8')
    marks = [line for line in theirs.splitlines() if not line.startswith(('<<<<<<<', '>>>>>>>'))]
    assert marks == [line for line in ours.text.splitlines() if not line.startswith(('<<<<<<<', '>>>>>>>'))]
    repo.resolve('a', theirs.replace('<<<<<<< HEAD\n', '').replace('=======\n', '').replace('>>>>>>> side\n', ''))
    merged = repo.commit('both')
    assert git(path, 'log', '-1', '--format=%P').split() == [str(p.id) for p in repo._commit_of(merged).parents]
    assert len(repo._commit_of(merged).parents) == 2


def test_a_conflict_where_one_side_deleted(tmp_path):
    path = tmp_path/'prompts'
    repo = PromptRepo(path, author='Ada')
    write(path, 'a', 'one')
    write(path, 'b', 'stays')
    repo.commit('start')
    repo.branch('side')
    (path/'a.md').unlink()
    repo.commit('delete')
    repo.switch('side')
    write(path, 'a', 'changed')
    repo.commit('change')
    repo.switch('main')
    found = repo.merge('side').conflicts[0]
    assert (found.name, found.ours) == ('a', '') and 'changed' in found.theirs
    repo.resolve('a', found.theirs)
    repo.commit('keep it')
    assert 'changed' in repo.read('a', 'HEAD').body
    assert git(path, 'status', '--porcelain') == ''


def test_a_bare_repository_is_refused(tmp_path):
    git(tmp_path, 'init', '-q', '--bare', 'bare')
    with pytest.raises(FastbookError, match='is bare; clone it'): PromptRepo(tmp_path/'bare')
    (tmp_path/'file').write_text('x', encoding='utf-8')
    with pytest.raises(FastbookError, match='not a Git repository'): PromptRepo(tmp_path/'file')


def test_a_name_for_two_commits_is_refused(tmp_path):
    "Branch and tag, tag and the start of an id, branch and a branch elsewhere: never one's text and the other's commit."
    path = tmp_path/'prompts'
    git(tmp_path, 'init', '-q', '-b', 'main', 'prompts')
    for i in range(3):
        write(path, 'a', f'line {i}')
        commit(path, f'edit {i}')
    first, second, last = git(path, 'log', '--format=%H', '--reverse').split()
    git(path, 'branch', 'v1', first)
    git(path, 'tag', 'v1', second)
    git(path, 'tag', first[:7], last)
    git(path, 'update-ref', 'refs/remotes/origin/old', first)
    git(path, 'branch', 'origin/old', second)
    repo = PromptRepo(path)
    for name, one, other in [('v1', 'refs/tags/v1', 'refs/heads/v1'), (first[:7], f'refs/tags/{first[:7]}', first),
                             ('origin/old', 'refs/heads/origin/old', 'refs/remotes/origin/old')]:
        for use in (repo.merge, repo.diff, repo.names, lambda at: repo.log(at=at), lambda at: repo.read('a', at),
                    lambda at: repo.blame('a', at), lambda at: repo.branch('new', at), lambda at: repo.tag('new', at),
                    lambda at: repo.restore('a', at), lambda at: repo.log(at=f'{at}~0'), lambda at: repo.log(at=f'{at}^{{commit}}')):
            with pytest.raises(FastbookError, match='is ambiguous') as said: use(name)
            assert one in str(said.value) and other in str(said.value)
        assert 'new' not in {**repo.branches(), **repo.tags()}
    assert repo.read('a', 'refs/heads/v1').body == 'line 0\n' and repo.read('a', 'refs/tags/v1').body == 'line 1\n'
    assert repo.read('a', first).body == 'line 0\n'
    assert git(path, 'rev-parse', 'main').strip() == last
    git(path, 'tag', 'same', last)
    git(path, 'branch', 'same', last)
    assert repo.read('a', 'same').body == 'line 2\n'  # one commit under two names is no question
    for taken in (lambda: repo.branch('v1'), lambda: repo.tag('v1'), lambda: repo.tag(second[:7]), lambda: repo.branch(second[:9])):
        with pytest.raises(FastbookError, match='is taken by'): taken()


def test_links_in_a_repository_that_somebody_sent(tmp_path):
    "Nothing outside is written, whatever lies in the Git folder or beside the prompts."
    victim, folder = tmp_path/'victim', tmp_path/'prompts'
    git(tmp_path, 'init', '-q', '-b', 'main', 'prompts')
    for name in ('agentfastbook.tmp', 'agentfastbook..tmp'): (folder/'.git'/name).symlink_to(victim)
    (folder/'linked.md').symlink_to(victim)
    (folder/'sub').symlink_to(folder/'.git'/'hooks')
    victim.write_text('mine', encoding='utf-8')
    repo = PromptRepo(folder)
    repo.write(Prompt('ask', 'Say it.\n'))
    repo.commit('one', 'ask')
    for name in ('linked', 'sub/post-commit'):
        with pytest.raises(FastbookError, match="can't be the name"): repo.write(Prompt(name, 'Say it.\n'))
    assert victim.read_text(encoding='utf-8') == 'mine'
    assert [p.name for p in (folder/'.git').glob('agentfastbook.*')] and not list((folder/'.git').glob('agentfastbook.????????.tmp'))
    assert oct((folder/'ask.md').stat().st_mode & 0o777) == oct(0o666 & ~repository_umask())
    lock = folder/'.git'/'agentfastbook.lock'
    lock.unlink()
    lock.symlink_to(tmp_path/'made by the lock')
    with pytest.raises(FastbookError, match='is a link or no file'): repo.write(Prompt('more', 'Say it.\n'))
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(FastbookError, match='is a link or no file'): repo.write(Prompt('more', 'Say it.\n'))
    assert not (tmp_path/'made by the lock').exists() and not (folder/'more.md').exists()


def test_a_pipe_in_the_git_folder_is_not_waited_for(tmp_path):
    git(tmp_path, 'init', '-q', '-b', 'main', 'prompts')
    repo = PromptRepo(tmp_path/'prompts')
    os.mkfifo(tmp_path/'prompts'/'.git'/'MERGE_HEAD')
    repo.write(Prompt('ask', 'Say it.\n'))
    assert repo._merging() == []


def repository_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_damaged_index_is_named(tmp_path):
    repo = PromptRepo(tmp_path/'prompts', author='Ada')
    repo.write(Prompt('ask', 'Say it.\n'))
    repo.commit('one')
    (tmp_path/'prompts'/'.git'/'index').write_bytes(b'DIRC'+b'\xff'*500)
    for read in (PromptRepo.status, PromptRepo.diff):
        with pytest.raises(FastbookError, match="the repository .prompts. is damaged"): read(PromptRepo(tmp_path/"prompts"))
