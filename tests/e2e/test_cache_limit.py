"""A server with a limit on cache memory, and its metrics."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from attendant.v1.translation_pb2 import TranslateRequest
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


def test_texts_wait_for_room_and_a_search_that_could_never_fit_is_refused(start):
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
    error = failure_of(
        running.translation.Translate, request(texts[0], beam_size=4, max_output_tokens=60)
    )
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("options.beam_size: at most 2 with 60 output tokens")
    error = failure_of(
        running.translation.Translate, request(texts[0], beam_size=8, max_output_tokens=20)
    )
    assert error.details().startswith("options.beam_size: at most 5 with 20 output tokens")
    assert running.metric("attendant_max_cache_bytes", model=TRANSLATION_MODEL) == limit
    assert running.metric("attendant_cache_bytes", model=TRANSLATION_MODEL) <= limit


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
