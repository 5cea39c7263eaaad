import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# The profile of `make test-all`; tests/support/architectures.py reads the loaded profile.
settings.register_profile("thorough", max_examples=300)

NUM_COMPARED = 4
"""Sentences whose translations exports of further tiny models compare, to take less time."""

# A shell lets its background jobs, such as those of `make test`, ignore SIGINT, and so would the
# processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def translation_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained English-German bundle in all precisions: its folder, ``<name>/<version>``."""
    # Imported here, so that tests of the client alone do not need PyTorch.
    from tests.support.bundles import make_translation_bundle

    return make_translation_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def ssru_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle such as ``translation_bundle``, with an SSRU in every layer of the decoder."""
    from tests.support.bundles import TINY_SSRU, make_translation_bundle

    folder = tmp_path_factory.mktemp("bundles")
    return make_translation_bundle(
        folder, "tiny-ssru", architecture=TINY_SSRU, num_compared=NUM_COMPARED
    )


@pytest.fixture(scope="session")
def mixed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose decoder has a layer with an SSRU after one with self-attention."""
    from tests.support.bundles import TINY_MIXED, make_translation_bundle

    folder = tmp_path_factory.mktemp("bundles")
    precisions = ("fp32", "fp16")
    return make_translation_bundle(
        folder,
        "tiny-mixed",
        precisions=precisions,
        architecture=TINY_MIXED,
        num_compared=NUM_COMPARED,
    )


@pytest.fixture(scope="session")
def lstm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle such as ``translation_bundle``, of LSTMs with additive attention."""
    from tests.support.bundles import TINY_LSTM, make_translation_bundle

    folder = tmp_path_factory.mktemp("bundles")
    return make_translation_bundle(
        folder,
        "tiny-lstm",
        precisions=("fp32",),
        architecture=TINY_LSTM,
        learning_rate=2e-2,
        num_compared=NUM_COMPARED,
    )


@pytest.fixture(scope="session")
def gru_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of GRUs without attention, whose decoder begins with the encoder's final state."""
    from tests.support.bundles import TINY_GRU, make_translation_bundle

    folder = tmp_path_factory.mktemp("bundles")
    return make_translation_bundle(
        folder,
        "tiny-gru",
        precisions=("fp32",),
        architecture=TINY_GRU,
        learning_rate=2e-2,
        num_compared=NUM_COMPARED,
    )


@pytest.fixture(scope="session")
def bytenet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of dilated convolutions, whose decoder reads the encoder's outputs by position."""
    from tests.support.bundles import TINY_BYTENET, make_translation_bundle

    folder = tmp_path_factory.mktemp("bundles")
    return make_translation_bundle(
        folder,
        "tiny-bytenet",
        precisions=("fp32",),
        architecture=TINY_BYTENET,
        learning_rate=2e-2,
        num_compared=NUM_COMPARED,
    )


@pytest.fixture(scope="session")
def slicenet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of separable convolutions with attention and mixtures of experts."""
    from tests.support.bundles import TINY_SLICENET, make_translation_bundle

    folder = tmp_path_factory.mktemp("bundles")
    return make_translation_bundle(
        folder,
        "tiny-slicenet",
        precisions=("fp32",),
        architecture=TINY_SLICENET,
        num_compared=NUM_COMPARED,
    )


@pytest.fixture(scope="session")
def embedding_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedding bundle of random weights in all precisions."""
    from tests.support.bundles import make_embedding_bundle

    return make_embedding_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def very_few_texts() -> Iterator[None]:
    """Imports compare 8 instead of 64 sample texts; in `make test-all`, all of them."""
    with imports_compare_one_of(8):
        yield


@contextmanager
def imports_compare_one_of(step: int) -> Iterator[None]:
    """Imports compare a part of the sample texts; in `make test-all`, all of them."""
    from attendant_export.bundle import importing

    is_thorough = settings.get_current_profile_name() == "thorough"
    texts = _all_sample_texts()[:: 1 if is_thorough else step]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "sample_texts", lambda: texts)
        yield


@cache
def _all_sample_texts() -> list[str]:
    """The sample texts as they are without a fixture, because fixtures may be nested."""
    from attendant_export.bundle.importing import sample_texts

    return sample_texts()


@pytest.fixture
def quiet_threads() -> Iterator[None]:
    """PyTorch computes on one thread: more are slower for tiny models."""
    from tests.support.bundles import one_thread

    with one_thread():
        yield
