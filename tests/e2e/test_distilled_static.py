"""Static embeddings that the command makes of a bundle, served beside their teacher."""

from collections import Counter

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant_export.__main__ import main
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.serving import running_server

TEXTS = ["The dog sees the man.", "The dog finds the old king.", "The dog calls the dog."]
WORDS = ["dog", "man", "king", "The", "sees", "old"]
COEFFICIENT = 0.02


@pytest.fixture(scope="module")
def server(embedding_bundle, tmp_path_factory, loop, settings):
    """Serves the teacher, its static embeddings, and those with weights that are almost 1."""
    bundles, text = tmp_path_factory.mktemp("distilled"), tmp_path_factory.mktemp("text")
    (bundles / "tiny-bert").symlink_to(embedding_bundle.parent)
    (text / "text.txt").write_text("\n".join(TEXTS))
    command = ["distill-static", f"--teacher={embedding_bundle}", f"--bundles-dir={bundles}"]
    command += [f"--text={text / 'text.txt'}", "--precisions=fp32"]
    with one_thread():
        for name, coefficient in {"static": COEFFICIENT, "unweighted": 1e6}.items():
            main([*command, f"--name={name}", f"--sif-coefficient={coefficient}"])
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def embed(server, model, texts, normalize=False):
    response = server.embedding.Embed(EmbedRequest(model=model, texts=texts, normalize=normalize))
    assert not any(result.error.message for result in response.results)
    return array_of(response.embeddings)


def array_of(tensor):
    return np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape))


def distances(vectors):
    """Between all pairs of vectors, which a rotation and a move of all vectors do not change."""
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)


def test_the_vector_of_a_text_of_one_token_is_the_row_of_the_token(server):
    request = EmbedTokensRequest(model="static", texts=["dog"], layers=[0])
    (result,) = server.embedding.EmbedTokens(request).results

    row = array_of(result.embeddings).reshape(-1)
    (vector,) = embed(server, "static", ["dog"])

    assert len(result.tokens) == 1
    assert row.any()
    np.testing.assert_allclose(vector, row, rtol=1e-6)
    (unit,) = embed(server, "static", ["dog"], normalize=None)
    np.testing.assert_allclose(unit, row / np.linalg.norm(row), rtol=1e-5)


def test_the_rows_without_weights_are_the_vectors_of_the_teacher_turned(server):
    expected = distances(embed(server, "tiny-bert", WORDS))
    found = distances(embed(server, "unweighted", WORDS))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_frequent_tokens_weigh_less_in_the_mean_as_their_counts_say(server, embedding_bundle):
    tokenizer = Tokenizer.from_file(str(embedding_bundle / "tokenizer.json"))
    tokens = [tokenizer.encode(text, add_special_tokens=False).tokens for text in TEXTS]
    counts = Counter(token for each in tokens for token in each)
    num_tokens = tokenizer.get_vocab_size() - 5  # [PAD], [UNK], [CLS], [SEP] and [MASK]
    total = counts.total() + num_tokens  # Each token of the vocabulary counts once more.
    weights = {w: COEFFICIENT / (COEFFICIENT + (counts[w] + 1) / total) for w in WORDS}
    rows = dict(zip(WORDS, embed(server, "unweighted", WORDS), strict=True))

    (found,) = embed(server, "static", ["The old dog"])

    words = ("The", "old", "dog")
    expected = sum(weights[word] * rows[word] for word in words) / len(words)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert weights["dog"] < weights["old"]


def test_the_model_has_no_layers_and_reads_longer_texts_than_its_teacher(server):
    static = server.models.GetModel(GetModelRequest(model="static"))
    teacher = server.models.GetModel(GetModelRequest(model="tiny-bert"))
    assert (static.embedding_sizes.num_layers, static.embedding_sizes.d_model) == (0, 32)
    assert static.limits.max_tokens == 512 > teacher.limits.max_tokens
    assert static.license == teacher.license
    vectors = embed(server, "static", ["dog man " * 100, "dog man"])
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-6)
