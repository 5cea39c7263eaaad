"""The controls of a translation model, such as formality: which values a request chooses."""

from collections.abc import Iterable, Mapping

from attendant_server.application.descriptions import ControlValue, ModelDescription
from attendant_server.errors import InvalidRequest

CONTROLS = "controls"
MAX_LISTED = 20
"""Names in a message."""


def chosen_values(model: ModelDescription, controls: Mapping[str, str]) -> tuple[ControlValue, ...]:
    """The values of a request, or the defaults, in the order of the model's controls.

    Raises InvalidRequest for a control or a value that the model lacks.
    """
    known = [control.name for control in model.controls]
    if controls.keys() - set(known):
        problem = f"has an unknown name; those of {model.key} are: {_listed(known)}"
        raise InvalidRequest(CONTROLS, problem)
    values = []
    for control in model.controls:
        name = controls.get(control.name, control.default_value)
        if name in control.values:
            values.append(control.values[name])
        elif name or control.name in controls:
            problem = f"is unknown; the values of {model.key} are: {_listed(control.values)}"
            raise InvalidRequest(f"{CONTROLS}[{control.name}]", problem)
    return tuple(values)


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    first, further = every[:MAX_LISTED], len(every) - MAX_LISTED
    return (", ".join(first) or "none") + (f" and {further} more" if further > 0 else "")
