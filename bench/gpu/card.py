"""What the card itself can do: the fastest products and copies of PyTorch."""

import time
from collections.abc import Callable
from typing import Any

from bench.gpu.trial import Figures, Trial, rounded

NUM_TIMES = 20
"""How often a product or a copy is timed. The fastest counts."""


def card_limits(trial: Trial) -> Figures:
    """Operations per second of an fp16 product, and bytes per second of a copy within the card."""
    import torch

    device, size, num_bytes = trial.device, trial.pick(8192, 128), trial.pick(2**30, 2**16)
    a = torch.randn(size, size, device=device).half()
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "name": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "fp16_matmul_flop_per_second": _best(device, lambda: a @ a, 2 * size**3),
        # A copy reads and writes each byte.
        "copied_bytes_per_second": _best(device, lambda: target.copy_(source), 2 * num_bytes),
    }


def _best(device: str, work: Callable[[], Any], amount: float) -> float:
    import torch

    highest = 0.0
    for _ in range(NUM_TIMES):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        highest = max(highest, amount / (time.perf_counter() - started))
    return rounded(highest)
