"""What language models cost and how the door to them behaves: python benchmarks/lm.py

Needs no key: the models are a server on this machine, which misbehaves on demand (tests/lm_server.py), and the recorded
replies of Claude 3.5 Haiku. Prints Markdown tables: the tokens of decomposing the development answers against the
published way (a chat with the whole prompt for each answer, facts written out), counted as words and marks; Haiku's
recorded facts as they are, snapped and merged beside the rules, with paired 95% intervals, and which of them are found;
what becomes of facts that a model rewords, invents, repeats, or changes in a number or a negation; 500 calls with
faults against the ideal time; and what the door costs a call. All but the last two need
fastbook/fastbook-benchmark.json and agentfastbook/evals-haiku-3.5.json in the data folder (--data or AFB_DATA). Takes
about a minute.
"""
import argparse,json,os,random,re,sys,tempfile,time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]/'tests'))
from adversary import CHANGES,Adversary
from lm_server import Answer,LMServer

from agentfastbook.books.questions import load_benchmark
from agentfastbook.text.spans import count_tokens
from agentfastbook.engines.decompose import answer_units,decompose_spans
from agentfastbook.lm.door import Door
from agentfastbook.lm.calls import LM
from agentfastbook.lm.models import Claude
from agentfastbook.lm.recorded import Recorded
from agentfastbook.engines.lm_decompose import HybridDecomposer,LMDecomposer,locate_components,snap
from agentfastbook.stats.matching import decomposition_sums
from agentfastbook.stats.bootstrap import interval,paired_interval
from agentfastbook.lm.reply import LMError,Reply,Usage
from agentfastbook.store.runs import Store

PUBLISHED = 196 # tokens of the published prompt
TOOL = 346 # tokens that Claude's server adds to a request with a forced tool
OUTPUT = 5 # a token written costs as much as five read

def print_table(title, columns, rows):
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{'---|'*len(columns)}")
    for row in rows: print('| '+' | '.join(str(x) for x in row)+' |')

# tokens

def published_cost(questions, gold):
    "Weighted tokens of a chat for each answer, whose reply is the answer again, with tags around its facts."
    tags = count_tokens('<component></component>')
    def one(q): return PUBLISHED+(1+OUTPUT)*count_tokens(q.gold_answer)+OUTPUT*tags*gold(q)
    return sum(map(one, questions))

def pointing_cost(decompose, questions, together):
    "Weighted tokens of pointing; the reply has the numbers that the rules would give."
    requests,written = decompose.requests(questions, together),0
    read = sum(TOOL+count_tokens(json.dumps(r.schema))+count_tokens(r.system)+count_tokens(r.messages[0]['content'])
               for r in requests)
    asked = [q for q in questions if not decompose._certain(q.gold_answer)]
    for i in range(0, len(asked), together):
        starts = [n for q in asked[i:i+together] for n,_ in enumerate(decompose_spans(q.gold_answer))]
        written += count_tokens(json.dumps(dict(starts=starts)))
    return read+OUTPUT*written

def print_tokens(questions):
    lm,one = LM('claude-haiku-4-5'),published_cost(questions, lambda q: max(len(q.components), 1))
    point,rows = LMDecomposer(lm),[['published, one chat each', 1.]]
    for together in (1, 10, 20, 40):
        share = pointing_cost(point, questions, together)/one
        rows.append([f'pointing, {together} answers a request', share])
        rows.append(['the same in message batches (half price)', share/2])
    unsure = [q for q in questions if HybridDecomposer(point).unsure(q.gold_answer)]
    hybrid = pointing_cost(point, unsure, 20)/one
    rows.append([f'rules first, the model for {len(unsure)} answers, 20 a request', hybrid])
    print_table(f'Tokens of decomposing {len(questions)} answers, output weighted {OUTPUT} to 1', ['way','cost'],
                [[name, f'{cost:.3f}'] for name,cost in rows])

# Haiku's replies

def print_haiku(data, questions, seed):
    replies = {e['question_number']: e['haiku_components']
               for e in json.loads((data/'agentfastbook'/'evals-haiku-3.5.json').read_text(encoding='utf-8'))}
    both = [q for q in questions if q.chapter == 4 and q.number in replies]
    located = {q.number: locate_components(replies[q.number], q.gold_answer) for q in both}
    n = sum(len(spans) for spans in located.values())
    def gold(q): return [[s.of(q.gold_answer) for s in c.spans] or [c.text] for c in q.components]
    def score(split):
        def texts(q): return [x if isinstance(x, str) else x.of(q.gold_answer) for x in split(q)]
        return decomposition_sums([(q.gold_answer, gold(q), texts(q)) for q in both])['soft_f1']
    ways = {'rules': lambda q: decompose_spans(q.gold_answer),
            'Haiku as recorded': lambda q: replies[q.number],
            'Haiku, located or rejected': lambda q: [s for s in located[q.number] if s],
            'Haiku snapped': lambda q: snap(located[q.number], q.gold_answer),
            'Haiku snapped and merged by the rules': lambda q: snap(located[q.number], q.gold_answer, merge=True)}
    scores,rows = {name: score(split) for name,split in ways.items()},[]
    for name,sums in scores.items():
        difference = '' if name == 'rules' else str(paired_interval(sums, scores['rules'], seed=seed))
        rows.append([name, str(interval(*sums, seed=seed)), difference])
    found = sum(s is not None for spans in located.values() for s in spans)
    title = f'{len(both)} answers of chapter 4 (soft F1); {found} of {n} facts located'
    print_table(title, ['way','soft F1','minus rules'], rows)
    facts = [(text, q.gold_answer, span) for q in both for text,span in zip(replies[q.number], located[q.number])]
    print_located(facts)

def _plain(text): return ' '.join(re.sub(r'[^a-z0-9.<>=+*/-]+', ' ', text.lower()).split()).strip('. ')

def print_located(facts):
    "Recorded facts that are found, by whether plain search finds them, too."
    rows = []
    for name,literal in (('in the answer', True), ('reworded', False)):
        these = [span for text,answer,span in facts if (_plain(text) in _plain(answer)) == literal]
        rows.append([name, len(these), sum(s is not None for s in these), sum(s is None for s in these)])
    print_table("Haiku's recorded facts, by plain search for their words", ['fact','number','located','rejected'], rows)

# a model that does not copy

def verbatim_row(name, questions, folder):
    "What became of facts that were changed in one way: in the recording, and in what is exported from it."
    path,changed,rejected,exported,verbatim = folder/f'{name}.jsonl',0,0,0,0
    decompose,change = LMDecomposer(Recorded(path, Adversary(CHANGES[name])), form='write'),CHANGES[name]
    for q in questions:
        answer = q.gold_answer
        facts = [(change(u.of(answer)), u.of(answer)) for u in answer_units(answer)]
        facts = [new for new,old in facts if ' '.join(new.split()) != ' '.join(old.split())]
        changed += len(facts)
        rejected += sum(s is None for s in locate_components(facts, answer))
        try: components = decompose(q)
        except LMError: continue # nothing of the reply is in the answer: an outcome, not an export
        exported += len(components)
        verbatim += sum(c.text in answer and c.text == c.spans[0].of(answer) for c in components)
    return [name, changed, rejected, f'{rejected/max(changed, 1):.1%}', exported, f'{verbatim/max(exported, 1):.1%}']

def print_verbatim(questions):
    with tempfile.TemporaryDirectory() as folder:
        rows = [verbatim_row(name, questions, Path(folder)) for name in CHANGES]
    print_table(f'A model that changes every fact it should copy, {len(questions)} answers',
                ['it','facts changed','rejected','share','components exported','verbatim'], rows)

# the door

def print_faults(n=500, concurrency=64, latency=1., share=.05, seed=42):
    "Calls against a server with faults: time against the ideal, lost and doubled calls, attempts."
    kinds = random.Random(seed)
    faults = [kinds.choice(['429 retry-after-ms=200','529','500','reset']) if kinds.random() < share else 'sleep 0'
              for _ in range(2*n)]
    with LMServer(lambda body: Answer(usage=(50, 10)), latency) as server:
        server.faults.extend(faults)
        lm = Claude(base_url=server.url, door=Door(concurrency=concurrency, first_wait=.2))
        lm._sdk
        start = time.perf_counter()
        def call(i): return lm.complete(f'Question {i}')
        with ThreadPoolExecutor(concurrency) as pool: replies = list(pool.map(call, range(n)))
        seconds,ideal = time.perf_counter()-start,-(-n//concurrency)*latency
        asked = [json.dumps(b['messages']) for b in server.paid]
        doubled,attempts = len(asked)-len(set(asked)),int(lm.door.usage.attempts.sum())
        print_table(f'{n} calls of {latency:g} s, {concurrency} at once, {share:.0%} faults (429, 529, 500, reset)',
                    ['seconds','ideal','ratio','lost','doubled','attempts','received by the server'],
                    [[f'{seconds:.1f}', f'{ideal:.1f}', f'{seconds/ideal:.2f}', n-len(replies), doubled, attempts,
                      len(server.received)]])

class Instant(LM):
    "Answers at once."
    def _send(self, request, timeout, on_text): return Reply('Hello!', usage=Usage(50, 10), stop_reason='end_turn')

def print_overhead(n=500):
    rows = []
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)/'calls.db') as store:
        for name,door in (('kept in memory', Door()), ('kept in a store', Door(store))):
            lm = Instant('claude-haiku-4-5', door)
            for what in ('new','from the record'):
                times,used = [],[]
                for i in range(n):
                    start,cpu = time.perf_counter(),time.thread_time()
                    lm.complete(f'Question {i}: how much salt does a loaf of bread need?')
                    times.append(time.perf_counter()-start)
                    used.append(time.thread_time()-cpu)
                shares = [1000*np.quantile(x, share) for x in (used, times) for share in (.5, .95)]
                rows.append([name, what, *(f'{ms:.2f}' for ms in shares)])
    title = f'What the door costs a call, without a network ({n} calls); waits are for the disk and for other programs'
    print_table(title, ['record','call','processor ms','95%','with waits ms','95%'], rows)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get('AFB_DATA') or Path(__file__).parents[2]/'shared'/'data'
    parser.add_argument('--data', type=Path, default=Path(default), help='folder with fastbook/ and agentfastbook/')
    parser.add_argument('--seed', type=int, default=42, help='of the bootstrap')
    args = parser.parse_args()
    os.environ.setdefault('ANTHROPIC_API_KEY', 'the-server-on-this-machine-needs-none')
    path = args.data/'fastbook'/'fastbook-benchmark.json'
    if path.is_file():
        questions = [q for q in load_benchmark(path) if q.components]
        print_tokens(questions)
        print_haiku(args.data, questions, args.seed)
        print_verbatim(questions)
    else: print(f'{path} is not there; give the folder with --data or AFB_DATA')
    print_overhead()
    print_faults()

if __name__ == '__main__': main()
