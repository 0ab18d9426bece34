"""Checks the rendered site: python tools/check_site.py [_proc/_docs]

Fails on a link to a page, an image, a heading (#anchor) or an absolute address of this site that is not there, on an
output that is an error, on a path of somebody's machine, on a Markdown link that stands there as text, and on a feed
without posts. Other sites are not asked.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from nbdev.config import get_config

HOME_PATH = re.compile(r'(?<![\w.])(/home/\w+|/root\b|/Users/\w+|[A-Z]:\\+Users)')
RAW_LINK = re.compile(r'\[[^\]\n]+\]\([^)\s]+\.(?:html|ipynb|qmd|md)\b[^)\n]*\)')
ERRORS = ('cell-output-error', 'Traceback (most recent call last)')


class Page(HTMLParser):
    "The links and the ids of one page."
    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[name] for name in ('id', 'name') if attrs.get(name)}
        self.links += [attrs[name] for name in ('href', 'src') if attrs.get(name)]


def quarto_name(path):
    "Quarto calls the page of `text/01_spans.ipynb` spans.html, as nbdev asks it to; smalldocs calls it 01_spans.html."
    return path.with_name(re.sub(r'^\d\d_', '', path.name))


def link_problem(link, page, pages, site, root):
    "What is wrong with a link that stands on a page, or None."
    target = urlsplit(urljoin(f'{site}/{page}', link))
    address = f'{target.scheme}://{target.netloc}{target.path}'
    if address != site and not address.startswith(site + '/'): return None
    path = Path(unquote(address[len(site):]).strip('/') or 'index.html')
    if (root/path).is_dir(): path = path/'index.html'
    if path not in pages: return None if (root/path).is_file() else f'no such page: {link}'
    anchor = unquote(target.fragment)
    if not anchor or anchor == 'top' or anchor.startswith('category='): return None
    return None if anchor in pages[path].ids else f'no such heading: {link}'


def text_problems(text, root):
    "Errors, paths and raw Markdown links that a page shows."
    shown = [f'shows an error: {word}' for word in ERRORS if word in text]
    shown += [f'shows a path of one machine: {found}' for found in sorted(set(HOME_PATH.findall(text)))]
    plain = re.sub(r'<[^>]*>', '', re.sub(r'<(script|style).*?</\1>', '', text, flags=re.S))
    shown += [f'shows a raw Markdown link: {found}' for found in dict.fromkeys(RAW_LINK.findall(plain))]
    return shown + ([f'shows the path of the checkout: {root}'] if str(root) in text else [])


def feed_problems(path):
    if not path.exists(): return ['the blog has no feed']
    return [] if list(ElementTree.parse(path).iter('item')) else ['the feed of the blog has no posts']


def check(folder, site, root):
    "Every problem of the site in a folder, a line each."
    files = {path.relative_to(folder): path.read_text(encoding='utf-8') for path in sorted(folder.rglob('*.html'))}
    pages = {path: Page(text) for path, text in files.items()}
    known = {**pages, **{quarto_name(path): page for path, page in pages.items()}}
    problems = [f'blog/index.xml: {problem}' for problem in feed_problems(folder/'blog'/'index.xml')]
    for path, page in pages.items():
        found = [link_problem(link, path.as_posix(), known, site, folder) for link in dict.fromkeys(page.links)]
        problems += [f'{path}: {problem}' for problem in [*filter(None, found), *text_problems(files[path], root)]]
    if 'index.html' not in map(str, pages): problems.append('the site has no index.html')
    return problems, len(pages), sum(len(page.links) for page in pages.values())


def main():
    config = get_config()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else config.config_path/'_proc'/config.doc_path.name)
    problems, pages, links = check(folder, config.doc_host + config.doc_baseurl, config.config_path)
    print(f'{pages} pages, {links} links, {len(problems)} problems')
    if problems: sys.exit('\n'.join(problems))


if __name__ == '__main__': main()
