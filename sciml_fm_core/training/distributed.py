"""Several processes, one to a GPU or a group of CPU cores, that train one operator together."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(days=1)
"""How long a rank waits for another, which may be measuring or writing; a rank that is lost is noticed at once."""


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as seen from one of them; by default it is the only one, and nothing is sent.

    Attributes:
        rank: number of this process; rank 0 validates, reads and writes, reports and decides when to stop.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def broadcast(self, values: Sequence[float]) -> list[float]:
        """Send rank 0's values to every rank; the others pass as many."""
        if self.world_size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device="cpu")  # so a GPU does not have to wait for it
        distributed.broadcast(shared, src=0)
        return shared.tolist()

    def from_first(self, function: Callable[[], bytes | None]) -> bytes:
        """Call a function on rank 0 alone, and return what it returns on every rank.

        Raises:
            OSError, ValueError: on every rank, where it raises one on rank 0.
        """
        if self.world_size == 1:
            return function() or b""
        error, found, number = None, b"", -1  # that of the system's error, 0 for another, -1 for none
        if self.first:
            try:
                found = function() or b""
            except Exception as raised:  # whatever it is, nobody may wait for what does not come
                error, number = raised, getattr(raised, "errno", None) or 0
                found = str(getattr(raised, "strerror", None) or raised).encode()
        size, number = map(int, self.broadcast([len(found), number]))
        shared = torch.frombuffer(bytearray(found or size), dtype=torch.uint8) if size else torch.empty(0)
        distributed.broadcast(shared, src=0)
        if error is not None:
            raise error
        if number >= 0:
            text = shared.numpy().tobytes().decode()
            raise OSError(number, text) if number else ValueError(text)
        return shared.numpy().tobytes()

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, without gradients."""
        if self.world_size == 1:
            return values
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total / self.world_size

    def share_weights(self, models: Iterable[nn.Module]) -> None:
        """Let every rank have rank 0's weights."""
        if self.world_size > 1:
            for model in models:
                for weight in model.state_dict().values():
                    distributed.broadcast(weight, src=0)

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make gradients their mean over the processes, sent as one vector: a network has many small weights."""
        if self.world_size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:  # another rank's examples may have used it
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        means = self.mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


ALONE = Processes()


@contextmanager
def started_by_torchrun(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started, and the device of this one; alone, on the device given, without torchrun.

    Those whose work is done wait for the others: torchrun takes the end of one for the end of all.

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
            told = f"device: process {local} has no GPU of its own"
            raise ValueError(f"{told}; start at most {gpus}, or use --device cpu")
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    # Imported while there is a group, as optimisers do, its functions keep that as their default: the threads of the
    # group then outlive it, and abort the process when one of them still works as that ends.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    try:
        yield processes, device
        processes.broadcast([0.0])  # from rank 0, which writes what is last
        processes.mean(torch.zeros(1))
    finally:
        distributed.destroy_process_group()
