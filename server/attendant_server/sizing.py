"""Default numbers of workers and sentences, and the processors of the workers."""

from collections.abc import Sequence

from attendant_server.settings import Settings

SENTENCES_OF_A_THREAD = 16
"""Default number of sentences per thread. More sentences do not make a step cheaper per sentence
(greedy search, small model), but they delay long sentences at every step."""
MAX_WORKERS = 4
"""Maximum default number of workers on a CPU. With more, each has too few rows for efficient matrix
products."""


def workers_and_sentences(settings: Settings, num_threads: int) -> tuple[int, int]:
    """Workers, and sentences per worker: from the settings, or else defaults by measurement."""
    is_on_gpu = settings.device == "cuda"
    fitting = settings.max_rows // settings.max_beam_size
    most = 1 if is_on_gpu else max(1, min(MAX_WORKERS, num_threads, fitting))
    num_workers = settings.num_workers or most
    chosen = settings.max_rows if is_on_gpu else SENTENCES_OF_A_THREAD * num_threads
    num_sentences = (settings.max_sentences or chosen) // num_workers
    return num_workers, max(1, min(num_sentences, settings.max_rows // num_workers))


def worker_processors(
    settings: Settings, num_workers: int, available: Sequence[int]
) -> Sequence[int]:
    """The processors to pin workers to: all, if there is exactly one per worker, else none.

    Pinned workers were measured to have a higher throughput
    (docs/decisions/0015-keep-each-worker-on-a-processor.md).
    """
    is_wanted = settings.pin_workers == "auto" and settings.device == "cpu"
    return available if is_wanted and num_workers == len(available) else ()
