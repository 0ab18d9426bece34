"The bundled sample book: valid, executed, reproducible, and with every awkward case that its README promises."
import ast, contextlib, io, itertools, json, re
from pathlib import Path

import nbformat, pytest

SAMPLE = Path(__file__).parents[2]/'agentfastbook'/'data'/'sample'
NOTEBOOKS = sorted(SAMPLE.glob('*.ipynb'))
QUESTIONS = json.loads((SAMPLE/'benchmark.json').read_text(encoding='utf-8'))['questions']


def read_cells(path): return nbformat.read(path, as_version=4).cells


def is_questionnaire(cell):
    return cell.cell_type == 'markdown' and '## Questionnaire' in cell.source.splitlines()


def canonical_text(cells):
    "Markdown and code sources, each followed by a newline, up to the questionnaire."
    text_cells = itertools.takewhile(lambda cell: not is_questionnaire(cell), cells)
    return ''.join(cell.source + '\n' for cell in text_cells if cell.cell_type in ('markdown', 'code'))


def output_text(cell): return ''.join(out.text if 'text' in out else out.data['text/plain'] for out in cell.outputs)


CELLS = {int(path.name[:2]): read_cells(path) for path in NOTEBOOKS}
TEXTS = {number: canonical_text(cells) for number, cells in CELLS.items()}


def number(question): return f"{question['chapter']}/{question['question_number']}"


def unwrap(text):
    "Without the pair of quotation marks around it."
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def parts(component):
    text = component['answer_component']
    return text if isinstance(text, list) else [text]


def spans(question):
    "(start, end) of every component part in the raw gold answer, in the order of the benchmark."
    gold = question['gold_standard_answer']
    found = [(gold.index(part), part) for component in question['answer_context'] for part in parts(component)]
    return [(start, start + len(part)) for start, part in found]


def questions_where(holds): return {number(q) for q in QUESTIONS if holds(q)}


def components_where(holds): return questions_where(lambda q: any(holds(q, c) for c in q['answer_context']))


def contexts_where(holds):
    return components_where(lambda q, c: any(holds(TEXTS[q['chapter']], context) for context in c['context']))


def test_files():
    assert [path.name for path in NOTEBOOKS] == ['01_sourdough.ipynb', '02_rain.ipynb']
    assert all(path.stat().st_size < 100_000 for path in SAMPLE.iterdir())


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_clean(path):
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    assert not any(cell.metadata for cell in nb.cells)
    assert sum(is_questionnaire(cell) for cell in nb.cells) == 1
    assert not is_questionnaire(nb.cells[-1]), 'cells follow the questionnaire'
    assert not re.search(r'/home/|/root|/Users/|/tmp|\\r', path.read_text(encoding='utf-8'))
    assert 1500 <= len(TEXTS[int(path.name[:2])].split()) <= 2200


def run_cell(source, names):
    "What a notebook would show: printed text, then the value of a last expression."
    tree, shown = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(shown):
        exec(compile(tree, 'cell', 'exec'), names)
        value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), names) if last else None
    return shown.getvalue() + ('' if value is None else repr(value))


@pytest.mark.parametrize('chapter', CELLS)
def test_code_runs_to_the_same_outputs(chapter):
    names, code = {}, [cell for cell in CELLS[chapter] if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code: assert run_cell(cell.source, names) == output_text(cell), cell.source


def test_layout():
    assert len(QUESTIONS) == 21
    for question in QUESTIONS:
        assert list(question) == ['chapter', 'question_number', 'question_text', 'gold_standard_answer',
                                  'answer_context', 'question_context']
        assert question['gold_standard_answer'] == f'"{unwrap(question["gold_standard_answer"])}"'
        for component in question['answer_context']:
            assert list(component) == ['answer_component', 'scoring_type', 'context', 'explicit_context',
                                       'extraneous_answer']
            assert component['scoring_type'] == 'simple'
            assert {component['explicit_context'], component['extraneous_answer']} <= {'true', 'false'}


def test_counts_stand_in_the_readme():
    components = [component for question in QUESTIONS for component in question['answer_context']]
    contexts = sum(len(component['context']) for component in components)
    question_contexts = sum(len(question['question_context']) for question in QUESTIONS)
    expected = (f'{len(QUESTIONS)} questions with gold answers, in the layout of fastbook-benchmark v1: '
                f'{len(components)} components, {contexts} contexts, {question_contexts} question contexts')
    assert expected in (SAMPLE/'README.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('chapter', CELLS)
def test_questions_stand_in_the_questionnaire(chapter):
    after = itertools.dropwhile(lambda cell: not is_questionnaire(cell), CELLS[chapter])
    listed = next(itertools.islice(after, 1, None)).source.splitlines()
    questions = [question for question in QUESTIONS if question['chapter'] == chapter]
    assert [q['question_number'] for q in questions] == list(range(1, len(listed))), 'all but the last'
    assert [f"1. {unwrap(q['question_text'])}" for q in questions] == listed[:-1]


@pytest.mark.parametrize('question', QUESTIONS, ids=number)
def test_components_are_verbatim(question):
    for component in question['answer_context']:
        for part in parts(component): assert question['gold_standard_answer'].count(part) == 1, part
    for entry in question['question_context']:
        assert entry['question_component'] in question['question_text']
        for context in entry['context']: assert TEXTS[question['chapter']].count(context) == 1


@pytest.mark.parametrize('question', QUESTIONS, ids=number)
def test_gold_answer_is_not_copied(question):
    "No run of seven words of the answer stands in the chapter."
    words = re.findall(r'\w+', question['gold_standard_answer'].lower())
    chapter = ' '.join(re.findall(r'\w+', TEXTS[question['chapter']].lower()))
    for run in zip(*(words[i:] for i in range(7))): assert ' '.join(run) not in chapter


def is_output(context): return '\nOutput:\n' in context


def test_contexts_are_verbatim_but_for_two_kinds():
    missing = contexts_where(lambda text, context: context not in text)
    assert missing == {'1/3', '1/5', '1/6', '1/11', '2/3', '2/10'}
    escaped = contexts_where(lambda text, context: context not in text and not is_output(context))
    assert escaped == contexts_where(lambda text, context: '\\u' in context) == {'1/3'}
    assert contexts_where(lambda text, context: context.replace('\\u2014', '—') in text) >= {'1/3'}


def test_output_contexts_are_a_cell_and_its_output():
    cells = [cell for chapter in CELLS.values() for cell in chapter if cell.cell_type == 'code']
    shown = {f'```python\n{cell.source}\n```\nOutput:\n{output_text(cell).rstrip()}' for cell in cells}
    contexts = [c for q in QUESTIONS for comp in q['answer_context'] for c in comp['context'] if is_output(c)]
    assert len(contexts) == 5 and set(contexts) <= shown


def test_odd_components():
    assert components_where(lambda q, c: isinstance(c['answer_component'], list)) == {'2/2'}
    assert components_where(lambda q, c: not c['context']) == {'1/7', '2/6'}
    assert components_where(lambda q, c: c['context'] and all(map(is_output, c['context']))) == {'1/11', '2/3'}
    assert components_where(lambda q, c: any(part.count('"') % 2 for part in parts(c))) == {'1/11'}
    assert components_where(lambda q, c: c['explicit_context'] == 'false') == {'1/7', '1/10', '2/6', '2/10'}
    assert components_where(lambda q, c: c['extraneous_answer'] == 'true') == {
        '1/1', '1/5', '1/7', '2/2', '2/3', '2/6', '2/8'}
    flags = {(c['explicit_context'], c['extraneous_answer']) for q in QUESTIONS for c in q['answer_context']}
    assert len(flags) == 4, 'every combination of the two flags'


def any_pair(holds): return questions_where(lambda q: any(holds(a, b) for a, b in itertools.combinations(spans(q), 2)))


def test_spans_of_components():
    assert any_pair(lambda a, b: a == b) == {'1/10'}, 'duplicates'
    assert any_pair(lambda a, b: a != b and a[0] <= b[0] and b[1] <= a[1]) == {'1/6'}, 'nested'
    assert any_pair(lambda a, b: a[0] < b[0] < a[1] < b[1]) == {'1/9'}, 'crossing'
    assert any_pair(lambda a, b: b[0] < a[0]) == {'1/3', '2/8'}, 'out of order'


def in_code_cell(text, context):
    return any(context in cell.source for cells in CELLS.values() for cell in cells if cell.cell_type == 'code')


def in_fence(text, context):
    return any(context in fence for fence in re.findall(r'^```.*?^```$', text, flags=re.M | re.S))


def test_places_of_contexts():
    assert contexts_where(in_code_cell) == {'1/6', '1/11', '2/3', '2/8'}
    assert contexts_where(in_fence) == {'1/4', '1/11', '2/9'}
    assert contexts_where(lambda text, context: '\n' in context and context in text) == {
        '1/1', '1/6', '1/11', '2/3', '2/4', '2/6', '2/8', '2/9'}
    assert contexts_where(lambda text, context: text.count(context) > 1) == {'1/8'}


def test_odd_questions():
    assert questions_where(lambda q: q['question_context']) == {'1/1', '1/4', '1/10', '2/4', '2/7'}
    assert questions_where(lambda q: not q['question_text'].startswith('"')) == {'1/1', '2/4'}
    shared = 'one millimetre of rain brings one litre of water to every square metre'
    assert contexts_where(lambda text, context: context == shared) == {'2/1', '2/10'}


@pytest.mark.parametrize('pattern', [
    r'^\|---\|', r'^- ', r'^1\. ', r'^> ', r'^```asciidoc$', r'^```$', r'\$\$.+\$\$', r'\$\w\$', r'<<chapter_\w+>>',
    '[“”]', '—', '[\U0001F300-\U0001FAFF☔]'])
def test_every_kind_of_block_is_there(pattern):
    assert re.search(pattern, ''.join(TEXTS.values()), flags=re.M)
