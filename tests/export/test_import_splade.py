"""SPLADE models are imported with their sparse vectors."""

import json
import shutil

import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import FAMILIES, change_json, write_checkpoint, write_json
from tests.support.drawn_encoders import draw_checkpoint
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_encoder
from tests.support.rebuilds import rebuilt_alike
from tests.support.splade_checkpoints import SETTINGS, add_splade_modules, write_splade

pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")

STRATEGIES = ("max", "sum")
ACTIVATIONS = ("relu", "log1p_relu")


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", FAMILIES)
def test_sparse_vectors_follow_the_original_in_every_precision(family, seed, tmp_path):
    source = tmp_path / "source"
    draw_checkpoint(source, family, seed, has_head=True)
    strategy, activation = STRATEGIES[seed % 2], ACTIVATIONS[seed % 3 // 2]
    add_splade_modules(source, pooling_strategy=strategy, activation_function=activation)
    bundle = import_(source, tmp_path / "bundles", "--precisions", "fp32,fp16,int8")
    manifest = read_manifest(bundle)
    part = manifest.architecture.sparse_vectors
    assert (part.is_sum, part.num_logarithms) == (seed % 2 == 1, 1 + seed % 3 // 2)
    assert manifest.parity.original.num_different_token_ids == 0
    compared = [(each.precision, each.vectors) for each in manifest.parity.original.sparse_vectors]
    assert [precision for precision, _ in compared] == ["fp32", "fp16", "int8"]
    fp32, fp16, int8 = (vectors for _, vectors in compared)
    assert fp32.min_cosine >= 0.99999
    assert fp32.same_top_share >= 0.99
    assert fp16.min_cosine >= 0.999
    assert int8.mean_cosine >= 0.98
    for each in manifest.parity.precisions:
        assert each.sparse_vectors.num_texts == fp32.num_texts >= 12
        assert each.HasField("embeddings")


@pytest.fixture(scope="module")
def splade(tmp_path_factory):
    """A folder and its bundle."""
    folder = tmp_path_factory.mktemp("splade")
    source = write_splade(folder / "source")
    return source, import_(source, folder / "bundles", "--precisions", "fp32,int8")


def test_the_head_is_a_graph_of_its_own_in_place_of_the_head_of_masks(splade):
    manifest = read_manifest(splade[1])
    for graphs in manifest.precisions:
        assert graphs.sparse_head.inputs == ["hidden", "lengths"]
        assert graphs.sparse_head.outputs == ["sparse_vectors"]
        assert not graphs.HasField("mlm_head")


def test_the_embedder_is_that_of_the_masked_language_model(splade, tmp_path):
    plain = import_(write_checkpoint(tmp_path / "source", "bert"), tmp_path / "bundles")
    name = "embedder.fp32.onnx"
    ours, theirs = (len((bundle / name).read_bytes()) for bundle in (splade[1], plain))
    assert ours == theirs


def test_a_bundle_is_verified_and_described_by_its_sparse_vectors(splade, capsys):
    source, bundle = splade
    main(["verify", str(bundle), "--against", str(source)])
    main(["inspect", str(bundle)])
    lines = capsys.readouterr().out
    assert lines.count("fp32: cosine of sparse vectors: mean 1.0") == 2
    assert "100.0% of the greatest weights have the same tokens" in lines
    assert "greatest weights of" in lines
    assert "sparse vectors: num_logarithms 1" in lines
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "`EmbedSparse` returns weights" in card


def test_the_graphs_can_be_rebuilt_from_the_weights(splade, tmp_path):
    manifest = rebuilt_alike(splade[1], tmp_path)
    assert manifest.parity.precisions[0].sparse_vectors.min_cosine >= 0.99999


def test_a_bundle_with_other_weights_of_tokens_is_not_verified(splade, tmp_path, capsys):
    bundle = shutil.copytree(splade[1], tmp_path / "1")
    path = bundle / "reference_outputs.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["outputs"]["fp32"]["sparse_vectors"][3]["weights"][0] += 0.01
    altered(bundle, path, content)
    with pytest.raises(SystemExit):
        main(["verify", str(bundle)])
    assert "fp32: weights of sparse vectors differ by 0.01" in capsys.readouterr().err


def test_a_bundle_with_greater_weights_of_other_tokens_is_not_verified(splade, tmp_path, capsys):
    bundle = shutil.copytree(splade[1], tmp_path / "1")
    path = bundle / "reference_outputs.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vector = content["outputs"]["fp32"]["sparse_vectors"][3]
    assert vector["weights"][0] > vector["weights"][-1] + 0.1
    # Without its greatest weight, the vector is that of another model.
    del vector["token_ids"][0], vector["weights"][0]
    altered(bundle, path, content)
    with pytest.raises(SystemExit):
        main(["verify", str(bundle)])
    assert "fp32: weights of sparse vectors differ by" in capsys.readouterr().err


def test_reference_vectors_of_another_form_are_named(splade, tmp_path, capsys):
    bundle = shutil.copytree(splade[1], tmp_path / "1")
    path = bundle / "reference_outputs.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["outputs"]["fp32"]["sparse_vectors"][0]["token_ids"][0] = 10**6
    altered(bundle, path, content)
    with pytest.raises(SystemExit):
        main(["verify", str(bundle)])
    message = capsys.readouterr().err
    assert "outputs.fp32.sparse_vectors[0].token_ids[0] must be an integer from 0" in message


def altered(bundle, path, content):
    """Write another content of a file, and its size and hash into the manifest."""
    import hashlib

    write_json(path, content)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for file in manifest["files"]:
        if file["path"] == path.name:
            data = path.read_bytes()
            file |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    write_json(bundle / "manifest.json", manifest)


def test_a_folder_of_version_5_states_less(tmp_path):
    source = write_splade(tmp_path / "source", settings={"max_seq_length": 50})
    encoder = read_encoder(source)
    assert encoder.max_tokens == 50
    assert encoder.model.architecture.sparse_vectors.num_logarithms == 1


def test_the_settings_of_the_package_are_defaults(tmp_path):
    package = {
        "max_active_dims": 40,
        "prompts": {"query": "ask: ", "document": ""},
        "default_prompt_name": "query",
    }
    defaults = read_encoder(write_splade(tmp_path / "source", package=package)).defaults
    assert defaults.max_active_dims == 40
    assert (defaults.prompts["query"], defaults.default_prompt) == ("ask: ", "query")


@pytest.mark.parametrize(
    ("settings", "first", "problem"),
    [
        ({}, "Transformer", "transformer_task is 'feature-extraction', which is not supported"),
        (SETTINGS | {"do_lower_case": True}, "MLMTransformer", "do_lower_case is True"),
        (
            SETTINGS | {"modality_config": {"text": {"method": "forward"}}},
            "Transformer",
            "modality_config is {'text': {'method': 'forward'}}, want {'text'",
        ),
        (SETTINGS | {"module_output_name": "scores"}, "Transformer", "module_output_name is 'sc"),
    ],
)
def test_settings_that_are_not_supported_are_named(settings, first, problem, tmp_path, refusal):
    assert problem in refusal(write_splade(tmp_path / "source", settings=settings, first=first))


@pytest.mark.parametrize(
    ("field", "value", "supported"),
    [
        ("pooling_strategy", "mean", "supported: 'max', 'sum'"),
        ("activation_function", "gelu", "supported: 'relu', 'log1p_relu'"),
    ],
)
def test_poolings_that_are_not_supported_are_named(field, value, supported, tmp_path, refusal):
    message = refusal(write_splade(tmp_path / "source", **{field: value}))
    assert f"1_SpladePooling/config.json: {field} is '{value}', which is not supported" in message
    assert supported in message


@pytest.mark.parametrize(
    "modules",
    [
        ["Router"],
        ["SparseStaticEmbedding"],
        ["Transformer", "Pooling", "SparseAutoEncoder"],
        ["MLMTransformer", "SpladePooling", "Normalize"],
        ["SpladePooling"],
        ["SpladePooling", "MLMTransformer"],
    ],
)
def test_modules_that_are_not_supported_are_named(modules, tmp_path, refusal):
    source = write_splade(tmp_path / "source")
    package = "sentence_transformers.sparse_encoder.modules"
    entries = [
        {"type": f"{package}.{name}", "path": f"{i}_{name}" if i else ""}
        for i, name in enumerate(modules)
    ]
    write_json(source / "modules.json", entries)
    message = refusal(source)
    assert f"modules.json: the modules {', '.join(modules)} are not supported" in message


def test_a_pooling_outside_of_the_folder_is_named(tmp_path, refusal):
    source = write_splade(tmp_path / "source")
    entries = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    entries[1]["path"] = "../1_SpladePooling"
    write_json(source / "modules.json", entries)
    assert "the path of SpladePooling is '../1_SpladePooling'" in refusal(source)


def test_a_checkpoint_without_the_weights_of_a_head_is_named(tmp_path, refusal):
    source = write_splade(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("cls.")}
    save_file(kept, source / "model.safetensors", {"format": "pt"})
    assert "SpladePooling needs a masked-language-model head" in refusal(source)


def test_a_bad_number_of_tokens_with_a_weight_is_named(tmp_path, refusal):
    source = write_splade(tmp_path / "source", package={"max_active_dims": -1})
    assert "config_sentence_transformers.json: max_active_dims is -1" in refusal(source)


def test_a_masked_language_model_alone_has_no_sparse_vectors(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert")
    change_json(source / "config.json", architectures=["BertForMaskedLM"])
    assert not read_encoder(source).model.architecture.HasField("sparse_vectors")


def test_a_name_of_sparse_vectors_without_modules_gets_a_warning(tmp_path, caplog):
    read_encoder(write_checkpoint(tmp_path / "Splade_PP_en", "bert"))
    assert "Splade_PP_en has no modules.json, so that it is imported without sparse" in caplog.text
