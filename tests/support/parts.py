"""What the tests of parts of networks share: random parts and the graphs of single parts."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from attendant_export.graphs.builder import WeightFile
from attendant_export.graphs.layers import Layers
from hypothesis import strategies as st
from torch import nn

from tests.support import architectures as some
from tests.support.graphs import open_session, run, unsettle

LENGTHS = np.array([5, 1, 3])
SHAPE = (3, 5)
IS_REAL = np.arange(5) < LENGTHS[:, None]
SEEDS = st.integers(0, 2**16)
WIDTHS = st.sampled_from(some.WIDTHS)

Parameters = dict[str, np.ndarray]


def part_of(kind, seed: int, *arguments):
    """A part with random parameters."""
    torch.manual_seed(seed)
    return unsettle(kind(*arguments))


def run_graph(build: Callable[[Layers], None], parameters: Parameters, **inputs: np.ndarray):
    """The outputs of the graph that ``build`` makes, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with WeightFile(folder / "weights.bin") as weights:
            g = Layers("part", weights, parameters, np.float32)
            build(g)
            graph = g.write(folder / "part.onnx")
        return run(open_session(folder, graph), **inputs)


def named(module: nn.Module, prefix: str) -> Parameters:
    """The parameters of a module, with ``prefix`` before their names."""
    return {f"{prefix}.{name}": value.numpy() for name, value in module.state_dict().items()}


def random_states(seed: int, *shape: int) -> torch.Tensor:
    """Normally distributed values."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def assert_close(found: np.ndarray, expected: torch.Tensor) -> None:
    """Fail unless the values differ by rounding errors only."""
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=2e-5, rtol=2e-5)
