"""The collector of cyclic garbage, tuned for a server whose models stay."""

import gc

THRESHOLD = 10_000
"""New objects between two collections; Python's default is 700."""


def collect_garbage_rarely() -> None:
    """Keep collections from looking at the models, and at the objects of each few calls.

    Hardly any object of a call is part of a cycle: almost all are freed without a collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)


def collect_garbage() -> None:
    """Free all garbage, including objects that `collect_garbage_rarely` keeps out of sight.

    Schedulers refer to each other, so that a model is not freed before.
    """
    was_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if was_frozen:
        gc.freeze()
