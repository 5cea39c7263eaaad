"""Embedding models with the shape of decoders behind a real server: Qwen3 and Gemma 3."""

from typing import Any

import numpy as np
import pytest
from attendant.v1 import text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle

from tests.support.bundles import one_thread
from tests.support.decoder_checkpoints import (
    END,
    GEMMA3_PROMPT,
    QWEN3_PROMPT,
    write_gemma3,
    write_qwen3,
)
from tests.support.serving import running_server

FAMILIES = {"qwen3": write_qwen3, "gemma3": write_gemma3}
PROMPTS = {"qwen3": QWEN3_PROMPT, "gemma3": GEMMA3_PROMPT}
TEXTS = [
    "a",
    "The train leaves at nine, and nobody knows from which platform it leaves.",
    "Où est la gare ?",
    "<|endoftext|> and <eos> are words of the text.",
    "No.",
    "東京は日本の首都です。",
]
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    for family, write in FAMILIES.items():
        write(root / family, max_tokens=96)
    return root


@pytest.fixture(scope="module")
def imported(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    with one_thread():
        for family in FAMILIES:
            import_bundle(checkpoints / family, folder, ImportOptions(precisions=PRECISIONS))
    return folder


@pytest.fixture(scope="module")
def server(imported, loop, settings):
    with running_server(loop, settings(bundles=imported)) as running:
        yield running


def as_array(tensor: Any) -> np.ndarray:
    return np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape))


def embed(server, texts, **options):
    return server.embedding.Embed(EmbedRequest(texts=texts, **options))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def original_vectors(folder, prompt, texts):
    """The vectors by ``transformers`` and the settings of the folder."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        ids = tokenizer(prompt + text, split_special_tokens=True)["input_ids"]
        with torch.inference_mode():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        vectors.append(hidden[-1] if folder.name == "qwen3" else hidden.mean(0))
    result = torch.stack(vectors)
    for layer in sorted(folder.glob("*_Dense")):
        result = result @ safetensors.load_file(layer / "model.safetensors")["linear.weight"].T
    return torch.nn.functional.normalize(result).numpy()


@pytest.mark.parametrize("prompt", ["", "query"])
@pytest.mark.parametrize("model", FAMILIES)
def test_vectors_are_those_of_the_original(model, prompt, server, checkpoints):
    text = PROMPTS[model] if prompt else ""
    expected = original_vectors(checkpoints / model, text, TEXTS)
    found = as_array(embed(server, [text + each for each in TEXTS], model=model).embeddings)
    assert cosines(found, expected).min() >= 0.99999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_vector_does_not_depend_on_the_other_texts(model, server):
    together = as_array(embed(server, TEXTS, model=model).embeddings)
    alone = [as_array(embed(server, [text], model=model).embeddings)[0] for text in TEXTS]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", FAMILIES)
def test_every_precision_is_served(model, precision, server, imported, loop, settings):
    expected = as_array(embed(server, TEXTS, model=model).embeddings)
    chosen = settings(bundles=imported, models=(model,), precision=precision)
    with running_server(loop, chosen) as running:
        found = as_array(embed(running, TEXTS).embeddings)
    assert (
        cosines(found, expected).min() >= {"fp32": 1 - 1e-6, "fp16": 0.999, "int8": 0.95}[precision]
    )


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
@pytest.mark.parametrize("model", FAMILIES)
def test_truncation_keeps_the_special_tokens(model, side, server):
    truncation = getattr(text_pb2, f"TRUNCATION_{side}")
    request = EmbedTokensRequest(model=model, texts=["one two " * 80], truncation=truncation)
    (result,) = server.embedding.EmbedTokens(request).results
    special = [token.text for token in result.tokens if token.special]
    assert special == ([END] if model == "qwen3" else ["<bos>", "<eos>"])
    assert (len(result.tokens), result.tokens[-1].special) == (96, True)
    if model == "qwen3":
        vector = as_array(
            embed(server, ["one two " * 80], model=model, truncation=truncation).embeddings
        )
        assert cosines(vector[0], as_array(result.embeddings)[-1]) >= 0.99999


def test_an_empty_text_is_refused_though_it_has_an_end(server):
    for model in FAMILIES:
        (result,) = embed(server, [""], model=model).results
        assert result.error.code == 3
        assert "empty" in result.error.message


def test_the_description_states_pooling_prompts_and_dimension(server):
    model = server.models.GetModel(GetModelRequest(model="qwen3"))
    assert dict(model.prompts) == {"query": QWEN3_PROMPT, "document": ""}
    assert (model.default_pooling, model.default_prompt) == (4, "")
    model = server.models.GetModel(GetModelRequest(model="gemma3"))
    assert model.prompts["query"] == GEMMA3_PROMPT
    assert model.embedding_sizes.d_model == 32
