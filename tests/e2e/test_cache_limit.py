"""A server with a limit on cache memory, and its metrics."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from attendant.v1.translation_pb2 import StreamTranslateRequest, TranslateRequest
from attendant_server.engine.calls import SearchOptions, TranslateCall

from tests.support.bundles import sentence_pairs
from tests.support.serving import A_SOURCE, TIMEOUT_SECONDS, TRANSLATION_MODEL, failure_of

POSITION_BYTES = 2 * 2 * 32 * 4  # of the tiny model, whose outputs have at most 64 tokens
ONE_WORKER = {"num_threads": 1, "num_workers": 1}


def request(text: str, **options: int) -> TranslateRequest:
    wanted = TranslateRequest(texts=[text])
    for name, value in options.items():
        setattr(wanted.options, name, value)
    return wanted


def test_texts_wait_for_room(start):
    limit = 200 * POSITION_BYTES
    running = start(max_cache_bytes=limit, **ONE_WORKER)
    texts = [english for english, _ in sentence_pairs()[:24]]
    with ThreadPoolExecutor(24) as callers:
        answers = list(
            callers.map(
                lambda text: running.translation.Translate(
                    request(text, beam_size=2, max_output_tokens=40), timeout=60
                ),
                texts,
            )
        )
    assert all(answer.translations[0].hypotheses[0].text for answer in answers)
    assert running.metric("attendant_max_cache_bytes", model=TRANSLATION_MODEL) == limit
    assert running.metric("attendant_cache_bytes", model=TRANSLATION_MODEL) <= limit


def test_a_text_that_could_never_fit_is_refused_and_the_others_are_translated(start):
    limit = (3 * 32 + 16) * POSITION_BYTES
    running = start(max_cache_bytes=limit, **ONE_WORKER)
    short, long = "The dog sees the king.", "The dog sees the king " * 5
    wanted = TranslateRequest(texts=["", short, long, short])
    wanted.options.beam_size, wanted.options.max_output_tokens = 3, 32
    answer = running.translation.Translate(wanted, timeout=TIMEOUT_SECONDS)
    empty, first, refused, second = answer.translations
    assert empty.error.message.startswith("texts[0]: is empty")
    assert first.hypotheses[0].text == second.hypotheses[0].text
    assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    problem = (
        r"[23]\d tokens, with a beam of 3 and at most 32 output tokens, need 65536 bytes of "
        rf"caches; the limit is {limit} \(max_cache_bytes, divided by the number of workers\)"
    )
    assert re.fullmatch(rf"texts\[2\]: {problem}", refused.error.message)
    assert not refused.hypotheses
    assert answer.token_counts.num_input_tokens == 2 * first.num_source_tokens
    assert running.metric("attendant_invalid_texts_total", model=TRANSLATION_MODEL) == 2


def test_a_text_that_could_never_fit_is_refused_alone_and_in_a_stream(start):
    running = start(max_cache_bytes=1000, **ONE_WORKER)
    text = "The dog sees the king."
    answer = running.translation.Translate(request(text), timeout=TIMEOUT_SECONDS)
    assert "the limit is 1000 (max_cache_bytes" in answer.translations[0].error.message
    stream = running.translation.StreamTranslate(
        StreamTranslateRequest(text=text), timeout=TIMEOUT_SECONDS
    )
    error = failure_of(list, stream)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("text: 7 tokens, with a beam of 1 and at most 37 output")


def test_metrics_say_what_the_caches_need_and_take(start):
    running = start(**ONE_WORKER)
    names = [f"attendant_{name}_bytes" for name in ("cache_needed", "cache", "max_cache")]
    assert [running.metric(name) for name in names[:2]] == [0, 0]
    held, release = threading.Event(), threading.Event()

    def hold(_: tuple[int, ...]) -> None:
        held.set()
        release.wait(TIMEOUT_SECONDS)

    options = SearchOptions(max_output_tokens=40, min_output_tokens=40)
    call = TranslateCall([A_SOURCE], options, on_prefix=hold)
    running.server.engine.submit(TRANSLATION_MODEL, call)
    assert held.wait(TIMEOUT_SECONDS)
    needed, taken, limit = (running.metric(name) for name in names)
    release.set()
    assert needed == 2 * 16 * POSITION_BYTES
    assert needed <= taken <= 1.5 * needed + 8e6
    assert taken <= limit == (128 * 65 + 16 * 64) * POSITION_BYTES
    call.future.result(TIMEOUT_SECONDS)
