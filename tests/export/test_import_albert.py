"""Checkpoints of ALBERT: shared layers, the SentencePiece tokenizer, and what is refused."""

import unicodedata

import numpy as np
import pytest
import torch
from attendant_export.__main__ import main
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.special_tokens import encoder_tokens, read_tokenizer
from attendant_export.models.special_tokens import EncoderTokens
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import change_json, write_checkpoint, write_json
from tests.support.imports import import_, read_encoder
from tests.support.sentencepiece_files import (
    CONTROL,
    TINY_RULES,
    UNKNOWN,
    USER_DEFINED,
    Pieces,
    frequent_pieces,
    option,
    write_sentencepiece,
)

pytestmark = pytest.mark.usefixtures("quiet_threads")

SPECIAL = (
    ("<pad>", 0.0, CONTROL),
    ("<unk>", 0.0, UNKNOWN),
    *((text, 0.0, CONTROL) for text in ("[CLS]", "[SEP]", "[MASK]")),
    *((symbol, 0.0, USER_DEFINED) for symbol in '()"-.–£€'),
)
LAYER = "encoder.albert_layer_groups.0.albert_layers.0."


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "source", "albert", has_head=False)


def plain(text: str, keeps_accents: bool = False, lowers: bool = True) -> str:
    """A text as the original prepares it for SentencePiece."""
    text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    if not keeps_accents:
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    return text.lower() if lowers else text


def with_sentencepiece(source, special=SPECIAL, trainer=b"", **options):
    """Give a checkpoint a SentencePiece model in the place of its ``tokenizer.json``."""
    symbols = {text for text, *_ in special}
    texts = [*map(plain, sample_texts()), "it costs 9,500 or 3, not 10,000", "abc déf DÉF ABC"]
    learned = frequent_pieces(texts, 300, TINY_RULES)
    scores = {p: s for p, s in learned.scores.items() if symbols.isdisjoint(p)}
    pieces = Pieces(scores | {"0,": -1.0, "0": -4.0, ",": -4.0, "▁": -6.0}, TINY_RULES)
    write_sentencepiece(source / "spiece.model", pieces, trainer=trainer, special=special)
    (source / "tokenizer.json").unlink()
    write_json(source / "tokenizer_config.json", options)
    size = len(special) + len(pieces.scores)
    change_json(source / "config.json", vocab_size=size)
    weights = load_file(source / "model.safetensors")
    table = torch.randn(size, weights["embeddings.word_embeddings.weight"].shape[1])
    save_file(weights | {"embeddings.word_embeddings.weight": table}, source / "model.safetensors")
    return source


def test_a_sentencepiece_model_becomes_the_tokenizer_of_the_bundle(source, tmp_path):
    bundle = import_(with_sentencepiece(source), tmp_path / "bundles")
    manifest = read_manifest(bundle)
    files = {file.path for file in manifest.provenance.imported_from.files}
    assert "spiece.model" in files
    tokens = manifest.special_tokens
    assert (tokens.pad_id, tokens.unk_id, tokens.cls_id, tokens.sep_id) == (0, 1, 2, 3)
    assert tokens.mask_id == 4
    main(["verify", str(bundle)])


def test_special_tokens_that_a_checkpoint_does_not_state_are_those_of_its_family(source):
    write_json(source / "tokenizer_config.json", {})
    expected = EncoderTokens(pad_id=0, cls_id=2, sep_id=3, mask_id=4)
    assert encoder_tokens(Checkpoint(source)) == expected


def test_texts_spell_no_special_tokens(source):
    tokenizer = read_tokenizer(Checkpoint(with_sentencepiece(source)))
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode("<pad> <unk> [cls] [MASK]").ids
    assert (ids[0], ids[-1]) == (2, 3)
    assert not {0, 2, 3, 4} & set(ids[1:-1])


def test_a_number_is_split_from_its_comma(source):
    tokenizer = read_tokenizer(Checkpoint(with_sentencepiece(source)))
    tokens = tokenizer.encode("10,000").tokens
    assert "0," not in tokens
    assert "," in tokens


@pytest.mark.parametrize(("keeps_accents", "lowers"), [(False, True), (True, True), (True, False)])
def test_ids_are_those_of_sentencepiece(keeps_accents, lowers, source):
    library = pytest.importorskip("sentencepiece")
    options = {"keep_accents": keeps_accents, "do_lower_case": lowers}
    with_sentencepiece(source, **options)
    tokenizer = read_tokenizer(Checkpoint(source))
    theirs = library.SentencePieceProcessor(model_file=str(source / "spiece.model"))
    tokenizer.encode_special_tokens = True
    number_comma = theirs.piece_to_id("0,")
    texts = [
        *sample_texts(),
        *random_texts(20_000),
        "",
        " ",
        "<pad> a<unk>",
        "(a) - b–c. £5 €6",
        "``Dé'' ½",
    ]
    different = []
    for text in texts:
        expected = theirs.encode(plain(text, keeps_accents, lowers))
        if number_comma not in expected and tokenizer.encode(text).ids[1:-1] != expected:
            different.append(text)
    assert different == []


def random_texts(count):
    """Texts of letters, accents, digits, symbols and spaces."""
    generator = np.random.default_rng(5)
    words = [word for text in sample_texts() for word in text.split()]
    marks = [*"().-–£€,;ÀéçñÖß0123456789", "\u0301", "\t", "\n", "  ", "\u3000", "😀", "漢"]
    for _ in range(count):
        parts = generator.choice(words + marks * 8, size=generator.integers(1, 9))
        glue = generator.choice(["", " "], size=len(parts))
        yield "".join(f"{part}{space}" for part, space in zip(parts, glue, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove_space": False}, "remove_space is False, which is not supported"),
        ({"tokenizer_class": "T5Tokenizer"}, "supported: 'AlbertTokenizer', 'AlbertTokenizerFast'"),
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes', which is not supported"),
        ({"sp_model_kwargs": {"nbest_size": 2}}, "sp_model_kwargs is {'nbest_size': 2}, want {}"),
    ],
)
def test_options_of_the_tokenizer_that_are_not_supported_are_named(options, message, source):
    with pytest.raises(CheckpointError, match=message):
        read_encoder(with_sentencepiece(source, **options))


def test_sentencepiece_models_of_another_kind_are_refused(source):
    special = tuple(each for each in SPECIAL if each[2] != USER_DEFINED)
    with pytest.raises(CheckpointError, match=r"spiece.model: a BPE model or pieces of bytes"):
        read_encoder(with_sentencepiece(source, special, trainer=option(3, 2)))


def test_a_sentencepiece_model_without_a_special_token_is_refused(source):
    special = tuple(each for each in SPECIAL if each[0] != "[CLS]")
    with pytest.raises(CheckpointError, match=r"spiece.model has no piece \[CLS\]"):
        read_encoder(with_sentencepiece(source, special))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_hidden_groups", 3, "num_hidden_groups is 3, want at most num_hidden_layers, which"),
        ("inner_group_num", 0, "inner_group_num is 0, want an integer from 1"),
        ("inner_group_num", 2, r"albert_layers\.1\..* is missing"),
        ("embedding_size", 16, r"embeddings.word_embeddings.weight is \(.*, 8\), not \(.*, 16\)"),
        ("hidden_act", "mish", "hidden_act is 'mish', which is not supported"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(field, value, message, source):
    change_json(source / "config.json", **{field: value})
    with pytest.raises(CheckpointError, match=message):
        read_encoder(source)


def test_a_weight_that_no_layer_has_is_refused(source):
    weights = load_file(source / "model.safetensors")
    extra = {f"{LAYER}attention.gate.weight": torch.zeros(1)}
    save_file(weights | extra, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"attention.gate.weight \(1,\) is not expected"):
        read_encoder(source)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2},
        {"num_hidden_layers": 7, "num_hidden_groups": 3, "hidden_act": "gelu"},
        {"embedding_size": 32, "type_vocab_size": 3, "layer_norm_eps": 1e-3, "hidden_act": "relu"},
        {"embedding_size": 48, "num_attention_heads": 2, "inner_group_num": 3},
    ],
)
def test_configurations_follow_the_original(fields, tmp_path):
    transformers = pytest.importorskip("transformers")
    source = write_checkpoint(tmp_path / "source", "albert")
    config = transformers.AlbertConfig.from_pretrained(source)
    config.update({"num_hidden_layers": 2, **fields})
    torch.manual_seed(3)
    theirs = transformers.AlbertForMaskedLM(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(source)

    bundle = import_(source, tmp_path / "bundles")

    parity = read_manifest(bundle).parity.original
    assert parity.min_cosine >= 0.99999
    ours, token_ids = read_encoder(source).model, torch.arange(5, 60)[None]
    with torch.inference_mode():
        expected = theirs(token_ids).logits[0]
        assert (ours.mask_logits(ours(token_ids)[0]) - expected).abs().max() < 1e-4
