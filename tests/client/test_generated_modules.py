"""The client's synchronous modules equal the output of `make clients`."""

import re

import pytest

from clients.generate_sync import CODE, PROSE, TARGETS, synchronous


@pytest.mark.parametrize("source", TARGETS, ids=lambda source: source.name)
def test_a_generated_module_is_what_its_source_gives(source):
    assert TARGETS[source].read_text() == synchronous(source), "run 'make clients'"


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_a_generated_module_names_its_source_and_nothing_else_of_asyncio(target):
    header, text = target.read_text().split("\n", 1)
    assert re.match(r"# Generated from \w+\.py by `make clients`. Do not edit", header)
    assert not re.search("async|await|aio|event loop", text, re.IGNORECASE)


@pytest.mark.parametrize("pattern", [*PROSE, *CODE])
def test_every_rule_of_the_generator_is_needed(pattern):
    assert any(re.search(pattern, source.read_text()) for source in TARGETS)
