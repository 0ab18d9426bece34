"""Train the bundled task model, all stages: python benchmarks/tiny_tasks_train.py FOLDER

Reads the docstrings of the packages that are installed (PACKAGES, all under licences that allow it), the notebooks and the
sample book of this project, and stories of its grammar; with fastbook/ in the data folder the last stage is fitted on it,
without it on the sample book. About 20 minutes on a quiet core. `--steps 0` leaves out language modelling.
"""
import argparse,ast,inspect,json,os,random,re,sys,warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from agentfastbook.benchmark import load_benchmark
from agentfastbook.book import read_book,sample_path
from agentfastbook.retrieve import Retriever
from agentfastbook.tiny.checkpoint import save_model
from agentfastbook.tiny.data import pack_blocks,story_texts,train_tokenizer
from agentfastbook.tiny.encode import fit_reader,plain_words
from agentfastbook.tiny.fitting import fit_heads,start_embeddings
from agentfastbook.tiny.model import ModelConfig,TinyLM,lm_loss

PACKAGES = '''numpy scipy pandas torch fastai fastcore statsmodels transformers sentence_transformers datasets sklearn
matplotlib huggingface_hub'''.split()
ROOT = Path(__file__).parents[1]

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
    "Docstrings, each paragraph once, and own notebooks."
    seen,docs = set(),[]
    for package in PACKAGES:
        for doc in docstrings(package):
            new = [p for p in paragraphs(doc) if p not in seen]
            seen.update(new)
            if new: docs.append('\n\n'.join(new))
    random.Random(seed).shuffle(docs)
    own = [''.join(c['source']) for path in [*sorted((ROOT/'nbs').rglob('*.ipynb')), *sorted(sample_path().glob('*.ipynb'))]
           for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown']
    return docs,own

def train_trunk(texts, tokenizer, steps, seed):
    "Stage 1: embeddings from counts, then language modelling, in which they may change only a little."
    config = ModelConfig(tokenizer.get_vocab_size(), 128, 2, 4, 384, 256)
    torch.manual_seed(seed)
    model = TinyLM(config)
    with torch.no_grad(): model.embed_tokens.weight.copy_(torch.tensor(start_embeddings(texts, tokenizer))*.3)
    if not steps: return model
    blocks = pack_blocks([plain_words(t) for t in [*texts, *story_texts(400)]], tokenizer, 128)
    np.random.default_rng(seed).shuffle(blocks)
    body = [p for name,p in model.named_parameters() if 'embed' not in name]
    groups = [dict(params=body), dict(params=[model.embed_tokens.weight])]
    optimizer = torch.optim.AdamW(groups, 3e-3, weight_decay=.01, betas=(.9, .98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 1e-4], total_steps=steps, pct_start=.1)
    for step in range(steps):
        batch = torch.tensor(blocks[np.arange(step*12, step*12+12) % len(blocks)].astype(np.int64))
        loss = lm_loss(model(batch[:,:-1]), batch[:,1:])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        schedule.step()
        if step % 40 == 0: print(f'step {step}, loss {loss:.2f}', flush=True)
    return model

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='where the model goes')
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--steps', type=int, default=360, help='of language modelling (default: 360)')
    parser.add_argument('--most', type=int, default=6000, help='paragraphs of stage 2 (default: 6000)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter('ignore', SyntaxWarning)
    docs,own = read_texts(args.seed)
    texts = [*docs, *own]
    if not docs: sys.exit(f"none of {', '.join(PACKAGES)} is installed; there is nothing to read")
    print(f'{len(docs)} docstrings and {len(own)} cells, {sum(map(len, texts))/1e6:.1f} million characters', flush=True)
    tokenizer = train_tokenizer([plain_words(t) for t in texts], 8192)
    model = train_trunk(texts, tokenizer, args.steps, args.seed)
    save_model(model.half(), args.folder, tokenizer, steps=args.steps, seed=args.seed, packages=PACKAGES,
               trained_on='docstrings of these packages, notebooks and sample book of this project, 400 stories')
    fit_reader(args.folder, texts, sample=60)
    real = Path(args.data)/'fastbook'
    real = real if (real/'fastbook-benchmark.json').is_file() else sample_path()
    name = 'fastbook-benchmark.json' if real.name == 'fastbook' else 'benchmark.json'
    book = read_book(real)
    questions = [q for q in load_benchmark(real/name) if q.components and q.chapter in book]
    pieces = [p for doc in docs for p in doc.split('\n\n') if 80 < len(p) < 1200]
    random.Random(args.seed).shuffle(pieces)
    print(f'heads in {fit_heads(args.folder, pieces, questions, book, Retriever(), args.most)}, from {len(questions)} questions of {real.name}')

if __name__ == '__main__': main()
