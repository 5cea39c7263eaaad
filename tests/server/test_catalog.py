import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from attendant_server.application.catalog import Catalog, ServedModel, version_order
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.engine.calls import Call
from attendant_server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    Unavailable,
)

TRANSLATION, EMBEDDING = ModelKind.TRANSLATION, ModelKind.EMBEDDING


def model(name: str, version: str, kind: ModelKind = TRANSLATION) -> ModelDescription:
    return ModelDescription(name=name, version=version, kind=kind, precision="int8")


def catalog_of(
    models: list[ModelDescription], refusals: list[str], defaults: Sequence[str] = ()
) -> Catalog:
    """A catalog of these models, which are loading."""
    catalog = Catalog(refusals.append, defaults)
    catalog.announce(models)
    return catalog


@pytest.fixture
def refusals() -> list[str]:
    return []


@pytest.fixture
def catalog(refusals: list[str]) -> Catalog:
    models = [
        model("en-de", "1.9"),
        model("en-de", "1.10"),
        model("bert", "1", EMBEDDING),
    ]
    return catalog_of(models, refusals)


def test_models_are_sorted_by_name_and_then_by_version(catalog: Catalog):
    assert [d.key for d in catalog.descriptions] == ["bert/1", "en-de/1.9", "en-de/1.10"]


def test_a_name_without_a_version_means_the_highest(catalog: Catalog):
    assert catalog.find("en-de").key == "en-de/1.10"
    assert catalog.find("en-de/1.9").key == "en-de/1.9"
    assert [d.key for d in catalog.descriptions if catalog.is_default(d)] == [
        "bert/1",
        "en-de/1.10",
    ]


def test_no_name_means_the_only_name_of_the_kind(catalog: Catalog):
    assert catalog.find("", TRANSLATION).key == "en-de/1.10"
    assert catalog.find("", EMBEDDING).key == "bert/1"
    with pytest.raises(InvalidRequest, match="^model: must name one of bert/1, en-de"):
        catalog.find("")


def test_no_name_among_several_of_the_kind_is_refused(refusals: list[str]):
    catalog = catalog_of([model("en-de", "1"), model("de-en", "1")], refusals)
    with pytest.raises(InvalidRequest, match="^model: must name one of de-en/1, en-de/1, unless"):
        catalog.find("", TRANSLATION)


def test_the_first_default_model_that_fits_is_chosen_among_several(refusals: list[str]):
    models = [model("en-de", "1"), model("big", "1"), model("big", "2"), model("de-en", "1")]
    catalog = catalog_of(models, refusals, defaults=["absent", "big/1", "de-en", "en-de"])
    assert catalog.find("", TRANSLATION).key == "big/1"
    assert catalog.find("", TRANSLATION, lambda d: "de" in d.name).key == "de-en/1"
    assert catalog.find("big").key == "big/2"
    assert catalog.find("", TRANSLATION, lambda d: d.name == "big").key == "big/1"


def test_a_kind_without_models_has_none_to_find(refusals: list[str]):
    with pytest.raises(ModelNotFound, match="^model: no embedding model; there are none$"):
        catalog_of([model("en-de", "1")], refusals).find("", EMBEDDING)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (TRANSLATION, "en-de/1.9, en-de/1.10"),
        (EMBEDDING, "bert/1"),
        (None, "bert/1, en-de/1.9, en-de/1.10"),
    ],
)
def test_a_model_that_is_not_found_is_answered_with_those_of_the_kind(
    catalog: Catalog, kind: ModelKind | None, keys: str
):
    with pytest.raises(ModelNotFound, match=f"^model: no such model; there are {keys}$"):
        catalog.find("fr-de", kind)


def test_a_model_of_another_kind_is_refused(catalog: Catalog):
    with pytest.raises(InvalidRequest, match="bert/1 is no translation model"):
        catalog.find("bert", TRANSLATION)


def test_a_model_that_is_not_loaded_is_unavailable(catalog: Catalog, refusals: list[str]):
    with pytest.raises(Unavailable, match=r"en-de/1\.10 is loading"):
        catalog.serving("en-de")
    assert refusals == ["unavailable"]


def test_versions_are_ordered_by_their_numbers():
    versions = ["10", "1.10", "2", "1.9", "2-beta", "1.9-rc2", "1.9.1", "1.9-rc1", "1"]
    ordered = ["1", "1.9-rc1", "1.9-rc2", "1.9", "1.9.1", "1.10", "2-beta", "2", "10"]
    assert sorted(versions, key=version_order) == ordered


def served(description: ModelDescription) -> ServedModel:
    tokenizer: Any = None
    return ServedModel(description, tokenizer, tokenizer, None, NoEngine(), "", print)


class NoEngine:
    """An engine that takes no calls."""

    def submit(self, model: str, call: Any) -> None:
        """Take no call."""
        raise NotImplementedError

    def clock(self) -> float:
        """A clock that stands still."""
        return 0.0


def test_a_new_version_is_the_default_only_once_it_is_ready(refusals: list[str]):
    old, new = model("en-de", "1"), model("en-de", "2")
    catalog = catalog_of([old], refusals)
    catalog.open([served(old)])
    catalog.announce([new])
    assert catalog.find("en-de") is old
    assert catalog.is_default(old)
    assert not catalog.is_default(new)
    catalog.open([served(new)])
    assert catalog.find("en-de") is new
    catalog.withdraw(new.key)
    assert catalog.find("en-de") is old


def test_a_chosen_default_is_used_while_it_is_there(refusals: list[str]):
    old, new = model("en-de", "1"), model("en-de", "2")
    catalog = catalog_of([old, new], refusals)
    catalog.open([served(old), served(new)])
    catalog.choose_defaults({"en-de": "1", "bert": "1"})
    assert catalog.find("en-de") is old
    assert catalog.find("", TRANSLATION) is old
    assert catalog.is_default(old)
    catalog.withdraw(old.key)
    assert catalog.find("en-de") is new
    catalog.announce([old])
    assert catalog.find("en-de") is new, "the chosen default is loading again"
    catalog.open([served(old)])
    assert catalog.find("en-de") is old


def test_a_model_is_in_use_until_the_tasks_that_asked_for_it_end(refusals: list[str]):
    async def scenario() -> None:
        description = model("en-de", "1")
        catalog = catalog_of([description], refusals)
        catalog.open([served(description)])
        ends = [asyncio.Event(), asyncio.Event()]

        async def call(end: asyncio.Event) -> None:
            catalog.serving("en-de")
            await end.wait()

        calls = [asyncio.ensure_future(call(end)) for end in ends]
        await asyncio.sleep(0)
        found = catalog.ready("en-de/1")
        assert found is not None
        unused = asyncio.ensure_future(found.usage.wait_until_unused())
        ends[0].set()
        await calls[0]
        await asyncio.sleep(0)
        assert not unused.done()
        calls[1].cancel()
        await unused

    asyncio.run(scenario())


class Full:
    """An engine whose queue has room after some attempts only."""

    clock = staticmethod(time.monotonic)

    def __init__(self, num_refusals: int) -> None:
        self.num_refusals = num_refusals

    def submit(self, _: str, call: Call[str]) -> None:
        if self.num_refusals:
            self.num_refusals -= 1
            raise QueueFull("full", retry_after_seconds=0.01)
        call.put(0, "answer", 0.0)


def answer(engine: Full, seconds: float, may_wait: bool, refusals: list[str]) -> list[str]:
    """The answer to a call of one text with this time."""
    tokenizer: Any = None
    served = ServedModel(
        model("en-de", "1"), tokenizer, tokenizer, None, engine, "en-de/1", refusals.append
    )
    call = Call[str](1, time.monotonic() + seconds)
    return asyncio.run(served.answer(call, may_wait))


def test_a_call_that_may_wait_gets_room_later(refusals: list[str]):
    assert answer(Full(3), 60.0, True, refusals) == ["answer"]
    with pytest.raises(QueueFull):
        answer(Full(1), 60.0, False, refusals)
    assert refusals == ["queue_full"]


def test_a_call_that_may_wait_does_not_wait_beyond_its_deadline(refusals: list[str]):
    with pytest.raises(DeadlineExceeded, match="before the queue had room"):
        answer(Full(10**6), 0.03, True, refusals)
    assert refusals == []
