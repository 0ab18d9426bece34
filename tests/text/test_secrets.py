"The usual kinds of secrets are found, whole; ordinary text is not; and the time grows only with the text."
import json
import time

import pytest
from agentfastbook.text.spans import FastbookError
from agentfastbook.lm.local import open_lm
from agentfastbook.engines.pipeline import curate
from agentfastbook.books.chapters import sample_path
from agentfastbook.prompts.parts import keep_parts
from agentfastbook.prompts.branches import PromptRepo
from agentfastbook.lm.reply import redact
from agentfastbook.text.secrets import MASK, find_secrets, mask_secrets, refuse_secrets
from agentfastbook.store.runs import Store
from agentfastbook.prompts.templates import Part
from kinds_of_secrets import ALL, KINDS, block, some


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_is_masked_and_refused(kind):
    around, secret = KINDS[kind]
    masked = mask_secrets(around)
    assert secret not in masked and MASK in masked
    assert not any(piece in masked for piece in secret.split('\n') if len(piece) >= 16)
    assert find_secrets(masked) == []
    with pytest.raises(FastbookError, match='holds what looks like a key'): refuse_secrets(around, 'the note')
    assert secret not in json.dumps(redact({'a': [around, {'b': around}]}))


@pytest.mark.parametrize('text', [
    'The key to a good loaf is time; a token of thanks, a secret of the trade.', 'token = next_token_2_of_this_reader',
    'tokens_per_second: 1234567890123456', 'password = getpass.getpass()', 'http://user:password@host/', 'API_KEY=your_api_key_here_123',
    'key=lambda word: (len(word), word)', 'embed_tokens = M2M100ScaledWordEmbedding(config)', 'sha256 of the file',
    'commit 3f2a91c0de3f2a91c0de3f2a91c0de3f2a91c0de', 'https://x.example/page#section-2-of-the-book-of-bread', 'basic knowledge',
    'http://localhost:11434/v1#qwen2.5-coder-7b-instruct-q4', 'skip-gram, sk-learn-like-interfaces', 'secret_key = os.environ["K3Y_0F_TH3_S3RV3R"]'])
def test_ordinary_text_is_left_alone(text): assert mask_secrets(text) == text


def test_a_private_key_is_taken_out_as_a_whole():
    for kind in ('RSA PRIVATE'+' KEY', 'PGP PRIVATE'+' KEY BLOCK'):
        key = block(kind, 30)
        assert mask_secrets(f'before\n{key}\nafter') == f'before\n{MASK}\nafter'
        escaped = json.dumps(key)
        assert mask_secrets(f'[{escaped}]') == f'["{MASK}"]'
        cut = key[:len(key)-60]
        assert some(1) and not any(line in mask_secrets(cut) for line in key.split('\n')[1:-2])
    two = block('RSA PRIVATE'+' KEY')+'\nand\n'+block('EC PRIVATE'+' KEY')
    assert mask_secrets(two) == f'{MASK}\nand\n{MASK}'


PATTERNS = ['a', 'sk-', 'eyJ', '-eyJ', '-eyJaaaaaaaaaaa.', '_a', 'key=', 'key = ', 'token', 'token_', 'password="', '?sig=', '://', '://a:b',
            'https://a#', 'basic ', 'bearer a', 'login a password ', 'SG.', 'xapp-1-A', 'A', '0a', 'key=a0b1', 'ghp_', 'glaaaa-', '\\n', ' ',
            '\n', '-', '.', '=', '-----BEGIN PRIVATE'+' KEY-----', '-----END PRIVATE'+' KEY-----', 'PuTTY-User-Key-File-2:',
            '-----BEGIN PRIVATE'+' KEY-----\nAAAAAAAAAAAAAAAAAAAA\n', 'EAAA', 'é']


def test_the_time_grows_with_the_text():
    "100 kB that tempt every form: a second is the promise, twice as long a text at most three times as long."
    for pattern in PATTERNS:
        start = time.perf_counter()
        mask_secrets((pattern*100_000)[:100_000])
        assert time.perf_counter()-start < 5, pattern  # five times the promise, for slow machines


def test_no_key_in_the_place_of_a_model():
    key = some(40)
    for name in (f'http://localhost:8080/v1#{key}', 'http://localhost:8080/v1#sk-'+'a1'*20):
        with pytest.raises(FastbookError, match='looks like a key') as said: open_lm(name)
        assert key not in str(said.value)
    with pytest.raises(FastbookError, match='is not known') as said: open_lm('sk-'+'a1'*20)
    assert 'a1a1' not in str(said.value)


def test_an_error_of_an_engine_is_kept_without_its_key(tmp_path):
    key = 'ghp_'+some(36, ALL)
    def decompose(question): raise ValueError(f'no access with {key}')
    found = curate(sample_path(), sample_path()/'benchmark.json', tmp_path, decompose=decompose, progress=False)
    assert found.errors and all(MASK in e for e in found.errors.values())
    Store(tmp_path/'traces.db').close()
    assert not any(key.encode() in path.read_bytes() for path in tmp_path.rglob('*') if path.is_file())


def test_no_key_in_where_a_part_comes_from_or_in_a_name(tmp_path):
    repo, key = PromptRepo(tmp_path/'prompts'), 'ghp_'+some(36, ALL)
    with pytest.raises(FastbookError, match='looks like a key'): keep_parts(repo, [Part('passage', 'text', dict(file=f'/x?token={key}'))])
    repo.write_text('a', '---\nname: a\n---\nSay it.\n')
    repo.commit('one')
    for name in (repo.branch, repo.tag):
        with pytest.raises(FastbookError, match='looks like a key'): name(key)
