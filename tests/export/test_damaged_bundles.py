"""Every command on a damaged bundle ends with one line that names the file, and exit code 1."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import BundleError
from attendant_export.bundle.parameters import read_parameters

from tests.support.altered import replace_file

ROOT = Path(__file__).parents[2] / "tests/recorded/bundles"
COMMANDS = ("verify", "inspect", "upgrade")
REFERENCE = "reference_outputs.json"
Json = dict[str, Any]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "tiny-bert/1", tmp_path / "tiny-bert/1"))


@pytest.fixture
def translator(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "tiny-en-de/1", tmp_path / "tiny-en-de/1"))


@pytest.fixture
def refusal(capsys) -> Callable[..., str]:
    """Runs a command that must end with exit code 1, and returns its only line."""

    def run(command: str, folder: Path) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([command, str(folder)])
        output = capsys.readouterr()
        assert exit_.value.code == 1, output.err
        [line] = output.err.splitlines()
        assert line.startswith(f"attendant-export: {folder}")
        assert output.out == ""
        return str(line)

    return run


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "manifest.json: Expecting value"),
        (b"\xff\xfe{}", "manifest.json: 'utf-8' codec can't decode"),
        (b'\xef\xbb\xbf{"manifest_version": 2}', "manifest.json: Unexpected UTF-8 BOM"),
        (b"[" * 100_000, "manifest.json: is nested too deeply"),
        (b'{"manifest_version": 2}', "manifest.json: name has other characters"),
        (b'{"manifest_version": 2.5}', "manifest.json: manifest_version must be a 32-bit integer"),
    ],
    ids=["empty", "not UTF-8", "byte-order mark", "nested", "no fields", "version"],
)
def test_a_manifest_that_cannot_be_read_is_named(command, content, problem, bert, refusal):
    (bert / "manifest.json").write_bytes(content)
    assert problem in refusal(command, bert)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": 7}, "manifest.json: kind is missing"),
        ({"precisions": []}, "manifest.json: precisions must have one or more of"),
        ({"files": []}, "manifest.json: 'tokenizer.json' is used but not among files"),
    ],
    ids=["kind", "precisions", "files"],
)
def test_a_manifest_that_breaks_a_rule_is_named(command, changes, problem, bert, refusal):
    change_manifest(bert, **changes)
    assert problem in refusal(command, bert)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_in_the_place_of_the_manifest_is_named(command, bert, refusal):
    (bert / "manifest.json").unlink()
    (bert / "manifest.json").mkdir()
    assert "manifest.json: is not a regular file" in refusal(command, bert)


@pytest.mark.parametrize("command", ["verify", "upgrade"])
@pytest.mark.parametrize("name", ["weights.fp32.bin", "embedder.fp32.onnx", "tokenizer.json"])
def test_a_folder_or_a_loop_of_links_in_the_place_of_a_file_is_named(command, name, bert, refusal):
    (bert / name).unlink()
    (bert / name).symlink_to(name)
    assert f"{name} is missing" in refusal(command, bert)
    (bert / name).unlink()
    (bert / name).mkdir()
    assert f"{name} is not a regular file" in refusal(command, bert)


@pytest.mark.parametrize("command", ["verify", "upgrade"])
def test_missing_and_truncated_weights_are_named(command, bert, refusal):
    weights = bert / "weights.fp32.bin"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "weights.fp32.bin has another SHA-256 or size" in refusal(command, bert)
    weights.unlink()
    assert "weights.fp32.bin is missing" in refusal(command, bert)


def test_weights_that_are_too_short_for_the_graphs_are_refused(bert, refusal):
    content = (bert / "weights.fp32.bin").read_bytes()
    replace_file(bert, "weights.fp32.bin", content[:5000])
    assert "embedder.fp32.onnx: " in refusal("verify", bert)
    with pytest.raises(BundleError, match=r"embedder.fp32.onnx: embedding.weight: External data"):
        read_parameters(bert)


@pytest.mark.parametrize(
    ("bundle", "name"),
    [
        ("bert", "embedder.fp32.onnx"),
        ("bert", "mlm_head.fp32.onnx"),
        ("translator", "encoder.fp32.onnx"),
        ("translator", "decoder_step.fp32.onnx"),
        ("translator", "scorer.fp32.onnx"),
    ],
)
def test_a_graph_that_is_not_onnx_or_lacks_a_parameter_is_named(bundle, name, refusal, request):
    folder = request.getfixturevalue(bundle)
    model = onnx.load(folder / name, load_external_data=False)
    del model.graph.initializer[:]
    for content in (b"no graph", b"", model.SerializeToString()):
        replace_file(folder, name, content)
        assert name in refusal("verify", folder)


def test_a_graph_with_other_outputs_than_the_manifest_states_is_named(bert, refusal):
    head = (bert / "mlm_head.fp32.onnx").read_bytes()
    replace_file(bert, "embedder.fp32.onnx", head)
    assert "embedder.fp32.onnx has other inputs or outputs" in refusal("verify", bert)


def test_reference_outputs_of_masks_need_a_masked_word_head(bert, refusal):
    manifest = json.loads((bert / "manifest.json").read_text(encoding="utf-8"))
    for precision in manifest["precisions"]:
        del precision["mlm_head"]
    change_manifest(bert, precisions=manifest["precisions"])
    assert "reference_outputs.json: masked must have 0 values" in refusal("verify", bert)


def test_a_vocabulary_of_another_size_than_that_of_the_graphs_is_refused(bert, capsys):
    sizes = json.loads((bert / "manifest.json").read_text(encoding="utf-8"))["embedding_sizes"]
    change_manifest(bert, embedding_sizes=sizes | {"vocab_size": 2 * sizes["vocab_size"]})
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(bert)])
    assert exit_.value.code == 1
    assert "mlm_head.fp32.onnx: " in capsys.readouterr().err


def test_a_tokenizer_that_cannot_be_read_is_named(bert, refusal):
    replace_file(bert, "tokenizer.json", b"{}")
    assert "tokenizer.json: " in refusal("verify", bert)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", " is not JSON in UTF-8: Expecting value"),
        (b"\xff", " is not JSON in UTF-8: 'utf-8' codec"),
        (b"[" * 100_000, " is not JSON in UTF-8: "),
        (b"[]", " is not a JSON object"),
        (b"{}", ": texts is missing"),
        (b'{"texts": []}', ": texts must be a list that is not empty"),
    ],
    ids=["empty", "not UTF-8", "nested", "list", "no fields", "no texts"],
)
def test_reference_outputs_that_cannot_be_read_are_named(content, problem, bert, refusal):
    replace_file(bert, REFERENCE, content)
    assert f"{REFERENCE}{problem}" in refusal("verify", bert)


def change_reference(folder: Path, change: Callable[[Json], object]) -> None:
    content = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    change(content)
    replace_file(folder, REFERENCE, json.dumps(content).encode())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.pop("beam_sizes"), "beam_sizes is missing"),
        (lambda r: r.update(beam_sizes=[1]), "beam_sizes must be an object"),
        (
            lambda r: r["beam_sizes"].update(greedy=0),
            "beam_sizes.greedy must be an integer from 1 to 64",
        ),
        (lambda r: r["texts"][0].pop("text"), "texts[0].text is missing"),
        (
            lambda r: r["texts"][1].update(text="\ud800"),
            "texts[1].text must be valid Unicode text",
        ),
        (
            lambda r: r["texts"][0].update(max_output_tokens=10**9),
            "texts[0].max_output_tokens must be an integer from 1 to 64",
        ),
        (lambda r: r["outputs"].pop("fp32"), "outputs.fp32 is missing"),
        (lambda r: r["outputs"]["fp32"].pop("beam4"), "outputs.fp32.beam4 is missing"),
        (lambda r: r["outputs"]["fp32"]["greedy"].pop(), "outputs.fp32.greedy must have 16 values"),
        (
            lambda r: r["outputs"]["fp32"]["greedy"][3].update(token_ids=[10**30]),
            "outputs.fp32.greedy[3].token_ids[0] must be an integer from 0 to ",
        ),
        (
            lambda r: r["outputs"]["fp32"]["greedy"][3]["token_ids"].pop(),
            "outputs.fp32.greedy[3]: token_ids and log_probabilities must have the same length",
        ),
        (
            lambda r: r["outputs"]["fp32"]["greedy"][3]["log_probabilities"].append(None),
            "outputs.fp32.greedy[3].log_probabilities[7] must be a number",
        ),
    ],
)
def test_reference_translations_of_another_form_are_named(change, problem, translator, refusal):
    change_reference(translator, change)
    assert f"{REFERENCE}: {problem}" in refusal("verify", translator)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.pop("masked"), "masked is missing"),
        (
            lambda r: r["masked"][0].update(position=10**6),
            "masked[0].position must be an integer from 0 to ",
        ),
        (lambda r: r["outputs"].update(fp32=[]), "outputs.fp32 must be an object"),
        (
            lambda r: r["outputs"]["fp32"]["mean_pooled"][0].pop(),
            "outputs.fp32.mean_pooled[0] must have 8 values, not 7",
        ),
        (lambda r: r["outputs"]["fp32"]["norms"].pop(), "outputs.fp32.norms must have 16 values"),
        (
            lambda r: r["outputs"]["fp32"]["masked"][0].update(candidate_ids=[]),
            "outputs.fp32.masked[0].candidate_ids must be a list that is not empty",
        ),
    ],
)
def test_reference_embeddings_of_another_form_are_named(change, problem, bert, refusal):
    change_reference(bert, change)
    assert f"{REFERENCE}: {problem}" in refusal("verify", bert)


def test_an_unknown_value_of_a_field_is_inspected_by_its_number(bert, capsys):
    main(["upgrade", str(bert)])
    content = json.loads((bert / "manifest.json").read_text(encoding="utf-8"))
    content["architecture"]["encoder"]["norm_position"] = 99
    change_manifest(bert, architecture=content["architecture"])
    main(["inspect", str(bert)])
    assert "norm_position 99" in capsys.readouterr().out
