"""Train the bundled task model, all stages: python benchmarks/tiny_tasks_train.py FOLDER

There are thousands of pages of text, and a hundred answers that a person has taken apart. So the model learns in
stages, and each stage has fewer numbers to learn than the one before:

1. language: the trunk, a million numbers, from plain text. It starts with a table of which words stand near which, and
   then learns to guess the next word.
2. form: a small network, sixty thousand numbers, from what the rules do with paragraphs, and from answers composed of
   stories, whose borders are known (story_book.py).
3. task: eight numbers for boundaries and ten for sentences, from real pairs (tiny_choosing.py).

Each stage freezes what it does not train and leaves a record, so that the weights can say where they come from.

Reads the docstrings of the packages that are installed (PACKAGES, all under licences that allow it), and stories of this
project's grammar; with fastbook/ in the data folder the last stage is fitted on it, without it on the sample book. About
10 minutes on a quiet core. FOLDER/model is what the engines read; its lineage.json says how it came about. A run that was
stopped goes on, and what is done is not done again.
"""
import argparse
import ast
import inspect
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import svds
from story_book import story_book
from tiny_choosing import ALONE, WITH_RULES, boundary_choice, fit_boundary, fit_selection, selection_choices
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from agentfastbook.books.chapters import Book, read_book, sample_path
from agentfastbook.books.questions import Question, load_benchmark
from agentfastbook.engines.decompose import answer_units
from agentfastbook.engines.retrieve import Retriever
from agentfastbook.store.runs import Store
from agentfastbook.text.spans import FastbookError
from agentfastbook.tiny.checkpoint import load_model, save_model
from agentfastbook.tiny.data import pack_blocks, story_texts, train_tokenizer
from agentfastbook.tiny.encode import TinyEncoder, fit_reader, plain_words, save_arrays
from agentfastbook.tiny.model import ModelConfig, TinyLM
from agentfastbook.tiny.stages import Stage, lineage, run_stages, weights_id
from agentfastbook.tiny.state import weights
from agentfastbook.tiny.tasks import (HEADS, SELECTION, TinyExtractor, boundary_features, imitate_rules, rule_cuts,
                                      task_encoders)

PACKAGES = '''numpy scipy pandas torch fastai fastcore statsmodels transformers sentence_transformers datasets sklearn
matplotlib huggingface_hub'''.split()


# stage 1: language

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

def read_texts(packages, seed):
    "Docstrings of packages, each paragraph once."
    seen,docs = set(),[]
    for package in packages:
        for doc in docstrings(package):
            new = [p for p in paragraphs(doc) if p not in seen]
            seen.update(new)
            if new: docs.append('\n\n'.join(new))
    random.Random(seed).shuffle(docs)
    if not docs: sys.exit(f"none of {', '.join(packages)} is installed; there is nothing to read")
    return docs

def start_embeddings(
    texts:list[str], # to count in
    tokenizer:object, # a `tokenizers.Tokenizer`
    dims:int=128, # columns wanted, fewer than tokens
    reach:int=8, # tokens that count as near, >= 1
)->np.ndarray: # (vocabulary, dims), rows of unit length; 0 for tokens that don't occur
    "What tokens mean by what stands near them."
    size = tokenizer.get_vocab_size()
    if dims >= size: raise FastbookError(f"dims is {dims}, but must be less than the {size} tokens")
    ids = [np.array([*e.ids, *[-1]*reach], int) for e in tokenizer.encode_batch([plain_words(t) for t in texts])]
    ids = np.concatenate(ids or [np.zeros(0, int)])
    pairs = np.concatenate([np.stack([ids[:-k], ids[k:]]) for k in range(1, reach+1)], axis=1)
    pairs = pairs[:,(pairs >= 0).all(0)]
    if not pairs.size: raise FastbookError("no two tokens stand near each other in these texts; give longer ones")
    counts = coo_matrix((np.ones(pairs.shape[1]), pairs), (size, size)).tocsr()
    counts = (counts+counts.T).tocoo()
    total = np.asarray(counts.sum(1)).ravel()+1
    smooth = total**.75
    mutual = np.log(counts.data*smooth.sum()/(total[counts.row]*smooth[counts.col]))
    kept = (mutual > 0) & (counts.data > 1)
    left,strength,_ = svds(coo_matrix((mutual[kept], (counts.row[kept], counts.col[kept])), (size, size)).tocsr(),
                           k=dims, v0=np.ones(size))
    table = left*strength**.5
    seen = np.abs(table).sum(1) > 1e-9
    table[seen] -= table[seen].mean(0)
    return (table/np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)).astype(np.float32)

def language_stage(docs, tokenizer, steps, seed):
    "A model whose embeddings are counted, and the stage in which the layers above them learn to read."
    torch.manual_seed(seed)
    model = TinyLM(ModelConfig(tokenizer.get_vocab_size(), 128, 2, 4, 384, 256))
    with torch.no_grad(): model.embed_tokens.weight.copy_(torch.tensor(start_embeddings(docs, tokenizer))*.3)
    blocks = pack_blocks([plain_words(t) for t in [*docs, *story_texts(400)]], tokenizer, 128)
    np.random.default_rng(seed).shuffle(blocks)
    return model,Stage('language', blocks[100:], blocks[:100], steps, evaluate_every=max(steps//6, 1), batch_size=12,
                       frozen=('embed_tokens',))

# stage 2: the form of the task

def imitation_pairs(
    encoder:TinyEncoder, # of words
    texts:list[str], # paragraphs, in place of answers
    most:int=6000, # paragraphs that are used, the first with at least two units
)->list[tuple[np.ndarray,np.ndarray]]: # for each border its features, and 1 where the rules cut: standard, fine
    "Borders between units with what the rules do there."
    split = ((text, answer_units(text)) for text in texts)
    items = []
    for text,units in islice(((t, u) for t,u in split if 2 <= len(u) <= 10), most):
        items += zip(boundary_features(encoder, text, units), rule_cuts(text, units).astype(np.float32))
    if not items: raise FastbookError("none of the texts has two units or more; give paragraphs")
    return items

def story_pairs(
    encoder:TinyEncoder, # of words
    questions:Sequence[Question], # whose components are known, as from `story_book`
)->list[tuple[np.ndarray,np.ndarray]]: # for each border its features, and 1 where a component begins, twice
    "Borders between units with the truth."
    items = []
    for q in questions:
        units,starts = answer_units(q.gold_answer),{c.spans[0].start for c in q.components}
        if len(units) < 2: continue
        cuts = np.array([[u.start in starts]*2 for u in units[1:]], np.float32)
        items += zip(boundary_features(encoder, q.gold_answer, units), cuts)
    return items

def new_heads(
    features:np.ndarray, # (borders, features) such as the head will see
    width:int=144, # of the inner layer
    seed:int=0, # of the first weights
)->dict[str,np.ndarray]: # arrays of all heads
    "Heads that have learnt nothing yet."
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(features.shape[1], width),nn.Linear(width, 2)
    first,second = ([p.detach().numpy() for p in layer.parameters()] for layer in layers)
    return dict(feature_mean=features.mean(0), feature_spread=features.std(0)+1e-6, inner=first[0],
                inner_bias=first[1], outer=second[0], outer_bias=second[1], boundary=WITH_RULES,
                boundary_alone=ALONE, selection=np.zeros(len(SELECTION)))

class TaskModel(nn.Module):
    "A language model that only reads, and the heads that point."
    def __init__(self,
        trunk:TinyLM, # after stage 1; a copy in 16 bits is kept, as it is shipped
        heads:dict[str,np.ndarray], # arrays of all heads
    ):
        super().__init__()
        self.trunk,self.config = deepcopy(trunk).half().float(),trunk.config
        for name,values in sorted(heads.items()):
            values = torch.tensor(values, dtype=torch.float32)
            if name.startswith('feature'): self.register_buffer(name, values)
            else: setattr(self, name, nn.Parameter(values))

    @property
    def heads(self)->dict[str,np.ndarray]:
        "Arrays of all heads."
        return {name: values.numpy() for name,values in weights(self).items() if not name.startswith('trunk.')}

    def forward(self, features):
        "Log-odds of a cut at each border."
        own = dict(self.named_parameters(recurse=False))|dict(self.named_buffers(recurse=False))
        return imitate_rules(features, own)

def stack_items(
    items:Sequence[tuple], # of arrays
)->tuple[torch.Tensor,...]: # one for each place in the tuples
    "Items as a batch."
    return tuple(torch.from_numpy(np.stack(part)) for part in zip(*items))

def agreement(
    scores:torch.Tensor, # (batch, 2) log-odds
    cuts:torch.Tensor, # (batch, 2) 1 where there is a cut
)->torch.Tensor: # 0..1
    "The share of cuts that are guessed right; a metric."
    return ((scores > 0) == (cuts > 0)).float().mean()

def form_stage(
    items:Sequence[tuple[np.ndarray,np.ndarray]], # borders: features, cuts
    valid:Sequence[tuple[np.ndarray,np.ndarray]]=(), # others, to evaluate on
    steps:int=600, # of 256 borders
    width:int=144, # of the inner layer
    seed:int=0, # of the first weights
)->Stage: # for `run_stages`
    "Stage 2: the trunk stays as it is, and a small network learns to guess."
    heads = new_heads(np.stack([row for row,_ in items]), width, seed)
    return Stage('form', items, valid, steps=steps, evaluate_every=steps//2, batch_size=256, collate=stack_items,
                 frozen=('trunk','boundary','selection'), build=partial(TaskModel, heads=heads),
                 loss_func=binary_cross_entropy_with_logits, metrics=(agreement,))

# stage 3: the task

def _best(choice, values): return int(np.argmax(choice.features[:,-len(values):] @ values))

def fit_task(
    folder:str|Path, # with model, tokenizer and `reader.safetensors`
    model:TaskModel, # after stage 2; the weights of the tasks are set
    items:Sequence[tuple], # (question, chapter), with components and contexts
    retrieve:Callable=Retriever(), # component, chapter -> ranked passages
)->dict[str,float]: # soft F1 of boundaries, character F1 of the likeliest run of sentences, both on these items
    "Stage 3: choose weights for what stage 2 guesses, and for what speaks for a sentence."
    encoder,heads = task_encoders(folder)['boundary'],model.heads
    found = [f for q,_ in items if (f := boundary_choice(q, heads, encoder))]
    cases = [(runs, worth) for _,runs,worth in selection_choices(items, retrieve, TinyExtractor(folder))]
    fitted = fit_boundary([choice for choice,_ in found]) | dict(selection=fit_selection(cases))
    with torch.no_grad():
        for name,values in fitted.items(): getattr(model, name).copy_(torch.tensor(values))
    shared,both = np.array([sums[_best(c, fitted['boundary'])] for c,sums in found]).sum(0)
    runs = [np.column_stack([r.measures[n] for n in SELECTION]) @ fitted['selection'] for r,_ in cases]
    return {'soft F1': shared/both, 'character F1': np.mean([w[np.argmax(r)] for r,(_,w) in zip(runs, cases)])}

def train_heads(
    trunk:TinyLM, # after stage 1
    folder:str|Path, # with it, its tokenizer and `reader.safetensors`; gets heads and `lineage.json`
    items:Sequence[tuple[np.ndarray,np.ndarray]], # borders for stage 2: features, cuts
    questions:Sequence[Question], # with components and contexts, for stage 3
    book:Book, # their chapters
    work:str|Path, # folder for the stages
    store:Store, # gets their records
    valid:Sequence[tuple[np.ndarray,np.ndarray]]=(), # borders to evaluate stage 2 on
    steps:int=600, # of stage 2
)->TaskModel: # after stage 3
    "Stages 2 and 3; what is done already is not done again."
    folder = Path(folder)
    task = Stage('task', [(q, book[q.chapter]) for q in questions], frozen=('trunk','inner','outer'),
                 fit=partial(fit_task, folder))
    model = run_stages(trunk, [form_stage(items, valid, steps), task], work, store, device='cpu', quiet=True)
    if weights_id(model.trunk) != weights_id(load_model(folder)):
        raise FastbookError(f"the model in '{folder.name}' is not the trunk of these heads; save that one there")
    save_arrays(model.heads, folder/HEADS, model.config.id)
    lineage(store, model).to_json(folder/'lineage.json', orient='records', indent=1)
    return model

# all stages

def read_questions(data):
    "Real chapters with their questions; the sample book where there are none."
    real = Path(data)/'fastbook'
    folder,name = (real, 'fastbook-benchmark.json') if (real/'fastbook-benchmark.json').is_file() else (sample_path(), 'benchmark.json')
    book = read_book(folder)
    questions = [q for q in load_benchmark(folder/name).questions if q.components and q.chapter in book]
    print(f'{len(questions)} questions of {folder.name}', flush=True)
    return book,questions

def form_pairs(encoder, docs, args):
    "Borders to train stage 2 on, and others to evaluate it on."
    pieces = [p for doc in docs for p in doc.split('\n\n') if 80 < len(p) < 1200]
    random.Random(args.seed).shuffle(pieces)
    borders = imitation_pairs(encoder, pieces, args.most)+story_pairs(encoder, story_book(args.stories)[1])
    return borders,imitation_pairs(encoder, pieces[::-1], 500) # from the other end

def train(docs, args):
    "All stages, one after the other."
    folder,tokenizer = Path(args.folder),train_tokenizer([plain_words(t) for t in docs], args.vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    with Store(folder/'traces.db') as store:
        model,stage = language_stage(docs, tokenizer, args.steps, args.seed)
        trunk = run_stages(model, [stage], folder, store, tokenizer, 'cpu', quiet=True)
        save_model(deepcopy(trunk).half(), folder/'model', tokenizer, packages=args.packages, steps=args.steps,
                   seed=args.seed, trained_on='docstrings of these packages, and 400 stories')
        fit_reader(folder/'model', docs, sample=60)
        borders,valid = form_pairs(task_encoders(folder/'model')['boundary'], docs, args)
        book,questions = read_questions(args.data)
        model = train_heads(trunk, folder/'model', borders, questions, book, folder, store, valid, args.head_steps)
        stages = lineage(store, model)
    print(stages.drop(columns='losses').fillna('').to_string(), *stages.losses, sep='\n')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='where the model goes, and the folders of the stages; a stopped run goes on there')
    parser.add_argument('--data', default=os.environ.get('AFB_DATA', '../shared/data'),
                        help='folder with the data (default: the environment variable AFB_DATA, else ../shared/data)')
    parser.add_argument('--packages', nargs='+', default=PACKAGES, help='whose docstrings are read (default: all of PACKAGES)')
    parser.add_argument('--vocabulary', type=int, default=8192, help='tokens (default: 8192)')
    parser.add_argument('--steps', type=int, default=360, help='of stage 1 (default: 360)')
    parser.add_argument('--most', type=int, default=6000, help='paragraphs of stage 2 (default: 6000)')
    parser.add_argument('--stories', type=int, default=300, help='composed answers of stage 2 (default: 300)')
    parser.add_argument('--head-steps', type=int, default=600, help='of stage 2 (default: 600)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter('ignore', SyntaxWarning)
    docs = read_texts(args.packages, args.seed)
    print(f'{len(docs)} docstrings, {sum(map(len, docs))/1e6:.1f} million characters', flush=True)
    train(docs, args)

if __name__ == '__main__': main()
