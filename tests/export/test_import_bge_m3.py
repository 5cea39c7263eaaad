"""BGE-M3 has vectors of texts and of tokens; files that are not supported are named."""

import pytest
import torch
from attendant.v1.embedding_pb2 import POOLING_CLS
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import CheckpointError
from torch.nn.functional import normalize

from tests.support.checkpoints import WIDTH, add_modules, write_checkpoint
from tests.support.imports import import_, read_encoder

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

DIMENSION = 12


@pytest.fixture
def bge_m3(tmp_path):
    source = write_checkpoint(tmp_path / "bge-m3", "xlm-roberta", has_head=False)
    add_modules(source, {"pooling_mode_cls_token": True}, normalizes=True)
    torch.manual_seed(1)
    for name, rows in (("colbert", DIMENSION), ("sparse", 1)):
        weights = {"weight": torch.randn(rows, WIDTH), "bias": torch.randn(rows)}
        torch.save(weights, source / f"{name}_linear.pt")
    (source / "model.onnx").touch()
    torch.save({}, source / "training_args.bin")
    return source


def test_vectors_of_texts_and_tokens_are_in_one_bundle(bge_m3, tmp_path, capsys, caplog):
    manifest = read_manifest(bundle := import_(bge_m3, tmp_path / "bundles"))
    assert (manifest.embedding.pooling, manifest.embedding.normalize) == (POOLING_CLS, True)
    (dense,) = manifest.architecture.token_vectors.dense_layers
    assert (dense.d_output, dense.has_bias) == (DIMENSION, True)
    files = {file.path for file in manifest.provenance.imported_from.files}
    assert "colbert_linear.pt" in files
    assert manifest.description.endswith(
        "Without its files sparse_linear.pt, which are not supported."
    )
    assert "not supported, and left out: sparse_linear.pt" in caplog.text
    main(["verify", str(bundle), "--against", str(bge_m3)])
    assert "vectors of tokens" in capsys.readouterr().out


def test_vectors_of_tokens_are_those_of_the_linear_layer(bge_m3):
    model = read_encoder(bge_m3).model
    stored = torch.load(bge_m3 / "colbert_linear.pt")
    with torch.inference_mode():
        hidden = model(torch.tensor([[0, 7, 8, 2]]))
        expected = normalize(hidden @ stored["weight"].T + stored["bias"], dim=-1)
        torch.testing.assert_close(model.token_vectors(hidden), expected)


def test_a_layer_of_another_width_is_refused(bge_m3):
    torch.save({"weight": torch.zeros(4, 5), "bias": torch.zeros(4)}, bge_m3 / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"colbert_linear.pt: the weights do not fit"):
        read_encoder(bge_m3)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.tensor(3.0), "want a matrix as weight, with at least one row"),
        (torch.zeros(0, WIDTH), "want a matrix as weight, with at least one row"),
        (
            torch.eye(WIDTH).to_sparse(),
            r"holds sparse tensors, which are not supported: \['weight'",
        ),
    ],
)
def test_what_is_no_matrix_of_a_layer_is_refused(weight, message, bge_m3):
    torch.save({"weight": weight, "bias": torch.zeros(WIDTH)}, bge_m3 / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=rf"colbert_linear.pt:? {message}"):
        read_encoder(bge_m3)
