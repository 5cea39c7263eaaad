"""Vectors of texts: pooling, dimensions, and length."""

from attendant_server.application.descriptions import (
    COMMON_POOLINGS,
    ModelDescription,
    Pooling,
)
from attendant_server.application.validation import check_range, known_value
from attendant_server.errors import InvalidRequest

OUTPUTS = {
    Pooling.MEAN: "mean_pooled",
    Pooling.CLS: "cls_pooled",
    Pooling.MAX: "max_pooled",
    Pooling.LAST: "last_pooled",
    Pooling.WEIGHTED_MEAN: "weighted_mean_pooled",
    Pooling.MEAN_SQRT_LENGTH: "mean_sqrt_length_pooled",
}


def chosen_output(pooling: int, description: ModelDescription) -> str:
    """The output of a pooling, of the model's for 0; raises InvalidRequest if it lacks it."""
    chosen = known_value("pooling", pooling, description.default_pooling)
    offered = (*COMMON_POOLINGS, *description.additional_poolings)
    if chosen not in offered:
        names = ", ".join(each.name for each in offered)
        raise InvalidRequest("pooling", f"is {chosen.name}, but the model offers {names}")
    return OUTPUTS[chosen]


def chosen_dimension(requested: int | None, is_forced: bool, description: ModelDescription) -> int:
    """The number of values of a vector to keep, that of the model for None.

    ``is_forced``: whether the model need not be trained for it. Raises InvalidRequest.
    """
    dimension = description.text_dimension
    if requested is None:
        return description.default_dimensions or dimension
    check_range("dimensions", requested, 1, dimension)
    trained = sorted({*description.trained_dimensions, dimension})
    if not is_forced and requested not in trained:
        numbers = ", ".join(map(str, trained))
        problem = f"the model was trained for {numbers} only; force_dimensions allows others"
        raise InvalidRequest("dimensions", problem)
    return requested
