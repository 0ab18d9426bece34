"""How fast and how small prompts under version control are: python benchmarks/prompts.py

Prints Markdown tables: commit, why, diff, replay from the store and the size on disk at 10, 1,000 and 100,000 calls
against keeping every prompt whole; what a conversation of 2,000 turns takes. Takes about two minutes; --calls 10 1000 is
faster. --libraries compares pygit2 and dulwich (`pip install dulwich`). --shorten asks a local model (a GGUF file, needs
llama-cpp-python) for the facts of a benchmark's answers, with `decompose/v0` and with shorter versions of it; every reply
is kept in --out, so a second run asks nothing, and one that was stopped goes on.
"""
import argparse,json,random,re,subprocess,sys,tempfile,time
from dataclasses import replace
from pathlib import Path

import numpy as np
from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import read_book,sample_path
from agentfastbook.prompts.conversations import Conversation
from agentfastbook.text.spans import FastbookError,count_tokens,sentences
from agentfastbook.engines.decompose import answer_units,decompose_spans
from agentfastbook.stats.matching import decomposition_sums
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.prompts.asking import Asker
from agentfastbook.prompts.parts import keep_parts,tidy
from agentfastbook.prompts.provenance import why
from agentfastbook.prompts.shortening import prompt_tokens,shorten
from agentfastbook.store.runs import Call,Item,Store
from agentfastbook.prompts.templates import Part,Prompt,estimate_tokens,fill,packaged_prompt

random.seed(42)

def table(rows):
    print('| '+' | '.join(rows[0])+' |\n|'+'---|'*len(rows[0]))
    for r in rows: print('| '+' | '.join(str(v) for v in r.values())+' |')
    print()

def median_ms(function, *samples):
    "Median and worst of the times that a function takes, in milliseconds."
    times = []
    for sample in samples:
        start = time.perf_counter()
        function(sample)
        times.append(1000*(time.perf_counter()-start))
    return f'{np.median(times):.1f} (worst {max(times):.1f})'

def size(path):
    "Bytes of a file, or of all files in a folder."
    return sum(p.stat().st_size for p in [Path(path), *Path(path).rglob('*')] if p.is_file())

# 10, 1,000, 100,000 calls

def pool(n):
    "Passages of about 200 tokens, made of the sample book's sentences."
    found = [s.of(c.text) for c in read_book(sample_path()).chapters for s in sentences(c.text)]
    def one(text=''):
        while count_tokens(text) < 190: text += random.choice(found)+' '
        return text
    texts = [one() for _ in range(n)]
    return [Part('passage', t+'\n\n', dict(chapter='01_sourdough', start=100*i, end=100*i+len(t))) for i,t in enumerate(texts)]

def make_calls(repo, store, naive, n, prompts, passages):
    "Calls with five passages and a question of their own each; returns their ids and the size of the whole prompts."
    run,ids,whole = store.start_run({}),[],0
    naive.start_run({})
    for start in range(0, n, 1000):
        calls,texts = [],[]
        for i in range(start, min(start+1000, n)):
            commit,prompt = prompts[i*len(prompts)//n]
            question = f'Question {i}: what is said about {random.choice(passages).text[:60]!r}?'
            parts = fill(prompt, dict(passages=random.sample(passages, 5), question=question))
            texts.append(''.join(p.text for p in parts))
            whole += len(texts[-1].encode())
            calls.append(Call('ask', 'none', dict(parts=keep_parts(repo, parts)), 'yes', prompt=commit, raw='yes'))
        store.save_item(run, Item(f'item {start}', f'calls {start}', tuple(calls)))
        naive.save_item(run, Item(f'item {start}', f'calls {start}', tuple(replace(c, input=dict(text=t)) for c,t in zip(calls, texts))))
        ids += [c.id for c in calls]
        if start % 4000 == 3000: tidy(repo, store)
    tidy(repo, store)
    return ids,whole

def scale(n):
    with tempfile.TemporaryDirectory() as folder:
        repo,store = PromptRepo(Path(folder)/'prompts', author='Ada'),Store(Path(folder)/'traces.db')
        naive = Store(Path(folder)/'naive.db') # the same calls, each with its prompt whole
        def edit(i):
            body = packaged_prompt('decompose/v0').body.replace('{{answer}}', '{{passages}}{{question}}')
            prompt = Prompt('ask', f'Version {i}.\n\n{body}', dict(passages='context', question='what is asked'))
            repo.write(prompt)
            return f'{repo.commit(f"edit {i}")}:ask.md',prompt
        start = time.perf_counter()
        prompts = [edit(i) for i in range(20)]
        commit = (time.perf_counter()-start)/20*1000
        ids,whole = make_calls(repo, store, naive, n, prompts, pool(2000))
        naive.close()
        some = random.sample(ids, min(200, n))
        asker = Asker(repo, store, lambda text: 'yes', 'none')
        def again(id): assert asker.ask_parts(why(repo, store, id).parts).id == id
        ends = [p[0].split(':')[0] for p in (prompts[0], prompts[-1])]
        times = {'calls':f'{n:,}', 'commit, ms':f'{commit:.1f}', 'why, ms':median_ms(lambda i: why(repo, store, i).text, *some),
                'diff, ms':median_ms(lambda _: repo.diff(*ends)._repr_html_(), *range(20)),
                'ask again, from the store, ms':median_ms(again, *some[:50])}
        store.close() # SQLite's log goes into its file
        kept,rows = size(repo.path),size(Path(folder)/'traces.db')
        return times,{'calls':f'{n:,}', 'prompts whole, MB':f'{whole/1e6:.2f}', 'repository, MB':f'{kept/1e6:.2f}',
                'repository / prompts':f'{kept/whole:.3f}', 'store, MB':f'{rows/1e6:.2f}',
                'naive store, MB':f"{size(Path(folder)/'naive.db')/1e6:.2f}",
                '(repository + store) / naive store':f"{(kept+rows)/size(Path(folder)/'naive.db'):.3f}", 'asked':asker.lm.door.usage.attempts.sum()}

# a long conversation

def conversation(turns, budget):
    with tempfile.TemporaryDirectory() as folder:
        talk,passages = Conversation(PromptRepo(Path(folder)/'prompts', author='Ada'), 'talk'),pool(200)
        talk.say('Rules: the sea is cold.', pinned=True)
        said,chosen = [],[]
        for i in range(1, turns):
            start = time.perf_counter()
            talk.say(random.choice(passages).text[:random.randint(20, 600)], ['user','assistant'][i%2])
            said.append(time.perf_counter()-start)
            if i%10 == 0 or i > turns-20:
                start = time.perf_counter()
                talk.context(budget)
                chosen.append(time.perf_counter()-start)
        full = ''.join(t.shown for t in talk.turns)
        start = time.perf_counter()
        assert talk.rebuild(talk.context(budget)) == full
        rebuilt = time.perf_counter()-start
        cold = Conversation(talk.repo, 'talk')
        start = time.perf_counter()
        cold.context(budget)
        cold = time.perf_counter()-start
        return {'turns':f'{turns:,}', 'budget':f'{budget:,}', 'say, ms':f'{1000*np.median(said):.1f}',
                'context, ms':f'{1000*np.median(chosen[-20:]):.1f}', 'context, first time, ms':f'{1000*cold:.0f}',
                'tokens of all turns':f'{estimate_tokens(full):,}', 'tokens sent':f'{talk.context(budget).tokens:,}',
                'rebuilding all, ms':f'{1000*rebuilt:.0f}'}

# libraries

TEXT = '\n'.join(f'line {i} of a prompt that says what to do with the answer' for i in range(40))

def timed(rows, what, function):
    start = time.perf_counter()
    rows[what] = function()
    rows[what] = f'{time.perf_counter()-start:.3f}'

def use_pygit2(folder):
    import pygit2
    repo,me,rows,last = pygit2.init_repository(folder, initial_head='main'),pygit2.Signature('a', 'a@b'),{},[]
    def commits():
        for i in range(1000):
            builder = repo.TreeBuilder()
            builder.insert('p.md', repo.create_blob(f'{TEXT}\nedit {i}'.encode()), 0o100644)
            last[:] = [repo.create_commit('refs/heads/main', me, me, f'm{i}', builder.write(), last)]
    timed(rows, '1,000 commits, s', commits)
    timed(rows, 'log, s', lambda: list(repo.walk(last[0])))
    timed(rows, 'blame, s', lambda: list(repo.blame('p.md')))
    timed(rows, '1,000 blobs, s', lambda: [repo.create_blob(f'part {i} '.encode()*50) for i in range(1000)])
    return {'library':f'pygit2 {pygit2.__version__}', **rows}

def use_dulwich(folder):
    import dulwich
    from dulwich.annotate import annotate_lines
    from dulwich.objects import Blob,Commit,Tree
    from dulwich.repo import Repo
    repo,rows,last = Repo.init(folder),{},[]
    def commits():
        for i in range(1000):
            blob,tree,commit = Blob.from_string(f'{TEXT}\nedit {i}'.encode()),Tree(),Commit()
            tree.add(b'p.md', 0o100644, blob.id)
            commit.tree,commit.parents,commit.author,commit.message = tree.id,list(last),b'a <a@b>',b'm%d' % i
            commit.committer,commit.author_time,commit.commit_time = commit.author,1700000000+i,1700000000+i
            commit.author_timezone = commit.commit_timezone = 0
            for o in (blob, tree, commit): repo.object_store.add_object(o)
            repo.refs[b'refs/heads/main'] = commit.id
            last[:] = [commit.id]
        repo.refs.set_symbolic_ref(b'HEAD', b'refs/heads/main')
    timed(rows, '1,000 commits, s', commits)
    timed(rows, 'log, s', lambda: list(repo.get_walker()))
    timed(rows, 'blame, s', lambda: list(annotate_lines(repo.object_store, last[0], b'p.md')))
    def blobs():
        for i in range(1000): repo.object_store.add_object(Blob.from_string(f'part {i} '.encode()*50))
    timed(rows, '1,000 blobs, s', blobs)
    return {'library':f"dulwich {'.'.join(map(str, dulwich.__version__))}", **rows}

def libraries():
    rows = []
    for use in (use_pygit2, use_dulwich):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(use(folder))
            done = subprocess.run(['git','-C',folder,'fsck','--no-dangling'], capture_output=True)
            rows[-1]['git fsck'] = 'no fault' if done.returncode == 0 else 'faults'
    table(rows)

# shortening, with a local model

POINTING = Prompt('decompose/v0-points', """Split the answer below into its separate facts. It is given in numbered pieces. Write the numbers of all pieces with which a new fact begins.

Guidance:
- A fact states one thing that a reader could look up by itself.
- Keep pieces together that make no sense apart.
- The first piece always begins a fact.
- Reply with the numbers alone, without a comment.

Pieces:
{{pieces}}

Remember the task: split the answer above into its separate facts. Write the numbers of all pieces with which a new fact begins.

Remember the guidance:
- A fact states one thing that a reader could look up by itself.
- Keep pieces together that make no sense apart.
- The first piece always begins a fact.
- Reply with the numbers alone, without a comment.
""", dict(pieces='the answer, a numbered piece on each line'), purpose='decompose/v0, for models too small to copy text')

def units_of(q): return [s.of(q.gold_answer) for s in answer_units(q.gold_answer)]

class Points:
    "The model points at the pieces with which a fact begins; a grammar lets it write nothing else."
    prompt = POINTING
    def values(self, q): return dict(pieces='\n'.join(f'{i}. {t}' for i,t in enumerate(units_of(q), 1)))
    def grammar(self, text):
        last = max(int(n) for n in re.findall(r'^(\d+)\. ', text.split('Pieces:\n')[1], re.M))
        return 'root ::= "1" ' + ' '.join(f'(" {i}")?' for i in range(2, last+1))
    def rules(self, text):
        "What the rules of this library would point at: the stand-in for a model."
        pieces = re.findall(r'^\d+\. (.*?)$', text.split('Pieces:\n')[1].split('\n\nRemember')[0], re.M)
        starts = [i for i,p in enumerate(pieces, 1) if i == 1 or len(p.split()) > 7 and not p.startswith(('This','It','For example'))]
        return ' '.join(map(str, starts)) if 'new fact begins' in text else '1'
    def facts(self, q, reply):
        starts,units = sorted({1, *map(int, reply.split())}),answer_units(q.gold_answer)
        ends = [*starts[1:], len(units)+1]
        return [q.gold_answer[units[a-1].start:units[b-2].end] for a,b in zip(starts, ends)]

class Tags:
    "The model copies each fact between tags, as decompose/v0 asks for."
    prompt = packaged_prompt('decompose/v0')
    def values(self, q): return dict(answer=q.gold_answer)
    def grammar(self, text): return None
    def rules(self, text):
        given = re.search(r'Text:\n(.*?)\n(?:\nRemember the|\Z)', text, re.S)[1]
        return '\n'.join(f'<fact>{s.of(given)}</fact>' for s in decompose_spans(given)) if 'separate facts' in text else given
    def facts(self, q, reply): return [f.strip() for f in re.findall('<fact>(.*?)</fact>', reply, re.S) if f.strip()]

class Scores(Tags):
    """A model too small to write facts between tags can still say how likely a reply is: that of a person, the whole answer,
    all pieces apart, and what the rules say. The likeliest of the last three is its choice."""
    def __init__(self): self.gold = {}
    def rules(self, text):
        "A stand-in that expects a person's reply if it is told what to do, and the whole answer otherwise."
        told = 'separate facts' in text
        return json.dumps(dict(gold=-1. if told else -2., whole=-2. if told else -1., apart=-1.5, rules=-1.4))
    def replies(self, given):
        facts = dict(gold=self.gold[given], whole=[given], apart=[s.of(given) for s in answer_units(given)],
                     rules=[s.of(given) for s in decompose_spans(given)])
        return {k: '\n'.join(f'<fact>{f}</fact>' for f in v) for k,v in facts.items()}
    def facts(self, q, reply):
        said = json.loads(reply)
        best = max(('rules','apart','whole'), key=said.get)
        return re.findall('<fact>(.*?)</fact>', self.replies(q.gold_answer)[best], re.S)

FORMS = {'scores': Scores(), 'points': Points(), 'tags': Tags()}

def scoring_model(path, form):
    "text -> JSON: for each reply the mean log-probability of its tokens."
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter
    model = Llama(str(path), n_ctx=1024, n_threads=1, seed=42, verbose=False, logits_all=True)
    chat = Jinja2ChatFormatter(model.metadata['tokenizer.chat_template'], eos_token='<|im_end|>', bos_token='<|im_start|>')
    def tokens(text): return model.tokenize(text.encode(), add_bos=False, special=True)
    def ask(text):
        given = re.search(r'Text:\n(.*?)\n(?:\nRemember the|\Z)', text, re.S)[1]
        prompt,known = tokens(chat(messages=[dict(role='user', content=text)]).prompt),list(model._input_ids)
        same = next((i for i,(a,b) in enumerate(zip(known, prompt)) if a != b), min(len(known), len(prompt)-1))
        model.n_tokens = min(same, len(prompt)-1) # what begins as the last prompt did need not be read again
        model.eval(prompt[model.n_tokens:])
        def mean(reply):
            written = tokens(reply)
            model.n_tokens = len(prompt)
            model.eval(written)
            logits = model.scores[len(prompt)-1:len(prompt)+len(written)-1].astype(float)
            top = logits.max(1)
            return float(np.mean(logits[range(len(written)), written]-top-np.log(np.exp(logits-top[:,None]).sum(1))))
        return json.dumps({k: round(mean(v), 4) for k,v in form.replies(given).items()})
    return ask

def local_model(path, form, most):
    from llama_cpp import Llama,LlamaGrammar
    model = Llama(str(path), n_ctx=2048, n_threads=1, seed=42, verbose=False)
    def ask(text):
        grammar = form.grammar(text)
        done = model.create_chat_completion([dict(role='user', content=text)], temperature=0., max_tokens=most,
            grammar=grammar and LlamaGrammar.from_string(grammar, verbose=False))
        return done['choices'][0]['message']['content'].strip() or '-' # nothing at all is no reply
    return ask

def soft_f1(questions, facts):
    pairs = [(q.gold_answer, [c.text for c in q.components], f or [q.gold_answer]) for q,f in zip(questions, facts)]
    top,below = decomposition_sums(pairs)['soft_f1']
    return top/below,top.sum()/below.sum()

def prove(path, form, margin, out, benchmark, sample, most):
    "Shorten the doubled prompt: what a local model says on answers of at least two pieces, and what the rules' stand-in says."
    form,asked = FORMS[form],load_benchmark(benchmark or sample_path()/'benchmark.json').questions
    questions = [q for q in asked if len(answer_units(q.gold_answer)) > 1]
    if sample: questions = sorted(random.sample(questions, len(questions)), key=lambda q: len(q.gold_answer) > 400)[:sample]
    if isinstance(form, Scores): form.gold = {q.gold_answer: [c.text for c in q.components] for q in questions}
    repo,store = PromptRepo(Path(out)/'prompts', author='benchmark'),Store(Path(out)/'traces.db')
    models = {'stand-in: rules': form.rules}
    if path != 'rules' and isinstance(form, Scores): models[f'{Path(path).name}, scores'] = scoring_model(path, form)
    elif path != 'rules': models[f'{Path(path).name}, temperature 0, {most} tokens'] = local_model(path, form, most)
    alone = soft_f1(questions, [units_of(q) for q in questions])[1],soft_f1(questions, [[] for _ in questions])[1]
    print(f'{len(questions)} answers of two and more pieces; soft_f1 of all pieces apart {alone[0]:.3f}, of whole answers {alone[1]:.3f}\n')
    for name,model in models.items():
        asker,rows,replies = Asker(repo, store, model, name),[],{}
        def evaluate(prompt):
            said = [asker.ask_parts(fill(prompt, form.values(q))).raw for q in questions]
            facts = [form.facts(q, r) for q,r in zip(questions, said)]
            values,mean = soft_f1(questions, facts)
            same = sum(a == b for a,b in zip(said, replies.setdefault('first', said)))
            rows.append({'prompt tokens':prompt_tokens(prompt), 'soft_f1':f'{mean:.3f}', 'well-formed':f'{sum(map(bool, facts))} of {len(facts)}',
                         'different replies':len(set(said)), 'same as with the whole prompt':f'{same} of {len(said)}'})
            if not isinstance(form, Scores): return values
            likely = np.array([json.loads(r)['gold'] for r in said])
            rows[-1]['log-probability of a person\'s reply, per token'] = f'{likely.mean():.3f}'
            return np.exp(likely) # a probability, so that what a question can lose is known
        done = shorten(form.prompt, evaluate, margin)
        print(f'\n{name}\n')
        table(rows)
        table(done.attempts.round(3).to_dict('records'))
        print(f'{done.saved} tokens saved of each call, {done.share:.0%} of the prompt, at a margin of {margin}; calls made now: {asker.lm.door.usage.attempts.sum()}\n')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--calls', type=int, nargs='*', default=[10, 1000, 100_000], help='calls in the store')
    p.add_argument('--turns', type=int, nargs='*', default=[20, 200, 2000], help='turns of the conversation')
    p.add_argument('--libraries', action='store_true', help='compare pygit2 and dulwich instead')
    p.add_argument('--shorten', metavar='GGUF', help="shorten decompose/v0 with this local model instead; 'rules': only the stand-in")
    p.add_argument('--form', choices=FORMS, default='scores', help="how the model replies: it says how "
                   "likely a person's reply is (the measure is then its probability per token), points at pieces, or copies "
                   "facts into tags (soft_f1)")
    p.add_argument('--benchmark', help="questions for --shorten (default: the sample's)")
    p.add_argument('--sample', type=int, default=0, help='ask for so many answers only; 0: all that have two pieces')
    p.add_argument('--max-tokens', type=int, default=256, help='most tokens of a reply')
    p.add_argument('--margin', type=float, default=.05, help='loss of soft_f1 that is no matter')
    p.add_argument('--out', default='shorten_out', help='folder for the calls of --shorten; asked once, then kept')
    a = p.parse_args()
    try:
        if a.libraries: libraries()
        elif a.shorten: prove(a.shorten, a.form, a.margin, a.out, a.benchmark, a.sample, a.max_tokens)
        else:
            for rows in zip(*[scale(n) for n in a.calls]): table(rows)
            if a.turns: table([conversation(n, 4000) for n in a.turns])
    except FastbookError as e: sys.exit(f'error: {e}')
