"""GGUF files of language models: containers, types of tensors, tokenizers and refusals."""

import struct
from contextlib import suppress

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from attendant_export.__main__ import main
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.families import read_model
from attendant_export.importers.gguf_file import GgufFile
from attendant_export.importers.gguf_quantization import TYPES
from attendant_export.importers.language_model import ImportedLanguageModel
from attendant_export.importers.sentencepiece_bytes import byte_bpe_tokenizer, read_byte_bpe
from attendant_export.importers.sources import open_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import imports_compare_one_of
from tests.support import gguf_files
from tests.support.bundles import one_thread
from tests.support.gguf_files import content_of, write_gguf
from tests.support.language_checkpoints import write_language_model

pytestmark = pytest.mark.usefixtures("quiet_threads")

TEXT = "The capital of France is"
KINDS = {"F32": 0.0, "F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2, "Q4_1": 0.3}
"""The largest error of a weight of the tiny models, by the type of matrices."""


def read(path) -> ImportedLanguageModel:
    imported = read_model(open_checkpoint(str(path)))
    assert isinstance(imported, ImportedLanguageModel)
    return imported


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The folder of a tiny Llama."""
    return write_language_model(tmp_path_factory.mktemp("llama") / "m", "llama")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_a_file_are_those_of_the_checkpoint(kind, family, tmp_path):
    source = write_language_model(tmp_path / "m", family)
    found = read(write_gguf(tmp_path / "m.gguf", source, kind)).model.state_dict()
    expected = read_model(open_checkpoint(str(source))).model.state_dict()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=KINDS[kind], rtol=0)


def test_a_file_gives_the_logits_and_tokens_of_the_original(llama, tmp_path):
    imported = read(write_gguf(tmp_path / "m.gguf", llama))
    original = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    for text in sample_texts():
        assert imported.tokenizer.encode(text).ids == tokenizer(text)["input_ids"]
    token_ids = torch.tensor([imported.tokenizer.encode(TEXT).ids])
    with torch.inference_mode():
        found = imported.model.logits(imported.model(token_ids))
        torch.testing.assert_close(found, original(token_ids).logits, atol=2e-5, rtol=2e-5)
    assert imported.max_tokens == 128


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_bundle_of_a_file_is_compared_with_the_original_network(family, tmp_path, capsys):
    source = write_language_model(tmp_path / "m", family)
    path, bundles = write_gguf(tmp_path / "tiny.Q8_0.gguf", source, "Q8_0"), tmp_path / "bundles"
    with one_thread(), imports_compare_one_of(16):
        main(["import", str(path), "--bundles-dir", str(bundles)])

    manifest = read_manifest(bundles / "tiny-q8-0" / "1")
    assert (manifest.license, manifest.provenance.imported_from.source) == ("cc0-1.0", "tiny.Q8_0")
    [compared] = manifest.parity.original.translations
    assert compared.max_log_probability_difference < 1e-4
    assert all(entry.num_identical == 4 for entry in compared.tokens)
    main(["verify", str(bundles / "tiny-q8-0" / "1"), "--against", str(path)])
    assert "fp32 beam4 ragged: 0 of 4 outputs have other tokens" in capsys.readouterr().out


def half(block, first):
    return float(np.frombuffer(block[first : first + 2], "<f2")[0])


def q4_k(block, i):
    """The value i of a block, by the layout in the documentation of ggml."""
    group, scales = i // 32, block[4:16]
    if group < 4:
        scale, least = scales[group] & 63, scales[group + 4] & 63
    else:
        scale = (scales[group + 4] & 15) | ((scales[group - 4] >> 6) << 4)
        least = (scales[group + 4] >> 4) | ((scales[group] >> 6) << 4)
    byte = block[16 + group // 2 * 32 + i % 32]
    value = byte >> 4 if group % 2 else byte & 15
    return half(block, 0) * scale * value - half(block, 2) * least


def q6_k(block, i):
    part, rest = i // 128, i % 128
    quarter, column = rest // 32, rest % 32
    low = block[part * 64 + quarter % 2 * 32 + column]
    low = low >> 4 if quarter >= 2 else low & 15
    high = (block[128 + part * 32 + column] >> (2 * quarter)) & 3
    scale = struct.unpack("b", block[192 + i // 16 : 193 + i // 16])[0]
    return half(block, 208) * scale * ((low | (high << 4)) - 32)


def q4_0(block, i):
    byte = block[2 + i % 16]
    return half(block, 0) * ((byte >> 4 if i >= 16 else byte & 15) - 8)


def q4_1(block, i):
    byte = block[4 + i % 16]
    return half(block, 0) * (byte >> 4 if i >= 16 else byte & 15) + half(block, 2)


def q8_0(block, i):
    return half(block, 0) * struct.unpack("b", block[2 + i : 3 + i])[0]


@pytest.mark.parametrize("value", [q4_0, q4_1, q8_0, q4_k, q6_k])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_quantized_block_has_the_values_of_its_definition(value, seed):
    [kind] = [each for each in TYPES.values() if each.name == value.__name__.upper()]
    content = np.random.default_rng(seed).integers(0, 256, kind.block_bytes, dtype=np.uint8)
    scales = {"Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,)}.get(kind.name, (0, 2))
    for first in scales:  # finite numbers
        content[first : first + 2] = np.frombuffer(np.float16(seed % 100 / 64).tobytes(), np.uint8)
    block = content.tobytes()
    expected = [value(block, i) for i in range(kind.block_size)]
    np.testing.assert_allclose(kind.dequantize(block), expected, rtol=1e-6, atol=1e-6)


def test_weights_that_are_no_numbers_are_refused(llama, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", llama, "Q8_0")
    content = bytearray(path.read_bytes())
    first = GgufFile(path)._begin
    content[first : first + 2] = np.float16("nan").tobytes()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="weights are NaN"):
        read(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused(llama, tmp_path_factory, data):
    path = write_gguf(tmp_path_factory.mktemp("damaged") / "m.gguf", llama)
    content = bytearray(path.read_bytes())
    end = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:end])
    with pytest.raises(CheckpointError):
        read(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_of_the_metadata_is_refused_or_read(llama, tmp_path_factory, data):
    path = write_gguf(tmp_path_factory.mktemp("changed") / "m.gguf", llama)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, 2000))
    content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(CheckpointError):
        read(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"general__architecture": "mamba"}, "general.architecture is 'mamba', which is not supp"),
        ({"llama__rope__scaling__type": "yarn"}, "llama.rope.scaling.type 'yarn', which is not"),
        ({"llama__expert_count": 8}, "has llama.expert_count 8, which is not supported"),
        ({"llama__rope__dimension_count": 8}, "llama.rope.dimension_count is 8, which is not"),
        ({"llama__context_length": None}, "llama.context_length is None"),
        ({"llama__block_count": 3}, "blk.2.attn_norm.weight is missing"),
        ({"llama__block_count": 2**24}, "want an integer from 1 to 10000"),
        ({"tokenizer__ggml__model": "bert"}, "tokenizer.ggml.model is 'bert', which is not"),
        ({"tokenizer__ggml__pre": "unheard-of"}, "tokenizer.ggml.pre is 'unheard-of', which"),
        ({"tokenizer__ggml__merges": None}, "tokenizer.ggml.merges is missing or not a list"),
        ({"tokenizer__ggml__merges": ["a"]}, "a merge is no pair"),
        ({"tokenizer__ggml__token_type": [1]}, "tokenizer.ggml.token_type is missing or not a lis"),
        ({"tokenizer__ggml__add_eos_token": True}, "tokenizer.ggml.add_eos_token is True"),
        ({"tokenizer__ggml__eos_token_id": None}, "tokenizer.ggml.eos_token_id is None"),
    ],
)
def test_files_that_are_not_supported_are_refused(fields, message, llama, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", llama, **fields)
    with pytest.raises(CheckpointError) as refused:
        read(path)
    assert message in str(refused.value)


def test_other_containers_and_types_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(gguf_files.TYPES, "Q2_K", (10, gguf_files.f32))
    path = tmp_path / "m.gguf"
    whole = content_of({}, {"token_embd.weight": (np.zeros((2, 32)), "F32")})
    for content, message in (
        (b"", "is cut off"),
        (b"GGML" + whole[4:], "is not a GGUF file"),
        (whole[:4] + struct.pack("<I", 1) + whole[8:], "the version of GGUF is 1"),
        (content_of({}, {"x": (np.zeros((2, 32)), "Q2_K")}), "x has the type 10 of ggml"),
        (
            content_of({}, {"x": (np.zeros((2, 32)), "Q8_0")}).replace(
                struct.pack("<2Q", 32, 2), struct.pack("<2Q", 31, 2)
            ),
            "x has rows of 31 values, not a multiple of the 32 of Q8_0",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(str(path))


def test_a_start_token_is_that_of_the_metadata(llama, tmp_path):
    path = tmp_path / "m.gguf"
    assert read(write_gguf(path, llama)).model.tokens.bos_id is None
    started = write_gguf(path, llama, tokenizer__ggml__add_bos_token=True)
    assert read(started).model.tokens.bos_id == 0


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The file of a SentencePiece model as Llama 2 has it."""
    folder = tmp_path_factory.mktemp("pieces")
    corpus = folder / "texts.txt"
    corpus.write_text("\n".join(sample_texts()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def test_pieces_with_bytes_are_those_of_sentencepiece(pieces):
    original = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    read_pieces = read_byte_bpe(pieces)
    tokenizer = byte_bpe_tokenizer(read_pieces)
    assert read_pieces.start_id == 1
    for text in [*sample_texts(), "a  b   c", " a", "\u4e2d\U0001f600 x", "1234.5\n\tend"]:
        ids = tokenizer.encode(text).ids
        assert ids == original.encode(text)
        assert tokenizer.decode(ids) == text


def test_pieces_inside_a_file_are_those_of_sentencepiece(pieces, llama, tmp_path):
    original = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    count = original.get_piece_size()
    source = write_language_model(tmp_path / "m", "llama", vocab_size=count)
    tests = (original.is_unknown, 2), (original.is_control, 3), (original.is_byte, 6)
    kinds = [next((kind for test, kind in tests if test(i)), 1) for i in range(count)]
    path = write_gguf(
        *(tmp_path / "m.gguf", source),
        tokenizer__ggml__model="llama",
        tokenizer__ggml__pre="default",
        tokenizer__ggml__tokens=[original.id_to_piece(i) for i in range(count)],
        tokenizer__ggml__scores=[original.get_score(i) for i in range(count)],
        tokenizer__ggml__token_type=kinds,
        tokenizer__ggml__merges=None,
        tokenizer__ggml__bos_token_id=1,
        tokenizer__ggml__eos_token_id=2,
    )
    imported = read(path)
    assert (imported.model.tokens.bos_id, imported.model.tokens.eos_id) == (1, 2)
    for text in sample_texts():
        assert imported.tokenizer.encode(text).ids == original.encode(text)


def test_a_folder_of_llama_may_have_the_pieces_alone(pieces, tmp_path):
    original = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    count = original.get_piece_size()
    source = write_language_model(tmp_path / "m", "llama", vocab_size=count, eos_token_id=2)
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.model").write_bytes(pieces.read_bytes())
    imported = read(source)
    assert imported.model.tokens.bos_id == 1
    assert imported.tokenizer.encode(TEXT).ids == original.encode(TEXT)
