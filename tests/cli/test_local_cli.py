"""afb_curate with a real language model on this machine, from a shell: well-formed, verbatim, resumed for nothing. How good
it is does not matter here; benchmarks/lm_extract.py says so. Skipped like tests/lm/test_local.py."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from agentfastbook.prompts.asking import Prompts
from agentfastbook.lm.door import model_usage
from agentfastbook.books.chapters import read_book, sample_path
from agentfastbook.engines.decompose import answer_units
from agentfastbook.books.questions import load_benchmark
from agentfastbook.prompts.provenance import why
from agentfastbook.store.runs import Store
from local_model import path  # noqa: F401 (a fixture)

pytestmark = pytest.mark.local_model


@pytest.fixture
def short(tmp_path):
    "The benchmark with its two shortest questions that are not a single piece."
    data = json.loads((sample_path()/'benchmark.json').read_text(encoding='utf-8'))
    asked = load_benchmark(sample_path()/'benchmark.json').questions
    some = sorted((q for q in asked if len(answer_units(q.gold_answer)) > 1), key=lambda q: len(q.gold_answer))[:2]
    ids = {(q.chapter, q.number) for q in some}
    data['questions'] = [q for q in data['questions'] if (str(q['chapter']), q['question_number']) in
                         {(str(c), n) for c, n in ids}]
    (tmp_path/'short.json').write_text(json.dumps(data))
    return tmp_path/'short.json'


@pytest.mark.parametrize('form', [[], ['--yes-no', '.5']])
def test_a_run_is_verbatim_and_resumed_for_nothing(form, path, short, tmp_path):  # noqa: F811
    out, book = tmp_path/'out', read_book(sample_path())
    command = [str(Path(sys.executable).parent/'afb_curate'), '--book', str(sample_path()), '--benchmark', str(short),
               '--out', str(out), '--lm', f'local:{path}', '--k', '1', '--max-tokens', '40', '--workers', '1', *form]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'calls to the model for nothing' in done.stdout.splitlines()[0]
    questions = json.loads((out/'dataset.json').read_text())['questions']
    assert len(questions) == 2
    for q in questions:
        for c in q['answer_context']:
            assert c['answer_component'] in q['gold_standard_answer']
            for x in c['context_spans']:
                text = book[q['chapter']].text
                assert text[x['start']:x['end']] in c['context']
    with Store(out/'traces.db') as store:
        usage = model_usage(store)
        asked = store.calls(2).drop_duplicates('id')  # a call for several answers belongs to each of their questions
        asked = asked[['messages' in i for i in asked['input']]]
        assert usage.calls.sum() == len(asked) > 2 and (usage.usd == 0).all() and (usage.output_tokens+usage.input_tokens > 0).all()
        told = why(Prompts(out/'prompts').repo, store, asked.iloc[-1].id)
        assert told.call.raw and told.message.startswith('extract/')
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and 'extract/' not in again.stdout
    with Store(out/'traces.db') as store: assert model_usage(store).calls.sum() == usage.calls.sum()
