"""The modules of a sentence-transformers folder become the defaults of the bundle."""

import json

import pytest
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MAX, POOLING_MEAN
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest

from tests.support.bundles import one_thread
from tests.support.checkpoints import change_json, write_json, write_sentence_transformer

MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.fixture(autouse=True)
def quiet_threads():
    with one_thread():
        yield


@pytest.fixture
def import_(tmp_path):
    """Imports a folder and returns the manifest."""

    def run(source):
        main(["import", str(source), "--bundles-dir", str(tmp_path / "bundles"), "--name", "st"])
        return read_manifest(tmp_path / "bundles" / "st" / "1")

    return run


@pytest.fixture
def refusal(tmp_path, capsys):
    """Imports a folder, which must fail and leave nothing; returns the message."""

    def run(source):
        bundles = tmp_path / "bundles"
        with pytest.raises(SystemExit, match="2"):
            main(["import", str(source), "--bundles-dir", str(bundles)])
        assert not bundles.exists()
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (MEAN, POOLING_MEAN),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, POOLING_CLS),
        ({"pooling_mode_max_tokens": True, "include_prompt": True}, POOLING_MAX),
        ({"pooling_mode": "cls"}, POOLING_CLS),
    ],
)
def test_pooling_and_normalization_are_the_defaults(config, pooling, normalizes, tmp_path, import_):
    source = write_sentence_transformer(tmp_path / "source", config, normalizes, max_tokens=40)
    manifest = import_(source)
    assert manifest.embedding.pooling == pooling
    assert manifest.embedding.normalize == normalizes
    assert manifest.limits.max_tokens == 40
    files = {file.path for file in manifest.provenance.imported_from.files}
    assert {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"} <= files


def test_an_encoder_alone_has_mean_pooling_and_no_normalization(tmp_path, import_):
    source = write_sentence_transformer(tmp_path / "source", MEAN, normalizes=True)
    (source / "modules.json").unlink()
    manifest = import_(source)
    assert manifest.embedding.pooling == POOLING_MEAN
    assert not manifest.embedding.normalize


def test_empty_prompts_are_no_prompts(tmp_path, import_):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(
        source / "config_sentence_transformers.json",
        {"prompts": {"query": "", "document": ""}, "default_prompt_name": None},
    )
    import_(source)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken is not supported"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling_mode_cls_token, pooling_mode_mean_tokens is not supported",
        ),
        (
            {"pooling_mode_mean_tokens": False},
            "no pooling mode is not supported; supported: one of",
        ),
        (
            {"pooling_mode": "weightedmean"},
            "pooling_mode is 'weightedmean', which is not supported",
        ),
        (MEAN | {"include_prompt": False}, "include_prompt is False, which is not supported"),
    ],
)
def test_other_poolings_are_refused(config, message, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", config)
    refused = refusal(source)
    assert str(source / "1_Pooling" / "config.json") in refused
    assert message in refused


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (["Transformer", "Pooling", "Dense"], "the modules Transformer, Pooling, Dense are not"),
        (["Transformer"], "the modules Transformer are not supported; supported: Transformer, "),
        (["WordEmbeddings", "Pooling"], "the modules WordEmbeddings, Pooling are not supported"),
        ([], "the modules  are not supported"),
    ],
)
def test_other_modules_are_refused(types, message, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    modules = [{"type": f"sentence_transformers.models.{each}", "path": ""} for each in types]
    write_json(source / "modules.json", modules)
    assert message in refusal(source)


def test_modules_of_other_packages_are_refused(tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    modules = json.loads((source / "modules.json").read_text())
    modules[1]["type"] = "my_package.Pooling"
    write_json(source / "modules.json", modules)
    assert "my_package.Pooling" in refusal(source)


@pytest.mark.parametrize("content", [{"0": "Transformer"}, [{"type": 3}], ["Transformer"], 7])
def test_a_damaged_list_of_modules_is_named(content, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(source / "modules.json", content)
    assert f"{source / 'modules.json'} is no list of modules" in refusal(source)


def test_an_encoder_in_a_folder_of_its_own_is_refused(tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    modules = json.loads((source / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(source / "modules.json", modules)
    assert "the path of Transformer is '0_Transformer', want ''" in refusal(source)


@pytest.mark.parametrize("path", ["../1_Pooling", "..", "/etc", "missing", None])
def test_a_pooling_outside_the_folder_is_refused(path, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    (source.parent / "1_Pooling").mkdir()
    write_json(source.parent / "1_Pooling" / "config.json", MEAN)
    modules = json.loads((source / "modules.json").read_text())
    modules[1]["path"] = path
    write_json(source / "modules.json", modules)
    assert str(source) in refusal(source)


@pytest.mark.parametrize(
    "prompts",
    [
        {"prompts": {"query": "query: "}, "default_prompt_name": None},
        {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
    ],
)
def test_prompts_are_refused(prompts, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(source / "config_sentence_transformers.json", prompts)
    assert "prompts (query) are not supported yet" in refusal(source)


@pytest.mark.parametrize("prompts", [["query: "], {"query": 3}, "query"])
def test_damaged_prompts_are_named(prompts, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(source / "config_sentence_transformers.json", {"prompts": prompts})
    message = refusal(source)
    assert f"{source / 'config_sentence_transformers.json'}: prompts" in message


def test_lower_casing_before_the_tokenizer_is_refused(tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    change_json(source / "sentence_bert_config.json", do_lower_case=True)
    assert "do_lower_case is True, which is not supported" in refusal(source)


def test_another_similarity_is_no_matter_of_the_vectors(tmp_path, import_):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(source / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    import_(source)
