"""Marian's model files and shortlists are read exactly, and damaged ones are refused by name."""

import struct

import numpy as np
import pytest
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.marian_file import read_marian_file
from attendant_export.importers.marian_shortlist import LexicalShortlist

from tests.support.marian_files import (
    CHARACTERS,
    FLOAT32,
    INT8,
    random_lists,
    write_binary,
    write_npz,
    write_shortlist,
    write_tensors,
)

TENSORS = {
    "Wemb": np.arange(12, dtype=np.float32).reshape(6, 2),
    "encoder_l1_ffn_W1": np.arange(8, dtype=np.float32).reshape(2, 4) - 3,
    "encoder_l1_ffn_b1": np.array([[0.1, -0.2, 0.3, 0.4]], np.float32),
}
CONFIG = ("special:model.yml", CHARACTERS, (2,), b"{}")
MODEL, SHORTLIST = "model.bin", "lex.s2t.bin"
SOURCE_SIZE, TARGET_SIZE = 90, 70


def written(path, *tensors):
    write_tensors(path, [*tensors, CONFIG])
    return path


def test_a_quantized_value_is_the_integer_divided_by_the_multiplier(tmp_path):
    integers, multiplier = np.array([[1, -2, 127], [4, 5, -127]], np.int8), np.float32(3.7)
    path = written(
        tmp_path / MODEL,
        ("decoder_Wemb", INT8, (2, 3), integers.tobytes() + multiplier.tobytes()),
        ("decoder_l1_rnn_W", INT8, (2, 3), integers.T.tobytes() + multiplier.tobytes()),
    )
    file = read_marian_file(path)
    exact = integers.astype(np.float32) / multiplier
    assert (file.array("decoder_Wemb") == exact).all()
    assert (file.array("decoder_l1_rnn_W") == exact).all()


@pytest.mark.parametrize(
    ("kind", "dtype", "divisor"), [(0x402, np.float16, 1), (0x4102, np.int16, 1024)]
)
def test_other_types_are_read(kind, dtype, divisor, tmp_path):
    values = np.array([[1, -2], [3, 300]], dtype)
    data = values.tobytes() + (np.float32(divisor).tobytes() if divisor > 1 else b"")
    file = read_marian_file(written(tmp_path / MODEL, ("Wemb", kind, (2, 2), data)))
    assert (file.array("Wemb") == values.astype(np.float32) / divisor).all()


@pytest.mark.parametrize("name", [MODEL, "model.npz"])
def test_both_formats_hold_tensors_and_configuration(name, tmp_path):
    path = tmp_path / name
    (write_npz if name.endswith("npz") else write_binary)(path, {"dim-emb": 2}, TENSORS)
    file = read_marian_file(path)
    assert file.config == {"dim-emb": 2}
    for tensor, expected in TENSORS.items():
        assert file.shapes[tensor] == expected.shape
        assert file.array(tensor) == pytest.approx(expected, abs=0.05)


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / MODEL
    write_binary(path, {"dim-emb": 2}, TENSORS)
    content = path.read_bytes()
    for length in (0, 7, 15, 16, 100, 250, 600, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="is not a Marian model"):
            read_marian_file(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="1 bytes follow the last tensor"):
        read_marian_file(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (("Wemb", 0x5101, (1, 4), bytes(8)), "Wemb has the type 0x5101, supported: float32"),
        (("Wemb", INT8, (30, 30), bytes(8)), "Wemb has 256 bytes, want at least 904"),
        (("Wemb", FLOAT32, (0, 4), bytes(8)), r"Wemb has the shape \(0, 4\)"),
        (("Wemb", FLOAT32, (-1, -4), bytes(16)), r"Wemb has the shape \(-1, -4\)"),
        (CONFIG, "special:model.yml is there twice"),
    ],
)
def test_a_tensor_that_cannot_be_read_is_named(tensor, message, tmp_path):
    with pytest.raises(CheckpointError, match=f"model.bin is not a Marian model: {message}"):
        read_marian_file(written(tmp_path / MODEL, tensor))


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_a_multiplier_that_is_no_positive_number_is_refused(multiplier, tmp_path):
    data = bytes(4) + np.float32(multiplier).tobytes()
    file = read_marian_file(written(tmp_path / MODEL, ("Wemb", INT8, (2, 2), data)))
    with pytest.raises(CheckpointError, match="Wemb has the quantization multiplier"):
        file.array("Wemb")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "special:model.yml is not a YAML object"),
        (b"a: [", "special:model.yml is not YAML"),
        (b"!!python/object/apply:os.getcwd []", "special:model.yml is not YAML"),
    ],
)
def test_a_configuration_is_plain_data(content, message, tmp_path):
    path = tmp_path / MODEL
    write_tensors(path, [("special:model.yml", CHARACTERS, (len(content),), content)])
    with pytest.raises(CheckpointError, match=message):
        read_marian_file(path)


def test_a_model_without_configuration_or_of_another_version_is_refused(tmp_path):
    path = tmp_path / MODEL
    write_tensors(path, [])
    with pytest.raises(CheckpointError, match="it has no configuration, special:model.yml"):
        read_marian_file(path)
    write_tensors(path, [CONFIG], version=2)
    with pytest.raises(CheckpointError, match="it has the version 2, want 1"):
        read_marian_file(path)


@pytest.mark.parametrize("array", [np.array([{}], object), np.array([1.0], np.float64)])
def test_an_npz_file_of_other_types_is_refused(array, tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, Wemb=array)
    with pytest.raises(CheckpointError, match="is not a Marian model: "):
        read_marian_file(path)


@pytest.fixture
def lists():
    return random_lists(SOURCE_SIZE, TARGET_SIZE)


def tables(tmp_path, lists, is_shared=False, sizes=(SOURCE_SIZE, TARGET_SIZE), num_frequent=20):
    """The tables of a bundle that has two source tokens more than Marian."""
    write_shortlist(tmp_path / SHORTLIST, lists, num_frequent)
    shortlist = LexicalShortlist(tmp_path / SHORTLIST)
    return shortlist.tables(sizes[0], sizes[1], sizes[0] + 2, is_shared=is_shared, eos_id=0)


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_source_has_the_tokens_that_marian_gives_it(is_shared, lists, tmp_path):
    lists[0] = [40, 41]  # EOS, which every source has
    sizes = (TARGET_SIZE, TARGET_SIZE) if is_shared else (SOURCE_SIZE, TARGET_SIZE)
    lists = lists[: sizes[0]]
    made = tables(tmp_path, lists, is_shared, sizes)
    assert len(made.translations) == sizes[0] + 2
    pad_id = sizes[0]
    draw = np.random.default_rng(1)
    for length in range(1, 30):
        source = [*draw.integers(1, pad_id, length).tolist(), 0]
        theirs = set(range(20)).union(*(lists[token] for token in source))
        if is_shared:
            theirs |= set(source)
        ours = {*made.frequent.tolist(), *made.translations[[*source, pad_id]].ravel().tolist()}
        assert ours == theirs


def test_a_shortlist_of_other_vocabularies_is_refused(lists, tmp_path):
    with pytest.raises(CheckpointError, match="do not fit the vocabularies of 91 and 70 tokens"):
        tables(tmp_path, lists, sizes=(SOURCE_SIZE + 1, TARGET_SIZE))
    with pytest.raises(CheckpointError, match="do not fit the vocabularies"):
        tables(tmp_path, lists, sizes=(SOURCE_SIZE, TARGET_SIZE // 2))


def test_a_damaged_shortlist_is_refused(lists, tmp_path):
    path = tmp_path / SHORTLIST
    write_shortlist(path, lists)
    content = bytearray(path.read_bytes())
    for change, message in (
        (slice(0, 8), "another magic number"),
        (slice(8, 16), "its checksum is wrong"),
        (slice(48, 56), "its checksum is wrong"),
    ):
        damaged = content.copy()
        damaged[change] = struct.pack("<Q", 77)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"is not a binary shortlist: .*{message}"):
            LexicalShortlist(path)
    for length in (0, 47, len(content) - 4):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="is not a binary shortlist"):
            LexicalShortlist(path)
