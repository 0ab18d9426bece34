"The reader of the author's evaluation file, as the tutorial on error analysis shows it: one place for tutorial, tests and benchmarks."
import json
from pathlib import Path

from agentfastbook.books.questions import find_components, parse_benchmark, unquote
from agentfastbook.store.labels import Label, Note, annotate_new
from agentfastbook.store.runs import Call, Item
from agentfastbook.text.spans import content_id

TUTORIAL = Path(__file__).parents[1]/'nbs'/'tutorials'/'error_analysis.ipynb'


def _reader():
    cells = (''.join(cell['source']) for cell in json.loads(TUTORIAL.read_text(encoding='utf-8'))['cells'])
    names = dict(json=json, find_components=find_components, parse_benchmark=parse_benchmark, unquote=unquote, Label=Label, Note=Note,
                 annotate_new=annotate_new, Call=Call, Item=Item, content_id=content_id)
    exec(next(source for source in cells if 'def read_evaluation(' in source), names)
    return names['read_evaluation']


read_evaluation = _reader()
