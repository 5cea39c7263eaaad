"""Rows about counts, sizes and numbers."""

from math import inf, nan

from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest

from tests.e2e.bad_inputs.table import MARKER, BadInput, request

MASKED = f"{MARKER} [MASK]"
TINY_PENALTY = 2.0**-149
BAD_OPTIONS: list[dict[str, float]] = [
    {"beam_size": 0},
    {"beam_size": 9},
    {"beam_size": 2**31 - 1},
    {"beam_size": 2**32 - 1},
    {"num_hypotheses": 0},
    {"num_hypotheses": 2},
    {"beam_size": 4, "num_hypotheses": 5},
    {"max_output_tokens": 0},
    {"max_output_tokens": 65},
    {"max_output_tokens": 2**32 - 1},
    {"max_output_tokens": 5, "min_output_tokens": 6},
    {"min_output_tokens": 2**31 - 1},
    {"length_penalty": -0.5},
    {"length_penalty": 10.5},
    {"length_penalty": nan},
    {"length_penalty": inf},
    {"length_penalty": -inf},
]


def with_options(**options: float) -> TranslateRequest:
    """A request to translate with options."""
    return TranslateRequest(texts=[MARKER], options=TranslateOptions(**options))  # type: ignore[arg-type]


ROWS = [
    *(
        BadInput(
            f"{len(r.texts)} texts to {type(r).__name__}",
            request(r),
            "INVALID_ARGUMENT",
            f"texts: at {'most 256' if r.texts else 'least 1'}, got {len(r.texts)}",
        )
        for num_texts in (0, 257, 10_000)
        for r in (
            TranslateRequest(texts=[MARKER] * num_texts),
            EmbedRequest(texts=[MARKER] * num_texts),
            TokenizeRequest(model="tiny-bert", texts=[MARKER] * num_texts),
        )
    ),
    BadInput("256 short texts", request(EmbedRequest(texts=["a"] * 256)), "OK"),
    BadInput(
        "text of 1 MB",
        request(TranslateRequest(texts=[MARKER * 80_000])),
        "TEXT_INVALID_ARGUMENT",
        "texts[0]: at most 20000 characters, got 1040000",
    ),
    BadInput(
        "a character too many",
        request(TranslateRequest(texts=["ok", "é" * 20_001])),
        "TEXT_INVALID_ARGUMENT",
        "texts[1]: at most 20000 characters, got 20001",
    ),
    BadInput(
        "text of as many characters as allowed",
        request(TranslateRequest(texts=["é" * 20_000])),
        "OK",
    ),
    BadInput("tokens of many batches", request(EmbedRequest(texts=["dog " * 60] * 256)), "OK"),
    *(
        BadInput(
            f"option {options}",
            request(with_options(**options)),
            "INVALID_ARGUMENT",
            f"options.{list(options)[-1]}: ",
        )
        for options in BAD_OPTIONS
    ),
    BadInput("denormal penalty", request(with_options(length_penalty=TINY_PENALTY)), "OK"),
    *(
        BadInput(
            f"{top_k} candidates of a mask",
            request(FillMaskRequest(texts=[MASKED], top_k=top_k)),
            "INVALID_ARGUMENT",
            f"top_k: must be between 1 and 100, got {top_k}",
        )
        for top_k in (0, 101, 2**31 - 1, 2**32 - 1)
    ),
    *(
        BadInput(
            f"layers {layers[:8]}",
            request(EmbedTokensRequest(texts=[MARKER], layers=layers)),
            "INVALID_ARGUMENT",
            "layers",
        )
        for layers in ([99], [-(2**31)], [1, 1], list(range(1000)))
    ),
    BadInput(
        "masks for a large answer",
        request(FillMaskRequest(texts=["[MASK] " * 60] * 256, top_k=100)),
        "INVALID_ARGUMENT",
        "at most",
    ),
]
