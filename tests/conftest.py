import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

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


def _tiny_bundle(factory: pytest.TempPathFactory, kind: str, **options: Any) -> Path:
    """A bundle such as ``translation_bundle``, of a further kind of network."""
    from tests.support import bundles

    architecture = getattr(bundles, f"TINY_{kind.upper()}")
    return bundles.make_translation_bundle(
        factory.mktemp("bundles"),
        f"tiny-{kind}",
        architecture=architecture,
        num_compared=NUM_COMPARED,
        **options,
    )


@pytest.fixture(scope="session")
def ssru_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle such as ``translation_bundle``, with an SSRU in every layer of the decoder."""
    return _tiny_bundle(tmp_path_factory, "ssru")


@pytest.fixture(scope="session")
def mixed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose decoder has a layer with an SSRU after one with self-attention."""
    return _tiny_bundle(tmp_path_factory, "mixed", precisions=("fp32", "fp16"))


@pytest.fixture(scope="session")
def lstm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle such as ``translation_bundle``, of LSTMs with additive attention."""
    return _tiny_bundle(tmp_path_factory, "lstm", precisions=("fp32",), learning_rate=2e-2)


@pytest.fixture(scope="session")
def gru_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of GRUs without attention, whose decoder begins with the encoder's final state."""
    return _tiny_bundle(tmp_path_factory, "gru", precisions=("fp32",), learning_rate=2e-2)


@pytest.fixture(scope="session")
def bytenet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of dilated convolutions, whose decoder reads the encoder's outputs by position."""
    return _tiny_bundle(tmp_path_factory, "bytenet", precisions=("fp32",), learning_rate=2e-2)


@pytest.fixture(scope="session")
def slicenet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of separable convolutions with attention and mixtures of experts."""
    return _tiny_bundle(tmp_path_factory, "slicenet", precisions=("fp32",))


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
