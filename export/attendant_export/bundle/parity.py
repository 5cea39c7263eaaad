"""Compares the graphs of a bundle with the PyTorch model of the bundle's own weights."""

from collections.abc import Mapping
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest, PrecisionParity
from attendant_manifest.special_tokens import target_tokens
from torch import Tensor

from attendant_export.bundle.classification import LabelExport, read_classified
from attendant_export.bundle.reference_outputs import (
    read_embedding_outputs,
    read_search_outputs,
)
from attendant_export.bundle.sparse_vectors import SparseExport
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import (
    EncoderTokens,
    LanguageModelTokens,
    TranslationTokens,
)
from attendant_export.verify.decoder import DecoderVerifier, SampleSentences
from attendant_export.verify.embedding import EmbeddingGraphs, EmbeddingVerifier
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.language_model_graphs import LanguageModelGraphs
from attendant_export.verify.shortlists import check_shortlists
from attendant_export.verify.token_vectors import TokenVectorVerifier
from attendant_export.verify.translation import TranslationVerifier


def measure_language_model_parity(
    folder: Path, manifest: Manifest, parameters: Mapping[str, Tensor]
) -> list[PrecisionParity]:
    """Compare all precisions, in searches of the reference texts, as an export does.

    The parameters are those of `measure_translation_parity`. Raises ParityError as
    `DecoderVerifier.verify`, and BundleError for reference outputs that cannot be read.
    """
    special, has_start = manifest.special_tokens, manifest.decoding.HasField("start_token_id")
    bos_id = manifest.decoding.start_token_id if has_start else None
    tokens = LanguageModelTokens(special.pad_id, bos_id, special.eos_id)
    model = CausalLanguageModel(manifest.architecture, tokens).eval()
    model.load_state_dict(parameters)
    verifier = DecoderVerifier(model, _reference_sample(folder, manifest))
    measured = []
    for precision in manifest.precisions:
        graphs = LanguageModelGraphs(folder, precision, manifest)
        measured.append(verifier.verify(precision.name, graphs).parity)
        graphs.close()
    return measured


def _reference_sample(folder: Path, manifest: Manifest) -> SampleSentences:
    texts = read_search_outputs(folder, manifest)["texts"]
    limits = [text["max_output_tokens"] for text in texts]
    return SampleSentences([text["token_ids"] for text in texts], limits)


def measure_translation_parity(
    folder: Path, manifest: Manifest, parameters: Mapping[str, Tensor]
) -> list[PrecisionParity]:
    """Compare all precisions, in searches of the reference texts, as an export does.

    Also chooses the heads of aligners. ``parameters`` are those of the model by state-dict
    name. Raises ParityError as `TranslationVerifier.verify` and `check_shortlists`, and BundleError
    for reference outputs that cannot be read.
    """
    tokens = TranslationTokens(
        pad_id=manifest.special_tokens.pad_id,
        bos_id=manifest.decoding.start_token_id,
        eos_id=target_tokens(manifest).eos_id,
    )
    model = EncoderDecoder(manifest.architecture, tokens).eval()
    model.load_state_dict(parameters)
    sample = _reference_sample(folder, manifest)
    verifier = TranslationVerifier(model, sample)
    has_aligner = all(precision.HasField("aligner") for precision in manifest.precisions)
    if has_aligner and verifier.alignment is not None:
        manifest.alignment.CopyFrom(verifier.alignment)
    measured = []
    for precision in manifest.precisions:
        graphs = TranslationGraphs(folder, precision, manifest)
        parity = verifier.verify(precision.name, graphs).parity
        if graphs.has_shortlists:
            check_shortlists(graphs, sample, parity.log_probability_bound)
        measured.append(parity)
        graphs.close()
    return measured


def measure_embedding_parity(
    folder: Path, manifest: Manifest, parameters: Mapping[str, Tensor]
) -> list[PrecisionParity]:
    """Compare all precisions, on vectors and masks of the reference texts, as an export does.

    The parameters are those of `measure_translation_parity`. Raises ParityError as
    `EmbeddingVerifier.verify`, and BundleError for reference outputs that cannot be read.
    """
    special = manifest.special_tokens
    stated = {field.name: token_id for field, token_id in special.ListFields()}
    tokens = EncoderTokens(
        special.pad_id, *(stated.get(name) for name in ("cls_id", "sep_id", "mask_id"))
    )
    model = Encoder(manifest.architecture, tokens).eval()
    model.load_state_dict(parameters)
    reference = read_embedding_outputs(folder, manifest)
    token_ids = [text["token_ids"] for text in reference["texts"]]
    verifier = EmbeddingVerifier(model, token_ids, manifest.embedding.num_prompt_tokens)
    opened = [EmbeddingGraphs(folder, graphs, manifest) for graphs in manifest.precisions]
    measured = [verifier.verify(graphs.precision, graphs).parity for graphs in opened]
    if manifest.architecture.HasField("token_vectors"):
        tokens_verifier = TokenVectorVerifier(model, token_ids, verifier.last_hidden, manifest)
        for graphs, parity in zip(opened, measured, strict=True):
            parity.token_vectors.CopyFrom(tokens_verifier.verify(graphs))
    if manifest.architecture.HasField("sparse_vectors"):
        sparse = SparseExport(model, token_ids)
        for graphs, parity in zip(opened, measured, strict=True):
            sparse.verify(graphs, parity)
    if manifest.HasField("classification"):
        path = folder / manifest.reference_outputs
        labels = LabelExport(model, read_classified(path, reference, manifest))
        for graphs, parity in zip(opened, measured, strict=True):
            labels.verify(graphs, parity)
    return measured
