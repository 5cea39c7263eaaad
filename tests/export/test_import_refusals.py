"""A checkpoint that is damaged, incomplete or not supported is refused, and leaves no files."""

import os
import pickle

import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.support.checkpoints import (
    NUM_LAYERS,
    WIDTH,
    change_json,
    write_checkpoint,
    write_json,
)

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "source", "bert")


def change_weights(source, change):
    path = source / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("family", "field", "value", "message"),
    [
        (
            "bert",
            "model_type",
            "whisper",
            "'whisper', which is not supported; supported: 'albert', 'bart', ",
        ),
        ("bert", "model_type", ["bert"], "model_type is ['bert'], which is not supported"),
        ("bert", "hidden_size", 0, "hidden_size is 0, want an integer from 1 to 2147483647"),
        ("bert", "hidden_size", 2**40, "hidden_size is 1099511627776, want an integer"),
        ("bert", "num_hidden_layers", 2.5, "num_hidden_layers is 2.5, want an integer"),
        ("bert", "num_attention_heads", True, "num_attention_heads is True, want an integer"),
        ("bert", "num_attention_heads", 5, "hidden_size 32 is not a multiple of num_attention_h"),
        ("bert", "vocab_size", "400", "vocab_size is '400', want an integer"),
        ("bert", "layer_norm_eps", 0, "layer_norm_eps is 0, want a positive number"),
        ("bert", "layer_norm_eps", "small", "layer_norm_eps is 'small', want a positive number"),
        ("bert", "hidden_act", "mish", "hidden_act is 'mish', which is not supported; supported: "),
        (
            "bert",
            "position_embedding_type",
            "relative_key",
            "position_embedding_type is 'relative_key', which is not supported; supported: 'abs",
        ),
        (
            "bert",
            "is_decoder",
            True,
            "is_decoder is True, which is not supported; supported: False",
        ),
        ("bert", "add_cross_attention", True, "add_cross_attention is True"),
        ("bert", "tie_word_embeddings", False, "tie_word_embeddings is False"),
        ("roberta", "tie_word_embeddings", False, "tie_word_embeddings is False"),
        ("roberta", "pad_token_id", 0, "pad_token_id is 0, but the tokenizer's padding is 1"),
        ("roberta", "pad_token_id", -1, "pad_token_id is -1, want an integer from 0 to"),
        ("roberta", "max_position_embeddings", 2, "max_position_embeddings is 2, want more than 2"),
        ("xlm-roberta", "is_decoder", True, "is_decoder is True"),
        ("distilbert", "sinusoidal_pos_embds", True, "sinusoidal_pos_embds is True"),
        ("distilbert", "tie_weights_", False, "tie_weights_ is False"),
        ("distilbert", "activation", "mish", "activation is 'mish', which is not supported"),
        ("mpnet", "pad_token_id", 0, "pad_token_id is 0, which is not supported; supported: 1"),
        (
            "mpnet",
            "relative_attention_num_buckets",
            64,
            "num_buckets is 64, which is not supported",
        ),
        ("distilbert", "n_heads", 3, "dim 32 is not a multiple of n_heads 3"),
    ],
)
def test_a_field_of_the_configuration_is_named(family, field, value, message, tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", family, **{field: value})
    refused = refusal(source)
    assert str(source / "config.json") in refused
    assert message in refused


def test_a_missing_field_is_named(source, refusal):
    change_json(source / "config.json", num_attention_heads=None)
    assert "num_attention_heads is None, want an integer" in refusal(source)


def test_all_weights_that_do_not_fit_are_listed_at_once(source, refusal):
    def change(tensors):
        del tensors["embeddings.LayerNorm.bias"]
        del tensors["encoder.layer.1.attention.self.key.weight"]
        tensors["encoder.layer.0.output.dense.weight"] = torch.zeros(WIDTH, 7)
        tensors["encoder.layer.0.attention.self.query.weight"] = torch.zeros(3, WIDTH)
        tensors["encoder.layer.0.adapter.weight"] = torch.zeros(2, 3)

    change_weights(source, change)
    message = refusal(source)
    assert "embeddings.LayerNorm.bias is missing; " in message
    assert "encoder.layer.1.attention.self.key.weight is missing; " in message
    assert "encoder.layer.0.output.dense.weight is (32, 7), not (32, 48)" in message
    assert "encoder.layer.0.attention.self.query.weight is (3, 32), not (32, 32)" in message
    assert "encoder.layer.0.adapter.weight (2, 3) is not expected; " in message


def test_sizes_that_the_weights_do_not_have_take_no_memory(source, refusal):
    change_json(source / "config.json", vocab_size=2_000_000_000, intermediate_size=2_000_000_000)
    assert "embeddings.word_embeddings.weight is (" in refusal(source)


def test_layers_that_the_configuration_does_not_have_are_listed(source, refusal):
    change_json(source / "config.json", num_hidden_layers=NUM_LAYERS - 1)
    assert "encoder.layer.1.output.dense.bias (32,) is not expected" in refusal(source)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_truncated_weights_are_refused_by_name(size, source, refusal):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path}: " in refusal(source)


def test_a_pickle_with_code_is_refused_and_not_run(source, refusal, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (source / "model.safetensors").unlink()
    with (source / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"embeddings.word_embeddings.weight": Code()}, file, protocol=2)
    assert f"{source / 'pytorch_model.bin'} is not a file of tensors only" in refusal(source)
    torch.save({"weight": Code()}, source / "pytorch_model.bin")
    assert f"{source / 'pytorch_model.bin'} is not a file of tensors only" in refusal(source)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_without_named_tensors_is_refused(source, refusal):
    (source / "model.safetensors").unlink()
    torch.save({"epoch": 3}, source / "pytorch_model.bin")
    assert "holds something else than named tensors" in refusal(source)


def test_weights_that_are_not_numbers_are_refused_even_where_no_text_needs_them(source, refusal):
    def change(tensors):
        tensors["embeddings.word_embeddings.weight"][-1, 0] = float("nan")
        tensors["embeddings.LayerNorm.weight"][0] = float("nan")

    change_weights(source, change)
    names = "embeddings.word_embeddings.weight, embeddings.LayerNorm.weight"
    assert f"weights are NaN: {names}" in refusal(source)


def test_infinite_results_are_refused(source, refusal):
    def change(tensors):
        tensors["embeddings.LayerNorm.weight"][0] = float("inf")

    change_weights(source, change)
    assert "not finite" in refusal(source, code=1)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../model.safetensors"}},
        {"weight_map": {"a": "/etc/model.safetensors"}},
        {"weight_map": ["model.safetensors"]},
        {},
    ],
)
def test_an_index_that_leaves_the_folder_or_lists_nothing_is_refused(index, source, refusal):
    (source / "model.safetensors").rename(source.parent / "model.safetensors")
    write_json(source / "model.safetensors.index.json", index)
    message = refusal(source)
    assert f"{source / 'model.safetensors.index.json'} is not an index of weights" in message


def test_a_missing_shard_and_a_weight_in_two_shards_are_refused(source, refusal):
    whole = source / "model.safetensors"
    whole.rename(source / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    write_json(source / "model.safetensors.index.json", index)
    assert "two.safetensors is missing" in refusal(source)
    save_file(load_file(source / "one.safetensors"), source / "two.safetensors")
    assert "is given twice" in refusal(source)


def test_missing_files_are_named(source, refusal, tmp_path):
    assert "nowhere: no such folder" in refusal(tmp_path / "nowhere")
    (source / "tokenizer.json").rename(source / "t")
    assert f"{source}: tokenizer.json is missing" in refusal(source)
    (source / "t").rename(source / "tokenizer.json")
    (source / "model.safetensors").unlink()
    assert f"{source} has no weights: none of model.safetensors, " in refusal(source)
    (source / "config.json").unlink()
    assert f"{source}: config.json is missing" in refusal(source)


def test_a_configuration_without_a_family_names_the_field(source, refusal):
    change_json(source / "config.json", model_type=None)
    message = f"{source}/config.json has no model_type, which names the family of a model; "
    assert message + "supported: albert, bart, bert, " in refusal(source)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b""])
def test_damaged_files_are_named(name, content, source, refusal):
    (source / name).write_bytes(content)
    assert str(source / name) in refusal(source)


@pytest.mark.parametrize("name", ["pad", "cls", "sep", "mask"])
def test_a_missing_special_token_is_named(name, tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", "modernbert")
    change_json(source / "tokenizer_config.json", **{f"{name}_token": None})
    assert f"nor tokenizer_config.json has a {name}_token" in refusal(source)


HEADS = {
    "albert": ("classifier.weight",),
    "bert": ("classifier.weight", "classifier.bias"),
    "distilbert": ("pre_classifier.weight", "classifier.weight"),
    "modernbert": ("head.dense.weight", "head.norm.weight", "classifier.weight"),
    "roberta": ("classifier.dense.weight", "classifier.out_proj.weight"),
}


@pytest.mark.parametrize(("family", "names"), HEADS.items())
def test_a_head_for_tokens_is_refused_but_can_be_left_out(family, names, tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", family, has_head=False)
    change_json(source / "config.json", architectures=["AnyForTokenClassification"])
    change_weights(source, lambda t: t.update({name: torch.zeros(2) for name in names}))
    message = refusal(source)
    assert "architectures is AnyForTokenClassification, whose head is not supported" in message
    assert "can be imported with --without-head" in message
    bundles = tmp_path / "bundles"
    main(["import", str(source), "--without-head", "--bundles-dir", str(bundles)])
    assert not read_manifest(bundles / "source" / "1").architecture.HasField("head")


def test_a_head_that_a_model_does_not_have_cannot_be_left_out(source, refusal):
    assert "--without-head is for models with a head of a task" in refusal(source, "--without-head")
    change_json(source / "config.json", model_type="marian")
    assert "--without-head is for embedding models" in refusal(source, "--without-head")


def test_a_special_token_outside_the_vocabulary_is_named(source, refusal):
    write_json(source / "special_tokens_map.json", {"cls_token": {"content": "[START]"}})
    assert "tokenizer.json has no token [START]" in refusal(source)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(source, refusal):
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["attendant"])
    tokenizer.save(str(source / "tokenizer.json"))
    assert f"token id {size} exceeds the vocab_size {size}" in refusal(source)


def test_a_tokenizer_that_adds_no_special_tokens_is_refused(source, refusal):
    change_json(source / "tokenizer.json", post_processor=None)
    assert "does not begin with the cls_token and end with the sep_token" in refusal(source)


def test_two_statements_of_normalization_that_differ_are_refused(source, refusal):
    change_json(source / "tokenizer_config.json", do_lower_case=True)
    message = refusal(source)
    assert "do_lower_case is True, but lowercase in tokenizer.json is False" in message


def test_a_tokenizer_that_does_not_read_the_file_is_refused(source, refusal):
    change_json(source / "config.json", tokenizer_class="BertJapaneseTokenizer")
    message = refusal(source)
    assert "config.json: tokenizer_class is 'BertJapaneseTokenizer', which is not" in message
    assert "it does not read tokenizer.json" in message


@pytest.mark.parametrize("has_config", [True, False])
def test_a_normalization_by_default_counts_as_a_statement(has_config, source, refusal):
    change_json(source / "tokenizer_config.json", do_lower_case=None)
    if not has_config:
        (source / "tokenizer_config.json").unlink()
    message = refusal(source)
    assert "do_lower_case is True by default, but lowercase in tokenizer.json is False" in message


def test_a_checkpoint_without_a_licence_needs_one_by_option(source, refusal, tmp_path):
    for card in (None, "# No head\n", "---\nlanguage: en\n---\n", "---\n- license\n---\n", ""):
        (source / "README.md").unlink(missing_ok=True)
        if card is not None:
            (source / "README.md").write_text(card)
        assert "no card states the licence of the weights: give --license" in refusal(source)


def test_a_damaged_card_is_named(source, refusal):
    (source / "README.md").write_text("---\nlicense: [\n---\n")
    assert f"{source / 'README.md'}: its head is not YAML" in refusal(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--name Not_a_name", "name 'Not_a_name' is not 1 to 100 lower-case letters"),
        ("--model-version /1", "version '/1' is not 1 to 100 letters"),
        ("--precisions fp32,fp8", "precisions must be some of "),
        ("--max-tokens 0", "max_tokens must be between 1 and "),
        ("--max-tokens 2", "no reference text has at most 2 tokens"),
    ],
)
def test_a_bad_option_is_named(options, message, source, refusal):
    assert message in refusal(source, *options.split())


def test_a_folder_whose_name_gives_no_model_name_needs_one_by_option(source, refusal):
    nameless = source.rename(source.parent / "___")
    assert "its name makes no name of a model: give --name" in refusal(nameless)


def test_an_existing_bundle_is_not_touched(source, tmp_path, capsys):
    bundle = tmp_path / "bundles" / "source" / "1"
    bundle.mkdir(parents=True)
    (bundle / "note").write_text("mine")
    with pytest.raises(SystemExit, match="1"):
        main(["import", str(source), "--bundles-dir", str(tmp_path / "bundles")])
    assert "exists already: choose another name or version" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "bundles").rglob("*")] == ["source", "1", "note"]


def test_an_interrupted_import_leaves_nothing(source, tmp_path, monkeypatch):
    from attendant_export.bundle.embedding import EmbeddingExport

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddingExport, "verify", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main(["import", str(source), "--bundles-dir", str(tmp_path / "bundles")])
    assert not list((tmp_path / "bundles").iterdir())
