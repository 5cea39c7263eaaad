"""Languages of checkpoints: their codes as BCP 47 tags, with the tokens that select them."""

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

import langcodes
from attendant.v1.bundle_pb2 import Language

from attendant_export import importers
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.generation import Generation

CODES = "language_codes.json"
GROUPS = re.compile(
    "aav|afa|alv|art|bat|ber|bnt|cau|ccs|cel|cpf|cpp|crp|cus|dra|euq|fiu|gem|gmq|gmw|iir|inc|ine|"
    "itc|map|mkh|mul|nic|phi|poz|pqe|pqw|roa|sal|sem|sit|sla|taw|trk|tut|urj|wen|zhx|zle|zls|zlw"
)
"""Codes of groups of languages in the names of OPUS-MT models (ISO 639-5, and ``mul``)."""
LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_].+)?")
OWN_CODES = {"pob": "pt_BR"}
"""The standard codes of languages, by nonstandard codes of OPUS-MT."""

logger = logging.getLogger(__name__)


def known_codes(name: str) -> list[str]:
    """The codes of a family's languages, in the order of their token ids."""
    codes: dict[str, str] = json.loads(files(importers).joinpath(CODES).read_text())
    return codes[name].split()


def language_tags(codes: Sequence[str]) -> dict[str, str]:
    """A BCP 47 tag for each code, each once.

    A script or a territory is left out unless it distinguishes two of the codes, and so is the
    difference between a macrolanguage and its most common member: "de" for ``deu_Latn`` and
    ``de_DE``, "ar" for ``arb_Arab``, "zh-Hans" for ``zho_Hans`` beside ``zho_Hant``. Of codes that
    no such tag distinguishes, one that is spelt like the tag has it (``pt_BR`` beside ``pt_br``),
    and the others are their own tags.
    """
    tags: dict[str, str] = {}
    for macro in (True, False):
        full = [_standard_tag(code, macro) for code in codes]
        _add_unique(tags, codes, [tag.partition("-")[0] for tag in full])
        _add_unique(tags, codes, full)
    for code in codes:
        tag = _standard_tag(code, macro=False)
        if code not in tags and code.replace("_", "-") == tag and tag not in tags.values():
            tags[code] = tag
    return {code: tags.get(code, code) for code in codes}


def _standard_tag(code: str, macro: bool) -> str:
    try:
        return langcodes.standardize_tag(OWN_CODES.get(code, code), macro=macro)
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


def is_group(tag: str) -> bool:
    """Whether a tag names a group of languages, such as ``mul``, ``gmq`` or ``ROMANCE``."""
    return bool(GROUPS.fullmatch(tag)) or not LANGUAGE.fullmatch(tag)


def single_languages(
    side: str, stated: Sequence[Language], others: Sequence[Language], card: Sequence[str]
) -> list[Language]:
    """``stated``, or if that is a group of languages, those of the card in its place.

    ``others`` are the languages of the other side, which are left out of the card's. Without
    languages of the card, the group stays, with a warning.
    """
    if len(stated) != 1 or not is_group(stated[0].tag):
        return list(stated)
    single = [tag for tag in dict.fromkeys(card) if not is_group(tag)]
    other_tags = {each.tag for each in others}
    members = [tag for tag in single if tag not in other_tags] or single
    if members:
        return [Language(tag=tag) for tag in members]
    logger.warning(
        "the %s languages are the group %r, and the card does not list them: give "
        "--%s-languages, so that callers can name them",
        *(side, stated[0].tag, side),
    )
    return list(stated)
