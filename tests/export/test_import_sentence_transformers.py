"""The modules of a sentence-transformers folder become the defaults of the bundle."""

import json

import pytest
from attendant.v1.embedding_pb2 import (
    POOLING_CLS,
    POOLING_LAST,
    POOLING_MAX,
    POOLING_MEAN,
    POOLING_MEAN_SQRT_LENGTH,
    POOLING_WEIGHTED_MEAN,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from tokenizers import Tokenizer

from tests.support.checkpoints import (
    NUM_POSITIONS,
    WIDTH,
    change_json,
    write_json,
    write_sentence_transformer,
)
from tests.support.imports import read_encoder

pytestmark = pytest.mark.usefixtures("quiet_threads")

MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


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
        ({"pooling_mode": ["lasttoken"]}, POOLING_LAST),
        ({"pooling_mode_weightedmean_tokens": True}, POOLING_WEIGHTED_MEAN),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, POOLING_MEAN_SQRT_LENGTH),
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
        ({"pooling_mode_other": True}, "pooling_mode_other is not supported"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling_mode_cls_token, pooling_mode_mean_tokens is not supported",
        ),
        (
            {"pooling_mode_mean_tokens": False},
            "no pooling mode is not supported; supported: one of",
        ),
        (
            {"pooling_mode": ["cls", "mean"]},
            "pooling_mode is ['cls', 'mean']: a concatenation is not supported",
        ),
        ({"pooling_mode": "other"}, "pooling_mode is 'other', which is not supported"),
        (MEAN | {"include_prompt": 3}, "include_prompt is 3, which is not supported"),
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
        (["Transformer", "Dense", "Pooling"], "the modules Transformer, Dense, Pooling are not"),
        (["Transformer", "Pooling", "Normalize", "Dense"], "Normalize, Dense are not supported"),
        (["Transformer", "Pooling"], "the path of Pooling is '', want a folder's name"),
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
    ("config", "message"),
    [
        ({"out_features": 0}, "out_features is 0, want an integer from 1"),
        ({"in_features": 7, "out_features": 5}, "in_features is 7, but the vectors before it have"),
        ({"out_features": 5, "bias": "yes"}, "bias is 'yes', which is not supported"),
        ({"out_features": 5, "use_residual": True}, "use_residual is True, which is not"),
        ({"out_features": 5, "module_input_name": "x"}, "module_input_name is 'x', which is not"),
        ({"out_features": 5, "activation_function": "evil.Tanh"}, "is 'evil.Tanh', which is not"),
    ],
)
def test_other_dense_layers_are_refused(config, message, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN, dense=[{"out_features": 5}])
    change_json(source / "2_Dense" / "config.json", **config)
    refused = refusal(source)
    assert str(source / "2_Dense" / "config.json") in refused
    assert message in refused


def test_weights_of_a_dense_layer_with_other_shapes_are_refused(tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN, dense=[{"out_features": 5}])
    change_json(source / "2_Dense" / "config.json", out_features=6)
    refused = refusal(source)
    assert f"{source / '2_Dense'}: the weights do not fit the configuration" in refused
    (source / "2_Dense" / "model.safetensors").unlink()
    assert "2_Dense has no weights" in refusal(source)


@pytest.mark.parametrize("precisions", ["fp32,fp16,int8"])
def test_a_model_with_dense_layers_has_all_precisions_and_can_be_rebuilt(precisions, tmp_path):
    source = write_sentence_transformer(
        tmp_path / "source", MEAN | {"include_prompt": False}, dense=[{"out_features": 5}]
    )
    options = ["--bundles-dir", str(tmp_path / "bundles"), "--precisions", precisions]
    main(["import", str(source), *options])
    bundle = tmp_path / "bundles" / "source" / "1"
    main(["verify", str(bundle)])
    main(["rebuild", str(bundle)])
    layers = read_manifest(bundle).architecture.text_vectors.dense_layers
    assert [layer.d_output for layer in layers] == [5]


@pytest.mark.parametrize(("default", "count"), [("query", 0), (None, 0), ("query", 5)])
def test_prompts_are_in_the_manifest(default, count, tmp_path, import_):
    config = MEAN | {"include_prompt": not count}
    source = write_sentence_transformer(tmp_path / "source", config)
    prompts = {"query": "1 2 3 4", "document": ""}
    write_json(
        source / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": default},
    )
    defaults = import_(source).embedding
    assert dict(defaults.prompts) == prompts
    assert (defaults.default_prompt, defaults.num_prompt_tokens) == (default or "", count)


@pytest.mark.parametrize(
    ("prompt", "name", "max_tokens", "message"),
    [
        ("a", "other", 64, "default_prompt_name is 'other', which is not among the prompts"),
        ("[SEP] a", "query", 64, "the prompt query is '[SEP] a': its special token is not"),
        ("1 2 3 4", "query", 6, "the limit of 6 tokens leaves no room for a text after the"),
    ],
)
def test_prompts_that_cannot_be_applied_are_refused(
    prompt, name, max_tokens, message, tmp_path, refusal
):
    source = write_sentence_transformer(tmp_path / "source", MEAN, max_tokens=max_tokens)
    write_json(
        source / "config_sentence_transformers.json",
        {"prompts": {"query": prompt}, "default_prompt_name": name},
    )
    assert message in refusal(source)


@pytest.mark.parametrize(
    ("name", "fields", "default"),
    [
        ("config.json", {"matryoshka_dimensions": [16, 8, WIDTH]}, 0),
        (
            "config_sentence_transformers.json",
            {"matryoshka_dimensions": [8, 16], "truncate_dim": WIDTH},
            0,
        ),
        (
            "config_sentence_transformers.json",
            {"matryoshka_dimensions": [8], "truncate_dim": 16},
            16,
        ),
    ],
)
def test_dimensions_that_a_checkpoint_states_are_in_the_manifest(
    name, fields, default, tmp_path, import_
):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    if not (source / name).exists():
        write_json(source / name, {})
    change_json(source / name, **fields)
    embedding = import_(source).embedding
    assert list(embedding.trained_dimensions) == [8, 16]
    assert embedding.default_dimensions == default


@pytest.mark.parametrize("value", [[0], [WIDTH + 1], ["8"], [True], 8])
def test_damaged_dimensions_are_named(value, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    change_json(source / "config.json", matryoshka_dimensions=value)
    assert f"{source / 'config.json'}: matryoshka_dimensions " in refusal(source)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (f"8,{WIDTH}", f"--trained-dimensions: {WIDTH} must be between 1 and {WIDTH - 1}"),
        ("8,a", "--trained-dimensions 8,a: want integers like 64,128"),
    ],
)
def test_bad_numbers_of_dimensions_are_refused(numbers, message, tmp_path, capsys):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    options = ["--bundles-dir", str(tmp_path / "bundles"), "--trained-dimensions", numbers]
    with pytest.raises(SystemExit, match="2"):
        main(["import", str(source), *options])
    assert message in capsys.readouterr().err


def test_a_prompt_without_a_text_is_none(tmp_path):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    prompts = {"prompts": {"query": None, "document": "text: "}, "default_prompt_name": "query"}
    write_json(source / "config_sentence_transformers.json", prompts)
    defaults = read_encoder(source).defaults
    assert dict(defaults.prompts) == {"query": "", "document": "text: "}
    assert not defaults.default_prompt


@pytest.mark.parametrize("prompts", [["query: "], {"query": 3}, "query"])
def test_damaged_prompts_are_named(prompts, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(source / "config_sentence_transformers.json", {"prompts": prompts})
    message = refusal(source)
    assert f"{source / 'config_sentence_transformers.json'}: prompts" in message


def test_settings_that_lower_the_case_of_texts_change_their_tokens(tmp_path, import_):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    capital, small = (tokenizer.encode(text).ids for text in ("THE TRAIN", "the train"))
    assert capital != small
    change_json(source / "sentence_bert_config.json", do_lower_case=True)
    assert read_encoder(source).tokenizer.encode("THE TRAIN").ids == small
    assert import_(source).parity.original.num_different_token_ids == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("do_lower_case", "yes"),
        ("transformer_task", "fill-mask"),
        ("processing_kwargs", {"text": {"add_special_tokens": False}}),
        ("query_length", 32),
        ("document_length", 180),
        ("query_expansion", {"strategy": "fixed", "length": 32}),
        ("modality_config", {"text": {"method": "get_text_features"}}),
    ],
)
def test_settings_of_the_encoder_that_change_vectors_are_refused(field, value, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    change_json(source / "sentence_bert_config.json", **{field: value})
    assert f"sentence_bert_config.json: {field} is {value!r}" in refusal(source)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("config_args", {"num_hidden_layers": 1}, "config_args.num_hidden_layers is 1, which is"),
        ("tokenizer_args", {"do_lower_case": True}, "tokenizer_args.do_lower_case is True, which"),
        ("processor_kwargs", {"model_max_length": 9}, "processor_kwargs.model_max_length is 9"),
        ("model_kwargs", ["dtype"], "model_kwargs is ['dtype'], want an object"),
    ],
)
def test_arguments_that_load_another_model_are_refused(name, arguments, message, tmp_path, refusal):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    change_json(source / "sentence_bert_config.json", **{name: arguments})
    assert f"sentence_bert_config.json: {message}" in refusal(source)


def test_settings_of_the_encoder_as_the_original_writes_them_are_read(tmp_path):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    change_json(
        source / "sentence_bert_config.json",
        transformer_task="feature-extraction",
        modality_config={"text": text},
        module_output_name="token_embeddings",
        processing_kwargs={},
        model_args={"trust_remote_code": True, "attn_implementation": "eager"},
        max_seq_length=9,
    )
    assert read_encoder(source).max_tokens == 9


@pytest.mark.parametrize(("stated", "limit"), [(100, 100), (1000, NUM_POSITIONS)])
def test_the_limit_of_the_package_counts_instead_of_that_of_the_tokenizer(stated, limit, tmp_path):
    source = write_sentence_transformer(tmp_path / "source", MEAN, max_tokens=stated)
    change_json(source / "tokenizer_config.json", model_max_length=20)
    assert read_encoder(source).max_tokens == limit


@pytest.mark.parametrize("family", ["roberta", "distilbert", "xlm-roberta"])
def test_settings_of_the_encoder_may_have_the_name_of_its_family(family, tmp_path):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    (source / "sentence_bert_config.json").unlink()
    write_json(source / f"sentence_{family}_config.json", {"max_seq_length": 9})
    assert read_encoder(source).max_tokens == 9


def test_another_similarity_is_no_matter_of_the_vectors(tmp_path, import_):
    source = write_sentence_transformer(tmp_path / "source", MEAN)
    write_json(source / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    import_(source)
