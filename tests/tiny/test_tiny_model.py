"Models on disk and in other people's libraries: damage is named, nothing is unpickled, the numbers agree."
import pickle
import re
from dataclasses import replace

import pytest
import torch
from agentfastbook.text.spans import FastbookError
from agentfastbook.judges.judge import ask_judge
from agentfastbook.tiny.checkpoint import export_llama, load_config, load_model, load_tokenizer, save_model
from agentfastbook.tiny.data import story_texts, train_tokenizer
from agentfastbook.tiny.quality import TEXT_CHECKS, read_criteria, read_scores
from agentfastbook.tiny.generation import generate
from agentfastbook.tiny.model import CONFIGS, ModelConfig, TinyLM, count_parameters, pick_device
from conftest import ROOT
from safetensors.torch import save_file

SMALL = ModelConfig(300, 32, 2, 4, 64, 64)


def loud(config, seed=0):
    "A model whose logits are far from 0, so that a difference would show."
    torch.manual_seed(seed)
    model = TinyLM(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1: torch.nn.init.normal_(parameter, std=.3)
    return model


@pytest.fixture
def folder(tmp_path): return save_model(loud(SMALL), tmp_path/'model', train_tokenizer(story_texts(50), 300))


@pytest.mark.parametrize('config', [SMALL, replace(SMALL, tied=False), replace(SMALL, theta=500., epsilon=1e-3),
                                    replace(CONFIGS['5m'], vocab_size=500, positions=64)], ids=range(4))
def test_transformers_computes_the_same(config, tmp_path):
    from transformers import AutoModelForCausalLM
    model = loud(config)
    theirs = AutoModelForCausalLM.from_pretrained(export_llama(model, tmp_path))
    ids = torch.randint(0, config.vocab_size, (3, 40))
    with torch.no_grad(): difference = (model(ids) - theirs(ids).logits).abs().max()
    assert model(ids).std() > .5 and difference <= 1e-4
    prompts = [[0, 5, 9], [0, 7, 7]]
    read = torch.tensor(prompts)
    written = theirs.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=20, do_sample=False,
                              eos_token_id=None, pad_token_id=0)
    assert generate(model, prompts, 20, temperature=0, end=None) == written[:, 3:].tolist()


def test_the_exported_tokenizer_opens(tmp_path):
    from transformers import AutoTokenizer
    tokenizer = train_tokenizer(story_texts(50), 300)
    theirs = AutoTokenizer.from_pretrained(export_llama(loud(SMALL), tmp_path, tokenizer))
    assert theirs('Once upon a time')['input_ids'] == tokenizer.encode('Once upon a time').ids


@pytest.mark.parametrize('kept', [0, 4, 8, .1, .5, .99, -1])
def test_truncated_weights_are_refused(folder, kept):
    path = folder/'model.safetensors'
    whole = path.read_bytes()
    path.write_bytes(whole[:int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(FastbookError, match='truncated or no safetensors'): load_model(folder)


def test_a_pickle_is_never_opened(folder, tmp_path):
    class Trap:
        def __reduce__(self): return open, (str(tmp_path/'sprung'), 'w')
    (folder/'model.safetensors').write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FastbookError, match='no safetensors'): load_model(folder)
    torch.save({'x': Trap()}, folder/'model.safetensors')
    (tmp_path/'sprung').unlink(missing_ok=True)
    with pytest.raises(FastbookError, match='no safetensors'): load_model(folder)
    assert not (tmp_path/'sprung').exists()
    for source in (ROOT/'agentfastbook'/'tiny').glob('*.py'):
        assert not re.search(r'import pickle|pickle\.load|torch\.load\(', source.read_text()), source.name


def test_weights_of_another_model_are_refused(folder):
    other = loud(replace(SMALL, layers=3))
    save_file({name: tensor for name, tensor in other.state_dict().items()}, folder/'model.safetensors')
    with pytest.raises(FastbookError, match='of another config: 9 parameters differ'): load_model(folder)


def test_switches_that_change_no_shape_are_noticed(folder):
    config = folder/'config.json'
    config.write_text(config.read_text().replace('10000.0', '500.0'))
    assert load_config(folder)[0].theta == 500
    with pytest.raises(FastbookError, match='same shapes, other switches'): load_model(folder)


def test_another_tokenizer_is_noticed(folder):
    assert load_tokenizer(folder).get_vocab_size() == 300
    (folder/'tokenizer.json').write_text(train_tokenizer(story_texts(50, 100), 300).to_str())
    with pytest.raises(FastbookError, match='is not the tokenizer that the model was saved with'): load_tokenizer(folder)


def test_a_killed_save_leaves_the_last_model(folder, monkeypatch):
    def killed(*paths): raise KeyboardInterrupt
    before = load_model(folder).state_dict()
    monkeypatch.setattr('os.replace', killed)
    with pytest.raises(KeyboardInterrupt): save_model(loud(SMALL, 1), folder)
    after = load_model(folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_named(folder):
    with pytest.raises(FastbookError, match="'cuda' was asked for"): load_model(folder, 'cuda')
    assert pick_device('auto').type == 'cpu'


@pytest.mark.parametrize('qk_norm', [False, True])
def test_batches_of_any_lengths_write_what_each_text_writes_alone(qk_norm):
    model, rng = loud(replace(SMALL, qk_norm=qk_norm)), torch.Generator().manual_seed(1)
    prompts = [torch.randint(1, 300, (n,), generator=rng).tolist() for n in (1, 9, 30, 2, 17)]
    together = generate(model, prompts, 20, seed=5)
    assert together == generate(model, prompts, 20, seed=5, cache=False)
    assert together == [generate(model, [prompt], 20, seed=5, first=i)[0] for i, prompt in enumerate(prompts)]


def test_the_labs_sizes():
    assert {name: round(count_parameters(CONFIGS[name]) / 1e6) for name in ('5m', '25m', '60m', '125m')} == {
        '5m': 5, '25m': 25, '60m': 58, '125m': 125}


def test_the_labs_rubric_and_scores_are_read(data):
    if not (data/'tinyscalelab').is_dir(): pytest.skip('no tinyscalelab/ in the data folder')
    criteria = read_criteria(data/'tinyscalelab'/'criteria.csv')
    assert len(criteria) == 17 and criteria[0].name == 'Grammar A'
    cases, scores = read_scores(data/'tinyscalelab'/'2025-04-30-manual-scores.csv')
    assert len(cases) == 450 and len(scores) == 1350 and set(scores.score) == {0, .5, 1}
    assert len({case.engine for case in cases}) == 3
    scored = {f'{category} {label}' for category, label in zip(scores.category, scores.label)}
    assert len(scored) == 18 and scored - {criterion.name for criterion in criteria} == {'Creativity D'}
    verdicts = [ask_judge(check, case) for case in cases[:50] for check in TEXT_CHECKS.values()]
    assert not any(verdict.missing for verdict in verdicts)
