from pathlib import Path

import pytest
from hypothesis import settings

# The profile of `make test-all`; tests/support/architectures.py reads the loaded profile.
settings.register_profile("thorough", max_examples=300)


@pytest.fixture(scope="session")
def translation_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained English-German bundle in all precisions: its folder, ``<name>/<version>``."""
    # Imported here, so that tests of the client alone do not need PyTorch.
    from tests.support.bundles import make_translation_bundle

    return make_translation_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def embedding_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedding bundle of random weights in all precisions."""
    from tests.support.bundles import make_embedding_bundle

    return make_embedding_bundle(tmp_path_factory.mktemp("bundles"))
