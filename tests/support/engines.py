"""Engines of fake models, with a clock that tests advance."""

from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.engine import Engine
from attendant_server.engine.translation_scheduler import TranslationScheduler

from tests.support.fake_model import RecordingObserver
from tests.support.limits import embedding_limits, translation_limits

TIMEOUT = 20
"""Seconds that a test waits for an engine at most."""


class Clock:
    """A clock that stands still until a test advances it."""

    now = 0.0

    def __call__(self):
        return self.now

    def advance_until(self, event):
        """Advance the clock by seconds until the event, since a worker may not wait yet."""
        for _ in range(100 * TIMEOUT):
            self.now += 1.0
            if event.wait(0.01):
                return
        raise AssertionError("it never happened")


def new_engine(model, embedding_model=None, num_workers=1, processors=(), **options):
    """An engine of a translation model and perhaps an embedding model, which is not started."""
    observer, clock = RecordingObserver(), options.pop("clock", Clock())
    decoding: list[TranslationScheduler] = []
    encoding: list[EmbeddingScheduler] = []
    for _ in range(num_workers):
        decoding.append(
            TranslationScheduler(
                "mt", model, translation_limits(), observer, clock, next(iter(decoding), None)
            )
        )
        if embedding_model is not None:
            beside = next(iter(encoding), None)
            encoding.append(
                EmbeddingScheduler(
                    "bert", embedding_model, embedding_limits(), observer, clock, beside
                )
            )
    engine = Engine(num_workers, clock, processors, **options)
    engine.add("mt", decoding)
    if encoding:
        engine.add("bert", encoding)
    return engine


def translate(num_tokens=4):
    """A call whose translation has ``num_tokens`` tokens."""
    return TranslateCall([(5, 6)], SearchOptions(num_tokens, min_output_tokens=num_tokens))
