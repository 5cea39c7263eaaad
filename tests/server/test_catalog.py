from pathlib import Path

import pytest
from attendant.v1.bundle_pb2 import Manifest
from attendant_server.application.catalog import EMBEDDING, TRANSLATION, Catalog
from attendant_server.bundles import Bundle
from attendant_server.errors import InvalidRequest, ModelNotFound, Unavailable


def bundle(name: str, version: str, kind: int = TRANSLATION) -> Bundle:
    manifest = Manifest(name=name, version=version)
    manifest.kind = kind  # type: ignore[assignment]
    return Bundle(Path("/bundles"), manifest, "int8")


@pytest.fixture
def refusals() -> list[str]:
    return []


@pytest.fixture
def catalog(refusals: list[str]) -> Catalog:
    bundles = [
        bundle("en-de", "1.9"),
        bundle("en-de", "1.10"),
        bundle("bert", "1", EMBEDDING),
    ]
    return Catalog(bundles, refusals.append)


def test_models_are_sorted_by_name_and_then_by_version(catalog: Catalog):
    assert [b.key for b in catalog.bundles] == ["bert/1", "en-de/1.9", "en-de/1.10"]


def test_a_name_without_a_version_means_the_highest(catalog: Catalog):
    assert catalog.find("en-de").key == "en-de/1.10"
    assert catalog.find("en-de/1.9").key == "en-de/1.9"
    assert [b.key for b in catalog.bundles if catalog.is_default(b)] == ["bert/1", "en-de/1.10"]


def test_no_name_means_the_only_name_of_the_kind(catalog: Catalog):
    assert catalog.find("", TRANSLATION).key == "en-de/1.10"
    assert catalog.find("", EMBEDDING).key == "bert/1"
    with pytest.raises(InvalidRequest, match="^model: must name one of bert/1, en-de"):
        catalog.find("")


def test_no_name_among_several_of_the_kind_is_refused(refusals: list[str]):
    catalog = Catalog([bundle("en-de", "1"), bundle("de-en", "1")], refusals.append)
    with pytest.raises(InvalidRequest, match="^model: must name one of de-en/1, en-de/1$"):
        catalog.find("", TRANSLATION)


def test_a_kind_without_models_has_none_to_find(refusals: list[str]):
    with pytest.raises(ModelNotFound, match="there are en-de/1$"):
        Catalog([bundle("en-de", "1")], refusals.append).find("", EMBEDDING)


def test_a_model_of_another_kind_is_refused(catalog: Catalog):
    with pytest.raises(InvalidRequest, match="bert/1 is no translation model"):
        catalog.find("bert", TRANSLATION)


def test_a_model_that_is_not_loaded_is_unavailable(catalog: Catalog, refusals: list[str]):
    with pytest.raises(Unavailable, match=r"en-de/1\.10 is loading"):
        catalog.serving("en-de")
    assert refusals == ["unavailable"]
