"Notes grouped in a real browser with the keyboard alone; the codebook's file is right afterwards."
import nbformat
from browsing import browser, needs, needs_browser, page_of, server  # noqa: F401 (a fixture)

from agentfastbook.look.coding import Codebook

CODE = '''
import pandas as pd
from agentfastbook.look.coding import Codebook,open_codes
from agentfastbook.look.grouping import Grouping,grouping_widget,suggest_modes
texts = ['too granular, <script>window.hacked = 1</script>', 'context too long', 'context far too long 🍞', 'too granular: שלום']
codes = open_codes(pd.DataFrame(dict(item=[f'1/{i}' for i in range(4)], text=texts)))
grouping_widget(Grouping(codes, Codebook('codes.jsonl'), 'Ada', suggest_modes(codes, .9)))
'''


@needs_browser
@needs('voila')
@needs('ipywidgets')
def test_notes_are_grouped_by_keys_alone(browser, tmp_path):  # noqa: F811
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    nbformat.write(notebook, tmp_path/'group.ipynb')
    command = ['voila', 'group.ipynb', '--no-browser']
    with server(command, tmp_path, '/voila/static/') as url, page_of(browser) as page:
        page.goto(url)
        keys = page.get_by_label('keys')
        keys.wait_for()

        def shows(text):
            page.wait_for_function('t => document.querySelector("[role=group]")?.innerText.includes(t)', arg=text)

        keys.focus()
        page.keyboard.press('n')  # the cursor goes to the second field, and back after Enter
        page.wait_for_function('() => document.activeElement?.placeholder === "then Enter"')
        page.keyboard.type('too granular')
        page.keyboard.press('Enter')
        shows('1 of 4 notes coded')
        page.wait_for_function('() => document.activeElement?.placeholder === "? for help"')
        page.keyboard.type('jjj1', delay=30)
        shows('2 of 4 notes coded')
        page.keyboard.type('k', delay=30)
        shows('note 3 of 4')
        page.keyboard.press('n')
        page.wait_for_function('() => document.activeElement?.placeholder === "then Enter"')
        page.keyboard.type('too long')
        page.keyboard.press('Enter')
        shows('3 of 4 notes coded')
        page.wait_for_function('() => document.activeElement?.placeholder === "? for help"')
        page.keyboard.type('k2u2z', delay=30)
        shows("key 'z' does nothing")
        assert page.evaluate('window.hacked') is None
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    counts = Codebook(tmp_path/'codes.jsonl').table()['mode'].value_counts().to_dict()
    assert counts == {'too granular': 2, 'too long': 2}
