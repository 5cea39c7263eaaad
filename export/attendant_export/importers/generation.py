"""Search options of a checkpoint: ``generation_config.json``, or those in ``config.json``."""

import logging
from dataclasses import dataclass

from attendant.v1.bundle_pb2 import DecodingDefaults
from attendant_manifest.translation_rules import REPETITION_PENALTIES

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config

logger = logging.getLogger(__name__)

GENERATION_CONFIG = "generation_config.json"
DEFAULTS = {
    "do_sample": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "token_healing": False,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
}
"""The only supported values of fields."""
UNSUPPORTED = (
    "forced_decoder_ids",
    "force_words_ids",
    "constraints",
    "begin_suppress_tokens",
    "sequence_bias",
    "exponential_decay_length_penalty",
    "guidance_scale",
    "stop_strings",
    "watermarking_config",
)
"""Fields without a supported value."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The search options of a checkpoint that a bundle can have."""

    config: Config
    """The configuration that the options are from."""
    start_token_id: int
    """First input token of the decoder."""
    beam_size: int
    length_penalty: float
    early_stopping: bool
    no_repeat_ngram_size: int
    repetition_penalty: float
    min_output_tokens: int
    """The least number of tokens of a target before EOS, without the start token."""
    forced_token_ids: tuple[int, ...]
    """The tokens that every target begins with."""
    suppressed_token_ids: tuple[int, ...]
    renormalizes: bool
    """Whether probabilities are normalized without the suppressed tokens."""

    def decoding(self) -> DecodingDefaults:
        """The decoding defaults of a bundle."""
        return DecodingDefaults(
            start_token_id=self.start_token_id,
            forced_token_ids=self.forced_token_ids,
            suppressed_token_ids=() if self.renormalizes else self.suppressed_token_ids,
            beam_size=self.beam_size if self.beam_size > 1 else 0,
            length_penalty=None if self.length_penalty == 1 else self.length_penalty,
            early_stopping=self.early_stopping,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            repetition_penalty=0 if self.repetition_penalty == 1 else self.repetition_penalty,
            min_output_tokens=self.min_output_tokens,
        )


def read_generation(checkpoint: Checkpoint) -> Generation:
    """The search options; raises CheckpointError for one that changes outputs in another way.

    ``forced_eos_token_id`` is not such an option: a translation that reaches its limit is reported
    as truncated instead. Nor is ``max_length``: the server limits a translation by its source. Nor
    are options of sampling, which search does not use.
    """
    config, stated = generation_config(checkpoint), checkpoint.config
    config.require(**DEFAULTS)
    _check_unsupported(config)
    _warn_of_pipelines(stated, config)
    start = config if "decoder_start_token_id" in config else stated
    min_name, min_output_tokens = _min_output_tokens(config)
    forced = "forced_bos_token_id"
    found = Generation(
        config=config,
        start_token_id=start.integer("decoder_start_token_id", minimum=0),
        beam_size=config.integer("num_beams", default=1),
        length_penalty=config.number("length_penalty", default=1.0),
        early_stopping=config.flag("early_stopping", default=False),
        no_repeat_ngram_size=config.integer("no_repeat_ngram_size", default=0, minimum=0),
        repetition_penalty=_repetition_penalty(config),
        min_output_tokens=min_output_tokens,
        forced_token_ids=(config.integer(forced, minimum=0),) if forced in config else (),
        suppressed_token_ids=_suppressed(config),
        renormalizes=config.flag("renormalize_logits", default=False),
    )
    if found.renormalizes:
        _check_renormalized(found, min_name)
    return found


def generation_config(checkpoint: Checkpoint) -> Config:
    """The configuration that has the search options of a checkpoint."""
    if not checkpoint.has(GENERATION_CONFIG):
        return checkpoint.config
    fields = checkpoint.json_object(GENERATION_CONFIG)
    return Config(checkpoint.folder / GENERATION_CONFIG, fields)


def read_search_defaults(checkpoint: Checkpoint) -> DecodingDefaults:
    """The search options of a language model, without a start token.

    Raises CheckpointError for an option that changes outputs and that a bundle cannot have. Options
    of sampling are left out with a warning: callers choose sampling.
    """
    config = generation_config(checkpoint)
    config.require(**{name: value for name, value in DEFAULTS.items() if name != "do_sample"})
    _check_unsupported(config)
    for name in ("forced_bos_token_id", "min_length"):  # The least length counts the prompt.
        if config.get(name):
            raise CheckpointError(
                f"{config.path}: {name} is {config.get(name)!r}, which is not supported for a "
                "language model"
            )
    if config.flag("do_sample", default=False):
        logger.warning(
            "%s: do_sample is True, but sampling is no default of a bundle; callers must choose it",
            config.path,
        )
    for name in ("repetition_penalty", "no_repeat_ngram_size"):
        if config.get(name, 0) not in (0, 1):
            logger.warning(
                "%s: %s applies to continuations alone, not to the tokens of prompts",
                *(config.path, name),
            )
    beam_size, length_penalty = config.integer("num_beams", 1), config.number("length_penalty", 1.0)
    penalty = _repetition_penalty(config)
    return DecodingDefaults(
        suppressed_token_ids=_suppressed(config),
        beam_size=beam_size if beam_size > 1 else 0,
        length_penalty=None if length_penalty == 1 else length_penalty,
        early_stopping=config.flag("early_stopping", default=False),
        no_repeat_ngram_size=config.integer("no_repeat_ngram_size", default=0, minimum=0),
        repetition_penalty=0 if penalty == 1 else penalty,
        min_output_tokens=config.integer("min_new_tokens", default=0, minimum=0),
    )


def _check_unsupported(config: Config) -> None:
    for name in UNSUPPORTED:
        if name in config:
            raise CheckpointError(
                f"{config.path}: {name} is {config.get(name)!r}, which is not supported"
            )


def _warn_of_pipelines(config: Config, options: Config) -> None:
    """Warn of fields that only the pipelines of the original apply, beside its ``options``."""
    if prefix := config.get("prefix"):
        logger.warning(
            "%s: prefix is %r, which pipelines of transformers put before texts: it is not "
            "applied; callers must write it",
            *(config.path, prefix),
        )
    tasks = config.get("task_specific_params", {})
    found = tasks.values() if isinstance(tasks, dict) else ()
    listed = [task for task in found if isinstance(task, dict)]
    others = {name for task in listed for name in task if task[name] != options.get(name)}
    if names := sorted(others - {"prefix"}):
        logger.warning(
            "%s: %s of task_specific_params, which pipelines of transformers apply, are not "
            "applied; callers must set them",
            *(config.path, ", ".join(names)),
        )


def check_special_tokens(config: Config, pad_id: int, eos_id: int) -> None:
    """Raise CheckpointError if a configuration states other tokens. EOS may be a list of one id."""
    config.require(pad_token_id=pad_id)
    if config.get("eos_token_id") != [eos_id]:
        config.require(eos_token_id=eos_id)


def _check_renormalized(found: Generation, min_name: str) -> None:
    """Raise CheckpointError for a rule that would also change normalized probabilities."""
    for name, has_rule in (
        ("no_repeat_ngram_size", found.no_repeat_ngram_size),
        (min_name, found.min_output_tokens),
        ("repetition_penalty", found.repetition_penalty != 1),
    ):
        if has_rule:
            raise CheckpointError(
                f"{found.config.path}: {name} is {found.config.get(name)}, which is not supported "
                "with renormalize_logits"
            )


def _repetition_penalty(config: Config) -> float:
    penalty = config.number("repetition_penalty", default=1.0)
    low, high = REPETITION_PENALTIES
    if not low <= penalty <= high:
        raise CheckpointError(
            f"{config.path}: repetition_penalty is {penalty:g}, want a number from {low} to {high}"
        )
    return penalty


def _min_output_tokens(config: Config) -> tuple[str, int]:
    """The field that states the least number of tokens before EOS, and that number.

    ``min_new_tokens`` overrides ``min_length``, which also counts the start token.
    """
    name = "min_new_tokens"
    if name in config:
        return name, config.integer(name, minimum=0)
    return "min_length", max(config.integer("min_length", default=0, minimum=0) - 1, 0)


def _suppressed(config: Config) -> tuple[int, ...]:
    """The tokens that are never generated."""
    words, tokens = config.get("bad_words_ids", []), config.get("suppress_tokens", [])
    if not isinstance(words, list) or not isinstance(tokens, list):
        raise CheckpointError(f"{config.path}: bad_words_ids or suppress_tokens is not a list")
    token_ids = set(tokens)
    for word in words:
        if not isinstance(word, list) or len(word) != 1:
            raise CheckpointError(
                f"{config.path}: bad_words_ids has {word!r}; supported: lists of one token"
            )
        token_ids.add(word[0])
    for token_id in token_ids:
        if type(token_id) is not int or token_id < 0:
            raise CheckpointError(f"{config.path}: {token_id!r} is not the id of a token")
    return tuple(sorted(token_ids))
