"""The site from the notebooks, without Quarto: processes nbs/ into _proc/ and renders it with smalldocs into _proc/_docs/.

python tools/build_site.py              both
python tools/build_site.py --no-render  only _proc/, which Quarto renders for GitHub Pages (.github/workflows/deploy.yaml)
"""
import shutil
import sys

from nbdev.config import get_config
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs

# What Quarto reads and smalldocs does not. Links are the affair of tools/check_site.py, which knows both sets of names.
EXPECTED = ('output-file', 'commonmark', 'keep-md', 'html.grid', 'broken link')


def main():
    root = get_config().config_path
    sys.path.insert(0, str(root))
    shutil.rmtree(root/'_proc', ignore_errors=True)
    refresh_quarto_yml()
    proc_nbs(n_workers=0)
    if '--no-render' in sys.argv: return
    from smalldocs.site import build
    site = build(root/'_proc')
    warnings = [w for w in map(str, site.warnings) if not any(word in w for word in EXPECTED)]
    if warnings: sys.exit('\n'.join(warnings))


if __name__ == '__main__': main()
