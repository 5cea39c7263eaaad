"""Static embeddings behind a real server give the vectors of the original packages."""

import itertools

import grpc
import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import TRUNCATION_RIGHT
from attendant_export.bundle.importing import ImportOptions, import_bundle, sample_texts
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.sentencepiece_texts import drawn_texts
from tests.support.serving import running_server
from tests.support.static_checkpoints import (
    TOKENIZERS,
    random_table,
    word_piece,
    write_model2vec,
    write_static_transformer,
)

NAMES = {tokenizer: tokenizer.split(",")[0].replace(" ", "-") for tokenizer in TOKENIZERS}
MAX_TOKENS = 40
UNKNOWN = "图书馆"
NUM_DRAWN_TEXTS = 1000


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder of Model2Vec for each tokenizer, and one of sentence-transformers."""
    root = tmp_path_factory.mktemp("checkpoints")
    for number, (tokenizer, name) in enumerate(NAMES.items()):
        made, normalizes = TOKENIZERS[tokenizer](), bool(number % 2)
        write_model2vec(root / name, made, normalize=normalizes, max_length=MAX_TOKENS)
    write_static_transformer(root / "st", word_piece())
    return root


@pytest.fixture(scope="module")
def server(checkpoints, tmp_path_factory, loop, settings):
    bundles = tmp_path_factory.mktemp("imported")
    with one_thread():
        for checkpoint in sorted(checkpoints.iterdir()):
            import_bundle(checkpoint, bundles, ImportOptions())
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def vectors_of(server, model, texts):
    """The vectors of texts, and the errors of those that failed."""
    vectors, errors = [], []
    for first in range(0, len(texts), 250):
        request = EmbedRequest(
            model=model, texts=texts[first : first + 250], truncation=TRUNCATION_RIGHT
        )
        response = server.embedding.Embed(request)
        found = np.frombuffer(response.embeddings.data, "<f4")
        vectors.append(found.reshape(list(response.embeddings.shape)))
        errors += [result.error.message for result in response.results]
    return np.concatenate(vectors), errors


@pytest.mark.parametrize("model", NAMES.values())
def test_embed_gives_the_vectors_of_model2vec(model, server, checkpoints):
    model2vec = pytest.importorskip("model2vec")
    original = model2vec.StaticModel.from_pretrained(checkpoints / model)
    original.median_token_length = 1000  # It would cut characters before it cuts tokens.
    texts = [*sample_texts(), *itertools.islice(drawn_texts(), NUM_DRAWN_TEXTS), UNKNOWN, ""]

    vectors, errors = vectors_of(server, model, texts)

    expected = original.encode(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    lengths = np.linalg.norm(expected, axis=1)
    cosines = (vectors * expected).sum(1)[lengths > 0] / np.maximum(
        np.linalg.norm(vectors, axis=1) * lengths, 1e-20
    )[lengths > 0]
    assert cosines.min() >= 0.99999
    assert (lengths > 0).sum() > NUM_DRAWN_TEXTS / 2
    # A text without tokens is a fault, and its vector is zero as that of the original.
    empty = [not original.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert [bool(error) for error in errors] == empty


def test_a_text_of_unknown_words_alone_has_a_zero_vector(server):
    vectors, errors = vectors_of(server, "words", [UNKNOWN, "No."])
    assert errors == ["", ""]
    assert not vectors[0].any()
    assert vectors[1].any()


def test_sentence_transformers_counts_unknown_tokens(server, checkpoints):
    tokenizer = Tokenizer.from_file(str(checkpoints / "st" / "0_StaticEmbedding/tokenizer.json"))
    text = f"The train {UNKNOWN} leaves."
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    expected = random_table(tokenizer.get_vocab_size())[ids].mean(0)
    assert tokenizer.token_to_id("[UNK]") in ids
    np.testing.assert_allclose(vectors_of(server, "st", [text])[0][0], expected, atol=1e-6)


def test_embed_tokens_gives_the_vector_of_every_token_also_of_unknown_ones(server):
    request = EmbedTokensRequest(model="words", texts=[f"No. {UNKNOWN}"], layers=[0])
    (result,) = server.embedding.EmbedTokens(request).results
    ids = [token.id for token in result.tokens]
    assert 0 in ids
    found = np.frombuffer(result.embeddings.data, "<f4").reshape(list(result.embeddings.shape))
    expected = random_table(TOKENIZERS["words"]().get_vocab_size())[ids]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-6)


def test_a_model_without_layers_says_so(server):
    model = server.models.GetModel(GetModelRequest(model="words"))
    sizes = model.embedding_sizes
    assert (sizes.num_layers, sizes.num_heads, sizes.d_model) == (0, 0, 24)
    for layers in ([1], [-2]):
        with pytest.raises(grpc.RpcError, match="layers: must be between -1 and 0"):
            server.embedding.EmbedTokens(
                EmbedTokensRequest(model="words", texts=["No."], layers=layers)
            )
    with pytest.raises(grpc.RpcError) as failure:
        server.embedding.FillMask(FillMaskRequest(model="words", texts=["[MASK]"], top_k=1))
    assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION
