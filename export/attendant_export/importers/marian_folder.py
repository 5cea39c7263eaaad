"""Models in Marian's own formats, as Firefox, Bergamot and translateLocally ship them.

A folder has a model, one SentencePiece vocabulary or two, and optionally a lexical shortlist and
options. Marian starts to decode with a zero vector. A bundle has a token for that: each vocabulary
gets a further one, whose embedding is zero and which is never generated. It is padding, too.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Language, SpecialTokens
from torch import Tensor

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.encoder_decoder import NEVER
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.marian_file import MarianFile, read_marian_file
from attendant_export.importers.marian_input_scales import read_input_scales
from attendant_export.importers.marian_network import (
    LOGITS_BIAS,
    TARGET_TABLE,
    check_heads,
    projection,
    read_network,
    source_table,
    weight_table,
)
from attendant_export.importers.marian_options import MarianOptions, read_options
from attendant_export.importers.marian_shortlist import LexicalShortlist
from attendant_export.importers.marian_tokenizer import DEFAULT_MAX_TOKENS
from attendant_export.importers.sentencepiece_model import (
    SentencePieceModel,
    read_sentencepiece,
)
from attendant_export.importers.sentencepiece_tokenizer import (
    Vocabulary,
    sentencepiece_tokenizer,
)
from attendant_export.importers.translation_tokenizers import TranslationTokenizers
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.special_tokens import TranslationTokens

VOCABULARY_MULTIPLE = 64
FAMILY = "marian-nmt"
EOS, PAD = "</s>", "<pad>"
MATRIX = re.compile(r".*_W[qkvof12]?")
"""Names of matrices, which Marian stores as (inputs, outputs)."""
MODEL_INFO = "model_info.json"
LANGUAGES = re.compile(r"([a-z]{2,3})-([a-z]{2,3})\b")
"""The languages at the beginning of the short name of translateLocally's models."""
FILE_LANGUAGES = re.compile(r"\.([a-z]{2})([a-z]{2})\.")
"""The languages in the name of a model, such as ``model.ende.intgemm.alphas.bin``."""


def read_marian_folder(checkpoint: Checkpoint) -> ImportedTranslator:
    """The model of a folder with its tokenizers and shortlists; raises CheckpointError."""
    options = read_options(checkpoint)
    file = read_marian_file(checkpoint.path(options.model))
    config = Config(file.path, file.config)
    stated = read_network(config)
    check_heads(config, stated)
    source, target = (read_vocabulary(checkpoint, name) for name in options.vocabularies)
    _check_sizes(file, stated, source, target)
    architecture = with_padded_vocabularies(stated)
    tokenizers = _tokenizers(checkpoint, options, source, target)
    tokens = TranslationTokens(
        pad_id=tokenizers.source_tokens.pad_id,
        bos_id=tokenizers.target_tokens.pad_id,
        eos_id=tokenizers.target_tokens.eos_id,
    )
    with torch.device("meta"):  # no memory for sizes that the weights may not have
        model = EncoderDecoder(architecture, tokens).eval()
    weight_table(architecture, file.shapes).load(model, MarianWeights(file, architecture))
    shortlists = None
    if options.shortlist is not None:
        shortlists = LexicalShortlist(checkpoint.path(options.shortlist)).tables(
            stated.source_embeddings.vocab_size,
            stated.target_embeddings.vocab_size,
            architecture.source_embeddings.vocab_size,
            is_shared=options.vocabularies[0] == options.vocabularies[1],
            eos_id=tokenizers.source_tokens.eos_id,
        )
    return ImportedTranslator(
        family=FAMILY,
        model=model,
        tokenizers=tokenizers,
        decoding=options.decoding(tokens.bos_id, tokenizers.target_tokens.unk_id),
        max_tokens=DEFAULT_MAX_TOKENS,
        shortlists=shortlists,
        input_scales=read_input_scales(file, architecture),
    )


def read_vocabulary(checkpoint: Checkpoint, name: str) -> SentencePieceModel:
    """A SentencePiece vocabulary, whose pieces are in the order of their ids."""
    if not name.endswith(".spm"):
        raise CheckpointError(f"{checkpoint.folder}: vocabulary {name}, supported: .spm files")
    model = read_sentencepiece(checkpoint.path(name))
    if EOS not in model.pieces or PAD in model.pieces:
        raise CheckpointError(f"{model.path}: want the piece {EOS}, and no piece {PAD}")
    return model


def _check_sizes(
    file: MarianFile, stated: Architecture, source: SentencePieceModel, target: SentencePieceModel
) -> None:
    for side, embeddings in (
        (source, stated.source_embeddings),
        (target, stated.target_embeddings),
    ):
        if len(side.pieces) != embeddings.vocab_size:
            raise CheckpointError(
                f"{side.path} has {len(side.pieces)} pieces, but dim-vocabs in {file.path} has "
                f"{embeddings.vocab_size} tokens"
            )


def with_padded_vocabularies(stated: Architecture) -> Architecture:
    """A network with the token of the start, whose vocabularies are multiples of a number.

    Graphs find the best of such a number of tokens faster.
    """
    architecture = Architecture()
    architecture.CopyFrom(stated)
    for part in (architecture.source_embeddings, architecture.target_embeddings):
        part.vocab_size += VOCABULARY_MULTIPLE - part.vocab_size % VOCABULARY_MULTIPLE
    return architecture


class _Padded(NamedTuple):
    """A number of tokens, and the value for those that the file lacks."""

    num_tokens: int
    value: float


class MarianWeights:
    """The tensors of a file as our modules have them, with rows for the padding of vocabularies."""

    def __init__(self, file: MarianFile, architecture: Architecture) -> None:
        """``architecture`` has the padded vocabularies."""
        self._file = file
        source, target = architecture.source_embeddings, architecture.target_embeddings
        self._padded = {
            source_table(architecture): _Padded(source.vocab_size, 0.0),
            LOGITS_BIAS: _Padded(target.vocab_size, NEVER),
        }
        if not architecture.shares_embeddings:
            self._padded[TARGET_TABLE] = _Padded(target.vocab_size, 0.0)
        if not architecture.head.is_tied:
            self._padded[projection(file.shapes)] = _Padded(target.vocab_size, 0.0)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: self._shape(name, shape) for name, shape in self._file.shapes.items()}

    def _shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if MATRIX.fullmatch(name):
            shape = shape[::-1]
        if name not in self._padded:
            return shape
        num_tokens = self._padded[name].num_tokens
        return (*shape[:-1], num_tokens) if name == LOGITS_BIAS else (num_tokens, *shape[1:])

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        tensor = torch.from_numpy(self._file.array(name))
        if MATRIX.fullmatch(name):
            tensor = tensor.T
        if name not in self._padded:
            return tensor.contiguous()
        axis, padded = -1 if name == LOGITS_BIAS else 0, self._padded[name]
        one = torch.full_like(tensor.narrow(axis, 0, 1), padded.value)
        padding = [one] * (padded.num_tokens - tensor.shape[axis])
        return torch.cat([tensor, *padding], axis)


def _tokenizers(
    checkpoint: Checkpoint,
    options: MarianOptions,
    source: SentencePieceModel,
    target: SentencePieceModel,
) -> TranslationTokenizers:
    languages = _languages(checkpoint, options)
    vocabularies = [
        Vocabulary(
            {piece: i for i, piece in enumerate((*side.pieces, PAD))},
            unk=side.unknown,
            eos=EOS,
            pad=PAD,
            has_codes=False,
        )
        for side in (source, target)
    ]
    return TranslationTokenizers(
        source=sentencepiece_tokenizer(source, vocabularies[0]),
        target=sentencepiece_tokenizer(target, vocabularies[1]),
        source_tokens=_special_tokens(vocabularies[0]),
        target_tokens=_special_tokens(vocabularies[1]),
        max_tokens=DEFAULT_MAX_TOKENS,
        source_languages=[Language(tag=tag) for tag in languages[:1]],
        target_languages=[Language(tag=tag) for tag in languages[1:]],
    )


def _special_tokens(vocabulary: Vocabulary) -> SpecialTokens:
    ids = vocabulary.ids
    return SpecialTokens(
        pad_id=ids[vocabulary.pad], eos_id=ids[vocabulary.eos], unk_id=ids[vocabulary.unk]
    )


def _languages(checkpoint: Checkpoint, options: MarianOptions) -> tuple[str, ...]:
    """Source and target, or nothing if neither the source of the folder nor its files tell them."""
    if checkpoint.statements.languages:
        return checkpoint.statements.languages
    if checkpoint.has(MODEL_INFO):
        name = checkpoint.json_object(MODEL_INFO).get("shortName")
        if isinstance(name, str) and (found := LANGUAGES.match(name)):
            return found.groups()
    found = FILE_LANGUAGES.search(options.model)
    return found.groups() if found else ()
