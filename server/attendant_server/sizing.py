"""Default numbers of workers and sentences, and the processors of the workers."""

from collections.abc import Sequence

from attendant_server.settings import Settings

SENTENCES_OF_A_THREAD = 16
"""Default number of sentences per thread. More sentences do not make a step of a small model
cheaper per sentence, but they delay long sentences at every step."""
SENTENCES_OF_A_THREAD_IF_WIDE = 32
"""The same for a wide model, whose steps become cheaper per sentence with more of them."""
WIDE = 512
"""Width of the hidden states from which on a model is wide."""
MAX_WORKERS = 4
"""Maximum default number of workers on a CPU. With more, each has too few rows for efficient matrix
products."""


def choose_num_workers(settings: Settings, num_threads: int) -> int:
    """Number of workers: from the settings, or else as many as pay."""
    fitting = settings.max_rows // settings.max_beam_size
    is_on_gpu = settings.device == "cuda"
    most = 1 if is_on_gpu else max(1, min(MAX_WORKERS, num_threads, fitting))
    return settings.num_workers or most


def choose_num_sentences(
    settings: Settings, num_threads: int, num_workers: int, d_model: int
) -> int:
    """Sentences of one model that a worker decodes at a time, by the settings or by measurement.

    ``d_model`` is the width of the model (docs/decisions/0012-fewer-sentences-at-a-time.md).
    """
    of_a_thread = SENTENCES_OF_A_THREAD_IF_WIDE if d_model >= WIDE else SENTENCES_OF_A_THREAD
    chosen = settings.max_rows if settings.device == "cuda" else of_a_thread * num_threads
    num_sentences = (settings.max_sentences or chosen) // num_workers
    return max(1, min(num_sentences, settings.max_rows // num_workers))


def worker_processors(
    settings: Settings, num_workers: int, available: Sequence[int]
) -> Sequence[int]:
    """The processors to pin workers to: all, if there is exactly one per worker, else none.

    Pinned workers were measured to have a higher throughput
    (docs/decisions/0015-keep-each-worker-on-a-processor.md).
    """
    is_wanted = settings.pin_workers == "auto" and settings.device == "cpu"
    return available if is_wanted and num_workers == len(available) else ()
