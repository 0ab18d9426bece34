"""The site from the notebooks, without Quarto: processes nbs/ into _proc/, renders it with smalldocs into _proc/_docs/.

python tools/build_site.py              both
python tools/build_site.py --no-render  only _proc/, which Quarto renders for GitHub Pages (see .github/workflows)

tools/old_pages.txt has the addresses that pages had before: each becomes a page that leads to the new one.
"""
import re
import shutil
import sys

import nbdev.processors
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs

# What Quarto reads and smalldocs does not. Links are the affair of tools/check_site.py, which knows both sets of names.
EXPECTED = ('output-file', 'commonmark', 'keep-md', 'html.grid', 'broken link')
# code, and what is a link already
UNLINKED = re.compile(r'(^```.*?^```|^    .*?$|\[[^\]\n]*\]\([^)\n]*\))', re.S | re.M)
REDIRECT = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Moved</title><link rel="canonical" href="{page}">
<script>location.replace("{page}" + location.hash)</script><meta http-equiv="refresh" content="1; url={page}"></head>
<body><p>This page has moved to <a href="{page}">{page}</a>.</p></body></html>
'''


def add_links(cell):
    "Link the names in prose to their pages: as nbdev does it, but not inside a signature or inside another link."
    link = NbdevLookup().link_line
    def linked(text): return ''.join(part if i % 2 else link(part) for i, part in enumerate(UNLINKED.split(text)))
    if cell.cell_type == 'markdown': cell.source = linked(cell.source)
    for output in cell.get('outputs', []):
        if text := output.get('data', {}).get('text/markdown'): output.data['text/markdown'] = [linked(''.join(text))]


def old_pages(root):
    "Each page's address in the flat layout of before, and where the page is now, both without numbers and endings."
    lines = (root/'tools'/'old_pages.txt').read_text(encoding='utf-8').splitlines()
    return dict(line.split() for line in lines if line and not line.startswith('#'))


def write_redirects(root, site, numbered):
    "Write a page for each old address into the folder `site`: `03_metrics.html` and `metrics.html`."
    pages = {re.sub(r'\d\d_', '', page): page for page in
             (path.relative_to(root/'nbs').with_suffix('').as_posix() for path in (root/'nbs').rglob('*.ipynb'))}
    for old, new in old_pages(root).items():
        if new not in pages: sys.exit(f'tools/old_pages.txt: {old} leads to {new}, which is no notebook below nbs/')
        text = REDIRECT.format(page=(pages[new] if numbered else new) + '.html')
        for name in {old, re.sub(r'^\d\d_', '', old)}: (site/f'{name}.html').write_text(text, encoding='utf-8')


def main():
    root = get_config().config_path
    sys.path.insert(0, str(root))
    shutil.rmtree(root/'_proc', ignore_errors=True)
    refresh_quarto_yml()
    nbdev.processors.add_links = add_links
    proc_nbs(n_workers=0)
    if '--no-render' in sys.argv: return write_redirects(root, root/'_proc', numbered=False)
    from smalldocs.site import build
    site = build(root/'_proc')
    write_redirects(root, root/'_proc'/get_config().doc_path.name, numbered=True)
    warnings = [w for w in map(str, site.warnings) if not any(word in w for word in EXPECTED)]
    if warnings: sys.exit('\n'.join(warnings))


if __name__ == '__main__': main()
