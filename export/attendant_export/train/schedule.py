"""The limits of a training and the learning rate of each step."""

from dataclasses import dataclass

from attendant_export.ranges import positive, share, share_below_one, whole

RANGES = {
    "max_steps": whole(1),
    "max_epochs": whole(1),
    "max_minutes": positive,
    "learning_rate": positive,
    "warmup_steps": whole(1),
    "final_learning_rate_ratio": share,
    "accumulate_steps": whole(1),
    "validate_every_steps": whole(1),
    "patience": whole(1),
    "average_decay": share_below_one,
    "keep_checkpoints": whole(0, 100),
    "seed": whole(0, 2**32 - 1),
}
"""The range of each of the `TrainingOptions`, for the command line as well."""
MAX_WARMUP_SHARE = 0.25
"""Largest share of a run that the warm-up takes, however short the run is."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Limits, learning rate and seed of a training. The first limit reached ends the run.

    Raises ValueError that names all options out of their `RANGES`, and without any limit.
    """

    max_steps: int | None = None
    max_epochs: int | None = None
    max_minutes: float | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 400
    final_learning_rate_ratio: float = 0.02
    accumulate_steps: int = 1
    """Batches of a step, whose gradients are accumulated as those of one large batch."""
    validate_every_steps: int = 1000
    patience: int = 10
    """Validations without improvement before the run stops early."""
    average_decay: float = 0.0
    """Decay of the moving average of the weights that validations use; 0: the last weights."""
    keep_checkpoints: int = 0
    """The number of latest validations whose weights are kept, to be averaged by an export."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("one of max_steps, max_epochs and max_minutes must be set")
        problems = [
            f"{name} is {value}, but must be {allowed}"
            for name, allowed in RANGES.items()
            if (value := getattr(self, name)) is not None and value not in allowed
        ]
        if problems:
            raise ValueError("; ".join(problems))


def learning_rate_ratio(options: TrainingOptions, step: int, done: float) -> float:
    """Linear warm-up, then linear decay over the fraction ``done`` of the run.

    ``done`` is the used fraction of the tightest limit: steps, epochs or minutes. The peak is 1.0.
    In a run too short for its warm-up, the warm-up takes `MAX_WARMUP_SHARE` of the run.
    """
    final = options.final_learning_rate_ratio
    risen = max((step + 1) / options.warmup_steps, done / MAX_WARMUP_SHARE)
    return min(risen, final + (1 - final) * max(0.0, 1 - done))


def describe_short_run(options: TrainingOptions, num_steps: float) -> str | None:
    """A warning if a run of ``num_steps`` is too short for its warm-up, else None."""
    if options.warmup_steps <= MAX_WARMUP_SHARE * num_steps:
        return None
    return (
        f"the limit of the run allows about {num_steps:.0f} steps, too few for a warm-up of "
        f"{options.warmup_steps} steps: the learning rate rises for the first "
        f"{MAX_WARMUP_SHARE:.0%} of the run instead"
    )
