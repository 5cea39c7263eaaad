"""The parameters of the PyTorch model of a bundle, from the weights of its graphs."""

from pathlib import Path

import torch
from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor

from attendant_export.bundle.manifest import BundleError
from attendant_export.bundle.upgrade import read_upgraded
from attendant_export.bundle.weights import read_weights
from attendant_export.graphs.builder import StoredWeights
from attendant_export.graphs.parameters import model_parameters, stored_parameters
from attendant_export.models.embeddings import SOURCE
from attendant_export.runs.models import model_of

REFERENCES = ("fp32", "fp16", "int8")
"""The first of these precisions that a bundle has gives the weights of the PyTorch model."""
TOKEN_TYPES = f"{SOURCE.token_types}.weight"


def read_parameters(folder: Path) -> dict[str, Tensor]:
    """The parameters of a bundle, from the first precision of `REFERENCES` that it has.

    Raises BundleError for a damaged bundle.
    """
    manifest, _ = read_upgraded(folder)
    by_name = {graphs.name: graphs for graphs in manifest.precisions}
    graphs = next(by_name[name] for name in REFERENCES if name in by_name)
    return fitting_parameters(graphs.name, read_weights(folder, graphs), manifest.architecture)


def fitting_parameters(
    precision: str, weights: StoredWeights, architecture: Architecture
) -> dict[str, Tensor]:
    """The fp32 parameters of the model of ``architecture``, by state-dict name.

    Quantized weights are dequantized. Embeddings of token types that a table of positions includes
    are 0. Raises BundleError that lists every missing, unexpected or misshapen weight.
    """
    misfit = f"the {precision} weights do not fit the architecture: "
    try:
        stored, _ = stored_parameters(weights.arrays, architecture)
        found = model_parameters(stored, architecture)
    except ValueError as error:
        raise BundleError(f"{misfit}{error}") from error
    parameters = {name: torch.from_numpy(array).float() for name, array in found.items()}
    wanted = _model_shapes(architecture)
    for name, shape in wanted.items():
        if name not in found and name.endswith(TOKEN_TYPES):
            parameters[name] = torch.zeros(shape)
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    problems = [
        f"{name} is {shapes.get(name, 'missing')}, and the architecture's is {wanted.get(name)}"
        for name in sorted(shapes.keys() | wanted.keys())
        if shapes.get(name) != wanted.get(name)
    ]
    if problems:
        raise BundleError(misfit + "; ".join(problems))
    return parameters


def _model_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        parameters = model_of(architecture).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in parameters.items()}
