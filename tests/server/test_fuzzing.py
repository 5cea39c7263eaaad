"""Random and mutated inputs end in an answer or in one of our own errors, never in another one."""

import json
import os
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from attendant_server.bundles import BundleError, read_bundle
from attendant_server.setting_sources import load_settings
from attendant_server.settings import SettingsError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.application import TINY_BUNDLES

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Inputs of each test; 0 for few."""
BUNDLE = TINY_BUNDLES / "tiny-en-de" / "1"
fuzz = settings(
    max_examples=EXAMPLES or 60,
    deadline=timedelta(seconds=20),
    suppress_health_check=list(HealthCheck),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def paths_in(tree, path=()):
    """The paths to all values of a JSON tree."""
    yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from paths_in(value, (*path, key))


def changed(tree, path, value):
    """A copy of a tree with another value at ``path``."""
    if not path:
        return value
    copied = tree.copy()
    copied[path[0]] = changed(tree[path[0]], path[1:], value)
    return copied


@st.composite
def mutated(draw, content):
    """Bytes like ``content``, with some parts replaced, left out or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        content = content[:start] + draw(st.binary(max_size=8)) + content[start + length :]
    return content


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny-en-de" / "1"
    shutil.copytree(BUNDLE, folder)
    return folder


MANIFEST = (BUNDLE / "manifest.json").read_bytes()
TREE = json.loads(MANIFEST)


def read_or_refuse(bundle: Path, manifest: bytes) -> None:
    (bundle / "manifest.json").write_bytes(manifest)
    with suppress(BundleError):
        read_bundle(bundle, "fp32", "cpu")


@fuzz
@given(manifest=mutated(MANIFEST))
def test_mutated_bytes_of_a_manifest_are_read_or_refused(bundle, manifest):
    read_or_refuse(bundle, manifest)


@fuzz
@given(path=st.sampled_from(list(paths_in(TREE))), value=json_values)
@example(path=("translation_sizes",), value=[True])
def test_mutated_trees_of_a_manifest_are_read_or_refused(bundle, path, value):
    read_or_refuse(bundle, json.dumps(changed(TREE, path, value)).encode())


FLAGS = ["--port", "--max-texts", "--host", "--device", "--jwt-algorithms", "--max-cache-bytes"]


@fuzz
@given(
    flags=st.lists(st.tuples(st.sampled_from(FLAGS), st.text(max_size=12)), max_size=4),
    variables=st.dictionaries(
        st.sampled_from(["ATTENDANT_PORT", "ATTENDANT_MAX_ROWS", "ATTENDANT_LOG_LEVEL"]),
        st.text(max_size=12),
    ),
)
def test_random_settings_are_read_or_refused(flags, variables):
    with suppress(SettingsError):
        load_settings([f"{name}={value}" for name, value in flags], variables)
