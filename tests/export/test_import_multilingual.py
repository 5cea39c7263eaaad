"""Checkpoints of M2M100, NLLB, BART, mBART and mBART-50 become bundles by the real command."""

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.families import read_model
from attendant_export.importers.languages import known_codes, language_tags
from attendant_export.models.embeddings import sinusoids
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.support.checkpoints import change_json
from tests.support.imports import import_, read_translator
from tests.support.multilingual_checkpoints import (
    BPE,
    CLASSES,
    EOS,
    NLLB_CODES,
    PAD,
    UNK,
    WIDTH,
    language_id,
    piece_texts,
    tiny_pieces,
    write_multilingual,
)

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

FAMILIES = ("m2m_100", "nllb", "bart", "mbart", "mbart50")
TEXT = "The train is late."


def options(family, *more):
    languages = ("--source-languages", "en", "--target-languages", "en") if family == "bart" else ()
    return ("--max-tokens", "24", *languages, *more)


def languages_of(imported):
    """The languages of both sides by tag."""
    tokenizers = imported.tokenizers
    return [
        {language.tag: language for language in side}
        for side in (tokenizers.source_languages, tokenizers.target_languages)
    ]


@pytest.mark.parametrize("family", ["nllb", "mbart50"])
def test_the_class_of_the_tokenizer_may_be_in_the_configuration_of_the_model(family, tmp_path):
    source = write_multilingual(tmp_path / "source", family)
    expected = languages_of(read_translator(source))
    change_json(source / "tokenizer_config.json", tokenizer_class=None)
    change_json(source / "config.json", tokenizer_class=CLASSES[family])
    assert languages_of(read_translator(source)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_becomes_a_bundle_that_verifies(family, tmp_path, capsys):
    source = write_multilingual(tmp_path / "source", family)
    folder = import_(source, tmp_path / "bundles", *options(family))
    manifest = read_manifest(folder)
    assert manifest.provenance.imported_from.family == family
    special = manifest.special_tokens
    assert (special.pad_id, special.eos_id, special.unk_id) == (PAD, EOS, UNK)
    main(["verify", str(folder)])
    assert "fp32 beam4: " in capsys.readouterr().out


@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_is_that_of_the_family(family, tmp_path):
    network = read_translator(write_multilingual(tmp_path / "source", family)).model.architecture
    is_m2m_100 = family in ("m2m_100", "nllb")
    assert network.shares_embeddings
    assert network.head.is_tied
    assert network.head.has_bias == (not is_m2m_100)
    for embeddings in (network.source_embeddings, network.target_embeddings):
        positions = embeddings.positions
        kind = POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR if is_m2m_100 else POSITION_KIND_LEARNED
        assert (positions.kind, positions.offset) == (kind, 2)
        assert positions.num_positions == (0 if is_m2m_100 else 132)
        assert embeddings.has_norm == (not is_m2m_100)
        assert embeddings.scale == (WIDTH**0.5 if is_m2m_100 else 0)
    for stack in (network.encoder, network.decoder):
        is_post_norm = family == "bart"
        norm_position = NORM_POSITION_POST if is_post_norm else NORM_POSITION_PRE
        assert (stack.norm_position, stack.norm_epsilon) == (norm_position, 1e-5)
        assert stack.has_final_norm == (not is_post_norm)
        activation = stack.groups[0].feed_forward.activation
        assert activation == (ACTIVATION_RELU if is_m2m_100 else ACTIVATION_GELU)


@pytest.mark.parametrize(
    ("family", "code", "tag"),
    [
        ("m2m_100", "de", "de"),
        ("m2m_100", "tl", "fil"),
        ("nllb", "deu_Latn", "de"),
        ("nllb", "zho_Hans", "zh-Hans"),
        ("mbart50", "de_DE", "de"),
    ],
)
def test_a_language_is_a_token_before_the_source_and_the_first_one_of_the_target(
    family, code, tag, tmp_path
):
    imported = read_translator(write_multilingual(tmp_path / "source", family))
    sources, targets = languages_of(imported)
    token_id = language_id(family, code)
    assert list(sources[tag].source_prefix_ids) == [token_id]
    assert not sources[tag].source_suffix_ids
    assert list(targets[tag].forced_target_ids) == [token_id]
    assert imported.decoding.start_token_id == EOS


def test_mbart_has_the_language_after_the_source_and_starts_with_that_of_the_target(tmp_path):
    imported = read_translator(write_multilingual(tmp_path / "source", "mbart"))
    sources, targets = languages_of(imported)
    assert list(sources["de"].source_suffix_ids) == [language_id("mbart", "de_DE")]
    assert list(targets) == ["ro"]
    assert not targets["ro"].forced_target_ids
    assert imported.decoding.start_token_id == language_id("mbart", "ro_RO")


def test_a_forced_language_is_the_only_target_language(tmp_path):
    english = language_id("mbart50", "en_XX")
    source = write_multilingual(tmp_path / "source", "mbart50", forced_bos_token_id=english)
    imported = read_translator(source)
    assert list(languages_of(imported)[1]) == ["en"]
    assert not imported.decoding.forced_token_ids


def test_the_legacy_nllb_has_the_language_after_the_source(tmp_path):
    source = write_multilingual(tmp_path / "source", "nllb", has_json=True)
    change_json(source / "tokenizer_config.json", legacy_behaviour=True)
    sources, targets = languages_of(read_translator(source))
    assert list(sources["de"].source_suffix_ids) == list(targets["de"].forced_target_ids)
    assert not sources["de"].source_prefix_ids


@pytest.mark.parametrize("has_json", [False, True])
def test_a_forced_begin_of_bart_is_no_part_of_the_tokenizer_of_targets(has_json, tmp_path):
    for forced, ids in ((0, [0]), (None, [])):
        source = write_multilingual(
            tmp_path / str(forced), "bart", has_json=has_json, forced_bos_token_id=forced
        )
        imported = read_translator(source)
        assert list(imported.decoding.forced_token_ids) == ids
        encoded = imported.tokenizers.source.encode(TEXT).ids
        assert (encoded[0], encoded[-1]) == (0, EOS)
        assert imported.tokenizers.target.encode(TEXT).ids == encoded[len(ids) :]
        assert imported.tokenizers.target.decode(encoded) == TEXT


@pytest.mark.parametrize("family", ["m2m_100", "nllb", "mbart", "mbart50"])
def test_tokens_are_the_pieces_of_the_sentencepiece_model_and_end_with_eos(family, tmp_path):
    source = write_multilingual(tmp_path / "source", family)
    tokenizer = read_translator(source).tokenizers.source
    ids = {text: i for i, text in enumerate(piece_texts())}
    for text in (TEXT, "Where is  the\u00a0bus?", "\U0001f633\U0001f633 a", "</s> __de__ deu_Latn"):
        expected = [ids.get(piece, UNK) for piece in tiny_pieces().tokens(text)]
        tokenizer.encode_special_tokens = True  # as the server reads texts
        assert tokenizer.encode(text).ids == [*expected, EOS]


def merged(word, scores):
    """The pieces of a word by BPE: the pair with the best score is joined first."""
    symbols = list(word)
    while True:
        pairs = [
            (scores[a + b], -i)
            for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False))
            if a + b in scores
        ]
        if not pairs:
            return symbols
        i = -max(pairs)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


@pytest.mark.parametrize("family", ["m2m_100", "nllb"])
def test_tokens_of_a_bpe_model_are_joined_by_score(family, tmp_path):
    source = write_multilingual(tmp_path / "source", family, trainer=BPE)
    tokenizer = read_translator(source).tokenizers.source
    scores = tiny_pieces().scores
    for text in (TEXT, "Where is the bus to the airport?", "Der Zug hat Verspätung."):
        words = [f"\u2581{word}" for word in text.split()]
        expected = [piece for word in words for piece in merged(word, scores)]
        assert tokenizer.encode(text).tokens == [*expected, "</s>"]
    assert tokenizer.encode("\U0001f633\U0001f634").ids[-2:] == [UNK, EOS]


def test_a_tokenizer_json_goes_before_the_sentencepiece_model(tmp_path):
    source = write_multilingual(tmp_path / "source", "nllb", has_json=True)
    folder = import_(source, tmp_path / "bundles", *options("nllb"))
    manifest = read_manifest(folder)
    tags = ["en", "de", "zh-Hans", "zh-Hant"]
    assert [language.tag for language in manifest.target_languages] == tags
    tokenizer = Tokenizer.from_file(str(folder / manifest.source_tokenizer))
    forced = manifest.target_languages[1].forced_target_ids
    assert tokenizer.id_to_token(forced[0]) == NLLB_CODES[1]
    ids = tokenizer.encode(TEXT).ids
    assert ids[-1] == EOS
    assert tokenizer.decode([*forced, *ids]) == TEXT


def test_computed_positions_may_be_stored(tmp_path):
    source = write_multilingual(tmp_path / "source", "m2m_100")
    tensors = load_file(source / "model.safetensors")
    part = read_translator(source).model.architecture.source_embeddings.positions
    table = torch.cat([torch.zeros(2, WIDTH), sinusoids(part, 130, WIDTH)])
    for scale in (1, 2):
        tensors["model.encoder.embed_positions.weights"] = scale * table
        save_file(tensors, source / "model.safetensors")
        if scale == 1:
            assert read_translator(source).max_tokens == 130
    with pytest.raises(CheckpointError, match="other values than sinusoids"):
        read_translator(source)


def test_weights_without_the_prefix_of_a_head_are_read(tmp_path):
    source = write_multilingual(tmp_path / "source", "bart")
    tensors = load_file(source / "model.safetensors")
    bias = tensors.pop("final_logits_bias")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare | {"encoder.version": torch.ones(1)}, source / "model.safetensors")
    network = read_translator(source).model.architecture
    assert bias.any()
    assert not network.head.has_bias


def test_languages_can_be_chosen_from_those_of_the_checkpoint(tmp_path, capsys):
    source = write_multilingual(tmp_path / "source", "nllb", has_json=True)
    given = ("--source-languages", "de,en", "--target-languages", "zh-Hant")
    manifest = read_manifest(import_(source, tmp_path / "bundles", *options("nllb", *given)))
    assert [language.tag for language in manifest.source_languages] == ["de", "en"]
    assert manifest.target_languages[0].forced_target_ids
    with pytest.raises(SystemExit):
        import_(source, tmp_path / "others", *options("nllb", "--target-languages", "zh"))
    assert "--target-languages: 'zh' is none of en, de, zh-Hans, zh-Hant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("m2m_100", {"d_model": 30}, "d_model 30 is not a multiple of encoder_attention_heads 4"),
        ("m2m_100", {"activation_function": "mish"}, "activation_function is 'mish'"),
        ("m2m_100", {"pad_token_id": 5}, "pad_token_id is 5, which is not supported; supported: 1"),
        ("m2m_100", {"eos_token_id": [2, 3]}, "eos_token_id is [2, 3]"),
        ("m2m_100", {"vocab_size": 100}, "do not fit the vocab_size 100"),
        ("m2m_100", {"forced_bos_token_id": 7}, "forced_bos_token_id is 7, want the token of a"),
        ("m2m_100", {"decoder_start_token_id": None}, "decoder_start_token_id is None"),
        ("m2m_100", {"early_stopping": "never"}, "early_stopping is 'never'"),
        ("bart", {"normalize_before": True}, "normalize_before is True"),
        ("bart", {"normalize_embedding": False}, "normalize_embedding is False"),
        ("bart", {"add_final_layer_norm": True}, "add_final_layer_norm is True"),
        ("bart", {"static_position_embeddings": True}, "static_position_embeddings is True"),
        ("bart", {"extra_pos_embeddings": 3}, "extra_pos_embeddings is 3"),
        ("bart", {"repetition_penalty": 0.001}, "repetition_penalty is 0.001, want a number from"),
        ("bart", {"min_length": -1}, "min_length is -1, want an integer from 0 to"),
        ("bart", {"forced_bos_token_id": 9000}, "token id 9000 is not in the "),
        ("bart", {"vocab_size": 20}, "exceeds the vocab_size 20"),
        ("bart", {"max_position_embeddings": 50}, "(132, 32), not (52, 32)"),
        (
            "bart",
            {"architectures": ["BartForSequenceClassification"]},
            "architectures is BartForSequenceClassification, which is not supported for model_type",
        ),
        ("mbart", {"normalize_before": False}, "normalize_before is False"),
        ("mbart", {"add_final_layer_norm": False}, "add_final_layer_norm is False"),
        ("mbart", {"decoder_start_token_id": 2}, "decoder_start_token_id is 2, want the token of"),
    ],
)
def test_a_field_that_is_not_supported_is_named(family, fields, message, tmp_path):
    source = write_multilingual(tmp_path / "source", family)
    change_json(source / "config.json", **fields)
    with pytest.raises(CheckpointError) as refused:
        read_model(Checkpoint(source))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("m2m_100", {"tokenizer_class": "XTokenizer"}, "tokenizer_class is 'XTokenizer', which"),
        ("m2m_100", {"language_codes": "mine"}, "language_codes is 'mine'"),
        ("m2m_100", {"sp_model_kwargs": {"alpha": 1}}, "sp_model_kwargs is {'alpha': 1}, want {}"),
        ("nllb", {"legacy_behaviour": 1.5}, "legacy_behaviour is 1.5"),
        ("nllb", {"unk_token": "[UNK]"}, "the special token [UNK] has no id"),
        (
            "nllb",
            {"added_tokens_decoder": {"9": {"content": "deu_Latn"}}},
            "added_tokens_decoder has 'deu_Latn' with the id 9; supported: ",
        ),
        ("bart", {"mask_token": "[MASK]"}, "the special token [MASK] has no id"),
        ("bart", {"tokenizer_class": "BertTokenizer"}, "tokenizer_class is 'BertTokenizer', which"),
        ("bart", {"errors": "ignore"}, "errors is 'ignore'"),
    ],
)
def test_an_option_of_the_tokenizer_that_is_not_supported_is_named(
    family, fields, message, tmp_path
):
    source = write_multilingual(tmp_path / "source", family)
    change_json(source / "tokenizer_config.json", **fields)
    with pytest.raises(CheckpointError) as refused:
        read_model(Checkpoint(source))
    assert message in str(refused.value)


def test_a_special_token_that_a_tokenizer_json_lacks_is_named(tmp_path):
    source = write_multilingual(tmp_path / "source", "nllb", has_json=True)
    change_json(source / "tokenizer_config.json", pad_token="[PAD]")
    with pytest.raises(
        CheckpointError, match=r"tokenizer.json: the special token \[PAD\] has no id"
    ):
        read_model(Checkpoint(source))


@pytest.mark.parametrize("name", ["m2m100", "wmt21", "nllb", "mbart", "mbart50"])
def test_every_language_has_a_tag_of_its_own(name):
    codes = known_codes(name)
    tags = language_tags(codes)
    assert list(tags) == codes
    assert len({tag.lower() for tag in tags.values()}) == len(codes)
    assert all("_" not in tag for tag in tags.values())


def test_tags_are_short_but_tell_languages_apart():
    codes = "eng_Latn arb_Arab zho_Hans zho_Hant kor_Hang pes_Arab prs_Arab aka_Latn twi_Latn"
    tags = "en ar zh-Hans zh-Hant ko fa fa-AF ak tw"
    assert list(language_tags(codes.split()).values()) == tags.split()
    assert language_tags(["pt_XX", "zh_CN", "?"]) == {"pt_XX": "pt", "zh_CN": "zh", "?": "?"}
