"""The wings' index pages: pictures, tables and neighbours, from what the code imports and what the notebooks say.

python tools/wings.py          writes each wing's parts.svg and the last cell of its index.ipynb, and the home page's table
python tools/wings.py --check  exits 1 if any of them is not what would be written

In a picture, an arrow leads from a module to one that builds on it; what follows from other arrows is left out. Each
module has its name, and the two of its public names that other modules and notebooks import most often.
"""
import json
import re
import sys
from collections import Counter
from html import escape
from pathlib import Path

import house

ROOT = Path(__file__).resolve().parents[1]
WIDTH, BOX, GAP = 860, 44, 28  # pixels: the picture, a box's height, the space between two rows
STYLE = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" text-anchor="middle"'


def read(notebook): return json.loads(notebook.read_text(encoding='utf-8'))


def title(notebook):
    "The title of a notebook, and the sentence below it."
    return re.match(r'# ([^\n]+)\n\n> ([^\n]+)', ''.join(read(notebook)['cells'][0]['source'])).groups()


def notebooks(wing):
    "The notebooks of a wing in reading order, by the names of their modules."
    return {f'{wing}.{path.stem[3:]}': path for path in sorted((ROOT/'nbs'/wing).glob('[0-9][0-9]_*.ipynb'))}


def imported_names():
    "How often each name is imported by notebooks: {('text.spans', 'Span'): 21}."
    cells = [cell for path in sorted((ROOT/'nbs').rglob('*.ipynb')) for cell in read(path)['cells']]
    code = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
    found = re.findall(r'^ *from agentfastbook\.([\w.]+) import (\([^)]*\)|.+)$', code, re.M)
    return Counter((module, name) for module, names in found for name in re.findall(r'\w+', names))


def main_names(module, counts):
    "The two names of a module that are imported most often; of equals, those that are defined first."
    names = house.public_names(ROOT/'agentfastbook'/f'{module.replace(".", "/")}.py')
    return sorted([name for name in names if not name.isupper()], key=lambda name: -counts[module, name])[:2]


def direct_arrows(arrows):
    "The arrows without those that follow from others: module -> what it builds on."
    def below(module): return {module}.union(*(below(lower) for lower in arrows[module]))
    def implied(module, lower): return any(lower in below(other) for other in arrows[module] - {lower})
    return {module: {lower for lower in lowers if not implied(module, lower)} for module, lowers in arrows.items()}


def rows_of(arrows, widths):
    "Rows of modules from the top, each module below all that it builds on: lists of (module, x of its middle)."
    def floor(module): return 1 + max(map(floor, arrows[module]), default=0)
    middle, rows, queue = {}, [], sorted(arrows, key=floor)
    def wanted(module): return sum(middle[lower] for lower in arrows[module])/(len(arrows[module]) or 1) or WIDTH/2
    while queue:
        fitting = [module for module in queue if floor(module) == floor(queue[0])]
        while sum(widths[module] + 20 for module in fitting) > WIDTH: fitting.pop()
        fitting.sort(key=wanted)
        left = (WIDTH - sum(widths[module] + 20 for module in fitting))/2 + 10
        for module in fitting:
            middle[module] = left + widths[module]/2
            left += widths[module] + 20
        rows.append([(module, middle[module]) for module in fitting])
        queue = [module for module in queue if module not in fitting]
    return rows


def box(module, names, x, y, width):
    second = escape(', '.join(names))
    return (f'<rect x="{x - width/2:.0f}" y="{y}" width="{width}" height="{BOX}" rx="6" fill="#1c67b5"/>'
            f'<text x="{x:.0f}" y="{y + 19}" font-size="14" font-weight="600" fill="#fff">{module.split(".")[1]}</text>'
            f'<text x="{x:.0f}" y="{y + 35}" font-size="11" fill="#e6eefa">{second}</text>')


def arrow(start, end):
    "A curve from the lower edge of one box to the upper edge of another."
    (x, y), (to_x, to_y) = start, end
    y, to_y = y + BOX, to_y - 5
    bend = (to_y - y)/2
    return (f'<path d="M{x:.0f} {y}C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y}" fill="none"'
            ' stroke="#868e96" stroke-width="1.4" marker-end="url(#tip)"/>')


def picture(modules, arrows, counts):
    "The modules of a wing and what builds on what, as SVG that can be read on light and on dark pages."
    names = {module: main_names(module, counts) for module in modules}
    widths = {module: max(100, 24 + 9*len(module.split('.')[1]), 20 + round(6.6*len(', '.join(names[module]))))
              for module in modules}
    rows = rows_of(arrows, widths)
    place = {module: (x, 4 + i*(BOX + GAP)) for i, row in enumerate(rows) for module, x in row}
    height = len(rows)*(BOX + GAP) - GAP + 8
    lines = [arrow(place[lower], place[module]) for module in modules for lower in sorted(arrows[module])]
    boxes = [box(module, names[module], *place[module], widths[module]) for module in modules]
    tip = ('<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
           '<path d="M0 0L8 4L0 8z" fill="#868e96"/></marker></defs>')
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' {STYLE}>')
    return '\n'.join([head, tip, *lines, *boxes, '</svg>']) + '\n'


def links(wings, up='../'): return ', '.join(f'[{wing}]({up}{wing}/index.ipynb)' for wing in wings) or 'no other wing'


def neighbours(wing, arrows):
    "The wings that a wing imports, and those that import it."
    pairs = {(module.split('.')[0], lower.split('.')[0]) for module, lowers in arrows.items() for lower in lowers}
    below = [other for other in house.WINGS if other != wing and (wing, other) in pairs]
    return below, [other for other in house.WINGS if other != wing and (other, wing) in pairs]


def parts(wing, arrows):
    "The last cell of an index page: the picture, the wings beside it, and a table of the modules."
    below, above = neighbours(wing, arrows)
    rows = ['| module | holds |', '|---|---|']
    for path in notebooks(wing).values():
        name, holds = title(path)
        rows.append(f'| [{name}]({path.name}) | {holds.replace("|", chr(92) + "|")} |')
    return '\n'.join([f'![The modules of {wing}: an arrow leads from a module to one that builds on it](parts.svg)', '',
                      f'Builds on {links(below)}; used by {links(above)}.', '', *rows])


def home_table():
    rows = [f'| [{wing}]({wing}/index.ipynb) | {title(ROOT/"nbs"/wing/"index.ipynb")[1]} |' for wing in house.WINGS]
    return '\n'.join(['| wing | holds |', '|---|---|', *rows])


def with_cell(path, cell_id, source):
    "The text of a notebook in which one cell has another source."
    notebook = read(path)
    cell = next(cell for cell in notebook['cells'] if cell['id'] == cell_id)
    cell['source'] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + '\n'


def pages():
    "Every file that this script writes, with its text."
    known = house.modules(ROOT)
    arrows = {module: house.imports(module, path, known) for module, path in known.items()}
    counts = imported_names()
    for wing in house.WINGS:
        own = {module: arrows[module] & set(notebooks(wing)) for module in notebooks(wing)}
        folder = ROOT/'nbs'/wing
        yield folder/'parts.svg', picture(list(own), direct_arrows(own), counts)
        yield folder/'index.ipynb', with_cell(folder/'index.ipynb', 'parts', parts(wing, arrows))
    yield ROOT/'nbs'/'index.ipynb', with_cell(ROOT/'nbs'/'index.ipynb', 'wings', home_table())


def main():
    stale = [path for path, text in pages() if not path.exists() or path.read_text(encoding='utf-8') != text]
    if '--check' in sys.argv and stale: sys.exit(f'run python tools/wings.py: {", ".join(map(str, stale))} out of date')
    for path, text in pages(): path.write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
