"""Bundles that cannot work are refused, and those that do harm do it in a child process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from attendant_server import bundle_trial
from attendant_server.bundles import Bundle, BundleError, read_bundle
from attendant_server.loading import ModelLoader
from attendant_server.observability.metrics import NoMetrics
from attendant_server.settings import Settings
from onnx import helper, numpy_helper

from tests.support.altered import replace_file

BUNDLES = Path(__file__).parents[1] / "recorded/bundles"
Change = Callable[[Path], object]


def load(folder: Path, while_serving: bool = False, **settings: Any) -> None:
    bundle = read_bundle(folder, "fp32", "cpu")
    metrics = NoMetrics()
    kind = "translation" if "en-de" in bundle.key else "embedding"
    metrics.add_model(bundle.key, kind, "fp32", [])
    ModelLoader(Settings(num_threads=1, **settings), metrics).load(bundle, while_serving)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLES / "tiny-en-de/1", tmp_path / "tiny-en-de/1"))


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLES / "tiny-bert/1", tmp_path / "tiny-bert/1"))


def weights_of(value: bytes) -> Change:
    def change(folder: Path) -> None:
        size = (folder / "weights.fp32.bin").stat().st_size
        replace_file(folder, "weights.fp32.bin", value * (size // len(value)))

    return change


def wrap_output(graph: str, output: str, operator: str, *more: np.ndarray, **attributes: Any):
    """Let ``operator`` change an output of a graph; ``more`` are its further inputs."""

    def change(folder: Path) -> None:
        model = onnx.load(folder / graph, load_external_data=False)
        [node] = (node for node in model.graph.node if output in node.output)
        for user in model.graph.node:
            user.input[:] = ["before" if name == output else name for name in user.input]
        node.output[list(node.output).index(output)] = "before"
        names = [f"more_{i}" for i in range(len(more))]
        model.graph.initializer.extend(map(numpy_helper.from_array, more, names))
        model.graph.node.append(
            helper.make_node(operator, ["before", *names], [output], **attributes)
        )
        [value] = (value for value in model.graph.output if value.name == output)
        value.type.tensor_type.ClearField("shape")
        value.type.tensor_type.elem_type = attributes.get("to", 1)
        replace_file(folder, graph, model.SerializeToString())

    return change


def change_references(change: Callable[[Any], object]) -> Change:
    def apply(folder: Path) -> None:
        reference = json.loads((folder / "reference_outputs.json").read_text("utf-8"))
        change(reference)
        replace_file(folder, "reference_outputs.json", json.dumps(reference).encode())

    return apply


def first_row_only(graph: str, output: str) -> Change:
    starts, ends, axes = np.array([0]), np.array([1]), np.array([0])
    return wrap_output(graph, output, "Slice", starts, ends, axes)


NAN = np.array(np.nan, np.float32).tobytes()
TRANSLATORS: dict[str, tuple[Change, str]] = {
    "weights of 0xff": (weights_of(b"\xff"), "the reference texts fail|cannot run|differ"),
    "weights of NaN": (weights_of(NAN), "the reference texts fail|cannot run|differ"),
    "weights of zeros": (weights_of(bytes(4)), "log-probabilities differ by"),
    "a scorer with fewer rows": (
        first_row_only("scorer.fp32.onnx", "log_probabilities"),
        "cannot run: .* argument 2 is longer",
    ),
    "a scorer of integers": (
        wrap_output("scorer.fp32.onnx", "log_probabilities", "Cast", to=7),
        "log-probabilities differ by|differs? from",
    ),
    "references without texts": (change_references(lambda r: r.pop("texts")), "KeyError: 'texts'"),
    "references beyond the vocabulary": (
        change_references(lambda r: r["texts"][0].update(token_ids=[10**6])),
        "reference_outputs.json: the reference texts fail: ",
    ),
}
EMBEDDERS: dict[str, tuple[Change, str]] = {
    "weights of 0xff": (weights_of(b"\xff"), "no finite numbers"),
    "weights of NaN": (weights_of(NAN), "no finite numbers"),
    "weights of zeros": (weights_of(bytes(4)), "vectors differ by"),
    "vectors with fewer rows": (
        first_row_only("embedder.fp32.onnx", "mean_pooled"),
        "mean_pooled has 1 rows of float32 for 4",
    ),
    "vectors of doubles": (
        wrap_output("embedder.fp32.onnx", "mean_pooled", "Cast", to=11),
        "mean_pooled has 4 rows of float64 for 4",
    ),
}


@pytest.mark.parametrize(("change", "reason"), TRANSLATORS.values(), ids=TRANSLATORS.keys())
def test_a_translation_model_that_cannot_work_is_refused(folder: Path, change: Change, reason: str):
    change(folder)
    with pytest.raises(BundleError, match=reason):
        load(folder)


@pytest.mark.parametrize(("change", "reason"), EMBEDDERS.values(), ids=EMBEDDERS.keys())
def test_an_embedding_model_that_cannot_work_is_refused(
    embedder: Path, change: Change, reason: str
):
    change(embedder)
    with pytest.raises(BundleError, match=reason):
        load(embedder)


def test_good_bundles_pass_their_trial(folder: Path, embedder: Path):
    for each in (folder, embedder):
        load(each, try_bundles="always")


@pytest.mark.parametrize("change", ["weights of 0xff", "references without texts"])
def test_a_trial_gives_the_same_reason_as_loading(folder: Path, change: str):
    TRANSLATORS[change][0](folder)
    reasons = []
    for choice in ("never", "always"):
        with pytest.raises(BundleError) as error:
            load(folder, try_bundles=choice)
        reasons.append(str(error.value))
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("choice", ["never", "always"])
def test_a_reason_names_files_of_the_bundle_and_not_their_private_copies(folder: Path, choice: str):
    model = onnx.load(folder / "scorer.fp32.onnx", load_external_data=False)
    model.graph.node[0].input[0] = "missing"
    replace_file(folder, "scorer.fp32.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=r"Load model from scorer\.fp32\.onnx failed"):
        load(folder, try_bundles=choice)


CHILDREN = {
    "crashes": (60, "loading it on trial crashed with SIGSEGV"),
    "hangs": (1, "loading it on trial took longer than 2 s"),
    "ignores its limit": (1, "loading it on trial took longer than 2 s"),
    "ends": (60, "loading it on trial ended with code 7"),
}


@pytest.mark.parametrize("what", CHILDREN)
def test_a_child_that_fails_refuses_the_bundle_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    seconds, reason = CHILDREN[what]
    monkeypatch.setattr(bundle_trial, "CHILD", "tests.support.trial_children")
    monkeypatch.setattr(bundle_trial, "GRACE_SECONDS", 0.5)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("TRIAL_CHILD", what)
    with pytest.raises(BundleError, match=f"^{folder}: {reason}$"):
        load(folder, try_bundles="always", trial_seconds=seconds)


def test_a_trial_imports_nothing_from_the_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "numpy.py").write_text("import os; os._exit(7)")
    monkeypatch.chdir(tmp_path)
    load(folder, try_bundles="always")


def test_a_bundle_that_takes_too_much_memory_fails_its_trial(embedder: Path):
    four_gib = np.array([2**25, 1, 1])  # of 32 values
    wrap_output("embedder.fp32.onnx", "mean_pooled", "Expand", four_gib)(embedder)
    with pytest.raises(BundleError, match="embedder cannot run: .*alloc"):
        load(embedder, try_bundles="always")


@pytest.mark.parametrize(
    ("choice", "while_serving", "is_tried"),
    [
        *[("auto", False, False), ("auto", True, True), ("always", False, True)],
        *[("always", True, True), ("never", True, False)],
    ],
)
def test_bundles_are_tried_while_other_models_are_served_or_always(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
    while_serving: bool,
    is_tried: bool,
):
    tried: list[Bundle] = []
    monkeypatch.setattr("attendant_server.loading.try_bundle", lambda copy, _: tried.append(copy))
    load(folder, while_serving, try_bundles=choice)
    assert bool(tried) == is_tried
