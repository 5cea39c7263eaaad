"""Compares bundles of imported models with the original implementation of their checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import (
    MODEL_KIND_EMBEDDING,
    MODEL_KIND_LANGUAGE_MODEL,
    MODEL_KIND_TRANSLATION,
    DecodingDefaults,
    ImportSource,
    Manifest,
    OriginalParity,
    PrecisionGraphs,
)
from attendant_manifest.special_tokens import target_tokens

from attendant_export.bundle.classification import TEXTS
from attendant_export.bundle.description import describe_original
from attendant_export.bundle.gguf_original import gguf_original
from attendant_export.bundle.manifest import check_files, read_manifest
from attendant_export.bundle.reference_outputs import (
    check_has_reference_outputs,
    read_embedding_outputs,
    read_search_outputs,
)
from attendant_export.importers.bge_m3 import is_bge_m3
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.ctranslate2_folder import is_ctranslate2, read_folder_tokens
from attendant_export.importers.ctranslate2_vocabulary import Vocabularies
from attendant_export.importers.gguf import is_gguf
from attendant_export.importers.late_interaction import read_token_dense
from attendant_export.importers.marian_file import read_marian_file
from attendant_export.importers.marian_network import LOGITS_BIAS, QUANTIZATION_SUFFIX
from attendant_export.importers.marian_options import is_marian, read_options
from attendant_export.importers.opennmt_py import is_opennmt_py, opennmt_vocabularies
from attendant_export.importers.opennmt_py_file import OpenNMTFile
from attendant_export.importers.sentence_transformers import (
    add_lower_case,
    encoder_settings,
    lowers_case,
    read_dense_layers,
)
from attendant_export.importers.sources import open_checkpoint
from attendant_export.importers.static_embedding import is_model2vec, is_static
from attendant_export.importers.word_vector_files import read_layout, uncompressed
from attendant_export.importers.word_vectors import WordVectorFile
from attendant_export.models.text_vectors import POOLINGS
from attendant_export.verify import ctranslate2_original, original, static_original
from attendant_export.verify.classification import (
    ClassifiedText,
    OriginalClassifier,
    compare_labels,
)
from attendant_export.verify.ctranslate2_original import (
    CTranslate2Translator,
    FolderTokens,
    compare_with_ctranslate2,
)
from attendant_export.verify.embedding import EmbeddingGraphs
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.language_model_graphs import LanguageModelGraphs
from attendant_export.verify.language_samples import Sample, language_samples
from attendant_export.verify.marian_original import MarianOriginal
from attendant_export.verify.opennmt_py_original import converted_translator
from attendant_export.verify.original import (
    OriginalEncoder,
    OriginalError,
    compare_with_original,
)
from attendant_export.verify.original_language_model import OriginalLanguageModel
from attendant_export.verify.original_translation import compare_translations
from attendant_export.verify.original_translator import OriginalTranslator
from attendant_export.verify.sparse_vectors import OriginalMaskedLM, compare_sparse_vectors
from attendant_export.verify.static_original import (
    GensimOriginal,
    Model2VecOriginal,
    SentenceTransformersOriginal,
    compare_static,
)
from attendant_export.verify.token_vectors import compare_token_vectors, read_texts


def is_original_installed(checkpoint: Path) -> bool:
    """Whether there is an implementation to compare a checkpoint's model with."""
    files = open_checkpoint(str(checkpoint))
    if isinstance(files, WordVectorFile):
        return static_original.is_installed(GensimOriginal.implementation)
    if is_opennmt_py(files) or is_ctranslate2(files):
        return ctranslate2_original.is_installed()
    if is_static(files):
        return static_original.is_installed(_static_original(files).implementation)
    return is_marian(files) or original.is_installed()


def _static_original(
    checkpoint: Checkpoint,
) -> type[Model2VecOriginal | SentenceTransformersOriginal]:
    return Model2VecOriginal if is_model2vec(checkpoint) else SentenceTransformersOriginal


def _gensim(file: WordVectorFile, manifest: Manifest) -> GensimOriginal:
    """The words of a file that are in the bundle. Raises CheckpointError and OriginalError."""
    path = file.path(file.file)
    layout, num_words = read_layout(path), manifest.architecture.source_embeddings.vocab_size - 1
    with uncompressed(path) as plain:
        return GensimOriginal(plain, num_words, layout.is_binary, layout.count is not None)


def compare_model(
    checkpoint: Path,
    manifest: Manifest,
    outputs: Mapping[str, Any],
    folders: Sequence[tuple[Path, PrecisionGraphs]],
) -> OriginalParity:
    """Compare graphs, each with its folder, with the original implementation.

    The texts and their token ids are those of the reference outputs. Raises OriginalError if the
    original cannot load the checkpoint, and ParityError if the graphs differ.
    """
    if manifest.kind == MODEL_KIND_TRANSLATION:
        return _compare_translation(checkpoint, manifest, outputs, folders)
    if manifest.kind == MODEL_KIND_LANGUAGE_MODEL:
        return _compare_language_model(checkpoint, manifest, outputs, folders)
    files = open_checkpoint(str(checkpoint))
    encoders = {p.name: EmbeddingGraphs(folder, p, manifest) for folder, p in folders}
    texts = {text["text"]: text["token_ids"] for text in outputs["texts"]}
    if isinstance(files, WordVectorFile):
        return compare_static(_gensim(files, manifest), texts, encoders, is_normalized=False)
    if is_static(files):
        kind = _static_original(files)
        is_normalized = kind is SentenceTransformersOriginal and manifest.embedding.normalize
        return compare_static(kind(checkpoint), texts, encoders, is_normalized)
    parity = _compare_vectors(files, manifest, texts, encoders)
    if manifest.architecture.HasField("sparse_vectors"):
        original_lm, part = OriginalMaskedLM(checkpoint), manifest.architecture.sparse_vectors
        found = compare_sparse_vectors(original_lm, list(texts.values()), encoders, part)
        parity.sparse_vectors.extend(found)
    if manifest.HasField("classification"):
        classified = [ClassifiedText(**text) for text in outputs[TEXTS]]
        has_types = manifest.architecture.source_embeddings.num_token_types > 1
        parity.label_scores.extend(
            compare_labels(OriginalClassifier(checkpoint), classified, encoders, has_types)
        )
    return parity


def _compare_vectors(
    checkpoint: Checkpoint,
    manifest: Manifest,
    texts: Mapping[str, Sequence[int]],
    graphs: Mapping[str, EmbeddingGraphs],
) -> OriginalParity:
    family, network = manifest.provenance.imported_from.family, manifest.architecture
    encoder = OriginalEncoder(checkpoint.folder, family)
    has_token_vectors = network.HasField("token_vectors")
    has_head = manifest.HasField("classification") or network.HasField("sparse_vectors")
    is_pooled = not has_head and (not has_token_vectors or is_bge_m3(checkpoint))
    if is_pooled and lowers_case(encoder_settings(checkpoint)):
        encoder.change_tokenizer(add_lower_case)
    parity = compare_with_original(
        *(encoder, texts, graphs),
        POOLINGS[manifest.embedding.pooling],
        read_dense_layers(checkpoint, network.d_model) if is_pooled else None,
        manifest.embedding.num_prompt_tokens,
    )
    if has_token_vectors:
        dense = read_token_dense(checkpoint, network.d_model)
        read = read_texts(list(texts.values()), manifest)
        found = compare_token_vectors(encoder, read, graphs, dense)
        parity.token_vectors.extend(found)
    return parity


def _compare_translation(
    checkpoint: Path,
    manifest: Manifest,
    outputs: Mapping[str, Any],
    folders: Sequence[tuple[Path, PrecisionGraphs]],
) -> OriginalParity:
    translators = {p.name: TranslationGraphs(folder, p, manifest) for folder, p in folders}
    for graphs in translators.values():
        graphs.close()
    bounds = {p.precision: p.log_probability_bound for p in manifest.parity.precisions}
    max_tokens = manifest.limits.max_target_tokens
    files = open_checkpoint(str(checkpoint))
    if is_opennmt_py(files) or is_ctranslate2(files):
        translator = _ctranslate2(files, manifest)
        sources = [text["token_ids"] for text in outputs["texts"]]
        return compare_with_ctranslate2(translator, sources, translators, bounds, max_tokens)
    samples = language_samples(manifest, outputs["texts"])
    if not samples:
        raise OriginalError(
            "with the tokens of its languages, every reference text has more than "
            f"{manifest.limits.max_source_tokens} tokens, the limit of sources"
        )
    return compare_translations(
        _marian(checkpoint, manifest) if is_marian(files) else OriginalTranslator(checkpoint),
        samples,
        translators,
        manifest.decoding,
        bounds,
        max_tokens,
    )


def _compare_language_model(
    checkpoint: Path,
    manifest: Manifest,
    outputs: Mapping[str, Any],
    folders: Sequence[tuple[Path, PrecisionGraphs]],
) -> OriginalParity:
    """Compare continuations without the search options of the checkpoint.

    In the original, these also apply to the tokens of prompts.
    """
    graphs = {p.name: LanguageModelGraphs(folder, p, manifest) for folder, p in folders}
    for opened in graphs.values():
        opened.close()
    texts, special = outputs["texts"], manifest.special_tokens
    is_file = is_gguf(open_checkpoint(str(checkpoint)))
    open_original = gguf_original if is_file else OriginalLanguageModel
    return compare_translations(
        open_original(checkpoint, special.eos_id, special.pad_id),
        [Sample(text["text"], tuple(text["token_ids"])) for text in texts],
        graphs,
        DecodingDefaults(),
        {p.precision: p.log_probability_bound for p in manifest.parity.precisions},
        min(text["max_output_tokens"] for text in texts),
    )


def _ctranslate2(checkpoint: Checkpoint, manifest: Manifest) -> CTranslate2Translator:
    """The model of a folder of CTranslate2, or of OpenNMT-py after a conversion."""
    if not is_opennmt_py(checkpoint):
        vocabularies, options = read_folder_tokens(checkpoint)
        tokens = _tokens(checkpoint, vocabularies, manifest)
        tokens = replace(tokens, adds_bos=options.adds_bos, adds_eos=options.adds_eos)
        return CTranslate2Translator(checkpoint.folder, tokens)
    file = OpenNMTFile(checkpoint)
    vocabularies = opennmt_vocabularies(file)
    return converted_translator(
        file.tensors,
        file.options(),
        _tokens(checkpoint, vocabularies, manifest),
        vocabularies.start,
        manifest.architecture.decoder.norm_epsilon,
    )


def _tokens(checkpoint: Checkpoint, vocabularies: Vocabularies, manifest: Manifest) -> FolderTokens:
    network = manifest.architecture
    for side, part in (
        (vocabularies.source, network.source_embeddings),
        (vocabularies.target, network.target_embeddings),
    ):
        if len(side.tokens) != part.vocab_size:
            raise ParityError(
                f"{checkpoint.folder}: a vocabulary has {len(side.tokens)} tokens, but that of the "
                f"bundle has {part.vocab_size}"
            )
    return FolderTokens(
        source=vocabularies.source.tokens,
        target=vocabularies.target.tokens,
        eos=vocabularies.target.eos,
        adds_bos=False,
        adds_eos=False,
    )


def _marian(folder: Path, manifest: Manifest) -> MarianOriginal:
    checkpoint, decoding = Checkpoint(folder), manifest.decoding
    options = read_options(checkpoint)
    file = read_marian_file(checkpoint.path(options.model))
    num_tokens = file.shapes.get(LOGITS_BIAS, (0,))[-1]
    if num_tokens != decoding.start_token_id:  # the first token that the file lacks
        raise ParityError(f"{file.path} has {num_tokens} tokens, which the bundle does not have")
    return MarianOriginal(
        {name: file.array(name) for name in file.shapes if not name.endswith(QUANTIZATION_SUFFIX)},
        file.config,
        checkpoint.path(options.vocabularies[0]),
        target_tokens(manifest).eos_id,
        decoding.suppressed_token_ids,
        decoding.beam_size or 1,
        decoding.length_penalty if decoding.HasField("length_penalty") else 1.0,
    )


def verify_against(folder: Path, source: str) -> list[str]:
    """Compare a bundle with the checkpoint that it was imported from, on the reference texts.

    ``source`` is what `open_checkpoint` takes; the revision is the one that was imported. Returns
    lines that describe the result. Raises BundleError, CheckpointError, OriginalError or
    ParityError.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    check_has_reference_outputs(folder, manifest)
    is_embedding = manifest.kind == MODEL_KIND_EMBEDDING
    read_outputs = read_embedding_outputs if is_embedding else read_search_outputs
    parity = compare_model(
        _checkpoint_path(source, manifest.provenance.imported_from),
        manifest,
        read_outputs(folder, manifest),
        [(folder, precision) for precision in manifest.precisions],
    )
    if parity.num_different_token_ids:
        raise ParityError("; ".join(describe_original(parity)))
    return describe_original(parity)


def _checkpoint_path(source: str, imported: ImportSource) -> Path:
    """The local path of a checkpoint, which has the files that the import read."""
    has_revision = source == imported.source and not Path(source).is_dir()
    checkpoint = open_checkpoint(source, imported.revision if has_revision else None)
    for file in imported.files:
        checkpoint.find(file.path)
    return checkpoint.location
