"""Types of layers in configurations: which tokens a layer attends to, and its rotary positions."""

from collections.abc import Sequence

from attendant_export.importers.checkpoint import CheckpointError, Config

GLOBAL, LOCAL = "full_attention", "sliding_attention"
LAYER_TYPES = {GLOBAL: GLOBAL, LOCAL: LOCAL}
SCALES = {"rope_type": "default", "type": "default"}
"""The fields of rotary positions that state how they are scaled, and the supported values."""


def read_layer_types(config: Config, num_layers: int) -> Sequence[str] | None:
    """``layer_types`` of a configuration, if it has this field; raises CheckpointError."""
    types = config.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != num_layers or set(types) - {*LAYER_TYPES}:
        raise CheckpointError(
            f"{config.path}: layer_types is {types!r}, want {num_layers} of "
            f"{', '.join(LAYER_TYPES)}"
        )
    return types


def read_spaced_layer_types(
    config: Config, num_layers: int, old_field: str, default: int, first_global: int
) -> Sequence[str]:
    """``layer_types``, or the types by an older field with the distance of global layers.

    ``first_global`` is the number of the first global layer, from the end of the first distance if
    it is negative. Raises CheckpointError.
    """
    types = read_layer_types(config, num_layers)
    if types is not None:
        return types
    every = config.integer(old_field, default)
    return [LOCAL if (i - first_global) % every else GLOBAL for i in range(num_layers)]


def read_theta(config: Config, old_field: str, default: float) -> float:
    """The base of the rotary positions of all layers, in ``rope_parameters`` or an older field.

    Raises CheckpointError for positions that are scaled.
    """
    name = "rope_parameters"
    _check_names(config, config.get(name, {}), {*SCALES, "rope_theta"})
    return _theta(config, name, config.get(name, {}), old_field, default)


def read_theta_of_type(config: Config, layer_type: str, old_field: str, default: float) -> float:
    """The base of rotary positions of a type of layers, like `read_theta`."""
    name, parameters = f"rope_parameters.{layer_type}", config.get("rope_parameters", {})
    _check_names(config, parameters, {*LAYER_TYPES})
    options = (parameters.get(layer_type) or {}) if isinstance(parameters, dict) else None
    return _theta(config, name, options, old_field, default)


def _check_names(config: Config, parameters: object, known: set[str]) -> None:
    if isinstance(parameters, dict) and (others := {*parameters} - known):
        raise CheckpointError(
            f"{config.path}: rope_parameters has {', '.join(sorted(others))}, which is not "
            f"supported; supported: {', '.join(sorted(known))}"
        )


def _theta(config: Config, name: str, options: object, old_field: str, default: float) -> float:
    if not isinstance(options, dict):
        raise CheckpointError(f"{config.path}: {name} is {options!r}, want an object")
    stated = Config(config.path, {f"{name}.{key}": value for key, value in options.items()})
    stated.require(**{f"{name}.{key}": value for key, value in SCALES.items()})
    if f"{name}.rope_theta" in stated:
        return stated.number(f"{name}.rope_theta")
    return config.number(old_field, default=default)
