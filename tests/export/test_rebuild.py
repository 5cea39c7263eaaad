"""A rebuilt bundle has the graphs and the manifest of this version, and its weights unchanged."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.manifest import BundleError, describe_file, read_manifest
from attendant_export.bundle.model_card import note_rebuilt_graphs
from attendant_export.bundle.parameters import fitting_parameters, read_parameters
from attendant_export.bundle.rebuild import rebuild_bundle
from attendant_export.bundle.upgrade import upgrade_bundle
from attendant_export.bundle.weights import read_weights
from attendant_export.graphs.builder import LayoutError
from attendant_export.verify.graph_sessions import ParityError
from attendant_manifest import format_manifest

from tests.support.bundles import one_thread

TESTS = Path(__file__).parents[1]
TRANSLATION = TESTS / "recorded/bundles/tiny-en-de/1"
EMBEDDING = TESTS / "recorded/bundles/tiny-bert/1"
BUILT_IN = TESTS.parent / "bundles/bert-en-de/2"
OTHER_LAYOUTS = sorted((TESTS / "data/manifest-1").glob("*/*"))


def copy(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / bundle.parent.name / bundle.name))


def upgraded_copy(bundle: Path, folder: Path) -> Path:
    upgrade_bundle(copied := copy(bundle, folder))
    return copied


def with_one_precision(bundle: Path, precision: str) -> Path:
    """Remove the graphs and weights of other precisions; the parity report stays as it is."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    others = [each for each in ("fp32", "int8", "fp16") if each != precision]
    for file in list(manifest["files"]):
        if any(f".{other}." in file["path"] for other in others):
            (bundle / file["path"]).unlink()
            manifest["files"].remove(file)
    manifest["precisions"] = [p for p in manifest["precisions"] if p["name"] == precision]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def replace_manifest(bundle: Path, change) -> Path:
    manifest = read_manifest(bundle)
    change(manifest)
    (bundle / "manifest.json").write_text(format_manifest(manifest), encoding="utf-8")
    return bundle


def reverse_outputs(manifest) -> None:
    """Another order of the embedder's outputs, which stands for an earlier version of the graph."""
    manifest.precisions[0].embedder.outputs.reverse()


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kept_files(folder: Path) -> dict[str, bytes]:
    changed = ("manifest.json", "MODEL_CARD.md")
    files = content_of(folder)
    return {n: b for n, b in files.items() if not n.endswith(".onnx") and n not in changed}


def refuses(bundle: Path, error: type[Exception], match: str) -> None:
    """Check that rebuilding fails, and changes neither the bundle nor the folder that holds it."""
    before = content_of(bundle.parent)
    with pytest.raises(error, match=match):
        rebuild_bundle(bundle)
    assert content_of(bundle.parent) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


class Rebuilt:
    """A rebuilt bundle, with its manifest and its other files before."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.manifest_before = bundle, read_manifest(bundle)
        self.kept_before = kept_files(bundle)
        with one_thread():
            self.summary, *self.checked = rebuild_bundle(bundle)
        self.manifest = read_manifest(bundle)


@pytest.fixture(scope="module")
def from_fp32(tmp_path_factory) -> Rebuilt:
    """A translation bundle of version 1 in fp32 and int8."""
    return Rebuilt(copy(TRANSLATION, tmp_path_factory.mktemp("fp32")))


@pytest.fixture(scope="module")
def from_int8(tmp_path_factory) -> Rebuilt:
    """A translation bundle in int8 only, with a quality figure."""
    bundle = with_one_precision(upgraded_copy(TRANSLATION, tmp_path_factory.mktemp("int8")), "int8")
    replace_manifest(bundle, lambda m: m.quality.add(metric="chrF", precision="int8", value=50))
    return Rebuilt(bundle)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Rebuilt:
    """An embedding bundle of version 1."""
    return Rebuilt(copy(EMBEDDING, tmp_path_factory.mktemp("embedder")))


@pytest.mark.parametrize("source", ["from_fp32", "from_int8", "embedder"])
def test_a_bundle_gets_graphs_of_this_version_for_the_weights_that_it_has(source, request):
    rebuilt = request.getfixturevalue(source)
    assert "are rebuilt, the weights unchanged" in rebuilt.summary
    assert len(rebuilt.checked) > 1
    assert kept_files(rebuilt.bundle) == rebuilt.kept_before
    content = json.loads((rebuilt.bundle / "manifest.json").read_text())
    assert content["manifest_version"] == 2
    assert [p.name for p in rebuilt.bundle.parent.iterdir()] == ["1"]
    for precision in rebuilt.manifest.precisions:
        for step in precision.steps:
            assert step.inputs.token_biases[0].indices == "bias_indices"


@pytest.mark.parametrize("source", ["translation_bundle", "embedding_bundle"])
def test_graphs_of_stored_weights_are_those_of_the_model_to_the_last_byte(
    source, request, tmp_path
):
    bundle = copy(request.getfixturevalue(source), tmp_path)
    before = content_of(bundle)

    assert rebuild_bundle(bundle)[0].endswith("the graphs are those of this version already")

    assert content_of(bundle) == before


def test_with_fp32_weights_all_precisions_are_compared_with_the_trained_model(from_fp32):
    fp32, int8 = from_fp32.manifest.parity.precisions
    for parity, precision in ((fp32, "fp32"), (int8, "int8")):
        assert (parity.precision, parity.reference_precision) == (precision, "")
        assert not parity.is_carried_over
    assert int8.corpus.is_carried_over
    assert int8.shortlist_corpus.is_carried_over


def test_an_int8_bundle_is_compared_with_its_weights_and_keeps_the_report_of_fp32(from_int8):
    before = from_int8.manifest_before.parity.precisions
    fp32, int8 = from_int8.manifest.parity.precisions
    assert fp32.is_carried_over
    fp32.is_carried_over = False
    assert fp32 == before[0]
    assert (int8.reference_precision, int8.is_carried_over) == ("int8", False)
    assert int8.max_log_probability_difference != before[1].max_log_probability_difference
    assert int8.corpus.is_carried_over
    assert int8.corpus.bleu == before[1].corpus.bleu
    assert [(q.value, q.is_carried_over) for q in from_int8.manifest.quality] == [(50, True)]


def test_a_bundle_with_fp16_is_compared_with_its_fp16_weights(embedding_bundle, tmp_path):
    bundle = with_one_precision(copy(embedding_bundle, tmp_path), "fp16")
    replace_manifest(bundle, reverse_outputs)

    rebuild_bundle(bundle)

    parities = {p.precision: p for p in read_manifest(bundle).parity.precisions}
    assert parities["fp16"].reference_precision == "fp16"
    assert [name for name, p in parities.items() if p.is_carried_over] == ["fp32", "int8"]


def test_carried_over_figures_are_marked_where_people_read_them(from_int8):
    lines = describe_manifest(read_manifest(from_int8.bundle)).splitlines()
    marked = [line for line in lines if line.endswith(", carried over from earlier graphs")]
    starts = [line.split()[:2] for line in marked]
    assert ["quality", "chrF"] in starts
    assert ["parity", "fp32:"] in starts
    (int8,) = [line for line in lines if line.startswith("parity      int8:")]
    assert "of the model of the int8 weights, " in int8
    assert not int8.endswith("earlier graphs")


def test_the_model_card_notes_once_that_its_figures_are_those_of_earlier_graphs(from_int8):
    card = (from_int8.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    heading = "## Agreement with the trained model\n\n"
    assert f"{heading}The graphs of this bundle were later rebuilt from its weights" in card
    assert "compared with the model of the int8 weights" in card
    assert note_rebuilt_graphs(card, "int8") == card
    assert note_rebuilt_graphs("# Another card\n", "int8") == "# Another card\n"


def test_the_int8_model_has_the_values_that_int8_graphs_compute_with(translation_bundle):
    manifest = read_manifest(translation_bundle)
    by_name = {graphs.name: graphs for graphs in manifest.precisions}
    weights = read_weights(translation_bundle, by_name["int8"])
    quantized = fitting_parameters("int8", weights, manifest.architecture)
    trained = read_parameters(translation_bundle)
    assert quantized.keys() == trained.keys()
    for name, weight in trained.items():
        if f"{name}.scales" in weights.arrays:
            steps = weights.arrays[f"{name}.scales"][:, None]
            values = quantized[name].numpy()
            assert (np.abs(values - weight.numpy()) <= 0.5001 * steps).all()
            np.testing.assert_allclose(values / steps, np.rint(values / steps), atol=1e-4)


@pytest.mark.parametrize("source", OTHER_LAYOUTS, ids=lambda b: b.parent.name)
def test_weights_of_another_layout_are_refused_by_name_and_shape(source, tmp_path):
    bundle = copy(source, tmp_path)
    refuses(bundle, BundleError, r"the int8 weights .* embedding.weight is uint8\[32, 13\d\]")


def test_weights_that_do_not_fit_the_architecture_are_refused_by_name_and_shape(tmp_path):
    def widen(manifest):
        manifest.architecture.encoder.groups[0].feed_forward.d_feed_forward = 128

    bundle = replace_manifest(upgraded_copy(EMBEDDING, tmp_path), widen)
    refuses(bundle, BundleError, r"the fp32 weights .*: encoder.0.feed_forward.0.bias is \(64,\)")


def test_weights_without_a_table_of_positions_are_refused(tmp_path):
    def learn_positions(manifest):
        for part in ("source_embeddings", "target_embeddings"):
            positions = getattr(manifest.architecture, part).positions
            positions.kind, positions.num_positions = "POSITION_KIND_LEARNED", 64

    bundle = upgraded_copy(TRANSLATION, tmp_path)
    replace_manifest(bundle, learn_positions)
    refuses(bundle, BundleError, "position_embedding.weight is missing")


def test_a_graph_with_weights_that_the_manifest_does_not_list_is_refused(tmp_path):
    bundle = copy(EMBEDDING, tmp_path)
    replace_manifest(bundle, lambda m: m.precisions[0].weights.__setitem__(0, "tokenizer.json"))
    refuses(bundle, BundleError, r"is in the file weights.fp32.bin, which is not among the weights")


def test_stored_weights_serve_only_graphs_that_need_their_very_bytes(translation_bundle):
    graphs = read_manifest(translation_bundle).precisions[0]
    stored = read_weights(translation_bundle, graphs)
    name = "encoder.0.self_attention.output.weight"
    array = stored.arrays[name]
    assert stored.add(name, lambda: array).name == name
    for other, problem in (
        (array.T, f"{name} has its values in another order"),
        (array[:-1], r"is float32\[32, 32\], and graphs of this version need float32\[31, 32\]"),
        (array.astype(np.float16), r"is float32.*need float16"),
    ):
        with pytest.raises(LayoutError, match=problem):
            stored.add(name, partial(np.asarray, other))
    with pytest.raises(LayoutError, match="other is missing"):
        stored.add("other", lambda: array)


def test_graphs_that_give_other_outputs_do_not_replace_the_bundle(tmp_path):
    bundle = upgraded_copy(EMBEDDING, tmp_path)
    path = bundle / "reference_outputs.json"
    reference = json.loads(path.read_text(encoding="utf-8"))
    reference["outputs"]["fp32"]["norms"][2] *= 1.01
    path.write_text(json.dumps(reference), encoding="utf-8")

    def update(manifest):
        entry = next(file for file in manifest.files if file.path == path.name)
        entry.CopyFrom(describe_file(bundle, path.name))
        reverse_outputs(manifest)

    replace_manifest(bundle, update)
    refuses(bundle, ParityError, "fp32: reference vectors differ by 0.99%")


def test_a_damaged_bundle_is_not_rebuilt(tmp_path):
    bundle = copy(EMBEDDING, tmp_path)
    (bundle / "tokenizer.json").write_bytes(b"{}")
    refuses(bundle, BundleError, "tokenizer.json has another SHA-256")


def test_a_bundle_without_reference_outputs_is_not_rebuilt(tmp_path):
    bundle = upgraded_copy(EMBEDDING, tmp_path)
    replace_manifest(bundle, lambda m: m.ClearField("reference_outputs"))
    refuses(bundle, BundleError, "names no reference outputs")


def test_reference_outputs_of_masks_need_a_head(embedder, tmp_path, capsys):
    def remove_head(manifest):
        manifest.architecture.ClearField("head")
        for graphs in manifest.precisions:
            graphs.ClearField("mlm_head")
        reverse_outputs(manifest)

    bundle = replace_manifest(copy(embedder.bundle, tmp_path), remove_head)
    with pytest.raises(SystemExit) as exit_:
        main(["rebuild", str(bundle)])
    assert exit_.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("reference_outputs.json: masked must have 0 values, not 16")


def test_the_command_prints_what_it_checked(tmp_path, capsys):
    bundle = copy(EMBEDDING, tmp_path)
    main(["rebuild", str(bundle)])
    main(["verify", str(bundle)])
    summary, *lines = capsys.readouterr().out.splitlines()
    assert summary == "tiny-bert/1: the graphs of fp32 are rebuilt, the weights unchanged"
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_one_graph_can_be_added_and_all_else_stays(tmp_path):
    bundle = copy(BUILT_IN, tmp_path)

    def remove_attention(manifest) -> None:
        for graphs in manifest.precisions:
            (bundle / graphs.attention.path).unlink()
            graphs.ClearField("attention")
        for parity in manifest.parity.precisions:
            parity.ClearField("max_attention_difference")
        kept = [file for file in manifest.files if not file.path.startswith("attention")]
        del manifest.files[:]
        manifest.files.extend(kept)

    def replace_attention() -> dict[str, bytes]:
        replace_manifest(bundle, remove_attention)
        with one_thread():
            main(["rebuild", str(bundle), "--only", "attention"])
        return content_of(bundle)

    exported, before, after = content_of(bundle), replace_attention(), replace_attention()
    assert changed(exported, before) <= {"manifest.json", "MODEL_CARD.md"}
    assert changed(before, after) <= {"manifest.json"}
    for old, new in zip(
        json.loads(before["manifest.json"])["parity"]["precisions"],
        json.loads(after["manifest.json"])["parity"]["precisions"],
        strict=True,
    ):
        figures = [each.pop("max_attention_difference", None) for each in (old, new)]
        assert old == new
        if old["precision"] == "fp32":  # which the bundle lacks
            assert figures == [None, None]
        else:
            assert figures[0] == pytest.approx(figures[1], abs=0.02)


def changed(old: dict[str, bytes], new: dict[str, bytes]) -> set[str]:
    """The names of the files that differ; no file came or went."""
    assert old.keys() == new.keys()
    return {name for name in new if new[name] != old[name]}


def test_a_graph_that_the_model_lacks_cannot_be_added(tmp_path, capsys):
    bundle = copy(BUILT_IN, tmp_path)
    before = content_of(bundle)
    with pytest.raises(SystemExit, match="1"):
        main(["rebuild", str(bundle), "--only", "aligner"])
    assert "this model has no graph aligner" in capsys.readouterr().err
    assert content_of(bundle) == before
