"""Creates the model of a run, or loads its best weights."""

from pathlib import Path
from typing import TypeAlias

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Manifest
from tokenizers import Tokenizer

from attendant_export.data.pair_tokenizer import PairTokenizer, load_tokenizers
from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import with_vocab_size
from attendant_export.models.special_tokens import EncoderTokens, LanguageModelTokens
from attendant_export.models.word_vectors import GloVe, SkipGram, WordVectors
from attendant_export.runs import checkpoint
from attendant_export.runs.config import GLOVE, SKIP_GRAM, RunConfig, read_config
from attendant_export.runs.text_facts import has_trained_vocabulary, pair_tokenizer, read_facts

Model: TypeAlias = EncoderDecoder | Encoder | CausalLanguageModel | WordVectors
WORD_VECTORS: dict[str, type[SkipGram] | type[GloVe]] = {SKIP_GRAM: SkipGram, GLOVE: GloVe}
"""The models of word vectors, by the kind of their runs."""


def new_model(config: RunConfig) -> Model:
    """An untrained model."""
    if config.kind in WORD_VECTORS:
        return WORD_VECTORS[config.kind](config.architecture)
    if isinstance(config.tokens, EncoderTokens):
        return Encoder(config.architecture, config.tokens, config.dropout)
    if isinstance(config.tokens, LanguageModelTokens):
        return CausalLanguageModel(config.architecture, config.tokens, config.dropout)
    return EncoderDecoder(config.architecture, config.tokens, config.dropout)


def model_of(architecture: Architecture) -> Model:
    """An untrained model of an architecture, whatever its special tokens are."""
    if not architecture.HasField("decoder"):
        return Encoder(architecture)
    has_encoder = architecture.HasField("encoder")
    return EncoderDecoder(architecture) if has_encoder else CausalLanguageModel(architecture)


def load_model(run_dir: Path, num_averaged: int | None = None) -> tuple[Model, Tokenizer]:
    """The model of a run folder, in evaluation mode, and the tokenizer of its sources.

    Its weights are the best ones, or the mean of those of the last ``num_averaged`` validations.
    Raises ValueError if the run has not kept as many.
    """
    model = new_model(read_config(run_dir)).eval()
    if num_averaged is None:
        checkpoint.load_weights(checkpoint.find_weights(run_dir), model)
    else:
        checkpoint.set_weights(run_dir, checkpoint.read_mean(run_dir, num_averaged), model)
    return model, load_tokenizer(run_dir / TOKENIZER)


def network_of_run(
    architecture: Architecture, facts: Manifest | None, run_dir: Path
) -> Architecture:
    """``architecture`` with the vocabularies of a run whose tokenizers have been written.

    The vocabularies of imported models may have other sizes than their tokenizers, and stay. Raises
    ValueError for a network with one vocabulary if the run has one for each side.
    """
    if facts is not None and not has_trained_vocabulary(facts):
        return architecture
    source, target = load_tokenizers(run_dir)
    if target is not None and architecture.shares_embeddings:
        raise ValueError(
            f"{run_dir} has a vocabulary for each side, but the network of the options has one for "
            "both: want --separate-vocabularies"
        )
    sizes = [each.get_vocab_size() for each in (source, target or source)]
    return with_vocab_size(architecture, *sizes)


def load_pair_tokenizer(run_dir: Path, architecture: Architecture) -> PairTokenizer:
    """The tokenizers of the run of a translation model of ``architecture``.

    Raises ValueError as `pair_tokenizer`.
    """
    sides = architecture.source_embeddings, architecture.target_embeddings
    source_size, target_size = (side.vocab_size for side in sides)
    facts = read_facts(run_dir)
    return pair_tokenizer(facts, (source_size, target_size), *load_tokenizers(run_dir))
