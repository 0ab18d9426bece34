"""What accidents do to a run: python benchmarks/faults.py [--kills 60] [--seed 0]

`afb_curate` is killed (SIGKILL) at random moments and started again until it is done: with the embedded engines in one
process, with two workers, and with a language model, which is a server on this machine (tests/lm_server.py). Prints for
each kind what the accidents have cost against a run without any: whether dataset.json and passages.jsonl are the same
byte for byte, how many finished questions or paid replies were lost, how many finished calls were made again, calls that
were on their way when the process was killed (a server has been paid for them, nobody has the reply), and processes
that are left two seconds after a kill. Takes about five minutes.

Hostile inputs are in benchmarks/hostile.py.
"""
import argparse,json,os,random,signal,sqlite3,subprocess,sys,tempfile,time
from collections import Counter
from dataclasses import dataclass,field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]/'tests'))
from lm_server import LMServer,answer,body_text

from agentfastbook.books.chapters import sample_path

COPIES = 10 # of the sample's questions, so that a run with rules takes a few seconds
LATENCY = .1 # seconds until the model answers
KINDS = {'embedded': [], '--workers 2': ['--workers', '2'], '--lm': ['--lm', 'claude-haiku-4-5', '--workers', '4']}
FILES = ('dataset.json','passages.jsonl')

@dataclass
class Sums:
    "What the accidents of one kind of run have come to."
    runs:int=0
    kills:int=0
    different:int=0
    lost:int=0
    repeated:int=0
    underway:int=0
    left:int=0
    wrong_status:list[int]=field(default_factory=list)

def benchmark(folder):
    "The sample's questions, several times over."
    data = json.loads((sample_path()/'benchmark.json').read_text(encoding='utf-8'))
    data['questions'] = [dict(q, question_number=q['question_number']+100*i, question_text=f"{q['question_text']} ({i})")
                         for i in range(COPIES) for q in data['questions']]
    path = folder/'benchmark.json'
    path.write_text(json.dumps(data), encoding='utf-8')
    return path

def start(kind, out, questions, server):
    env = dict(os.environ, ANTHROPIC_API_KEY='sk-test-0123456789-0123456789', ANTHROPIC_BASE_URL=server.url)
    given = [] if kind == '--lm' else ['--book', str(sample_path()), '--benchmark', str(questions)]
    code = 'from agentfastbook.cli.commands import afb_curate; afb_curate()'
    return subprocess.Popen([sys.executable, '-c', code, '--out', str(out), *given, *KINDS[kind]], env=env,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

def finished(out):
    "Finished items with their calls, as they are kept: id -> step, input and seconds of each."
    if not (out/'traces.db').exists(): return {}
    db = sqlite3.connect(out/'traces.db', timeout=30)
    try:
        rows = db.execute("""select item.id, step, input, seconds from item join item_call on item_call.item=item.id
            join call on call.id=item_call.call where item.error='' order by item.id, position""").fetchall()
    except sqlite3.OperationalError: return {} # killed before there were tables
    finally: db.close()
    found = {}
    for id,*call in rows: found.setdefault(id, []).append(call)
    return found

def times(calls):
    "When work is done again, its time is another; only the first step is about one question alone."
    return [seconds for step,_,seconds in calls if step == 'decompose']

def asked_texts(items):
    "What was asked in the calls to a model among the items."
    inputs = [json.loads(asked) for calls in items.values() for _,asked,_ in calls]
    return {body_text(data) for data in inputs if isinstance(data, dict) and 'messages' in data}

def left_over(group):
    "Processes of a process group that are still there after two seconds."
    until = time.monotonic()+2
    while True:
        listed = subprocess.run(['ps', '-A', '-o', 'pgid=,stat='], capture_output=True, text=True).stdout
        states = [line.split()[1] for line in listed.splitlines() if line.split()[0] == str(group)]
        left = sum(not s.startswith('Z') for s in states)
        if not left or time.monotonic() > until: return left
        time.sleep(.05)

def kill(process, seconds):
    "Kill a run after some time; False if it was done before."
    try: process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    return False

def accidents(kind, out, questions, server, most, length, luck, sums):
    "One run, killed at most so many times, until it is done."
    before,killed = {},0
    while True:
        received,paid,known = len(server.received),len(server.paid),asked_texts(before)
        process = start(kind, out, questions, server)
        dead = kill(process, luck.uniform(0, length) if killed < most else 600)
        if dead:
            killed += 1
            sums.left += left_over(process.pid)
        time.sleep(LATENCY if kind == '--lm' and dead else 0) # what is on its way arrives at the server
        after = finished(out)
        sums.lost += sum(id not in after for id in before)
        sums.repeated += sum(times(after[id]) != times(calls) for id,calls in before.items() if id in after)
        sums.repeated += sum(body_text(b) in known for b in server.received[received:])
        if dead and kind == '--lm':
            new = Counter(body_text(b) for b in server.paid[paid:])
            sums.underway += sum((new-Counter(asked_texts(after)-known)).values())
        before = after
        if not dead: break
    if process.returncode: sums.wrong_status.append(process.returncode)
    return killed

def survive(kind, kills, luck, folder, questions, server):
    "Runs of one kind until there were enough kills, compared with one that was left in peace."
    whole,sums = folder/f'whole {kind}',Sums()
    began = time.monotonic()
    if start(kind, whole, questions, server).wait(): sys.exit(f'the run without accidents failed: {kind}')
    length = time.monotonic()-began
    wanted = [(whole/name).read_bytes() for name in FILES]
    while sums.kills < kills:
        out = folder/f'{kind} {sums.runs}'
        sums.kills += accidents(kind, out, questions, server, kills-sums.kills, length, luck, sums)
        sums.runs += 1
        sums.different += [(out/name).read_bytes() for name in FILES] != wanted
    return length,sums

def killed_runs(kills, seed):
    "The table of all kinds of runs."
    luck,failed = random.Random(seed),False
    print(f'{kills} SIGKILLs at random moments (seed {seed}), each run resumed until it was done\n')
    print('| run | seconds | runs | kills | other bytes | lost | made again | on their way | processes left | failed |')
    print('|---|---|---|---|---|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder,LMServer(answer, latency=LATENCY) as server:
        questions = benchmark(Path(folder))
        for i,kind in enumerate(KINDS):
            share = kills*(i+1)//len(KINDS)-kills*i//len(KINDS)
            length,s = survive(kind, share, luck, Path(folder), questions, server)
            print(f'| {kind} | {length:.1f} | {s.runs} | {s.kills} | {s.different} | {s.lost} | {s.repeated} | '
                  f'{s.underway if kind == "--lm" else ""} | {s.left} | {len(s.wrong_status)} |', flush=True)
            failed |= bool(s.different or s.lost or s.repeated or s.left or s.wrong_status)
    return failed

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=60, help='SIGKILLs, over all kinds of runs (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the random moments (default: %(default)s)')
    args = parser.parse_args()
    sys.exit(killed_runs(args.kills, args.seed))

if __name__ == '__main__': main()
