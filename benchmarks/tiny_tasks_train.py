"""Train the bundled task model, all stages: python benchmarks/tiny_tasks_train.py FOLDER

Reads the docstrings of the packages that are installed (PACKAGES, all under licences that allow it), and stories of this
project's grammar; with fastbook/ in the data folder the last stage is fitted on it, without it on the sample book. About 10
minutes on a quiet core. FOLDER/model is what the engines read; its lineage.json says how it came about. A run that was stopped
goes on, and what is done is not done again.
"""
import argparse,ast,inspect,os,random,re,sys,warnings
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import read_book,sample_path
from agentfastbook.store.runs import Store
from agentfastbook.tiny.checkpoint import save_model
from agentfastbook.tiny.data import pack_blocks,story_texts,train_tokenizer
from agentfastbook.tiny.encode import fit_reader,plain_words
from agentfastbook.tiny.fitting import imitation_pairs,start_embeddings,story_pairs,train_heads
from agentfastbook.tiny.model import ModelConfig,TinyLM
from agentfastbook.tiny.pairs import story_book
from agentfastbook.tiny.stages import Stage,lineage,run_stages
from agentfastbook.tiny.tasks import task_encoders

PACKAGES = '''numpy scipy pandas torch fastai fastcore statsmodels transformers sentence_transformers datasets sklearn
matplotlib huggingface_hub'''.split()

def paragraphs(docstring):
    "Paragraphs of prose, without examples, tables and lists of fields."
    for p in re.split(r'\n\s*\n', inspect.cleandoc(docstring)):
        text = re.sub(r':\w+:`~?([^`]*)`', r'`\1`', re.sub(r'\s+', ' ', p)).replace('``', '`').strip()
        prose = len(text.split()) >= 8 and sum(c.isalpha() or c == ' ' for c in text)/len(text) >= .8
        if prose and '>>>' not in p and not re.search(r'^\s*[-=~]{3,}\s*$', p, re.M) and text[0] not in '.:@#|': yield text

def docstrings(package):
    found = find_spec(package)
    if found is None or not found.origin: return
    for path in sorted(Path(found.origin).parent.rglob('*.py')):
        if 'test' in str(path.relative_to(Path(found.origin).parent)).lower(): continue
        try: tree = ast.parse(path.read_text(encoding='utf-8'))
        except (SyntaxError, ValueError, OSError): continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module,ast.ClassDef,ast.FunctionDef)): yield ast.get_docstring(node) or ''

def read_texts(seed):
    "Docstrings, each paragraph once."
    seen,docs = set(),[]
    for package in PACKAGES:
        for doc in docstrings(package):
            new = [p for p in paragraphs(doc) if p not in seen]
            seen.update(new)
            if new: docs.append('\n\n'.join(new))
    random.Random(seed).shuffle(docs)
    if not docs: sys.exit(f"none of {', '.join(PACKAGES)} is installed; there is nothing to read")
    return docs

def language_stage(docs, tokenizer, steps, seed):
    "A model whose embeddings are counted, and the stage in which the layers above them learn to read."
    torch.manual_seed(seed)
    model = TinyLM(ModelConfig(tokenizer.get_vocab_size(), 128, 2, 4, 384, 256))
    with torch.no_grad(): model.embed_tokens.weight.copy_(torch.tensor(start_embeddings(docs, tokenizer))*.3)
    blocks = pack_blocks([plain_words(t) for t in [*docs, *story_texts(400)]], tokenizer, 128)
    np.random.default_rng(seed).shuffle(blocks)
    return model,Stage('language', blocks[100:], blocks[:100], steps, evaluate_every=steps//6, batch_size=12,
                       frozen=('embed_tokens',))

def read_questions(data):
    "Real chapters with their questions; the sample book where there are none."
    real = Path(data)/'fastbook'
    folder,name = (real, 'fastbook-benchmark.json') if (real/'fastbook-benchmark.json').is_file() else (sample_path(), 'benchmark.json')
    book = read_book(folder)
    questions = [q for q in load_benchmark(folder/name).questions if q.components and q.chapter in book]
    print(f'{len(questions)} questions of {folder.name}', flush=True)
    return book,questions

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='where the model goes, and the folders of the stages; a stopped run goes on there')
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--steps', type=int, default=360, help='of stage 1 (default: 360)')
    parser.add_argument('--most', type=int, default=6000, help='paragraphs of stage 2 (default: 6000)')
    parser.add_argument('--stories', type=int, default=300, help='composed answers of stage 2 (default: 300)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter('ignore', SyntaxWarning)
    docs,folder = read_texts(args.seed),Path(args.folder)
    print(f'{len(docs)} docstrings, {sum(map(len, docs))/1e6:.1f} million characters', flush=True)
    tokenizer = train_tokenizer([plain_words(t) for t in docs], 8192)
    folder.mkdir(parents=True, exist_ok=True)
    with Store(folder/'traces.db') as store:
        model,stage = language_stage(docs, tokenizer, args.steps, args.seed)
        trunk = run_stages(model, [stage], folder, store, tokenizer, 'cpu', quiet=True)
        save_model(deepcopy(trunk).half(), folder/'model', tokenizer, packages=PACKAGES, steps=args.steps, seed=args.seed,
                   trained_on='docstrings of these packages, and 400 stories')
        fit_reader(folder/'model', docs, sample=60)
        encoder = task_encoders(folder/'model')['boundary']
        pieces = [p for doc in docs for p in doc.split('\n\n') if 80 < len(p) < 1200]
        random.Random(args.seed).shuffle(pieces)
        borders = imitation_pairs(encoder, pieces, args.most)+story_pairs(encoder, story_book(args.stories)[1])
        valid = imitation_pairs(encoder, pieces[::-1], 500) # from the other end
        book,questions = read_questions(args.data)
        model = train_heads(trunk, folder/'model', borders, questions, book, folder, store, valid)
        print(lineage(store, model).drop(columns='losses').fillna('').to_string(), *lineage(store, model).losses, sep='\n')

if __name__ == '__main__': main()
