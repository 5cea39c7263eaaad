"""T5 checkpoints become translation bundles through the real command."""

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_KIND_RMS,
    NORM_POSITION_PRE,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.checkpoints import change_json, write_json
from tests.support.imports import read_translator
from tests.support.t5_checkpoints import (
    FEED_FORWARD,
    INNER,
    NUM_EXTRA_IDS,
    SOURCE_LAYERS,
    TARGET_LAYERS,
    TASKS,
    WIDTH,
    write_t5,
)

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

LANGUAGES = ("--source-languages", "en", "--target-languages", "de")


def import_(source, bundles, *options):
    """The folder and the manifest of the imported bundle, compared on short texts."""
    main(["import", str(source), "--bundles-dir", str(bundles), "--max-tokens", "30", *options])
    (folder,) = bundles.glob("*/*")
    return folder, read_manifest(folder)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    source = write_t5(folder / "t5", task_specific_params=TASKS)
    with one_thread():
        return source, *import_(source, folder / "bundles", "--precisions", "fp32,int8,fp16")


def test_a_checkpoint_becomes_a_bundle_that_verifies(imported, capsys):
    _, folder, manifest = imported
    assert manifest.provenance.imported_from.family == "t5"
    files = {file.path for file in manifest.provenance.imported_from.files}
    assert files == {
        *("README.md", "config.json", "model.safetensors", "spiece.model"),
        "tokenizer_config.json",
    }
    special, decoding = manifest.special_tokens, manifest.decoding
    assert (special.pad_id, special.eos_id, special.unk_id) == (0, 1, 2)
    assert decoding.start_token_id == 0
    main(["verify", str(folder)])
    assert "fp16 beam4: " in capsys.readouterr().out


def test_the_network_is_that_of_the_configuration(imported):
    network = imported[2].architecture
    assert (network.d_model, network.shares_embeddings) == (WIDTH, True)
    assert (network.head.is_tied, network.head.scale) == (True, WIDTH**-0.5)
    for stack, num_layers in ((network.encoder, SOURCE_LAYERS), (network.decoder, TARGET_LAYERS)):
        (group,) = stack.groups
        assert group.num_layers == num_layers
        assert (stack.norm_kind, stack.norm_position) == (NORM_KIND_RMS, NORM_POSITION_PRE)
        relative = stack.relative_positions
        assert (relative.num_buckets, relative.max_distance) == (8, 20)
        assert relative.is_unidirectional == (stack == network.decoder)
        attention, feed_forward = group.self_attention, group.feed_forward
        assert attention.num_heads * attention.head_dim == INNER
        assert (attention.scale, attention.has_bias) == (1, False)
        assert feed_forward.d_feed_forward == FEED_FORWARD
        assert (feed_forward.activation, feed_forward.is_gated) == (ACTIVATION_RELU, False)


def test_the_prefixes_of_the_tasks_are_those_of_the_target_languages(imported):
    _, folder, manifest = imported
    assert [each.tag for each in manifest.source_languages] == ["en"]
    assert [each.tag for each in manifest.target_languages] == ["de", "fr"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for language in manifest.target_languages:
        prefix = TASKS[f"translation_en_to_{language.tag}"]["prefix"]
        for text in ("The train is late.", "1 + 1", " x", ""):
            ids = [*language.source_prefix_ids, *tokenizer.encode(text).ids]
            assert ids == tokenizer.encode(prefix + text).ids


def test_extra_ids_are_special_tokens_after_the_pieces(imported):
    tokenizer = Tokenizer.from_file(str(imported[1] / "tokenizer.json"))
    ids, last = tokenizer.get_vocab(), tokenizer.get_vocab_size() - 1
    for i in range(NUM_EXTRA_IDS):
        assert ids[f"<extra_id_{i}>"] == last - i
        assert tokenizer.decode([last - i, ids["a"]]) == "a"


def test_language_tokens_are_prefixes_and_no_language_is_not_offered(tmp_path):
    source = write_t5(tmp_path / "madlad", is_madlad=True)
    folder, manifest = import_(source, tmp_path / "bundles")
    tags = ["de", "zh"]
    assert [each.tag for each in manifest.source_languages] == tags
    assert [each.tag for each in manifest.target_languages] == tags
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prefix = list(manifest.target_languages[0].source_prefix_ids)
    assert prefix == tokenizer.encode("<2de>").ids[:-1]
    assert prefix[-1] == tokenizer.token_to_id("<2de>")
    special = manifest.special_tokens
    assert (special.pad_id, special.eos_id, special.unk_id) == (1, 2, 0)
    assert manifest.decoding.start_token_id == 0
    assert tokenizer.decode(tokenizer.encode("a \U0001f633").ids) == "a \U0001f633"
    network = manifest.architecture
    assert (network.head.is_tied, network.head.scale) == (False, 0)
    assert network.encoder.groups[0].feed_forward.is_gated


def test_languages_may_be_chosen(tmp_path):
    source = write_t5(tmp_path / "madlad", is_madlad=True)
    options = "--source-languages", "nl", "--target-languages", "zh,und"
    manifest = import_(source, tmp_path / "bundles", *options)[1]
    assert [each.tag for each in manifest.source_languages] == ["nl"]
    assert [each.tag for each in manifest.target_languages] == ["zh", "und"]
    assert [len(each.source_prefix_ids) > 0 for each in manifest.target_languages] == [True, False]


def save_tokenizer(source, **changes):
    """Write ``tokenizer.json`` beside ``spiece.model``."""
    read_translator(source).tokenizers.source.save(str(source / "tokenizer.json"))
    change_json(source / "tokenizer.json", **changes)


@pytest.mark.parametrize("has_pieces", [True, False])
def test_a_tokenizer_of_the_library_is_taken_as_it_is(has_pieces, tmp_path):
    source = write_t5(tmp_path / "t5")
    save_tokenizer(source)
    if not has_pieces:
        (source / "spiece.model").unlink()
    copied = Tokenizer.from_file(str(source / "tokenizer.json"))
    copied.add_special_tokens(["x" * 9])  # is not in the pieces
    copied.save(str(source / "tokenizer.json"))
    assert read_translator(source).tokenizers.source.to_str() == copied.to_str()


def test_tasks_of_several_source_languages_offer_no_prefixes(tmp_path):
    tasks = {**TASKS, "translation_fr_to_de": {"prefix": "translate French to German: "}}
    source = write_t5(tmp_path / "t5", task_specific_params=tasks)
    tokenizers = read_translator(source).tokenizers
    assert (tokenizers.source_languages, tokenizers.target_languages) == ([], [])


@pytest.mark.parametrize(
    ("name", "activation", "is_gated"),
    [
        ("relu", ACTIVATION_RELU, False),
        ("gelu", ACTIVATION_GELU, False),
        ("gated-gelu", ACTIVATION_GELU_TANH, True),
        ("gated-silu", ACTIVATION_SILU, True),
    ],
)
def test_the_feed_forward_network_is_that_of_the_configuration(
    name, activation, is_gated, tmp_path
):
    source = write_t5(tmp_path / "t5", feed_forward_proj=name)
    part = read_translator(source).model.architecture.decoder.groups[0].feed_forward
    assert (part.activation, part.is_gated) == (activation, is_gated)


def change_weights(source, **tensors):
    """Change tensors; None removes one."""
    changed = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        changed.pop(name, None)
        if tensor is not None:
            changed[name] = tensor
    save_file(changed, source / "model.safetensors")
    return changed


@pytest.mark.parametrize(
    ("model_type", "fields", "has_head", "scale"),
    [
        ("t5", {}, False, WIDTH**-0.5),
        ("t5", {"tie_word_embeddings": False}, True, 0),
        ("t5", {"tie_word_embeddings": False}, False, 0),
        ("t5", {"tie_word_embeddings": True, "scale_decoder_outputs": False}, True, 0),
        ("t5", {"tie_word_embeddings": False, "scale_decoder_outputs": True}, True, WIDTH**-0.5),
        ("mt5", {}, True, 0),
        ("mt5", {"tie_word_embeddings": True}, True, 0),
        ("mt5", {"tie_word_embeddings": False}, False, 0),
    ],
)
def test_the_head_is_tied_without_weights_of_its_own(model_type, fields, has_head, scale, tmp_path):
    fields = {"feed_forward_proj": "gated-gelu", **fields}
    source = write_t5(tmp_path / "t5", model_type=model_type, **fields)
    size = read_size(source)
    own = torch.randn(size, WIDTH)
    change_weights(source, **{"lm_head.weight": own if has_head else None})
    model = read_translator(source).model
    assert (model.architecture.head.is_tied, model.architecture.head.scale) == (not has_head, scale)
    if has_head:
        assert torch.equal(model.state_dict()["head.projection.weight"], own)


def read_size(source):
    return load_file(source / "model.safetensors")["shared.weight"].shape[0]


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_embeddings_may_have_any_of_their_names(name, tmp_path):
    source = write_t5(tmp_path / "t5")
    table = load_file(source / "model.safetensors")["shared.weight"]
    names = {f"{name}.embed_tokens.weight": table, "lm_head.weight": table.clone()}
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    change_weights(source, **names, **{"shared.weight": None, unused: torch.zeros(8, 3)})
    model = read_translator(source).model
    assert torch.equal(model.embedding.weight, table)
    assert model.architecture.head.is_tied


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "umt5", "model_type is 'umt5', which is not supported"),
        ("is_encoder_decoder", False, "is_encoder_decoder is False"),
        ("is_decoder", True, "is_decoder is True"),
        ("d_kv", 12, "Attention.head_dim: 12 is not supported in a decoder"),
        ("d_kv", 16, "SelfAttention.q.weight is (24, 32), not (48, 32)"),
        ("num_layers", None, "num_layers is None, want an integer"),
        ("feed_forward_proj", "gated-mish", "feed_forward_proj is 'gated-mish', which is not"),
        ("is_gated_act", True, "is_gated_act is True, which is not supported"),
        ("dense_act_fn", "silu", "dense_act_fn is 'silu', which is not supported"),
        ("relative_attention_num_buckets", 6, "num_buckets: 6 is not a multiple of 4"),
        ("relative_attention_max_distance", 5000, "max_distance: 5000 is more than 4096"),
        ("layer_norm_epsilon", 0, "layer_norm_epsilon is 0, want a positive number"),
        ("tie_word_embeddings", 1.5, "tie_word_embeddings is 1.5"),
        ("scale_decoder_outputs", "yes", "scale_decoder_outputs is 'yes'"),
        ("vocab_size", 40, "exceeds the vocab_size 40"),
        ("pad_token_id", 3, "pad_token_id is 3, which is not supported"),
        ("eos_token_id", 2, "eos_token_id is 2, which is not supported"),
        ("decoder_start_token_id", 4000, "token id 4000 is not in vocab_size"),
        ("decoder_start_token_id", None, "decoder_start_token_id is None, want an integer"),
        ("bad_words_ids", [[4000]], "token id 4000 is not in vocab_size"),
        ("renormalize_logits", True, "renormalize_logits is True, which is not supported with"),
        ("repetition_penalty", -1, "repetition_penalty is -1, want a positive number"),
    ],
)
def test_a_field_that_is_not_supported_is_named(field, value, message, tmp_path, refusal):
    words = [[5]] if field == "renormalize_logits" else None
    source = write_t5(tmp_path / "source", bad_words_ids=words)
    change_json(source / "config.json", **{field: value})
    assert message in refusal(source, *LANGUAGES)


@pytest.mark.parametrize(
    ("model_type", "fields", "is_own"),
    [
        ("t5", {}, True),
        ("mt5", {"tie_word_embeddings": True}, False),
        ("mt5", {"tie_word_embeddings": False, "scale_decoder_outputs": True}, True),
    ],
)
def test_heads_that_versions_of_the_original_read_differently_are_refused(
    model_type, fields, is_own, tmp_path, refusal
):
    source = write_t5(tmp_path / "source", feed_forward_proj="gated-gelu", **fields)
    change_json(source / "config.json", model_type=model_type)
    own = torch.randn(read_size(source), WIDTH) if is_own else None
    change_weights(source, **{"lm_head.weight": own})
    assert f"which is not supported for {model_type} with" in refusal(source, *LANGUAGES)


def test_stacks_with_embeddings_of_their_own_are_refused(tmp_path, refusal):
    source = write_t5(tmp_path / "source")
    change_weights(source, **{"encoder.embed_tokens.weight": torch.randn(read_size(source), WIDTH)})
    assert "encoder.embed_tokens.weight differs from shared.weight" in refusal(source, *LANGUAGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sp_model_kwargs": {"alpha": 1}}, "sp_model_kwargs is {'alpha': 1}, want {}"),
        ({"add_prefix_space": False}, "add_prefix_space is False"),
        ({"tokenizer_class": "BertTokenizer"}, "tokenizer_class is 'BertTokenizer', which is not"),
        ({"extra_ids": -1}, "extra_ids is -1, want an integer from 0"),
        ({"extra_ids": 100}, "exceeds the vocab_size"),
        ({"unk_token": "[UNK]"}, "spiece.model: the special token [UNK] is missing"),
        ({"unk_token": "<pad>"}, "the unknown piece is <unk>, and the unk_token <pad>"),
    ],
)
def test_an_option_of_the_tokenizer_is_named(change, message, tmp_path, refusal):
    source = write_t5(tmp_path / "source")
    change_json(source / "tokenizer_config.json", **change)
    assert message in refusal(source, *LANGUAGES)


def test_a_tokenizer_that_adds_no_end_is_refused(tmp_path, refusal):
    source = write_t5(tmp_path / "source")
    save_tokenizer(source, post_processor=None)
    assert "does not add the eos_token, and only that" in refusal(source, *LANGUAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target-languages", "nl"), "--target-languages: 'nl' is none of de, zh, und"),
        (("--target-languages", "de,zh-Hant"), "'zh-Hant' is none of de, zh, und"),
    ],
)
def test_a_language_without_a_prefix_is_refused(options, message, tmp_path, refusal):
    source = write_t5(tmp_path / "source", is_madlad=True)
    assert message in refusal(source, *options)


def test_a_prefix_that_is_no_sequence_of_tokens_is_refused(tmp_path, refusal):
    tasks = {"translation_en_to_de": {"prefix": "in German"}}  # joins the first word
    source = write_t5(tmp_path / "source", task_specific_params=tasks)
    assert "the prefix 'in German' is not a sequence of tokens that is the same" in refusal(source)


def test_a_checkpoint_that_states_no_languages_is_refused(tmp_path, refusal):
    source = write_t5(tmp_path / "source")
    write_json(source / "tokenizer_config.json", {"extra_ids": 0})
    assert "give --source-languages and --target-languages" in refusal(source)
