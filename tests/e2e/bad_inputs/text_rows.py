"""Rows about what texts and names say."""

from attendant.v1.embedding_pb2 import EmbedRequest, FillMaskRequest
from attendant.v1.model_pb2 import GetModelRequest, TokenizeRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest

from tests.e2e.bad_inputs.table import MARKER, BadInput, request

BLANK = {
    "empty text": "",
    "space": " ",
    "line break": "\n",
    "white space": " \t\r\n",
    "20,000 spaces": " " * 20_000,
    "white space of Unicode": "\u00a0\u2003\u3000",
}
LONG = {
    "20,000 letters without a space": "a" * 20_000,
    "19,999 combining marks": "e" + "\u0301" * 19_999,
}
ODD = {
    "NUL": f"{MARKER}\0 dog",
    "control characters": f"\x01\x02{MARKER} \x7fdog\x1b[31m",
    "byte order mark": f"\ufeff{MARKER} dog",
    "right to left": f"\u202e{MARKER}\u202c dog",
    "zero width joiners": f"{MARKER[:4]}\u200d\u200c\u200b{MARKER[4:]} dog",
    "joined emoji": "👩\u200d👩\u200d👧\u200d👦 dog",
    "lone variation selector": "\ufe0f dog",
    "private use and the last code point": f"\ue000 \U0010ffff {MARKER} dog",
    "special tokens": f"<s> </s> <pad> [CLS] [SEP] [PAD] >>fra<< {MARKER}",
    "formats": f"%s %d %n {{}} {{0}} ${{jndi:x}} {MARKER}",
    "markup": f"<b>{MARKER}</b> ' OR 1=1 --",
    "forged line of a log": f"{MARKER}\n2026-01-01 ERROR event=call_failed",
}
BAD_NAMES = {
    "a path": f"../../etc/{MARKER}",
    "a slash": f"{MARKER}/{MARKER}/1",
    "an escape": f"{MARKER}%00%2e%2e",
    "NUL": f"tiny-en-de\0{MARKER}",
    "a line break": f"{MARKER}\nevent=call code=OK",
    "1 MB": MARKER * 80_000,
}
BAD_LANGUAGES = {
    "a path": f"../../etc/{MARKER}",
    "10 KB": MARKER * 800,
    "a line break": f"de\n{MARKER}",
    "NUL": f"de\0{MARKER}",
}
ROWS = [
    *(
        BadInput(
            f"{name} to translate", request(TranslateRequest(texts=[text])), "TEXT_INVALID_ARGUMENT"
        )
        for name, text in BLANK.items()
    ),
    *(
        BadInput(f"{name} to translate", request(TranslateRequest(texts=[text])), "OK")
        for name, text in LONG.items()
    ),
    BadInput(
        "script that no model knows to translate",
        request(TranslateRequest(texts=["犬が吠えている"])),
        "OK",
    ),
    BadInput(
        "script that no model knows to embed",
        request(EmbedRequest(texts=["犬が吠えている"])),
        "TEXT_INVALID_ARGUMENT",
        "has nothing that the vocabulary of the model knows",
    ),
    *(
        BadInput(f"{name} to embed", request(EmbedRequest(texts=[text])), "TEXT_INVALID_ARGUMENT")
        for name, text in BLANK.items()
    ),
    *(
        BadInput(f"{name} {purpose}", request(asked), "OK")
        for name, text in ODD.items()
        for purpose, asked in {
            "to translate": TranslateRequest(texts=[text]),
            "to embed": EmbedRequest(texts=[text]),
            "to tokenize": TokenizeRequest(model="tiny-bert", texts=[text]),
        }.items()
    ),
    BadInput(
        "no mask to fill",
        request(FillMaskRequest(texts=[f"{MARKER} dog"])),
        "TEXT_INVALID_ARGUMENT",
        "mask",
    ),
    *(
        BadInput(
            f"model with {name}",
            request(TranslateRequest(model=model, texts=["dog"])),
            "NOT_FOUND",
            "model",
        )
        for name, model in BAD_NAMES.items()
    ),
    BadInput(
        "model of another kind",
        request(EmbedRequest(model="tiny-en-de", texts=[MARKER])),
        "INVALID_ARGUMENT NOT_FOUND FAILED_PRECONDITION",
    ),
    BadInput("unknown model", request(GetModelRequest(model=MARKER)), "NOT_FOUND"),
    *(
        BadInput(
            f"language with {name}",
            request(TranslateRequest(target_language=language, texts=["dog"])),
            "INVALID_ARGUMENT NOT_FOUND",
        )
        for name, language in BAD_LANGUAGES.items()
    ),
    BadInput(
        "equal languages",
        request(TranslateRequest(source_language="en", target_language="en", texts=[MARKER])),
        "INVALID_ARGUMENT NOT_FOUND",
    ),
    BadInput(
        "language in capitals",
        request(TranslateRequest(source_language="EN", target_language="DE", texts=["dog"])),
        "OK",
    ),
    BadInput(
        "translation that never ends",
        request(TranslateRequest(texts=["dog"], options=TranslateOptions(min_output_tokens=64))),
        "OK INVALID_ARGUMENT",
    ),
]
