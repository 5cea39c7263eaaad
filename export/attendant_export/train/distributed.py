"""The processes of one training, started by torchrun: who does what, and what they agree on.

Every process builds every batch and takes its rows of it, so that nothing but gradients and a few
numbers travels. Knows neither models nor tasks.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one validates and tokenizes alone."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process also validates, writes files and prints."""
        return self.rank == 0

    def rows(self, whole: Tensor) -> Tensor:
        """This process's rows of a batch: as similar in length to the others' as can be."""
        return whole[self.rank :: self.size]

    def all_rows(self, own: Tensor, num_rows: int) -> Tensor:
        """The rows of all processes (num_rows, width) in the order of the whole batch.

        Gradients flow back to this process's ``own`` rows only.
        """
        if self.size == 1:
            return own
        whole = own.new_zeros(num_rows, own.shape[1])
        whole[self.rank :: self.size] = own.detach()
        torch.distributed.all_reduce(whole)
        whole[self.rank :: self.size] = own
        return whole

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every process, which all give as many; in the order of the processes."""
        own = torch.tensor(values, dtype=torch.float64)
        gathered = [own]
        if self.size > 1:
            gathered = [torch.empty_like(own) for _ in range(self.size)]
            torch.distributed.all_gather(gathered, own)
        return [row.tolist() for row in gathered]

    def wait(self) -> None:
        """Return when every process has come here."""
        self.gather([0.0])


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """The processes of this training: what torchrun says in the environment, or this process alone.

    On CUDA each process of a machine has a GPU of its own, the current one from here on. Gradients
    travel by nccl there and by gloo on a CPU; a few numbers by gloo always. Raises ValueError for
    more processes than GPUs.
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
