"""Weights of CTranslate2's Transformer: their names, and rows for additional tokens."""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.ctranslate2_file import SCALE, ModelFile
from attendant_export.importers.weight_names import WeightTable

EMBEDDINGS = {"encoder": "encoder/embeddings_0/weight", "decoder": "decoder/embeddings/weight"}
POSITIONS = "{}/position_encodings/encodings"
PROJECTION, PROJECTION_BIAS = "decoder/projection/weight", "decoder/projection/bias"
TEXTS = ("unk_token", "bos_token", "eos_token")
"""Arrays that early versions have for options."""
NEVER = -1e4
"""Bias of a token with probability 0, in the range of fp16."""

UNSUPPORTED = {
    r".*/linear_0_noact/.*": "gated feed-forward networks (ffn_glu)",
    r".*/relative_position_(keys|values)": "relative positions (with_relative_position)",
    r".*/relative_asymmetric_position_keys": "relative positions (relative_asymmetric_position)",
    r".*/relative_attention_bias": "biases of relative positions (relative_attention_bias)",
    r".*/[qkv]_norm/.*": "norms of queries, keys or values (qk_norm, v_norm)",
    r".*/memory_kv/.*": "merged attention (merged_encoder_attention)",
    r".*/(input|post_attention|pre_feedforward|post_feedforward)_layer_norm/.*": "norms on both "
    "sides of a sublayer (pre_post_layer_norm, parallel_residual)",
    r".*/shared_layer_norm/.*": "parallel residuals (shared_layer_norm)",
    r".*/external_(pre|post)_encoder_attention_layer_norm/.*": "external_pre_post_encoder_layers",
    r"decoder/project_(in|out)/.*": "projections of embeddings (project_in_out)",
    r".*/weight_zero": "weights with zero points, as of AWQ (quantization_type)",
    r"encoder/embeddings_[1-9].*": "several source features (num_source_embeddings)",
}
"""What weights are for that the model has no part for, by patterns of their names."""


class StoredWeights:
    """The arrays of a file. Some may be replaced."""

    def __init__(self, file: ModelFile) -> None:
        """Raises CheckpointError for arrays of parts that are not supported."""
        if file.revision == 1:
            file.rename({name: _current_name(name) for name in [*file.shapes(), *file.scalars()]})
        # Models of earlier versions have only one encoder embedding.
        only = "encoder/embeddings/weight"
        file.rename({only + end: EMBEDDINGS["encoder"] + end for end in ("", SCALE)})
        self._file, self._replaced = file, dict[str, Tensor]()
        self._shapes = {name: s for name, s in file.shapes().items() if name not in TEXTS}
        _check(file, self._shapes)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every array."""
        return self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a matrix; raises CheckpointError if it is missing."""
        shape = self._shapes.get(name)
        if shape is None or len(shape) != 2:
            state = "missing" if shape is None else f"{shape}, not a matrix"
            raise CheckpointError(f"{self._file.path}: {name} is {state}")
        return shape

    def are_same(self, *names: str) -> bool:
        """Whether these names are of one array."""
        return len({self._file.target(name) for name in names}) == 1

    def read(self, name: str) -> Tensor:
        """An array in fp32."""
        replaced = self._replaced.get(self._file.target(name))
        return self._file.read(name) if replaced is None else replaced

    def add_row(self, table: str) -> None:
        """Append a row of zeros to a table, once for all of its names."""
        target = self._file.target(table)
        if target not in self._replaced:
            self._replace(target, F.pad(self.read(table), (0, 0, 0, 1)))

    def add_bias_of_added_token(self) -> None:
        """Give the last row of the projection the probability 0."""
        rows = self._shapes[PROJECTION][0]
        has_bias = PROJECTION_BIAS in self._shapes
        bias = self.read(PROJECTION_BIAS) if has_bias else torch.zeros(rows - 1)
        self._replace(PROJECTION_BIAS, F.pad(bias, (0, 1), value=NEVER))

    def _replace(self, target: str, tensor: Tensor) -> None:
        self._replaced[target] = tensor
        for name in (target, *(n for n in self._shapes if self._file.target(n) == target)):
            self._shapes[name] = tuple(tensor.shape)


def weight_table(has_shared_embeddings: bool, ignored: list[str]) -> WeightTable:
    """The names of the weights."""
    embeddings = {side: name.removesuffix("/weight") for side, name in EMBEDDINGS.items()}
    names: dict[str, str | list[str]] = {
        "embedding": embeddings["encoder"],
        "head.projection": "decoder/projection",
    }
    if not has_shared_embeddings:
        names["target_embedding"] = embeddings["decoder"]
    norms = {"embedding_norm": "encoder", "target_embedding_norm": "decoder"}
    names |= {norm: f"{stack}/layernorm_embedding" for norm, stack in norms.items()}
    for stack in EMBEDDINGS:
        ours, theirs = f"{stack}.{{layer}}", f"{stack}/layer_{{layer}}"
        names[f"{stack}_norm"] = f"{stack}/layer_norm"
        names[f"{ours}.self_attention.query_key_value"] = f"{theirs}/self_attention/linear_0"
        names[f"{ours}.self_attention.output"] = f"{theirs}/self_attention/linear_1"
        # Queries, and keys with values.
        parts = ["attention/linear_0", "attention/linear_1", "attention/linear_1"]
        names[f"{ours}.cross_attention.query_key_value"] = [f"{theirs}/{part}" for part in parts]
        names[f"{ours}.cross_attention.output"] = f"{theirs}/attention/linear_2"
        names[f"{ours}.feed_forward.0"] = f"{theirs}/ffn/linear_0"
        names[f"{ours}.feed_forward.2"] = f"{theirs}/ffn/linear_1"
        for part, name in (
            ("self_attention", "self_attention"),
            ("cross_attention", "attention"),
            ("feed_forward", "ffn"),
        ):
            names[f"{ours}.{part}_residual.norm"] = f"{theirs}/{name}/layer_norm"
    positions = {"position_embedding": "encoder", "target_position_embedding": "decoder"}
    whole = {f"{name}.weight": POSITIONS.format(stack) for name, stack in positions.items()}
    whole["head.bias"] = PROJECTION_BIAS
    return WeightTable(names=names, whole_names=whole, ignored=ignored, spell=_spell)


def _spell(module: str, kind: str) -> str:
    if module.endswith(("layer_norm", "layernorm_embedding")):
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    return f"{module}/{kind}"


def _check(file: ModelFile, shapes: Mapping[str, object]) -> None:
    for name in shapes:
        for pattern, part in UNSUPPORTED.items():
            if re.fullmatch(pattern, name):
                raise CheckpointError(f"{file.path}: {name}: {part} are not supported")
        if name.endswith("/gamma") and f"{name.removesuffix('gamma')}beta" not in shapes:
            raise CheckpointError(
                f"{file.path}: {name} has no beta: RMS norms (rms_norm) are not supported"
            )


def _current_name(name: str) -> str:
    """The name of a variable of revision 1, which has the names of OpenNMT-tf, since revision 2."""
    for before, after in (
        ("transformer/", ""),
        (":0", ""),
        ("w_embs", "embeddings/weight"),
        ("kernel", "weight"),
        ("LayerNorm", "layer_norm"),
        ("dense", "projection"),
        ("conv1d_", "linear_"),
        ("conv1d", "linear_0"),
        ("masked_multi_head", "self_attention"),
        ("multi_head", "self_attention" if "encoder" in name else "attention"),
    ):
        name = name.replace(before, after, 1)
    return name
