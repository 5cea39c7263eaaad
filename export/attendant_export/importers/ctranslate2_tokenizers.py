"""Tokenizers for CTranslate2 folders, which have vocabularies of tokens but no tokenizer of text.

A folder may have the tokenizer that its model was trained with: ``source.spm`` and ``target.spm``,
one SentencePiece model, ``source.codes`` and ``target.codes``, one file of BPE codes, or
``tokenizer.json``. Otherwise the user must say what a token is.
"""

from collections.abc import Callable, Mapping

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from attendant_export.data.tokenizer import TOKENIZER
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, is_plain_name
from attendant_export.importers.ctranslate2_options import TokenOptions
from attendant_export.importers.ctranslate2_vocabulary import Side, Vocabularies
from attendant_export.importers.marian_tokenizer import (
    SOURCE_MODEL,
    TARGET_MODEL,
    coded_languages,
)
from attendant_export.importers.sentencepiece_model import SPACE, read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.importers.subword_codes import SUFFIX as CODES
from attendant_export.importers.subword_codes import codes_tokenizer, read_codes
from attendant_export.importers.translation_tokenizers import TranslationTokenizers

MODEL_SUFFIXES = (".spm", ".model")
PAIRS = ((SOURCE_MODEL, TARGET_MODEL), (f"source{CODES}", f"target{CODES}"))
"""Names of files for source and target."""
MAX_TOKENS = 1024
"""Default limit of tokens of a text, as CTranslate2's option ``max_input_length``."""


def read_tokenizers(
    checkpoint: Checkpoint,
    vocabularies: Vocabularies,
    options: TokenOptions,
    ends_with_eos: bool,
    choice: str | None = None,
) -> TranslationTokenizers:
    """The tokenizers of a folder; raises CheckpointError.

    ``choice`` is ``characters``, ``whitespace`` or the name of a file in the folder. By default the
    folder has one tokenizer. ``ends_with_eos`` states whether sources end with EOS; it is not used
    for ``tokenizer.json``, which adds special tokens itself.
    """
    source_file, target_file = _files(checkpoint, choice)
    source_side = vocabularies.source
    source = _tokenizer(checkpoint, source_file, source_side)
    target = _tokenizer(checkpoint, target_file, vocabularies.target)
    if source_file != TOKENIZER:
        begin = [options.bos] if options.adds_bos else []
        _add_around(source, source_side, begin, [options.eos] if ends_with_eos else [])
    _add_around(target, vocabularies.target, [], [options.eos])
    if vocabularies.start in target.get_vocab():
        target.add_special_tokens([vocabularies.start])
    return TranslationTokenizers(
        source=source,
        target=target,
        source_tokens=source_side.special_tokens,
        target_tokens=vocabularies.target.special_tokens,
        max_tokens=MAX_TOKENS,
        source_languages=(),
        # A code would be after BOS, and tokens of languages are before it.
        target_languages=[] if _adds_bos(source) else coded_languages(_vocabulary(source_side)),
    )


def _adds_bos(tokenizer: Tokenizer) -> bool:
    """Whether a special token is before every text."""
    return tokenizer.encode("a").special_tokens_mask[:1] == [1]


def _files(checkpoint: Checkpoint, choice: str | None) -> tuple[str, str]:
    """The tokenizers of source and target: names of files, or of `_MAKERS`."""
    if choice is not None and choice in _MAKERS:
        return choice, choice
    if choice is not None:
        is_known = is_plain_name(choice) and choice.endswith((".json", CODES, *MODEL_SUFFIXES))
        if not is_known or not checkpoint.has(choice):
            raise CheckpointError(
                f"--tokenizer {choice} is neither {' nor '.join(_MAKERS)}, nor a file of "
                f"SentencePiece, BPE codes (*{CODES}) or {TOKENIZER} in {checkpoint.folder}"
            )
        return choice, choice
    for names in PAIRS:
        if all(map(checkpoint.has, names)):
            return names
    found = [TOKENIZER] if checkpoint.has(TOKENIZER) else []
    found += [name for name in checkpoint.names() if name.endswith((CODES, *MODEL_SUFFIXES))]
    if len(found) != 1:
        problem = f"has several: {', '.join(found)}" if found else "has no tokenizer of text"
        raise CheckpointError(
            f"{checkpoint.folder} {problem}: give --tokenizer with {', '.join(_MAKERS)} or the "
            "name of a file in the folder"
        )
    return found[0], found[0]


def _tokenizer(checkpoint: Checkpoint, file: str, side: Side) -> Tokenizer:
    if file in _MAKERS:
        return _MAKERS[file](side)
    if file.endswith(MODEL_SUFFIXES):
        model = read_sentencepiece(checkpoint.path(file))
        return sentencepiece_tokenizer(model, _vocabulary(side))
    if file.endswith(CODES):
        merges = read_codes(checkpoint.path(file))
        return _with_special_tokens(codes_tokenizer(merges, side.ids, side.unk), side)
    tokenizer = read_tokenizer(checkpoint, file)
    for token, token_id in tokenizer.get_vocab().items():
        if side.ids.get(token) != token_id:
            raise CheckpointError(
                f"{checkpoint.folder / file}: the token {token!r} has the id {token_id}, but the "
                f"vocabulary of the model gives it {side.ids.get(token)}"
            )
    return tokenizer


def _vocabulary(side: Side) -> Vocabulary:
    return Vocabulary(side.ids, unk=side.unk, eos=side.eos, pad=side.pad)


def _characters(side: Side) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(side.ids, unk_token=side.unk))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    steps = []
    if SPACE in side.tokens and " " not in side.tokens:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        steps.append(decoders.Replace(SPACE, " "))
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Fuse()])
    return _with_special_tokens(tokenizer, side)


def _whitespace(side: Side) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(side.ids, unk_token=side.unk))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_special_tokens(tokenizer, side)


def _with_special_tokens(tokenizer: Tokenizer, side: Side) -> Tokenizer:
    tokenizer.add_special_tokens([side.eos, side.unk, side.pad])
    return tokenizer


def _add_around(tokenizer: Tokenizer, side: Side, begin: list[str], end: list[str]) -> None:
    """Add special tokens around each text, instead of those that the tokenizer adds."""
    special = [(token, side.ids[token]) for token in (*begin, *end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*begin, "$A", *end]), special_tokens=special
    )


_MAKERS: Mapping[str, Callable[[Side], Tokenizer]] = {
    "characters": _characters,
    "whitespace": _whitespace,
}
"""Tokenizers that need no file: each character is a token, or what is between white space."""
