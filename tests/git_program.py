"Prompt repositories made by the git program."
import os
import subprocess

ENVIRONMENT = {**os.environ, 'GIT_CONFIG_GLOBAL': os.devnull, 'GIT_AUTHOR_NAME': 'Ada', 'GIT_COMMITTER_NAME': 'Ada',
               'GIT_AUTHOR_EMAIL': 'ada@localhost', 'GIT_COMMITTER_EMAIL': 'ada@localhost'}


def git(path, *args):
    done = subprocess.run(['git', '-C', str(path), *args], capture_output=True, encoding='utf-8', env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(path, name, *lines):
    (path/f'{name}.md').parent.mkdir(parents=True, exist_ok=True)
    (path/f'{name}.md').write_text('---\nname: x\n---\n' + '\n'.join(lines) + '\n', encoding='utf-8')


def commit(path, message):
    git(path, 'add', '-A')
    git(path, 'commit', '-qm', message)
