"""Prepares a run for its first step: tokenizer, configuration and initial weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest
from tokenizers import Tokenizer
from torch import nn

from attendant_export.data.pair_tokenizer import (
    PairTokenizer,
    load_tokenizers,
    save_tokenizers,
)
from attendant_export.data.text_choice import TextChoice
from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer, special_token_id
from attendant_export.runs.config import RunConfig
from attendant_export.runs.config_checks import check_run, has_started
from attendant_export.runs.text_facts import TEXTS, read_facts, write_facts
from attendant_export.train.choices import choice_tokens, facts_of_choices
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.start import FREE, check_start, load_start, start_facts


def prepare_tokenizer(
    run_dir: Path,
    init_from: Path | None,
    train: Callable[[], Tokenizer] | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Tokenizer:
    """The tokenizer of the run: a copy of that in ``init_from``, or the result of ``train``.

    It is trained only once, since another training may order ties anew.
    """
    path = run_dir / TOKENIZER
    if processes.is_first and not has_started(run_dir):
        if init_from is not None:
            tokenizer = load_tokenizer(init_from / TOKENIZER)
        else:
            assert train is not None
            tokenizer = train()
        tokenizer.save(str(path))
    processes.wait()
    return load_tokenizer(path)


def prepare_texts(
    run_dir: Path,
    init_from: Path | None,
    choices: Sequence[TextChoice],
    train: Callable[[Sequence[str]], PairTokenizer],
    processes: ProcessGroup,
) -> Manifest | None:
    """Write the tokenizers of a run and the facts of its texts; returns the facts.

    Both are copies of those in ``init_from``, or come from ``train``, which takes the special
    tokens of the ``choices`` of training files. Raises ValueError as `choice_tokens`.
    """
    if processes.is_first and not has_started(run_dir):
        (run_dir / TEXTS).unlink(missing_ok=True)
        if init_from is None:
            tokenizer = train(choice_tokens(choices))
            tokenizer.save(run_dir)
            facts = facts_of_choices(choices, partial(special_token_id, tokenizer.source.tokenizer))
        else:
            save_tokenizers(run_dir, *load_tokenizers(init_from))
            facts = start_facts(init_from)
        if facts is not None:
            write_facts(run_dir, facts)
    processes.wait()
    return read_facts(run_dir)


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
