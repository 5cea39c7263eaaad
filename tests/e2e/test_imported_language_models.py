"""Imported language models behind a real server continue and score texts as their originals."""

import pytest
import torch
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle

from tests.support.bundles import one_thread
from tests.support.language_checkpoints import write_language_model
from tests.support.serving import running_server

transformers = pytest.importorskip("transformers")

FAMILIES = {"gpt2": False, "llama": True}
"""The families, and whether the tokenizer of each puts a token before texts."""
PROMPTS = ["The train leaves at nine.", "A", "She opened the window at night, and then she"]
NUM_TOKENS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory, very_few_texts):
    root = tmp_path_factory.mktemp("language-models")
    with one_thread():
        for family, has_start in FAMILIES.items():
            source = write_language_model(root / family, family, has_start)
            import_bundle(source, root / "bundles", ImportOptions(max_tokens=60))
    return root


@pytest.fixture(scope="module")
def client(loop, settings, root):
    with (
        running_server(loop, settings(bundles=root / "bundles")) as running,
        Client(f"127.0.0.1:{running.server.port}") as client,
    ):
        yield client


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def original(root, family):
    """The model and the tokenizer of `transformers`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(root / family).eval()
    return model, transformers.AutoTokenizer.from_pretrained(root / family)


def test_greedy_continuations_are_those_of_the_original(client, family, original):
    model, tokenizer = original
    found = client.generate(PROMPTS, model=family, max_output_tokens=NUM_TOKENS, return_tokens=True)
    for prompt, generation in zip(PROMPTS, found, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        assert generation.num_prompt_tokens == inputs.input_ids.shape[1]
        with torch.no_grad():
            whole = model.generate(
                **inputs, max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0
            )
        expected = whole[0, inputs.input_ids.shape[1] :].tolist()
        assert [token.id for token in generation.hypotheses[0].tokens] == expected
        text = tokenizer.decode(expected, skip_special_tokens=True)
        assert generation.text == text


def test_scores_of_texts_are_those_of_the_original(client, family, original):
    model, tokenizer = original
    found = client.score_texts(PROMPTS, model=family, return_tokens=True)
    for text, score in zip(PROMPTS, found, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            log_probabilities = model(ids).logits.log_softmax(-1)[0, :-1]
        expected = log_probabilities.gather(1, ids[0, 1:, None])[:, 0]
        assert score.num_scored_tokens == len(expected)
        assert score.log_probability == pytest.approx(float(expected.sum()), abs=1e-2)
        scored = score.log_probabilities[-len(expected) :] if len(expected) else ()
        assert list(scored) == pytest.approx(expected.tolist(), abs=1e-3)
