"""How many of the usual kinds of secrets are found, and how often other people's Python code is taken for one.

    python benchmarks/secret_kinds.py [MEGABYTES]

The kinds are made up in tests/kinds_of_secrets.py; the code is that of the installed packages, 30 MB of it by default.
"""
import random
import sys
import sysconfig
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]/'tests'))
from agentfastbook.text.secrets import find_secrets, mask_secrets
from kinds_of_secrets import KINDS


def main(megabytes=30.):
    found = [kind for kind, (text, secret) in KINDS.items() if secret not in mask_secrets(text)]
    print(f'{len(found)} of {len(KINDS)} kinds are found, missed: {", ".join(KINDS.keys()-found) or "none"}')
    files = sorted(Path(sysconfig.get_paths()['purelib']).rglob('*.py'))
    random.Random(0).shuffle(files)
    size, alarms, start = 0, [], time.perf_counter()
    for file in files:
        text = file.read_text(encoding='utf-8', errors='replace')
        size += len(text)
        alarms += [(file.name, span.of(text)[:60]) for span in find_secrets(text)]
        if size > megabytes*1e6: break
    for name, text in alarms: print(f'  {name}: {text!r}')
    print(f'{len(alarms)} alarms in {size/1e6:.0f} MB of Python code, {len(alarms)/size*1e7:.2f} in 10 MB; '
          f'{size/1e6/(time.perf_counter()-start):.1f} MB/s')


if __name__ == '__main__': main(*map(float, sys.argv[1:]))
