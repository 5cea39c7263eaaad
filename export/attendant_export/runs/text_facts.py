"""How the model of a run reads and writes texts: special tokens, languages, controls, defaults.

These facts are a part of a bundle's manifest. A run without them has the special tokens of the
vocabularies that the exporter trains, and neither languages nor controls.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from attendant.v1.bundle_pb2 import (
    Control,
    ControlValue,
    DecodingDefaults,
    Language,
    Manifest,
    SpecialTokens,
)
from attendant.v1.text_pb2 import TEXT_NORMALIZATION_STANDARD
from attendant_manifest.special_tokens import target_tokens
from google.protobuf import json_format
from tokenizers import Tokenizer

from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer, Side
from attendant_export.data.text_choice import (
    NO_CHOICE,
    SOURCE_LANGUAGE,
    TARGET_LANGUAGE,
    TextChoice,
)
from attendant_export.models.special_tokens import TranslationTokens
from attendant_export.runs import checkpoint

TEXTS = "texts.json"
"""Name of the file of the facts in a run folder."""
FIELDS = (
    "special_tokens",
    "target_special_tokens",
    "source_languages",
    "target_languages",
    "decoding",
    "controls",
    "text_normalization",
    "limits",
    "classification",
)
"""The fields of a manifest that are such facts."""


def new_facts() -> Manifest:
    """The facts of a model with a vocabulary that the exporter has trained."""
    tokens = TranslationTokens()
    return Manifest(
        special_tokens=SpecialTokens(pad_id=tokens.pad_id, eos_id=tokens.eos_id, unk_id=3),
        decoding=DecodingDefaults(start_token_id=tokens.bos_id),
        text_normalization=TEXT_NORMALIZATION_STANDARD,
    )


def facts_of(manifest: Manifest) -> Manifest:
    """The facts in the manifest of a bundle."""
    facts = Manifest()
    facts.CopyFrom(manifest)
    for field, _ in manifest.ListFields():
        if field.name not in FIELDS:
            facts.ClearField(field.name)  # type: ignore[arg-type]
    return facts


def has_trained_vocabulary(facts: Manifest) -> bool:
    """Whether the exporter trained the vocabulary, as special tokens and defaults tell."""
    own = new_facts()
    return (
        facts.special_tokens == own.special_tokens
        and target_tokens(facts) == own.special_tokens
        and facts.decoding == own.decoding
        and facts.text_normalization in (0, own.text_normalization)
    )


def have_language_tokens(facts: Manifest) -> bool:
    """Whether a model has several languages on a side, or tokens for a language."""
    sides = facts.source_languages, facts.target_languages
    return any(len(side) > 1 for side in sides) or any(
        language != Language(tag=language.tag) for language in chain(*sides)
    )


def read_facts(run_dir: Path) -> Manifest | None:
    """The facts of a run, if they are not those of `new_facts`. Raises ValueError."""
    path = run_dir / TEXTS
    if not path.exists():
        return None
    try:
        return json_format.ParseDict(checkpoint.read_json(path), Manifest())
    except (json_format.ParseError, ValueError) as error:
        raise ValueError(f"{path} does not describe the texts of a run: {error}") from error


def write_facts(run_dir: Path, facts: Manifest) -> None:
    """Write the facts of a run."""
    content = json_format.MessageToDict(facts, preserving_proto_field_name=True)
    checkpoint.write_json(run_dir / TEXTS, content)


def special_tokens(facts: Manifest | None) -> TranslationTokens:
    """The special tokens of the network."""
    if facts is None:
        return TranslationTokens()
    target = target_tokens(facts)
    return TranslationTokens(
        pad_id=facts.special_tokens.pad_id,
        bos_id=facts.decoding.start_token_id,
        eos_id=target.eos_id,
        target_pad_id=target.pad_id,
    )


def pair_tokenizer(
    facts: Manifest | None, sizes: tuple[int, int], source: Tokenizer, target: Tokenizer | None
) -> PairTokenizer:
    """The tokenizers of a model with vocabularies of the given ``sizes``.

    Raises ValueError if targets do not end with the token that ends a translation.
    """
    if facts is None:
        return PairTokenizer.of_run(source, target)
    first = _side(source, facts.special_tokens, sizes[0])
    second = first
    if target is not None:
        second = _side(target, target_tokens(facts), sizes[1])
    eos_id = target_tokens(facts).eos_id
    if second.tokenizer.encode("a").ids[-1:] != [eos_id]:
        raise ValueError(
            f"the model cannot be trained: its tokenizer does not end targets with token {eos_id}"
        )
    decoding = facts.decoding
    suppressed = tuple(decoding.suppressed_token_ids)
    return PairTokenizer(first, second, decoding.start_token_id, suppressed)


def _side(tokenizer: Tokenizer, tokens: SpecialTokens, vocab_size: int) -> Side:
    unk_id = tokens.unk_id if tokens.HasField("unk_id") else None
    return Side(tokenizer, tokens.pad_id, vocab_size, unk_id)


def marks_of(facts: Manifest | None, choice: TextChoice = NO_CHOICE) -> Marks:
    """The tokens next to texts with these languages and controls, as a server puts them there.

    Raises ValueError for a choice that the model lacks, and for one that must be made.
    """
    if facts is None:
        if choice:
            raise ValueError(
                f"{choice}: the model has no languages and no controls to choose; with "
                "--init-from, --new-tokenizer makes tokens for them"
            )
        return NO_MARKS
    source = _language(facts.source_languages, SOURCE_LANGUAGE, choice.source_language)
    target = _language(facts.target_languages, TARGET_LANGUAGE, choice.target_language)
    values = list(_values(facts.controls, dict(choice.controls)))
    before = [source.source_prefix_ids, target.source_prefix_ids]
    after = [source.source_suffix_ids, target.source_suffix_ids]
    forced = [facts.decoding.forced_token_ids, target.forced_target_ids]
    return Marks(
        _joined([*before, *(value.source_prefix_ids for value in values)]),
        _joined([*(value.source_suffix_ids for value in values), *after]),
        _joined([*forced, *(value.forced_target_ids for value in values)]),
    )


def _joined(groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(chain.from_iterable(groups))


def _language(languages: Sequence[Language], name: str, tag: str) -> Language:
    known = {language.tag: language for language in languages}
    if tag in known:
        return known[tag]
    if not tag and len(languages) == 1:
        return languages[0]
    if not tag and all(language == Language(tag=language.tag) for language in languages):
        return Language()
    raise ValueError(f"{name}={tag}: want one of {', '.join(known) or 'no languages'}")


def _values(controls: Sequence[Control], chosen: dict[str, str]) -> Iterator[ControlValue]:
    known = {control.name: control for control in controls}
    for name in chosen.keys() - known.keys():
        listed = ", ".join(known) or "none"
        raise ValueError(f"{name}={chosen[name]}: the controls of the model are: {listed}")
    for name, control in known.items():
        values = {value.name: value for value in control.values}
        value = chosen.get(name, control.default_value)
        if value in values:
            yield values[value]
        elif value:
            raise ValueError(f"{name}={value}: want one of {', '.join(values)}")
