"afb_prompts as people run it: a program, on a repository that git made, beside what git itself says."
import os
import subprocess
import sys

import pytest
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.asking import Asker
from agentfastbook.store.runs import Store
from git_program import ENVIRONMENT, commit, git, write

COMMAND = [sys.executable, '-c', 'from agentfastbook.cli.prompts import afb_prompts; afb_prompts()']


def run(*words, cwd=None, status=0, **env):
    done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, encoding='utf-8', cwd=cwd,
                          env={**ENVIRONMENT, **env})
    assert done.returncode == status, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Nine commits by git: the fifth breaks the prompt, another prompt changes in between; a merge, a tag, a dirty file."
    folder = tmp_path_factory.mktemp('run')
    path = folder/'prompts'
    git(folder, 'init', '-q', '-b', 'main', 'prompts')
    for i in range(8):
        write(path, 'copy', f'Copy {"exactly" if i < 5 else "roughly"}.', *(f'rule {j}' for j in range(i)))
        write(path, 'other', f'version {i}')
        commit(path, f'edit {i}')
    git(path, 'tag', 'fine', 'HEAD~7')
    git(path, 'checkout', '-qb', 'side', 'HEAD~6')
    write(path, 'third', 'from the side')
    commit(path, 'side')
    git(path, 'checkout', '-q', 'main')
    git(path, 'merge', '-q', '--no-edit', 'side')
    (path/'other.md').write_text('---\nname: x\n---\nnot committed\n', encoding='utf-8')
    return folder


def broken(made): return git(made/'prompts', 'log', '--format=%H', '--grep=edit 5').strip()


def test_help_of_each_subcommand():
    assert 'log|diff|why|bisect' in run('--help')
    for name, option in dict(log='--at', diff='--words', why='--store', bisect='--metric').items():
        assert option in run(name, '--help') and '--repo' in run(name, '--help')
    assert 'required' in run(status=2)
    assert 'invalid choice' in run('push', status=2)


def test_log_and_diff_are_those_of_git(made):
    path, repo = made/'prompts', ['--repo', made/'prompts']
    shown = [line.split()[0] for line in run('log', *repo).splitlines()]
    assert shown == git(path, 'log', '--format=%h', '--abbrev=10').split()
    shown = [line.split()[0] for line in run('log', 'copy', *repo, '--at', 'fine').splitlines()]
    assert shown == git(path, 'log', '--format=%h', '--abbrev=10', 'fine', '--', 'copy.md').split()
    assert run('diff', 'fine', 'main', *repo) == git(path, 'diff', '-M', 'fine', 'main')
    assert run('diff', 'fine', 'main', '--name', 'copy', *repo) == git(path, 'diff', 'fine', 'main', '--', 'copy.md')
    assert run('diff', *repo) == git(path, 'diff', 'HEAD')  # what is not committed
    assert '[-exactly-]{+roughly+}' in run('diff', 'fine', 'main', '--words', *repo)
    assert run('log', cwd=made, *['--repo', 'prompts']) == run('log', *repo)


def test_why(made):
    path = made/'prompts'
    store = Store(made/'traces.db')
    (path/'copy.md').write_text('---\nname: copy\nfields: {text: a sentence}\n---\nCopy.\n\n{{text}}\n', encoding='utf-8')
    repo = PromptRepo(path)
    id = repo.commit('With a field', 'copy')
    call = Asker(repo, store, lambda text: text[::-1], 'mirror').ask('copy', dict(text='{braces} <b> süß'))
    store.close()
    where = ['--repo', path, '--store', made/'traces.db']
    shown = run('why', call.id[:6], *where)
    assert '[text]\n{braces} <b> süß' in shown and '[instruction prompt=copy line=5]\nCopy.' in shown
    assert call.raw.strip() in shown and f'{id}:copy.md' in shown and 'With a field' in shown
    assert shown.endswith(git(path, 'diff', f'{id}~', id, '--', 'copy.md'))
    assert call.id in run('why', *where) and 'mirror' in run('why', *where)
    assert 'is not in the store' in run('why', 'abcdef', *where, status=2)
    git(path, 'reset', '-q', '--soft', 'HEAD~')  # for the other tests
    git(path, 'checkout', '-q', 'HEAD', 'copy.md')


def test_bisect_with_a_number_and_with_a_status(made):
    repo = ['--repo', made/'prompts']
    before = git(made/'prompts', 'status', '--porcelain'), git(made/'prompts', 'for-each-ref')
    count = 'grep -c exactly "$PROMPTS/copy.md" || true'
    shown = run('bisect', 'fine', 'main', '--metric', count, '--name', 'copy', *repo)
    assert f'{broken(made)} is the first bad commit\nedit 5' in shown
    assert shown.endswith(git(made/'prompts', 'diff', f'{broken(made)}~', broken(made), '--', 'copy.md'))
    shown = run('bisect', 'fine', 'main', '--run', 'grep -q exactly "$PROMPTS/copy.md"', *repo)
    assert f'{broken(made)} is the first bad commit' in shown
    assert len([line for line in shown.split('\n\n')[0].splitlines()]) <= 6  # both ends, and nine suspects, halved
    checked_out = 'test "$(git -C "$PROMPTS" rev-parse HEAD)" = "$COMMIT" && grep -q exactly "$PROMPTS/copy.md"'
    assert f'{broken(made)} is the first bad' in run('bisect', 'fine', 'main', '--run', checked_out, *repo)
    assert before == (git(made/'prompts', 'status', '--porcelain'), git(made/'prompts', 'for-each-ref'))  # nothing touched


def test_bisect_looks_at_its_ends(made):
    "Commits that are all good have no first bad one, and a good end that is bad is no good end."
    repo = ['--repo', made/'prompts']
    for words, message in [(['--run', 'true'], "'main' was given as bad, but is 1"),
                           (['--run', 'false'], "'fine' was given as good, but is 0"),
                           (['--metric', 'echo 1', '--threshold', '1'], "'main' was given as bad, but is 1"),
                           (['--metric', 'echo 1', '--threshold', '2'], "'fine' was given as good, but is 1")]:
        said = run('bisect', 'fine', 'main', *words, *repo, status=2)
        assert message in said and 'first bad' not in said


def test_values_are_kept_for_the_same_metric_only(made):
    "An edited function, or an edited script that the command names, is asked again."
    script, words = made/'length.py', ['bisect', 'fine', 'main', '--repo', 'prompts', '--name', 'copy', '--store', 'edited.db']
    def found(sign, *metric):
        script.write_text(f"import os\ndef rules(prompts):\n    return {sign}prompts.read_text('copy').count('rule')\n"
                          "if __name__ == '__main__':\n"
                          f"    print({sign}open(os.environ['PROMPTS']+'/copy.md').read().count('rule'))\n", encoding='utf-8')
        return run(*words, *metric, cwd=made, status=0 if sign == '-' else 2, PYTHONDONTWRITEBYTECODE='1')  # within a second, a file of the same size is not read again
    for metric in (['--metric', 'length:rules'], ['--metric', f'{sys.executable} length.py']):
        assert 'is the first bad commit' in found('-', *metric)
        assert 'nothing got worse' in found('+', *metric)


def test_bisect_agrees_with_git_bisect(made, tmp_path):
    copy = tmp_path/'copy'
    git(tmp_path, 'clone', '-q', made/'prompts', copy)
    git(copy, 'bisect', 'start', 'main', 'fine')
    said = git(copy, 'bisect', 'run', 'grep', '-q', 'exactly', 'copy.md')
    assert f'{broken(made)} is the first bad commit' in said


def test_bisect_with_python_and_with_values_that_are_kept(made):
    (made/'score.py').write_text("def rules(prompts):\n    print('asked')\n"
                                 "    return -prompts.read_text('copy').count('rule')\n", encoding='utf-8')
    words = ['bisect', 'fine', 'main', '--metric', 'score:rules', '--threshold=-4.5', '--repo', 'prompts', '--name', 'copy']
    shown = run(*words, '--store', 'values.db', cwd=made)
    assert 'edit 5' in shown and 'asked' in shown
    again = run(*words, '--store', 'values.db', cwd=made)
    assert 'asked' not in again and again == shown.replace('asked\n', '')


def test_bisect_goes_around_what_can_not_be_tested(made):
    skip = 'test "$COMMIT" = $SKIP && exit 125; grep -q exactly "$PROMPTS/copy.md"'
    ids = git(made/'prompts', 'log', '--format=%H', 'fine..main').split()
    other = next(c for c in ids if c != broken(made))
    repo = ['--repo', made/'prompts']
    assert f'{broken(made)} is the first bad' in run('bisect', 'fine', 'main', '--run', skip, *repo, SKIP=other)
    said = run('bisect', 'fine', 'main', '--run', skip, '--name', 'copy', *repo, SKIP=broken(made), status=2)
    assert 'may be the first bad commit' in said and broken(made)[:10] in said


def test_errors_are_one_line_and_make_nothing(made, tmp_path):
    repo = ['--repo', made/'prompts']
    for words, message in [(['log', '--repo', tmp_path/'nowhere'], 'there is no folder'),
                           (['log', '--repo', tmp_path], 'is not a Git repository'),
                           (['log'], "there is no folder 'afb_out/prompts'"),
                           (['log', '--at', 'nowhere', *repo], 'is no commit, branch or tag'),
                           (['log', '../x', *repo], "can't be the name"),
                           (['why', 'abcd', *repo, '--store', tmp_path/'no.db'], 'there is no store'),
                           (['bisect', 'main', 'fine', '--metric', 'echo 1', *repo], 'nothing got worse'),
                           (['bisect', 'fine', 'main', '--metric', 'exit 7', *repo], 'ended with status 7'),
                           (['bisect', 'fine', 'main', '--metric', 'no_such:thing', *repo], "can't import")]:
        said = run(*words, cwd=tmp_path, status=2)
        assert said.startswith('error: ') and message in said
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_enough(made):
    command = ' '.join(f"'{w}'" for w in [*COMMAND, 'log', '--repo', str(made/'prompts')])
    done = subprocess.run(f'{command} | head -1', shell=True, capture_output=True, encoding='utf-8', env={**os.environ})
    assert done.stdout.count('\n') == 1 and done.stderr == ''
