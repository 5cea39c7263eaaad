"""Training in several processes that torchrun starts.

Every process knows every batch and trains on its share of the rows, so processes exchange only
gradients and a few numbers. Does not depend on models or tasks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)
"""Timeout for waiting on other processes. The first one tokenizes and validates while they wait."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Rank of this process and number of processes of a training; by default a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process also validates, writes files and prints."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's rows of a batch: every ``size``-th row, for an even mix of lengths."""
        return slice(self.rank, None, self.size)

    def rows(self, whole: Tensor) -> Tensor:
        """The rows `share` of a batch."""
        return whole[self.share]

    def all_rows(self, own: Tensor, num_rows: int) -> Tensor:
        """The rows (num_rows, width) of all processes in the order of the whole batch.

        Gradients flow back only to ``own``, the rows of this process.
        """
        if self.size == 1:
            return own
        whole = own.new_zeros(num_rows, own.shape[1])
        whole[self.rank :: self.size] = own.detach()
        torch.distributed.all_reduce(whole)
        whole[self.rank :: self.size] = own
        return whole

    def summed(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        """``loss`` whose gradients are summed over the processes; its value is ``size`` times it.

        ``loss`` depends on the parameters of ``model``.
        """
        if self.size == 1:
            return loss
        # A static graph detects the parameters that a phase does not use. It rules out no_sync: the
        # gradients of every batch of a step are exchanged.
        return DistributedDataParallel(_SummedLoss(model, loss, self.size), static_graph=True)

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every process, by rank. All processes must pass equally many."""
        own = torch.tensor(values, dtype=torch.float64)
        gathered = [own]
        if self.size > 1:
            gathered = [torch.empty_like(own) for _ in range(self.size)]
            torch.distributed.all_gather(gathered, own)
        return [row.tolist() for row in gathered]

    def of_first(self, value: float) -> float:
        """The value of the first process; the others' values do not matter."""
        return self.gather([value])[0][0]

    def wait(self) -> None:
        """Return when every process has called this."""
        self.gather([0.0])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process, and then in the others."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


SINGLE_PROCESS = ProcessGroup()


class _SummedLoss(nn.Module):
    """A task's loss as a module. Cancels the averaging of DistributedDataParallel."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor], num_ranks: int) -> None:
        super().__init__()
        self.model, self.loss, self.num_ranks = model, loss, num_ranks

    def forward(self, batch: Any) -> Tensor:
        return self.loss(batch) * self.num_ranks


@contextmanager
def join_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the process group that torchrun describes in the environment, or run as one process.

    On CUDA, each process of a machine takes a GPU of its own as the current device. Gradients are
    exchanged by NCCL on CUDA and by Gloo on a CPU; single numbers always by Gloo. Raises ValueError
    for more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        _take_own_gpu()
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield ProcessGroup(torch.distributed.get_rank(), size)
    finally:
        torch.distributed.destroy_process_group()


def _take_own_gpu() -> None:
    rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if rank >= num_gpus:
        raise ValueError(f"process {rank} has no GPU of its own: there are {num_gpus} here")
    torch.cuda.set_device(rank)
