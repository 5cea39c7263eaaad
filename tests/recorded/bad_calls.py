"""Calls that the server refuses. Each check of a request refuses at least one of them."""

from collections.abc import Iterator
from typing import Any

from attendant.v1.embedding_pb2 import TEXT_ROLE_QUERY
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.translation_pb2 import Sampling

from tests.recorded.call import (
    METHODS,
    Call,
    detect_language,
    embed,
    embed_tokens,
    fill_mask,
    get_attention,
    get_model,
    score,
    stream,
    tokenize,
    translate,
)
from tests.recorded.texts import NUM_MAX_CHARACTERS, NUM_MAX_TEXTS

TEXT = "The dog sees the king."
PAIR = (TEXT, "Der Hund sieht den König.")
TOO_LONG = "é" * (NUM_MAX_CHARACTERS + 1)
UNKNOWN_VALUE = 77
"""A number that is not a value of any enum."""
FOREVER = ("grpc.health.v1.Health/Watch",)
BAD_OPTIONS: tuple[dict[str, Any], ...] = (
    {"beam_size": 0},
    {"beam_size": 9},
    {"beam_size": 2**32 - 1},
    {"num_hypotheses": 0},
    {"num_hypotheses": 2},
    {"beam_size": 4, "num_hypotheses": 5},
    {"max_output_tokens": 0},
    {"max_output_tokens": 257},
    {"min_output_tokens": 2**31 - 1},
    {"max_output_tokens": 5, "min_output_tokens": 6},
    {"length_penalty": -0.5},
    {"length_penalty": 10.5},
    {"length_penalty": float("nan")},
    {"length_penalty": float("inf")},
    {"length_penalty": float("-inf")},
    {"no_repeat_ngram_size": 257},
    {"suppressed_token_ids": [2**32 - 1]},
    {"suppressed_texts": [""]},
    {"repetition_penalty": 1.5},
    {"patience": 2},
    {"beam_size": 4, "num_beam_groups": 3},
    {"beam_size": 4, "diversity_penalty": 1},
    {"beam_size": 2, "num_hypotheses": 5, "return_alternatives": True},
    {"sampling": Sampling(), "return_alternatives": True},
    {"beam_size": 2, "sampling": Sampling()},
    {"sampling": Sampling(temperature=0)},
    {"sampling": Sampling(top_k=257)},
)
BAD_LAYERS = {
    "too many": (0, 1, 2, -1, -2, -3, 0, 1),
    "too high": (99,),
    "too low": (-99,),
    "one twice": (1, 1),
    "one by both its numbers": (0, -3),
}
UNDECODABLE = {
    "noise": bytes(range(256)),
    "a truncated message": b"\x12\x08The d",
    "invalid UTF-8": b"\x12\x02\xff\xfe",
    "an encoded surrogate": b"\x12\x03\xed\xa0\x80",
    "an overlong number": b"\x12\x08The dog.\x20" + b"\xff" * 10 + b"\x01",
    "field number 0": b"\x12\x08The dog.\x02\x00",
}
UNUSUAL = {
    "an unknown field": b"\x12\x08The dog.\xc2\x3e\x03new",
    "a model named twice": b"\x0a\x07unknown\x0a\x0atiny-en-de\x12\x08The dog.",
    "no bytes": b"",
    "texts of a wrong type": b"\x10\x05",
}


def bad_counts() -> Iterator[Call]:
    """Too few and too many texts, and texts of too many characters."""
    for make in (translate, embed, embed_tokens, fill_mask, tokenize, detect_language):
        yield make("no texts", [])
        yield make("too many texts", [TEXT] * (NUM_MAX_TEXTS + 1))
        yield make("too many characters", [TEXT, TOO_LONG])
    yield stream("too many characters", TOO_LONG)
    yield score("no pairs", [])
    yield score("too many pairs", [PAIR] * (NUM_MAX_TEXTS + 1))
    yield score("too many characters in a source", [PAIR, (TOO_LONG, TEXT)])
    yield score("too many characters in a target", [(TEXT, TOO_LONG)])


def bad_options() -> Iterator[Call]:
    """Options out of range and enum values that do not exist."""
    for options in BAD_OPTIONS:
        # The text of a message has line ends.
        names = (f"{field} {' '.join(str(value).split())}" for field, value in options.items())
        name = ", ".join(names)
        yield translate(name, [TEXT], **options)
    yield stream("beam_size 0", TEXT, beam_size=0)
    yield stream("num_hypotheses 2", TEXT, num_hypotheses=2)
    for penalty in (-0.5, 10.5, float("nan")):
        yield score(f"length penalty {penalty}", [PAIR], length_penalty=penalty)
    for name, layers in BAD_LAYERS.items():
        yield embed_tokens(f"layers, {name}", [TEXT], layers=layers)
    yield embed_tokens("role of a model without roles", [TEXT], role=TEXT_ROLE_QUERY)
    for top_k in (0, 101, 2**32 - 1):
        yield fill_mask(f"top {top_k}", ["[MASK]"], top_k=top_k)
    yield detect_language("max_results 0", [TEXT], max_results=0)
    for language in ("xx", "", "no tag", "a" * 101):
        yield detect_language(f"language '{language}'", [TEXT], languages=["de", language])
    yield detect_language("too many languages", [TEXT], languages=["de"] * 257)
    value: Any = UNKNOWN_VALUE
    yield embed_tokens("role, unknown", [TEXT], role=value)
    for make in (translate, embed, embed_tokens, fill_mask):
        yield make("unknown truncation", [TEXT], truncation=value)
    yield stream("unknown truncation", TEXT, truncation=value)
    yield score("unknown truncation", [PAIR], truncation=value)
    yield embed("unknown pooling", [TEXT], pooling=value)
    yield tokenize("unknown side", [TEXT], "tiny-en-de", side=value)


def several_faults() -> Iterator[Call]:
    """Calls with several faults, to record which one is reported."""
    yield translate("no texts for an unknown model", [], "nothing", beam_size=0)
    yield translate("bad options for an unknown model", [TEXT], "nothing", beam_size=0)
    yield translate("several bad options", [TEXT], beam_size=9, length_penalty=11, truncation=3)
    yield embed("no texts for a model of another kind", [], "tiny-en-de")
    yield embed("several bad values", [TEXT], pooling=UNKNOWN_VALUE, truncation=UNKNOWN_VALUE)
    yield fill_mask("bad count for a text without a mask", [TEXT], top_k=0)
    yield stream("bad options for an empty text", "", beam_size=0)


def bad_models(translation: str, embedding: str) -> Iterator[Call]:
    """Names of models that do not exist or have the wrong kind."""
    for model in ("nothing", f"{translation}/9", f"{translation}/", translation.upper(), " "):
        yield translate(f"model '{model}'", [TEXT], model)
        yield get_model(f"model '{model}'", model)
    for make in (embed, embed_tokens, fill_mask):
        yield make("an unknown model", [TEXT], "nothing")
        yield make("a translation model", [TEXT], translation)
    yield translate("an embedding model", [TEXT], embedding)
    yield stream("an unknown model", TEXT, "nothing")
    yield stream("an embedding model", TEXT, embedding)
    yield score("an unknown model", [PAIR], "nothing")
    yield score("an embedding model", [PAIR], embedding)
    yield tokenize("an unknown model", [TEXT], "nothing")
    yield tokenize("the target side of an embedding model", [TEXT], embedding, side=2)
    yield get_attention("an unknown model", TEXT, "nothing")
    for model in (translation, embedding):
        yield get_attention(f"{model}, which has no attention graph", TEXT, model)


def unnamed_models() -> Iterator[Call]:
    """Calls that name no model."""
    for make in (translate, embed, embed_tokens, fill_mask, tokenize):
        yield make("no model named", ["The [MASK] sees the king."])
    yield stream("no model named", TEXT)
    yield score("no model named", [PAIR])
    yield get_model("no model named", "")


def undecodable_requests() -> Iterator[Call]:
    """Bytes that are not a message, unusual valid bytes, and methods that do not exist."""
    translate_method = "attendant.v1.TranslationService/Translate"
    for name, content in {**UNDECODABLE, **UNUSUAL}.items():
        yield Call(f"Bytes: {name}", translate_method, content)
    for method in METHODS:
        if method not in FOREVER:
            yield Call(f"Bytes: not decodable by {method}", method, b"\xff\xff")
    for method in ("attendant.v1.TranslationService/Nothing", "nothing/Nothing", "x"):
        yield Call(f"Unknown method: {method}", method, GetModelRequest())


def calls_beyond_small_limits() -> Iterator[Call]:
    """Calls for a server with small limits. Some exceed a limit, and some do not."""
    yield translate("too many texts", [TEXT] * 11)
    yield translate("too many characters", [TEXT * 20])
    yield translate("beam too wide", [TEXT], beam_size=3)
    yield translate("answer too large", [TEXT])
    yield translate("answer too large with both hypotheses", [TEXT] * 3, **_small(10))
    yield translate("answer as large as allowed", [TEXT] * 2, **_small(8))
    yield stream("answer too large", TEXT)
    yield stream("answer small enough", TEXT, max_output_tokens=8)
    yield score("answer too large", [PAIR] * 6)
    yield score("answer small enough", [PAIR])
    yield embed("answer too large", [TEXT] * 9)
    # Not 8: the encoding of times varies in size and would make the message exceed the limit.
    yield embed("answer small enough", [TEXT] * 7)
    yield embed_tokens("answer too large for the texts", [TEXT])
    yield embed_tokens("answer too large for the layers", [TEXT], layers=(0, 1))
    yield embed_tokens("answer small enough", ["dog"])
    yield fill_mask("too many candidates", ["[MASK]"], top_k=4)
    yield fill_mask("answer too large", ["[MASK] " * 11], top_k=3)
    yield fill_mask("answer small enough", ["[MASK] " * 10], top_k=3)
    yield tokenize("answer too large", [TEXT] * 9, "tiny-en-de")
    yield tokenize("answer small enough", ["dog"], "tiny-bert")
    yield detect_language("answer too large", ["dog"] * 10, max_results=5)
    yield detect_language("answer small enough", ["dog"] * 8, max_results=5)
    yield embed("request too large", ["x" * 200] * 10)


def _small(max_output_tokens: int) -> dict[str, Any]:
    return {"beam_size": 2, "num_hypotheses": 2, "max_output_tokens": max_output_tokens}
