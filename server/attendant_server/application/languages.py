"""The languages of a translation model: which model a request means, and which tokens it needs.

The tokens of controls stand beside those of the languages, next to the text.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.controls import chosen_values
from attendant_server.application.descriptions import Language, ModelDescription, ModelKind
from attendant_server.application.language_tags import check_tag, longest_match
from attendant_server.errors import (
    InvalidRequest,
    LanguageUnknown,
    ModelNotFound,
    NoModelForLanguages,
)
from attendant_server.tokenized_text import Token

SOURCE, TARGET = "source_language", "target_language"


@dataclass(frozen=True, slots=True)
class LanguageTokens:
    """The tokens that the languages and the controls of a request require."""

    before_source: Sequence[Token] = ()
    after_source: Sequence[Token] = ()
    forced_target_ids: tuple[int, ...] = ()
    """Tokens that every target begins with."""
    text_codes: Collection[int] = ()
    """Tokens with which a text can choose its target language itself."""
    before_text: Sequence[Token] = ()
    """Tokens after ``before_source``, and after the code with which a text chooses its language."""


NO_LANGUAGE_TOKENS = LanguageTokens()
CHOSEN_BY_TEXTS = Language("")


def translation_model(
    catalog: Catalog, model: str, source_language: str, target_language: str
) -> ServedModel:
    """The loaded model that a request means; raises like `Catalog.serving`.

    Without ``model``, only models that have the given languages are candidates. Raises
    NoModelForLanguages if there are none.
    """
    given = ((SOURCE, source_language), (TARGET, target_language))
    wanted = {field: tag for field, tag in given if tag}
    for field, tag in wanted.items():
        check_tag(field, tag)
    try:
        return catalog.serving(
            model,
            ModelKind.TRANSLATION,
            lambda description: has_languages(description, source_language, target_language),
            ", ".join(f"{field} {tag}" for field, tag in wanted.items()),
        )
    except ModelNotFound as error:
        if model or not wanted:
            raise
        raise NoModelForLanguages(str(error), wanted) from None


def has_languages(model: ModelDescription, source_language: str, target_language: str) -> bool:
    """Whether a model has both languages, of which "" is any."""
    return all(
        not tag or _found(languages, tag) is not None
        for languages, tag in (
            (model.source_languages, source_language),
            (model.target_languages, target_language),
        )
    )


def shared_language(first: ModelDescription, second: ModelDescription) -> tuple[str, str] | None:
    """A language into which ``first`` translates and from which ``second`` does; None for none.

    Both have a tag for it: a model of "en" can follow one of "en-GB", and the other way round.
    """
    for language in first.target_languages:
        if (read := _found(second.source_languages, language.tag)) is not None:
            return language.tag, read.tag
    for language in second.source_languages:
        if (written := _found(first.target_languages, language.tag)) is not None:
            return written.tag, language.tag
    return None


def language_tokens(
    model: ServedModel,
    source_language: str,
    target_language: str,
    controls: Mapping[str, str],
) -> LanguageTokens:
    """The tokens for the languages and the controls of a request.

    Raises LanguageUnknown for a language that the model lacks, and InvalidRequest for one that must
    be named, and for unknown controls and values.

    A language may be left out if the model has only one, or needs no tokens for any. A target
    language may also be left out if texts can choose it themselves.
    """
    description = model.description
    source = _chosen(description, SOURCE, description.source_languages, source_language)
    if model.text_codes and not target_language and len(description.target_languages) > 1:
        target = CHOSEN_BY_TEXTS
    else:
        target = _chosen(description, TARGET, description.target_languages, target_language)
    values = chosen_values(description, controls)
    forced = (
        *description.forced_token_ids,
        *target.forced_target_ids,
        *chain.from_iterable(value.forced_target_ids for value in values),
    )
    if not (source.has_tokens or target.has_tokens or forced or values or model.text_codes):
        return NO_LANGUAGE_TOKENS
    tokens = model.source_tokenizer.special_tokens
    suffixes = [value.source_suffix_ids for value in values]
    suffixes += [source.source_suffix_ids, target.source_suffix_ids]
    return LanguageTokens(
        tokens((*source.source_prefix_ids, *target.source_prefix_ids)),
        tokens(chain.from_iterable(suffixes)),
        forced,
        model.text_codes,
        tokens(chain.from_iterable(value.source_prefix_ids for value in values)),
    )


def source_tag(model: ModelDescription, source_language: str) -> str:
    """The tag of the language of the texts of a request; "" if it is unknown."""
    tags = [language.tag for language in model.source_languages]
    return source_language or (tags[0] if len(tags) == 1 else "")


def _chosen(
    model: ModelDescription, field: str, languages: Sequence[Language], tag: str
) -> Language:
    if tag:
        found = _found(languages, tag)
        if found is None:
            raise LanguageUnknown(field, f"{model.key} has {_tags(languages)}, not {tag!r}", tag)
        return found
    if len(languages) == 1 or not any(language.has_tokens for language in languages):
        return languages[0]
    raise InvalidRequest(field, f"must name one of {_tags(languages)} for {model.key}")


def _found(languages: Sequence[Language], tag: str) -> Language | None:
    return longest_match({language.tag.lower(): language for language in languages}, tag)


def _tags(languages: Sequence[Language]) -> str:
    return ", ".join(language.tag for language in languages)
