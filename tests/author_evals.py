"""The readers of the author's evaluation files, as the tutorials show them: one place for tutorials, tests and benchmarks.

`read_evaluation(path, store)` reads his labels of decompositions, `read_scores(judged, manual)` and `keep_scores(store, table)`
the scores of TinyScaleLab."""
import json
from pathlib import Path

import pandas as pd

from agentfastbook.books.questions import find_components, parse_benchmark, unquote
from agentfastbook.store.labels import Label, Note, annotate_new
from agentfastbook.store.runs import Call, Item
from agentfastbook.store.verdicts import save_verdicts
from agentfastbook.text.spans import content_id

TUTORIALS = Path(__file__).parents[1]/'nbs'/'tutorials'


def _cell(tutorial, defines):
    "The names of the cell of a tutorial that defines this function."
    cells = (''.join(cell['source']) for cell in json.loads((TUTORIALS/tutorial).read_text(encoding='utf-8'))['cells'])
    names = dict(json=json, pd=pd, find_components=find_components, parse_benchmark=parse_benchmark, unquote=unquote, Label=Label,
                 Note=Note, annotate_new=annotate_new, Call=Call, Item=Item, content_id=content_id, save_verdicts=save_verdicts)
    exec(next(source for source in cells if f'def {defines}(' in source), names)
    return names


read_evaluation = _cell('error_analysis.ipynb', 'read_evaluation')['read_evaluation']
_scores = _cell('judges.ipynb', 'read_scores')
read_scores, keep_scores = _scores['read_scores'], _scores['keep_scores']
