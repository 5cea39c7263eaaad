from pathlib import Path

import pytest
from hypothesis import settings

# What `make test-all` chooses; tests/support/architectures.py reads which one is loaded.
settings.register_profile("thorough", max_examples=300)


@pytest.fixture(scope="session")
def translation_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained English-German bundle in all precisions: its folder, ``<name>/<version>``."""
    # Imported late, so that tests of the client alone need no PyTorch.
    from tests.support.bundles import make_translation_bundle

    return make_translation_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def embedding_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedding bundle of random weights in all precisions."""
    from tests.support.bundles import make_embedding_bundle

    return make_embedding_bundle(tmp_path_factory.mktemp("bundles"))
