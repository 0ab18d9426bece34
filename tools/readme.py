"""README.md from nbs/index.ipynb, without Quarto.

python tools/readme.py          writes README.md
python tools/readme.py --check  exits 1 if README.md is not what would be written
"""
import os
import re
import sys

os.environ['IN_TEST'] = '1'

import yaml
from execnb.nbio import read_nb
from nbdev.config import get_config
from nbdev.processors import FilterDefaults


def as_text(lines): return ''.join(lines) if isinstance(lines, list) else lines


def indent(text): return '\n'.join('    ' + line for line in text.rstrip().splitlines())


def output_text(output):
    "One output of a cell as Markdown: its Markdown, else its HTML, else its plain text as an indented block."
    if output['output_type'] == 'stream': return indent(as_text(output['text']))
    data = {kind: as_text(value).strip() for kind, value in output.get('data', {}).items()}
    if 'text/markdown' in data: return data['text/markdown']
    if 'text/html' in data: return re.sub(r'<style.*?</style>\s*', '', data['text/html'], flags=re.S)
    return indent(data.get('text/plain', ''))


def code_text(cell):
    "A code cell with its outputs; `#| echo: false` leaves the code out."
    directives = cell.directives_ if 'directives_' in cell else {}
    code = '\n'.join(line for line in as_text(cell.source).strip().splitlines() if not line.startswith('#|'))
    shown = [] if directives.get('echo:', [''])[0] == 'false' else [f'``` python\n{code}\n```']
    return shown + [text for text in map(output_text, cell.get('outputs', [])) if text]


def site_links(text, site):
    "Links between notebooks become links to the site; Quarto's callouts become GitHub's."
    text = re.sub(r'\]\((?!\w+:)([^)]*?)(\d\d_)?([^)/]+?)(?:\.ipynb|\.qmd)(#[^)]*)?\)',
                  lambda m: f"]({site}/{m[1]}{m[3]}.html{m[4] or ''})", text)
    return re.sub(r'^:::+ *\{\.callout-(\w+)[^}]*\}\n(.*?)^:::+ *$',
                  lambda m: f'> [!{m[1].upper()}]\n' + '\n'.join('> ' + line for line in m[2].strip().splitlines()),
                  text, flags=re.S | re.M)


def front_matter_text(source):
    "The title and the description that stand in front matter, where nbdev puts those of the first cell."
    fields = yaml.safe_load(source.strip().strip('-')) or {}
    return [mark + fields[name] for name, mark in (('title', '# '), ('description', '> ')) if name in fields]


def readme(notebook, site):
    "The text of README.md."
    parts = []
    for cell in notebook.cells:
        source = as_text(cell.source).strip() if cell.get('source') else ''
        if cell.cell_type == 'raw': parts += front_matter_text(source)
        elif cell.cell_type == 'markdown': parts.append(site_links(source, site))
        elif cell.cell_type == 'code' and source: parts += code_text(cell)
    return '\n\n'.join(parts) + '\n'


def main():
    config = get_config()
    notebook = read_nb(config.nbs_path/config.readme_nb)
    FilterDefaults()(notebook)
    text, path = readme(notebook, config.doc_host + config.doc_baseurl), config.config_path/'README.md'
    if '--check' not in sys.argv: path.write_text(text, encoding='utf-8')
    elif not path.exists() or path.read_text(encoding='utf-8') != text:
        sys.exit('README.md is out of date: run python tools/readme.py')


if __name__ == '__main__': main()
