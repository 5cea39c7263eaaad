"""Reads the reference outputs of a bundle, and checks their form and the tokens of their texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attendant.v1.architecture_pb2 import Architecture, Embeddings
from attendant.v1.bundle_pb2 import MODEL_KIND_LANGUAGE_MODEL, Manifest
from attendant_manifest.sizes import text_dimension
from tokenizers import Tokenizer

from attendant_export.bundle.json_form import (
    Columns,
    Form,
    ListOf,
    MapOf,
    check_form,
    read_json_object,
)
from attendant_export.bundle.manifest import BundleError
from attendant_export.verify.graph_sessions import ParityError

MAX_BEAM_SIZE = 64
"""Largest beam size of a search whose outputs can be compared."""
NUM_COMPONENTS = 8
"""Number of leading components stored of each reference vector."""


def check_has_reference_outputs(folder: Path, manifest: Manifest) -> None:
    """Raise BundleError if the manifest names no reference outputs."""
    if not manifest.reference_outputs:
        raise BundleError(f"{folder}: the manifest names no reference outputs to compare with")


def read_search_outputs(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """The reference outputs of a decoder's bundle. Raises BundleError that names the fault."""
    path = folder / manifest.reference_outputs
    content = read_json_object(path)
    network, limits = manifest.architecture, manifest.limits
    text: Form = {
        "text": str,
        "token_ids": ListOf(range(_read_embeddings(network).vocab_size)),
        "max_output_tokens": range(1, (limits.max_target_tokens or limits.max_tokens) + 1),
    }
    beam_sizes = MapOf(range(1, MAX_BEAM_SIZE + 1))
    check_form(path, content, {"texts": ListOf(text), "beam_sizes": beam_sizes})
    hypothesis = Columns(
        {
            "token_ids": ListOf(range(network.target_embeddings.vocab_size)),
            "log_probabilities": ListOf(float),
        }
    )
    hypotheses: list[Form] = [hypothesis] * len(content["texts"])
    searches: Form = dict.fromkeys(content["beam_sizes"], hypotheses)
    check_form(path, content, {"outputs": {p.name: searches for p in manifest.precisions}})
    return content


def read_embedding_outputs(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """The reference outputs of an embedding bundle. Raises BundleError that names the fault."""
    path = folder / manifest.reference_outputs
    content = read_json_object(path)
    token_ids = ListOf(range(manifest.architecture.source_embeddings.vocab_size))
    texts = ListOf({"text": str, "token_ids": token_ids})
    masked: Form = ListOf({"token_ids": token_ids})
    network = manifest.architecture
    if not network.HasField("head") or network.HasField("sparse_vectors"):  # no mlm_head
        masked = []
    check_form(path, content, {"texts": texts, "masked": masked})
    positions: list[Form] = [
        {"position": range(len(masked["token_ids"]))} for masked in content["masked"]
    ]
    num_texts = len(content["texts"])
    vector: list[Form] = [float] * min(NUM_COMPONENTS, text_dimension(manifest.architecture))
    candidates = Columns({"candidate_ids": token_ids, "log_probabilities": ListOf(float)})
    outputs: Form = {
        "mean_pooled": [vector] * num_texts,
        "norms": [float] * num_texts,
        "masked": [candidates] * len(positions),
    }
    precisions: Form = {p.name: outputs for p in manifest.precisions}
    check_form(path, content, {"masked": positions, "outputs": precisions})
    return content


def source_token_ids(
    manifest: Manifest, tokenizer: Tokenizer, text: str, pair: str | None = None
) -> list[int]:
    """The ids that a model reads: those after its vocabulary stand for the unknown token.

    Those of a language model begin with its start token, if it has one. ``pair`` is the second text
    of a pair. Raises ValueError if the tokenizer cannot read them.
    """
    vocab_size = _read_embeddings(manifest.architecture).vocab_size
    unk_id = manifest.special_tokens.unk_id
    try:
        encoding = tokenizer.encode(text, pair)
    except Exception as error:  # The library raises no narrower class.
        raise ValueError(f"the tokenizer cannot read the text {text!r}: {error}") from error
    ids = [i if i < vocab_size else unk_id for i in encoding.ids]
    if manifest.kind == MODEL_KIND_LANGUAGE_MODEL and manifest.decoding.HasField("start_token_id"):
        return [manifest.decoding.start_token_id, *ids]
    return ids


def _read_embeddings(network: Architecture) -> Embeddings:
    """The embeddings of the texts that a model reads."""
    has_encoder = network.HasField("source_embeddings")
    return network.source_embeddings if has_encoder else network.target_embeddings


def checked_token_ids(
    texts: Sequence[dict[str, Any]], tokenizer: Tokenizer, manifest: Manifest
) -> list[list[int]]:
    """The stored token ids of ``texts``. Raises ParityError if ``tokenizer`` gives other ids."""
    token_ids = [text["token_ids"] for text in texts]
    if [source_token_ids(manifest, tokenizer, text["text"]) for text in texts] != token_ids:
        raise ParityError("the tokenizer gives different token ids for the reference texts")
    return token_ids


def log_probability_bounds(manifest: Manifest) -> dict[str, float]:
    """The bound that the manifest states for each precision.

    Without a bound, no difference is allowed.
    """
    bounds = {p.precision: p.log_probability_bound for p in manifest.parity.precisions}
    return {p.name: bounds.get(p.name, 0.0) for p in manifest.precisions}
