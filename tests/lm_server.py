"""A server on a free port of this machine that speaks Anthropic's Messages API, with batches and streams, and OpenAI's
chat completions, and that misbehaves when it is told to.

    with LMServer() as server:
        server.faults += ['529', '429 retry-after=1', 'reset']     # for the next three requests; then all is well
        Claude(base_url=server.url)                               # or OpenAICompatible(server.url+'/v1', 'a-model')

The newer Claude models refuse here what they refuse there: a temperature, a forced tool. `server.answer` is a function from the request's body to an Answer. `server.received` has all requests, `server.paid`
those that were answered in full.
"""
import json
import re
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    "What the model says."
    text: str = 'Hello!'
    data: object = None  # structured reply; None: a text
    stop: str = ''  # stop reason; empty: the usual one
    usage: tuple = (10, 5)
    citations: list = field(default_factory=list)
    top: dict = field(default_factory=dict)  # likeliest first tokens with their log-probability


ERRORS = {400: 'invalid_request_error', 401: 'authentication_error', 404: 'not_found_error', 413: 'request_too_large',
          429: 'rate_limit_error', 500: 'api_error', 503: 'api_error', 529: 'overloaded_error'}
TOO_LONG = 'prompt is too long: 208310 tokens > 200000 maximum'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args): pass

    def send(self, status, body, content_type='application/json', **headers):
        body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {'content-type': content_type, 'content-length': len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def reset(self):
        "Close the connection so that the other side sees a reset."
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.connection.close()
        self.close_connection = True

    def do_GET(self):
        if self.path.split('?')[0] == '/v1/messages/batches':
            found = [self.batch(b) for b in self.server.owner.batches.values()][::-1]  # newest first
            return self.send(200, dict(data=found, has_more=False, first_id=None, last_id=None))
        batch = self.server.owner.batches.get(self.path.split('/')[4]) if self.path.count('/') >= 4 else None
        if batch is None: return self.send(404, error(404, 'no such batch'))
        if self.path.endswith('/results'):
            return self.send(200, '\n'.join(json.dumps(r) for r in batch['results'])+'\n', 'application/x-jsonl')
        batch['polls'] += 1
        self.send(200, self.batch(batch))

    def batch(self, batch):
        owner, ended = self.server.owner, batch['polls'] >= self.server.owner.polls
        counts = dict(processing=0, succeeded=len(batch['results']), errored=0, canceled=0, expired=0)
        return dict(id=batch['id'], type='message_batch', processing_status='ended' if ended else 'in_progress',
                    request_counts=counts, created_at=batch['created'], expires_at='2036-11-22T00:00:00Z',
                    ended_at=None, archived_at=None, cancel_initiated_at=None,
                    results_url=f"{owner.url}/v1/messages/batches/{batch['id']}/results" if ended else None)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['content-length'])))
        owner, chat = self.server.owner, self.path.endswith('/chat/completions')
        with owner.lock:
            owner.received.append(body)
            owner.headers.append(dict(self.headers))
            fault = owner.faults.popleft() if owner.faults else ''
            owner.busy += 1
            owner.busiest = max(owner.busiest, owner.busy)
        try:
            refused = '' if chat else refusal(body)
            if refused: return self.send(400, error(400, refused))
            if fault and self.misbehave(fault, body, chat): return
            time.sleep(owner.latency)
            if self.path.endswith('/batches'): return self.send(200, self.batch(owner.new_batch(body)))
            answer = owner.answer(body)
            with owner.lock: owner.paid.append(body)
            if body.get('stream'): return self.stream(body, answer, chat)
            self.send(200, (completion if chat else message)(body, answer))
        except (BrokenPipeError, ConnectionResetError): pass
        finally:
            with owner.lock: owner.busy -= 1

    def misbehave(self, fault, body, chat):
        "Do what the fault says; False if the answer follows all the same."
        word, *options = fault.split()
        headers = dict(o.split('=') for o in options if '=' in o)
        if word == 'sleep': time.sleep(float(options[0])); return False
        if word == 'unanswered':  # a batch arrives, its answer does not
            self.server.owner.new_batch(body)
            time.sleep(float(options[0]))
            self.reset()
            return True
        if word == 'drip': self.stream(body, self.server.owner.answer(body), chat, pause=float(options[0])); return True
        if word == 'reset': self.reset()
        elif word == 'json': self.send(200, fault[5:])
        elif word == 'drip-body': self.drip(json.dumps((completion if chat else message)(body, Answer('a'*500))), *options)
        elif word == 'html': self.send(200, '<html><body>Please log in</body></html>', 'text/html')
        elif word == 'broken-json': self.send(200, '{"id": "msg_1", "content": [{"ty')
        elif word == 'too-long': self.send(400, error(400, TOO_LONG, chat))
        elif word == 'echo-key':
            key = self.headers.get('x-api-key') or self.headers.get('authorization')
            self.send(401, error(401, f'invalid key: {key}', chat))
        elif word in ('cut-stream', 'error-in-stream'): self.stream(body, self.server.owner.answer(body), chat, word)
        else: self.send(int(word), error(int(word), f'fault {word}', chat), **headers)
        return True

    def drip(self, text, pause):
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(text)))
        self.end_headers()
        for letter in text:
            self.wfile.write(letter.encode())
            time.sleep(float(pause))

    def stream(self, body, answer, chat, fault='', pause=0.):
        self.send_response(200)
        self.send_header('content-type', 'text/event-stream')
        self.send_header('transfer-encoding', 'chunked')
        self.end_headers()
        events = list((chat_events if chat else message_events)(body, answer))
        for event in events[:len(events)//2] if fault else events:
            self.chunk(event)
            if pause: time.sleep(pause)
        if fault == 'error-in-stream':
            failed = error(529, 'Overloaded', chat)
            self.chunk(f'data: {json.dumps(failed)}\n\n' if chat else f'event: error\ndata: {json.dumps(failed)}\n\n')
        if fault == 'cut-stream': self.close_connection = True
        self.chunk('')

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(f'{len(data):x}\r\n'.encode()+data+b'\r\n')


def error(status, message, chat=False):
    inner = dict(type=ERRORS.get(status, 'api_error'), message=message)
    return dict(error=inner) if chat else dict(type='error', error=inner)


def refusal(body):
    "What Anthropic's newer models do not take."
    if not re.match(r'claude-(haiku|sonnet|opus)-(5|4-7|4-8)', body.get('model', '')): return ''
    if 'temperature' in body: return '`temperature` is deprecated for this model.'
    if body.get('tool_choice', {}).get('type') == 'tool': return 'tool_choice forces tool use, which is not supported'
    if body['model'].startswith('claude-opus-5-5') and body.get('thinking', {}).get('type') == 'disabled':
        return '"thinking.type.disabled" is not supported for this model.'
    schema = body.get('output_config', {}).get('format', {}).get('schema', {})
    if schema.get('type') == 'object' and schema.get('additionalProperties') is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    return ''


def message(body, answer):
    if answer.data is not None and 'output_config' in body:
        thought = dict(type='thinking', thinking='', signature='c2ln')
        content = [thought, dict(type='text', text=json.dumps(answer.data), citations=None)]
    elif answer.data is not None:
        content = [dict(type='tool_use', id='toolu_1', name='reply', input=answer.data)]
    elif answer.text: content = [dict(type='text', text=answer.text, citations=answer.citations or None)]
    else: content = []
    return dict(id='msg_1', type='message', role='assistant', model=body['model'], content=content, stop_sequence=None,
                stop_reason=answer.stop or ('tool_use' if any(c['type'] == 'tool_use' for c in content) else 'end_turn'),
                usage=dict(input_tokens=answer.usage[0], output_tokens=answer.usage[1]))


def message_events(body, answer):
    whole = message(body, answer)
    start = dict(whole, content=[], stop_reason=None, usage=dict(whole['usage'], output_tokens=1))
    events = [dict(type='message_start', message=start)]
    for i, block in enumerate(whole['content']):
        if block['type'] == 'text':
            empty = dict(block, text='')
            deltas = [dict(type='text_delta', text=w) for w in pieces(block['text'])]
        elif block['type'] == 'thinking':
            empty = dict(block, signature='')
            deltas = [dict(type='signature_delta', signature=block['signature'])]
        else:
            empty = dict(block, input={})
            deltas = [dict(type='input_json_delta', partial_json=w) for w in pieces(json.dumps(block['input']))]
        events.append(dict(type='content_block_start', index=i, content_block=empty))
        events += [dict(type='content_block_delta', index=i, delta=d) for d in deltas]
        events.append(dict(type='content_block_stop', index=i))
    events.append(dict(type='message_delta', delta=dict(stop_reason=whole['stop_reason'], stop_sequence=None),
                       usage=dict(output_tokens=answer.usage[1])))
    events.append(dict(type='message_stop'))
    return [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events]


def pieces(text): return [text[i:i+3] for i in range(0, len(text), 3)]


def chat_usage(answer):
    return dict(prompt_tokens=answer.usage[0], completion_tokens=answer.usage[1], total_tokens=sum(answer.usage))


def completion(body, answer):
    text = json.dumps(answer.data) if answer.data is not None else answer.text
    choice = dict(index=0, message=dict(role='assistant', content=text), finish_reason=answer.stop or 'stop')
    if answer.top:
        top = [dict(token=t, logprob=p, bytes=None) for t, p in answer.top.items()]
        choice['logprobs'] = dict(content=[dict(top[0], top_logprobs=top)])
    return dict(id='chat_1', object='chat.completion', created=1, model=body['model'], choices=[choice],
                usage=chat_usage(answer))


def chat_events(body, answer):
    text = json.dumps(answer.data) if answer.data is not None else answer.text
    base = dict(id='chat_1', object='chat.completion.chunk', created=1, model=body['model'])
    for piece in pieces(text):
        yield event(dict(base, choices=[dict(index=0, delta=dict(content=piece), finish_reason=None)]))
    yield event(dict(base, choices=[dict(index=0, delta={}, finish_reason=answer.stop or 'stop')]))
    yield event(dict(base, choices=[], usage=chat_usage(answer)))
    yield 'data: [DONE]\n\n'


def event(data): return f'data: {json.dumps(data)}\n\n'


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address): pass


class LMServer:
    "The server, while the `with` block lasts."
    def __init__(self, answer=lambda body: Answer(), latency=0., polls=1):
        self.answer, self.latency, self.polls = answer, latency, polls
        self.faults, self.received, self.headers, self.paid, self.batches = deque(), [], [], [], {}
        self.lock, self.busy, self.busiest = threading.RLock(), 0, 0

    def new_batch(self, body):
        id = f'batch_{len(self.batches)+1}'
        results = [dict(custom_id=r['custom_id'], result=self.result(r['params'])) for r in body['requests']]
        self.batches[id] = dict(id=id, polls=0, created=datetime.now(timezone.utc).isoformat(),
                                results=results[::-1])  # in any order, as the real one
        return self.batches[id]

    def result(self, params):
        answer = self.answer(params)
        if answer.stop == 'errored' or refusal(params):
            return dict(type='errored', error=error(400, refusal(params) or 'bad'))
        if answer.stop == 'expired': return dict(type='expired')
        self.paid.append(params)
        return dict(type='succeeded', message=message(params, answer))

    def __enter__(self):
        self.server = QuietServer(('127.0.0.1', 0), Handler)
        self.server.owner = self
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, args=(.02,), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


def numbers_of(body): return [int(n) for n in re.findall(r'^\[(\d+)\]', body_text(body), re.M)]


def body_text(body):
    content = body['messages'][-1]['content']
    return content if isinstance(content, str) else content[-1]['text']


def answer(body):
    "Every second piece begins a fact; the first two sentences support it."
    text = body_text(body)
    if text.startswith('Answer'):
        groups = re.split(r'^Answer \d+$', text, flags=re.M)[1:]
        starts = [n for g in groups for n in [int(n) for n in re.findall(r'^\[(\d+)\]', g, re.M)][::2]]
        return Answer(data=dict(starts=starts), usage=(200, 30))
    return Answer(data=dict(numbers=numbers_of(body)[:2], search=''), usage=(500, 20))
