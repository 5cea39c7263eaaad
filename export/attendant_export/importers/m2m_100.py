"""M2M100 and NLLB checkpoints, which the class of their tokenizer distinguishes."""

from dataclasses import replace

from attendant.v1.architecture_pb2 import (
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
    Architecture,
    Positions,
)

from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.encoder_decoder import (
    Form,
    load_translator,
    read_architecture,
)
from attendant_export.importers.fairseq_pieces import SENTENCEPIECE
from attendant_export.importers.fairseq_tokenizer import (
    FairseqTokenizer,
    read_fairseq_tokenizer,
    sentencepiece_with_ids,
)
from attendant_export.importers.generation import read_generation
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.languages import forced_languages, known_codes, languages
from attendant_export.importers.sentencepiece_model import read_sentencepiece

VOCABULARY = "vocab.json"
CLASSES = {"M2M100Tokenizer": "m2m_100", "NllbTokenizer": "nllb", "NllbTokenizerFast": "nllb"}
NLLB_CODE = r"[a-z]{3}_[A-Z][a-z]{3}"


def read_m2m_100(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of an M2M100 or NLLB checkpoint with its tokenizer; raises CheckpointError."""
    options = checkpoint.tokenizer_config
    family = checkpoint.tokenizer_class.choice("tokenizer_class", CLASSES, "M2M100Tokenizer")
    architecture = _architecture(checkpoint)
    generation = read_generation(checkpoint)
    place = "source_prefix_ids"
    if family == "m2m_100":
        tokenizer = _read_m2m_100_tokenizer(checkpoint, architecture)
    else:
        tokenizer = read_fairseq_tokenizer(checkpoint, architecture, "nllb", NLLB_CODE)
        if options.flag("legacy_behaviour", default=False):
            place = "source_suffix_ids"
    tokenizers = tokenizer.with_languages(
        languages(tokenizer.language_ids, place),
        forced_languages(tokenizer.language_ids, generation),
    )
    generation = replace(generation, forced_token_ids=())
    return load_translator(family, checkpoint, architecture, tokenizers, generation)


def _architecture(checkpoint: Checkpoint) -> Architecture:
    positions = Positions(
        kind=POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
        # The position of padding is its id, and texts begin after it.
        offset=checkpoint.config.integer("pad_token_id", default=1, minimum=0) + 1,
    )
    form = Form(
        positions=positions,
        norms_first=True,
        norms_embeddings=False,
        defaults={"scale_embedding": True, "activation_function": "relu"},
    )
    return read_architecture(checkpoint.config, checkpoint.weights, form)


def _read_m2m_100_tokenizer(checkpoint: Checkpoint, architecture: Architecture) -> FairseqTokenizer:
    """A SentencePiece model with a vocabulary, after which come the languages."""
    codes = checkpoint.tokenizer_config.choice(
        "language_codes", {name: known_codes(name) for name in ("m2m100", "wmt21")}, "m2m100"
    )
    tokens = {code: f"__{code}__" for code in codes}
    ids = checkpoint.json_object(VOCABULARY)
    ids |= {token: len(ids) + i for i, token in enumerate(tokens.values())}
    size = architecture.source_embeddings.vocab_size
    model = read_sentencepiece(checkpoint.path(SENTENCEPIECE))
    return sentencepiece_with_ids(checkpoint, model, ids, tokens, size)
