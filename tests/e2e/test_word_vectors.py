"""Word vectors behind a real server are those of their file."""

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle

from tests.support.bundles import one_thread
from tests.support.serving import running_server
from tests.support.word_vector_files import drawn_vectors, word2vec_binary, written

VECTORS = drawn_vectors()


@pytest.fixture(scope="module")
def server(tmp_path_factory, loop, settings):
    path = written(tmp_path_factory.mktemp("files") / "words.bin", word2vec_binary(VECTORS))
    bundles = tmp_path_factory.mktemp("imported")
    with one_thread():
        import_bundle(path, bundles, ImportOptions(license="mit"))
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def test_embed_gives_the_vectors_of_words_and_their_means(server):
    texts = [*VECTORS, "The cat SAT, unknown!", "unknown"]
    response = server.embedding.Embed(EmbedRequest(model="words", texts=texts))
    found = np.frombuffer(response.embeddings.data, "<f4").reshape(len(texts), -1)
    mean = np.mean([VECTORS[word] for word in ("the", "cat", "sat", ",")], axis=0)
    expected = [*VECTORS.values(), mean, np.zeros_like(mean)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_embed_tokens_gives_words_with_their_offsets_and_vectors(server):
    request = EmbedTokensRequest(model="words", texts=["New_York, E-mail?"], layers=[0])
    (result,) = server.embedding.EmbedTokens(request).results
    assert [(token.start, token.end) for token in result.tokens] == [
        *((0, 8), (8, 9), (10, 16), (16, 17))
    ]
    found = np.frombuffer(result.embeddings.data, "<f4").reshape(4, -1)
    expected = [VECTORS["new_york"], VECTORS[","], VECTORS["e-mail"], np.zeros(5, np.float32)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
