"""Checkpoints of OpenNMT-py become translation bundles, or are refused by name and value."""

import collections
import io
import zipfile

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_SILU,
    NORM_POSITION_PRE,
    POSITION_KIND_SINUSOIDAL_INTERLEAVED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.families import read_model
from attendant_export.importers.sources import open_checkpoint
from attendant_export.verify import ctranslate2_original
from attendant_export.verify.ctranslate2_original import FolderTokens
from attendant_export.verify.opennmt_py_original import converted_translator, file_content
from attendant_export.verify.original import OriginalError
from safetensors.torch import save_file
from tokenizers import Tokenizer

from tests.support.marian_checkpoints import tiny_pieces
from tests.support.marian_files import write_marian_folder
from tests.support.opennmt_py_files import SPECIAL, WIDTH, write_checkpoint
from tests.support.sentencepiece_files import write_sentencepiece
from tests.support.static_checkpoints import word_piece, write_static_transformer

pytestmark = pytest.mark.usefixtures("quiet_threads")

ARGUMENTS = ("--license", "cc0-1.0", "--source-languages", "en", "--target-languages", "de")


def read(folder, tokenizer="characters"):
    return read_model(Checkpoint(folder), tokenizer)


def test_a_checkpoint_with_a_sentencepiece_model_becomes_a_bundle(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ctranslate2_original, "find_spec", lambda name: None)
    pieces = tiny_pieces("source")
    tokens = (*SPECIAL, *pieces.scores)
    source = write_checkpoint(tmp_path / "tiny", tokens, tokens)
    write_sentencepiece(source / "joint.model", pieces)
    bundles = tmp_path / "bundles"
    options = ("--max-tokens", "18", *ARGUMENTS)
    main(["import", str(source / "model.pt"), "--bundles-dir", str(bundles), *options])
    folder = bundles / "tiny" / "1"
    manifest = read_manifest(folder)
    imported = manifest.provenance.imported_from
    assert imported.family == "opennmt-py"
    assert {file.path for file in imported.files} == {"model.pt", "joint.model"}
    assert (manifest.special_tokens.pad_id, manifest.special_tokens.eos_id) == (1, 3)
    assert manifest.decoding.start_token_id == 2
    found = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("I like books.")
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    assert found.ids == [ids.get(token, 0) for token in pieces.tokens("I like books.")]


def test_options_make_the_architecture(tmp_path):
    network = read(write_checkpoint(tmp_path / "a")).model.architecture
    assert network.encoder.norm_position == NORM_POSITION_PRE
    assert network.encoder.norm_epsilon == network.decoder.norm_epsilon == 1e-6
    assert network.source_embeddings.positions.kind == POSITION_KIND_SINUSOIDAL_INTERLEAVED
    assert network.source_embeddings.scale == WIDTH**0.5
    assert (network.shares_embeddings, network.head.is_tied, network.head.has_bias) == (0, 0, 1)
    shared = write_checkpoint(
        tmp_path / "b",
        target=(*SPECIAL, *"abc"),
        source=(*SPECIAL, *"abc"),
        shares=("embeddings", "decoder_embeddings"),
        has_biases=False,
        layers=1,
        enc_layers=1,
        pos_ffn_activation_fn="gelu",
        position_encoding_type="SinusoidalConcat",
    )
    network = read(shared).model.architecture
    assert network.source_embeddings.positions.kind == POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR
    (group,) = network.decoder.groups
    assert (group.num_layers, group.feed_forward.activation) == (1, ACTIVATION_GELU)
    assert not group.cross_attention.has_bias
    assert not group.feed_forward.has_bias
    assert (network.shares_embeddings, network.head.is_tied) == (True, True)


@pytest.mark.parametrize(
    ("name", "activation"), [("silu", ACTIVATION_SILU), ("gated-gelu", ACTIVATION_GELU)]
)
def test_a_gated_network_joins_the_activated_half_and_the_other(name, activation, tmp_path):
    source = write_checkpoint(tmp_path / "x", pos_ffn_activation_fn=name)
    model = read(source).model
    feed_forward = model.architecture.decoder.groups[0].feed_forward
    assert (feed_forward.activation, feed_forward.is_gated) == (activation, True)
    tensors = torch.load(source / "model.pt", weights_only=False)["model"]
    parts = [tensors[f"encoder.transformer.0.feed_forward.{w}.weight"] for w in ("w_1", "w_3")]
    assert torch.equal(model.state_dict()["encoder.0.feed_forward.0.weight"], torch.cat(parts))


def test_a_gated_network_is_not_compared_without_its_gates():
    tensors = {"encoder.transformer.0.feed_forward.w_3.weight": torch.zeros(1)}
    options = {"pos_ffn_activation_fn": "silu"}
    tokens = FolderTokens((), (), "</s>", False, False)
    with pytest.raises(OriginalError, match=r"leaves out the gates .*pos_ffn_activation_fn silu"):
        converted_translator(tensors, options, tokens, "<s>", 1e-6)


def test_only_the_beginning_of_a_name_makes_a_tensor_one_of_the_generator():
    tensors = dict.fromkeys(("generator.bias", "decoder.generator.bias"), torch.zeros(1))
    content = file_content(tensors, {}, FolderTokens((), (), "</s>", False, False), "<s>")
    assert list(content["model"]) == ["decoder.generator.bias"]
    assert list(content["generator"]) == ["bias"]


def test_tensors_of_safetensors_and_of_a_sequential_generator_are_the_same(tmp_path):
    whole = read(write_checkpoint(tmp_path / "a")).model.state_dict()
    tensors = torch.load(tmp_path / "a" / "model.pt", weights_only=False)["generator"]
    generator = {f"0.{name}": tensor for name, tensor in tensors.items()}
    early = write_checkpoint(tmp_path / "b", content={"generator": generator})
    split = write_checkpoint(tmp_path / "c", is_split=True)
    for other in (early, split):
        found = read(other).model.state_dict()
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_start_token_is_that_of_the_vocabulary_else_of_the_options(tmp_path):
    both = write_checkpoint(tmp_path / "a", start="</s>", decoder_start_token="<s>")
    assert read(both).decoding.start_token_id == 3
    early = write_checkpoint(tmp_path / "b", start=None, decoder_start_token="</s>")
    assert read(early).decoding.start_token_id == 3
    assert read(write_checkpoint(tmp_path / "c", start=None)).decoding.start_token_id == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_task", "lm"),
        ("encoder_type", "brnn"),
        ("decoder_type", "transformer_lm"),
        ("position_encoding", False),
        ("max_relative_positions", 20),
        ("max_relative_positions", -1),
        ("relative_positions_buckets", 32),
        ("pos_ffn_activation_fn", "tanh"),
        ("self_attn_type", "average"),
        ("multiquery", True),
        ("num_kv", 1),
        ("sliding_window", 4),
        ("num_experts", 8),
        ("layer_norm", "rms"),
        ("parallel_residual", True),
        ("copy_attn", True),
        ("generator_function", "sparsemax"),
        ("lora_layers", ["linear_query"]),
        ("quant_layers", ["w_1"]),
    ],
)
def test_an_option_of_another_network_is_refused(name, value, tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x", **{name: value})
    message = refusal(source, "--tokenizer", "characters", *ARGUMENTS)
    assert f"model.pt: {name} is {value!r}, which is not supported" in message


def test_other_sizes_than_those_of_the_tensors_are_refused(tmp_path, refusal):
    options = ("--tokenizer", "characters", *ARGUMENTS)
    heads = write_checkpoint(tmp_path / "a", heads=5)
    assert "heads is 5, which does not divide the width 16" in refusal(heads, *options)
    layers = write_checkpoint(tmp_path / "b", layers=1)
    assert "encoder.transformer.1.feed_forward.w_1.weight (24, 16) is not expected" in refusal(
        layers, *options
    )
    concatenated = write_checkpoint(tmp_path / "c")
    content = torch.load(concatenated / "model.pt", weights_only=False)
    content["opt"].position_encoding_type = "SinusoidalConcat"
    torch.save(content, concatenated / "model.pt")
    assert "pe.pe has other positions than those of position_encoding_type" in refusal(
        concatenated, *options
    )


def test_vocabularies_with_features_repeated_or_missing_tokens_are_refused(tmp_path, refusal):
    options = ("--tokenizer", "characters", *ARGUMENTS)
    lists: dict[str, object] = {"src": [*SPECIAL, "a"], "tgt": [*SPECIAL, "b"]}
    changes: list[tuple[dict[str, object], str]] = [
        ({"src_feats": [["x"]]}, "source features (src_feats) are not supported"),
        ({"src": [*SPECIAL, "a", "a"]}, "a token is twice in the vocabulary src"),
        ({"tgt": list(SPECIAL[1:])}, "the vocabulary tgt lacks <unk>"),
        ({"decoder_start_token": "<x>"}, "the vocabulary tgt lacks <x>"),
        ({"decoder_start_token": ""}, "decoder_start_token is '', want a token"),
        ({"src": {"a": 1}}, "the vocabulary src is not a list of tokens"),
    ]
    for number, (changed, wanted) in enumerate(changes):
        content = {"vocab": lists | changed}
        source = write_checkpoint(tmp_path / str(number), content=content)
        assert wanted in refusal(source, *options)


def test_files_that_are_no_checkpoints_are_refused(tmp_path, refusal):
    other = write_checkpoint(tmp_path / "b", content={"optim": collections.deque()})
    assert "has objects of collections.deque, which is not read" in refusal(other, *ARGUMENTS)
    lost = write_checkpoint(tmp_path / "c", is_split=True)
    (lost / "model.safetensors").unlink()
    assert "model.pt has no tensors (model), and there is no model.safetensors" in refusal(
        lost, *ARGUMENTS
    )
    bare = write_checkpoint(tmp_path / "d")
    torch.save({"model": {}}, bare / "model.pt")
    assert "model.pt is no checkpoint of OpenNMT-py: no opt or no vocab" in refusal(
        bare, *ARGUMENTS
    )
    (bare / "model.pt").write_bytes(b"no pickle")
    assert "model.pt cannot be read: " in refusal(bare, *ARGUMENTS)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x80\x02cargparse\nNamespace\n)\x81K\x01b.",  # an object whose state is a number
        b"\x80\x02a.",  # a list that is not there
        b"\x80\x02K\x01Q.",  # a tensor whose storage is a number
    ],
)
def test_damaged_pickles_are_refused(damaged, tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x")
    (source / "model.pt").write_bytes(damaged)
    assert "model.pt cannot be read: " in refusal(source, *ARGUMENTS)


def test_an_object_that_would_run_code_is_refused(tmp_path, refusal):
    class Runs:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    source = write_checkpoint(tmp_path / "x", content={"optim": Runs()})
    assert "model.pt has objects of " in refusal(source, *ARGUMENTS)
    assert not (tmp_path / "ran").exists()


def test_a_tensor_in_two_files_is_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x", is_split=True)
    content = (source / "model.safetensors").read_bytes()
    (source / "model.old.safetensors").write_bytes(content)
    message = refusal(source, *ARGUMENTS)
    assert "the checkpoint has the tensor " in message


def test_a_folder_of_another_family_may_have_a_pickle_of_its_training(tmp_path):
    folder = write_marian_folder(tmp_path / "enfr-student")
    torch.save({"step": 3}, folder / "optimizer.pt")
    assert read_model(Checkpoint(folder)).family == "marian-nmt"


def test_a_folder_needs_one_checkpoint_and_one_tokenizer(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x")
    message = refusal(source, *ARGUMENTS)
    assert f"{source} has no tokenizer of text: give --tokenizer with characters" in message
    (source / "later.pt").write_bytes((source / "model.pt").read_bytes())
    message = refusal(source, *ARGUMENTS)
    assert f"{source} has several checkpoints: later.pt, model.pt; give the path of" in message


def test_a_file_that_is_named_is_read_whatever_lies_beside_it(tmp_path):
    folder = write_checkpoint(tmp_path / "x")
    other = write_checkpoint(tmp_path / "y", seed=1)
    (folder / "later.pt").write_bytes((other / "model.pt").read_bytes())
    for name, content in (
        ("config.json", '{"model_type": "bert"}'),
        ("model.bin", "model of CTranslate2"),
        ("shared_vocabulary.txt", "a"),
        ("modules.json", "[]"),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    checkpoint = open_checkpoint(str(folder / "later.pt"))
    found = read_model(checkpoint, "characters").model.state_dict()
    wanted = read(other).model.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [file.path for file in checkpoint.used_files()] == ["later.pt"]


def test_a_stray_file_does_not_change_the_format_of_a_folder(tmp_path):
    marian = write_marian_folder(tmp_path / "marian")
    static = write_static_transformer(tmp_path / "static", word_piece())
    for folder, family in ((marian, "marian-nmt"), (static, "static-embedding")):
        (folder / "optimizer.pt").write_bytes(b"")
        assert read(folder, None).family == family


def test_a_damaged_file_is_refused_with_the_reason(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x")
    zipped = io.BytesIO((source / "model.pt").read_bytes())
    with zipfile.ZipFile(zipped) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    for content in (b"\x80\x02abc", b"\x80\x02.", b"\x80\x02J\x00", b"\x80\x02NQ."):
        (source / "model.pt").write_bytes(content)
        assert "model.pt cannot be read: " in refusal(source, *ARGUMENTS)
        changed = {n: content if n.endswith("data.pkl") else part for n, part in whole.items()}
        with zipfile.ZipFile(source / "model.pt", "w") as archive:
            for name, part in changed.items():
                archive.writestr(name, part)
        assert "model.pt cannot be read: " in refusal(source, *ARGUMENTS)


def test_entries_of_other_types_are_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "x")
    content = torch.load(source / "model.pt", weights_only=False)
    table = torch.zeros(2, 2)
    for name in ("opt", "vocab", "model", "generator"):
        wrong = [["a"], "a", table, *([] if name == "generator" else [None])]
        for value in wrong:
            torch.save(content | {name: value}, source / "model.pt")
            wanted = f"model.pt: {name} is of the type {type(value).__name__}, want a dictionary"
            assert wanted in refusal(source, *ARGUMENTS)
        torch.save(content | {name: {1: table}}, source / "model.pt")
        wanted = f"model.pt: {name} has the key 1, want strings as keys"
        assert wanted in refusal(source, *ARGUMENTS)
    for name in ("model", "generator"):
        torch.save(content | {name: {"a": [1]}}, source / "model.pt")
        message = refusal(source, *ARGUMENTS)
        assert "model or generator holds something else than tensors" in message


def test_a_tensor_that_is_stored_twice_is_refused(tmp_path, refusal):
    split = write_checkpoint(tmp_path / "a", is_split=True)
    save_file({"generator.bias": torch.zeros(2)}, split / "model.00.safetensors")
    message = refusal(split, *ARGUMENTS)
    assert "model.safetensors: the checkpoint has the tensor generator.bias twice" in message
    generator = {"bias": torch.zeros(2), "0.bias": torch.zeros(2)}
    whole = write_checkpoint(tmp_path / "b", content={"generator": generator})
    message = refusal(whole, *ARGUMENTS)
    assert "model.pt: the checkpoint has the tensor generator.bias twice" in message
