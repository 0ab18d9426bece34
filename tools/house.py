"""The figures of the house: rooms, floors, arrows, public names, lines, and the share of names that are shown.
python tools/house.py [FOLDER] [-v]  a table by wing; with -v also each module's names that no visible output shows

A room is a module, an arrow an import of one module by another, and the floor of a module is 1 more than that of the
highest module it imports. A name is shown if a cell after its definition uses it, or prints it, and has an output.
"""
import ast
import json
import re
import sys
from pathlib import Path

WINGS = 'text stats books store lm prompts engines look judges tiny cli'.split()  # each imports only those before it
COLUMNS = ('wing', 'rooms', 'floors', 'arrows', 'public names', 'lines', 'names shown')
HIDDEN = re.compile(r'#\|\s*(exports?\b|hide|output: *false|include: *false)')


def modules(root):
    "Every module of the library and its file: {'text.spans': Path}."
    library = root/'agentfastbook'
    files = [path for path in sorted(library.rglob('*.py')) if not path.name.startswith('_')]
    return {'.'.join(path.relative_to(library).with_suffix('').parts): path for path in files}


def imports(module, path, known):
    "The modules of the library that a module imports anywhere in it."
    package, found = ['agentfastbook', *module.split('.')[:-1]], set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom): continue
        base = package[:len(package) + 1 - node.level] if node.level else []
        start = '.'.join(base + [node.module or ''] * bool(node.module))
        found |= {start, *(f'{start}.{alias.name}' for alias in node.names)}
    return {name.removeprefix('agentfastbook.') for name in found} & set(known) - {module}


def public_names(path):
    "What a module offers: its `__all__`."
    return ast.literal_eval(re.search(r'^__all__ = (\[.*?\])', path.read_text(encoding='utf-8'), re.M | re.S)[1])


def words_shown(cell):
    "The names that a cell with a visible output uses, and the classes and constants that it prints."
    source, outputs = ''.join(cell['source']), cell.get('outputs')
    if HIDDEN.search(source) or not outputs: return set()
    printed = json.dumps([[output.get('data'), output.get('text')] for output in outputs])
    return set(re.findall(r'\w+', re.sub('#.*', '', source)) + re.findall(r'\b[A-Z]\w+', printed))


def not_shown(path, names):
    "Those of a module's names that no visible output after their definition shows."
    notebook = path.parent/re.search(r'File to edit: (\S+\.ipynb)', path.read_text(encoding='utf-8'))[1]
    defined, shown = set(), set()
    for cell in json.loads(notebook.read_text(encoding='utf-8'))['cells']:
        shown |= words_shown(cell) & defined
        if re.match(r'#\|\s*exports?\b', source := ''.join(cell['source'])): defined |= set(re.findall(r'\w+', source))
    return [name for name in names if name not in shown]


def figures(root):
    "A row of figures for each wing, and one for all of them."
    known = modules(root)
    arrows = {module: imports(module, path, known) for module, path in known.items()}
    def floor(module): return 1 + max(map(floor, arrows[module]), default=0)
    for wing in [*WINGS, 'all']:
        rooms = {module: path for module, path in known.items() if wing in ('all', module.split('.')[0])}
        names = sum(len(public_names(path)) for path in rooms.values())
        lines = sum(len(path.read_text(encoding='utf-8').splitlines()) for path in rooms.values())
        missing = sum(len(not_shown(path, public_names(path))) for path in rooms.values())
        stairs = max(map(floor, rooms)), sum(len(arrows[room]) for room in rooms)
        yield wing, len(rooms), *stairs, names, lines, f'{1 - missing/names:.0%}'


def main():
    root = Path(next((word for word in sys.argv[1:] if word[0] != '-'), '.')).resolve()
    for row in [COLUMNS, ['---'] * len(COLUMNS), *figures(root)]: print('| ' + ' | '.join(map(str, row)) + ' |')
    for module, path in modules(root).items() if '-v' in sys.argv else []:
        if missing := not_shown(path, public_names(path)): print(f'{module}:', *missing)


if __name__ == '__main__': main()
