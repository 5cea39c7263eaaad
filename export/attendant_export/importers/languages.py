"""Languages of checkpoints: their codes as BCP 47 tags, with the tokens that select them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

import langcodes
from attendant.v1.bundle_pb2 import Language

from attendant_export import importers
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.generation import Generation

CODES = "language_codes.json"


def known_codes(name: str) -> list[str]:
    """The codes of a family's languages, in the order of their token ids."""
    codes: dict[str, str] = json.loads(files(importers).joinpath(CODES).read_text())
    return codes[name].split()


def language_tags(codes: Sequence[str]) -> dict[str, str]:
    """A BCP 47 tag for each code, each once.

    A script or a territory is left out unless it distinguishes two of the codes, and so is the
    difference between a macrolanguage and its most common member: "de" for ``deu_Latn`` and
    ``de_DE``, "ar" for ``arb_Arab``, "zh-Hans" for ``zho_Hans`` beside ``zho_Hant``. A code that no
    such tag distinguishes is its own tag.
    """
    tags: dict[str, str] = {}
    for macro in (True, False):
        full = [_standard_tag(code, macro) for code in codes]
        _add_unique(tags, codes, [tag.partition("-")[0] for tag in full])
        _add_unique(tags, codes, full)
    return {code: tags.get(code, code) for code in codes}


def _standard_tag(code: str, macro: bool) -> str:
    try:
        return langcodes.standardize_tag(code, macro=macro)
    except ValueError:  # not a tag
        return code


def _add_unique(tags: dict[str, str], codes: Sequence[str], candidates: Sequence[str]) -> None:
    """Give each code without a tag its candidate, if no other code has it."""
    counts, taken = Counter(candidates), set(tags.values())
    for code, tag in zip(codes, candidates, strict=True):
        if code not in tags and counts[tag] == 1 and tag not in taken:
            tags[code] = tag


def languages(ids: Mapping[str, int], *fields: str) -> list[Language]:
    """Languages by code, each with the id of its token in the given fields of `Language`."""
    tags = language_tags(list(ids))
    return [
        Language(tag=tags[code], **{field: [token_id] for field in fields})
        for code, token_id in ids.items()
    ]


def forced_languages(ids: Mapping[str, int], generation: Generation) -> list[Language]:
    """The target languages of a model that forces their tokens; raises CheckpointError.

    If the search options force a token, its language is the only one.
    """
    found = languages(ids, "forced_target_ids")
    for forced in generation.forced_token_ids:
        found = [each for each in found if each.forced_target_ids == [forced]]
        if not found:
            raise CheckpointError(
                f"{generation.config.path}: forced_bos_token_id is {forced}, want the token of a "
                "language"
            )
    return found
