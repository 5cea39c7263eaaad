"""Every unusable bundle is refused with a reason, never with an unexpected error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attendant_server.bundles import BundleError, read_bundle
from attendant_server.loading import ModelLoader, read_bundles
from attendant_server.observability.metrics import Metrics
from attendant_server.reasons import reason_of
from attendant_server.runtime.translation_model import OnnxTranslationModel
from attendant_server.settings import Settings
from attendant_server.tokenizer import TextTokenizer, TokenizerError

from tests.support.altered import (
    with_failing_graph,
    with_manifest,
    with_tokenizer,
    with_tokenizer_file,
)
from tests.support.models import embedding_model


def refusal(root: Path) -> str:
    """The reason for refusing the bundle under ``root``, without the name of the folder."""
    with pytest.raises(BundleError) as error:
        load(root)
    return str(error.value).replace(str(root.resolve()), "").replace("/tiny-en-de/1", "")


def load(root: Path) -> None:
    metrics = Metrics()
    metrics.add_model("tiny-en-de/1", "translation", "fp32", [])
    settings = Settings(bundles=root, num_threads=1, precision="fp32")
    for bundle in read_bundles(settings, settings.models):
        ModelLoader(settings, metrics).load(bundle)


@pytest.mark.parametrize("content", [b"\xff\xfe{}", '{"ä": 1}'.encode("latin-1"), b"\x80"])
def test_a_tokenizer_that_is_not_utf_8_is_refused_by_its_name(
    translation_bundle: Path, tmp_path: Path, content: bytes
):
    reason = refusal(with_tokenizer_file(translation_bundle, tmp_path, content))
    assert reason.startswith("/tokenizer.json: 'utf-8' codec can't decode byte")


def test_a_tokenizer_that_the_library_refuses_is_refused_by_its_name(
    translation_bundle: Path, tmp_path: Path
):
    def change(definition: dict[str, Any]) -> None:
        definition["decoder"] = {"type": "Oracle"}

    reason = refusal(with_tokenizer(translation_bundle, tmp_path, change))
    assert reason.startswith("/tokenizer.json: Exception: data did not match")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": [2, 0, 65_536]}, "shape"),
        ({"shape": [65_536, 0, 16]}, "shape"),
        ({"data_type": "DATA_TYPE_FLOAT16"}, "type"),
    ],
)
def test_states_that_the_graphs_do_not_have_are_refused(
    translation_bundle: Path, tmp_path: Path, changes: dict[str, Any], reason: str
):
    def change(manifest: dict[str, Any]) -> None:
        for precision in manifest["precisions"]:
            for step in precision["steps"]:
                [state] = (s for s in step["states"] if s["input"] == "past_key_0")
                state.update(changes)

    found = refusal(with_manifest(translation_bundle, tmp_path, change))
    assert (
        found
        == f": step decoder_step: state past_key_0: {reason} differs between manifest and graph"
    )


def test_a_pooling_that_does_not_exist_is_refused(embedding_bundle: Path, tmp_path: Path):
    def change(manifest: dict[str, Any]) -> None:
        manifest["embedding"]["pooling"] = 7

    root = with_manifest(embedding_bundle, tmp_path, change)
    with pytest.raises(BundleError, match="embedding.pooling has no value 7$"):
        load(root)


@pytest.mark.parametrize("graph", ["embedder", "mlm_head"])
def test_an_embedding_graph_that_cannot_run_is_refused_by_its_name(
    embedding_bundle: Path, tmp_path: Path, graph: str
):
    root = with_failing_graph(embedding_bundle, tmp_path, f"{graph}.fp32.onnx")
    assert f": {graph} cannot run: " in refusal(root)


@pytest.mark.parametrize("graph", ["encoder", "scorer"])
def test_a_translation_graph_that_cannot_run_is_refused_by_its_name(
    translation_bundle: Path, tmp_path: Path, graph: str
):
    root = with_failing_graph(translation_bundle, tmp_path, f"{graph}.fp32.onnx")
    assert f": {graph} cannot run: " in refusal(root)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (AssertionError(), "AssertionError"),
        (RuntimeError(" "), "RuntimeError"),
        (StopIteration(), "StopIteration"),
        (KeyError("key_0"), "KeyError: 'key_0'"),
        (AssertionError("too small"), "AssertionError: too small"),
        (ValueError("not those of the graphs"), "not those of the graphs"),
    ],
)
def test_an_error_without_words_is_named(
    translation_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(OnnxTranslationModel, "__init__", fail)
    assert refusal(translation_bundle.parents[1]) == f": {reason}"


def test_what_fails_after_the_graphs_are_open_is_a_refusal_too(
    translation_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ModelLoader, "_max_cache_bytes", lambda *_: 1 / 0)
    assert refusal(translation_bundle.parents[1]) == ": division by zero"


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_refused_by_its_name(
    translation_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    def failing(read: Callable[..., Any]) -> Callable[..., Any]:
        def fail(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == name:
                raise OSError  # without a message
            return read(path, *arguments, **options)

        return fail

    root = with_manifest(translation_bundle, tmp_path, lambda _: None)
    monkeypatch.setattr(Path, "open", failing(Path.open))
    monkeypatch.setattr(Path, "read_text", failing(Path.read_text))
    assert refusal(root) == f"/{name}: OSError"


def test_a_tokenizer_error_names_its_class_where_it_has_no_words(
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(_: str) -> Any:
        raise MemoryError

    monkeypatch.setattr(json, "loads", fail)
    with pytest.raises(TokenizerError) as error:
        TextTokenizer("{}")
    assert str(error.value) == "MemoryError"


def test_a_reason_is_never_empty():
    assert reason_of(Exception()) == "Exception"
    assert reason_of(Exception("\n")) == "Exception"


def test_an_embedding_limit_beyond_the_positions_of_the_graph_is_refused_by_its_field(
    embedding_bundle: Path,
):
    bundle = read_bundle(embedding_bundle, "fp32", "cpu")
    bundle.manifest.limits.max_tokens += 1
    with pytest.raises(ValueError, match="embedder cannot run: .*; check limits.max_tokens"):
        embedding_model(bundle)


@pytest.mark.parametrize(
    ("part", "field"), [("special_tokens", "eos_id"), ("decoding", "start_token_id")]
)
def test_a_word_in_the_role_of_a_special_token_is_refused_by_its_field(
    translation_bundle: Path, tmp_path: Path, part: str, field: str
):
    def change(manifest: dict[str, Any]) -> None:
        manifest[part][field] = 20

    reason = refusal(with_manifest(translation_bundle, tmp_path, change))
    assert reason == (
        f"/manifest.json: {part}.{field} is 20, which is no special token of tokenizer.json"
    )


def test_a_limit_without_room_for_a_text_after_the_default_prompt_is_refused(
    embedding_bundle: Path, tmp_path: Path
):
    def change(manifest: dict[str, Any]) -> None:
        manifest["embedding"] |= {"prompts": {"query": "a b c d"}, "default_prompt": "query"}
        manifest["limits"]["max_tokens"] = 6

    root = with_manifest(embedding_bundle, tmp_path, change)
    with pytest.raises(BundleError, match="limits.max_tokens is 6, but special tokens, .* take 6"):
        load(root)


def test_a_limit_without_room_for_a_text_beside_tokens_of_languages_and_controls_is_refused(
    translation_bundle: Path, tmp_path: Path
):
    def change(manifest: dict[str, Any]) -> None:
        manifest["source_languages"][0]["source_prefix_ids"] = [20]
        values = [
            {"name": "warm", "source_prefix_ids": [21, 22]},
            {"name": "cold", "source_suffix_ids": [21]},
        ]
        manifest["controls"] = [{"name": "tone", "values": values}]
        manifest["limits"]["max_source_tokens"] = 4

    reason = refusal(with_manifest(translation_bundle, tmp_path, change))
    assert "limits.max_source_tokens is 4, but special tokens," in reason
    assert reason.endswith("take 4: no room for a text")
