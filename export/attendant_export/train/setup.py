"""Prepares a run for its first step: tokenizer, configuration and initial weights."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer
from torch import nn

from attendant_export.data.pair_tokenizer import PairTokenizer, load_tokenizers
from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.runs.config import RunConfig
from attendant_export.runs.config_checks import check_run, has_started
from attendant_export.train.distributed import ProcessGroup
from attendant_export.train.start import FREE, check_start, load_start


def prepare_tokenizer(
    run_dir: Path,
    init_from: Path | None,
    train: Callable[[], Tokenizer],
    processes: ProcessGroup,
) -> Tokenizer:
    """The tokenizer of the run: a copy of that in ``init_from``, or the result of ``train``.

    It is trained only once, since another training may order ties anew.
    """
    path = run_dir / TOKENIZER
    if processes.is_first and not has_started(run_dir):
        tokenizer = train() if init_from is None else load_tokenizer(init_from / TOKENIZER)
        tokenizer.save(str(path))
    processes.wait()
    return load_tokenizer(path)


def prepare_pair_tokenizer(
    run_dir: Path,
    init_from: Path | None,
    train: Callable[[], PairTokenizer],
    processes: ProcessGroup,
) -> PairTokenizer:
    """Like `prepare_tokenizer`, for the tokenizers of a translation model."""
    if processes.is_first and not has_started(run_dir):
        if init_from is None:
            tokenizer = train()
        else:
            tokenizer = PairTokenizer.of_run(*load_tokenizers(init_from))
        tokenizer.save(run_dir)
    processes.wait()
    return PairTokenizer.of_run(*load_tokenizers(run_dir))


def prepare_model(
    model: nn.Module,
    config: RunConfig,
    run_dir: Path,
    init_from: Path | None,
    new_tokenizer: PairTokenizer | None = None,
) -> None:
    """Check ``config`` against the run, and load the weights in ``init_from`` into ``model``.

    ``new_tokenizer`` is the tokenizer of the run if it differs from that in ``init_from``. Raises
    ValueError as `check_run`, `check_start` and `load_start`.
    """
    check_run(run_dir, config)
    if init_from is not None:
        check_start(init_from, config, FREE if new_tokenizer is None else FREE | {"vocab_size"})
        load_start(init_from, model, new_tokenizer)
