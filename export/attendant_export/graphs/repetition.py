"""The choice of candidates with repetition penalties, in the order of ``transformers``.

Penalties change the scores that rank candidates. Log-probabilities stay those of the model.
"""

import numpy as np

from attendant_export.graphs.layers import Layers
from attendant_export.graphs.step_interface import StepInterface


def give_penalized_candidates(
    g: Layers,
    interface: StepInterface,
    logits: str,
    bias: tuple[str, str],
    num_candidates: str,
    vocab_size: int,
) -> None:
    """Declare the best candidates of ``logits`` (rows, vocab) under penalties and token biases."""
    indices, penalties, of_logits = interface.repetition_penalty()
    log_p = g.op("LogSoftmax", logits)
    before = g.op("GatherND", log_p, indices)  # (penalized)
    values = g.op("Where", of_logits, g.op("GatherND", logits, indices), before)
    penalized = g.op(
        "Where",
        g.op("Less", values, g.constant(np.array(0, np.float32))),
        g.op("Mul", values, penalties),
        g.op("Div", values, penalties),
    )
    # In beam search this is the penalized value itself, without rounding.
    after = g.op("Where", of_logits, g.op("Add", before, g.op("Sub", penalized, values)), penalized)
    scores = g.op("ScatterND", g.op("ScatterND", log_p, indices, after), *bias, reduction="add")
    best, ids = g.top_k(scores, num_candidates, vocab_size)
    interface.give_candidates(ids, g.op("GatherElements", log_p, ids, axis=1))
    interface.give_scores(best)
