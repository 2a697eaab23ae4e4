"""Several ranks, one to a GPU or a group of CPU cores, that train one operator together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from sciml_fm_core.models.base import Model, apply_together


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as seen from one of them; by default it is the only one, and nothing is sent.

    Attributes:
        rank: number of this process; rank 0 validates, writes, reports and decides when to stop.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def broadcast(self, values: Sequence[float]) -> list[float]:
        """Rank 0's values, on every rank; the others pass as many."""
        if self.world_size == 1:
            return list(values)
        shared = torch.tensor(
            values, dtype=torch.float64, device="cpu"
        )  # on the CPU: a GPU does not have to wait for it
        distributed.broadcast(shared, src=0)
        return shared.tolist()

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, without gradients."""
        if self.world_size == 1:
            return values
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total / self.world_size

    def applied(self, models: Sequence[Model]) -> Callable[..., Tensor]:
        """`apply_together`; among several processes, such that the gradients of the models become their mean."""
        return apply_together if self.world_size == 1 else nn.parallel.DistributedDataParallel(_Applied(models))


ALONE = Processes()


class _Applied(nn.Module):
    """`apply_together` as a module, since DistributedDataParallel asks for one: its parameters and its forward."""

    def __init__(self, models: Sequence[Model]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, *arguments) -> Tensor:
        """`apply_together` of the same arguments."""
        return apply_together(*arguments)


@contextmanager
def started_by_torchrun(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started, and the device of this one; alone, on the device given, without torchrun.

    Raises:
        ValueError: if there are more processes than GPUs.
    """
    if "LOCAL_RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Processes(), device
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"device: process {local} has no GPU of its own; start at most {gpus}, or use --device cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
