"""mBART and mBART-50 checkpoints, which the class of their tokenizer distinguishes."""

from dataclasses import replace

from attendant.v1.architecture_pb2 import POSITION_KIND_LEARNED, Positions
from attendant.v1.bundle_pb2 import Language

from attendant_export.importers.bart import POSITION_OFFSET
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.encoder_decoder import Form, load_translator, read_architecture
from attendant_export.importers.fairseq_tokenizer import (
    FairseqTokenizer,
    read_fairseq_tokenizer,
)
from attendant_export.importers.generation import Generation, read_generation
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.languages import forced_languages, languages

CLASSES = {
    "MBartTokenizer": "mbart",
    "MBartTokenizerFast": "mbart",
    "MBart50Tokenizer": "mbart50",
    "MBart50TokenizerFast": "mbart50",
}
CODE = r"[a-z]{2}_[A-Z]{2}"
FORM = Form(
    positions=Positions(kind=POSITION_KIND_LEARNED, offset=POSITION_OFFSET),
    norms_first=True,
    norms_embeddings=True,
)


def read_mbart(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of an mBART or mBART-50 checkpoint; raises CheckpointError.

    mBART has the language after a source, and begins a target with that of the target. mBART-50 has
    the language before a source, and forces that of the target.
    """
    config = checkpoint.config
    config.require(
        # Fields of earlier versions, for variants that no checkpoint has.
        normalize_before=True,
        normalize_embedding=True,
        add_final_layer_norm=True,
        add_bias_logits=False,
        static_position_embeddings=False,
        extra_pos_embeddings=POSITION_OFFSET,
    )
    family = checkpoint.tokenizer_class.choice("tokenizer_class", CLASSES, "MBartTokenizer")
    architecture = read_architecture(config, checkpoint.weights, FORM)
    generation = read_generation(checkpoint)
    tokenizer = read_fairseq_tokenizer(checkpoint, architecture, family, CODE)
    ids = tokenizer.language_ids
    if family == "mbart":
        sources, targets = languages(ids, "source_suffix_ids"), [_start(tokenizer, generation)]
    else:
        sources, targets = languages(ids, "source_prefix_ids"), forced_languages(ids, generation)
        generation = replace(generation, forced_token_ids=())
    tokenizers = tokenizer.with_languages(sources, targets)
    return load_translator(family, checkpoint, architecture, tokenizers, generation)


def _start(tokenizer: FairseqTokenizer, generation: Generation) -> Language:
    """The one target language of mBART, with whose token the decoder starts."""
    tags = {
        i: each.tag
        for i, each in zip(
            tokenizer.language_ids.values(), languages(tokenizer.language_ids), strict=True
        )
    }
    start = generation.start_token_id
    if start not in tags:
        raise CheckpointError(
            f"{generation.config.path}: decoder_start_token_id is {start}, want the token of the "
            "target language"
        )
    return Language(tag=tags[start])
