"""Peak memory of training steps of one network, measured in a process of its own, printed as JSON.

Run by `measures.memory`; by hand: ``python benchmarks/memory.py ours 1M 64 16``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.networks import build, parameters, random_batch, training_step


def peak_resident() -> int:
    """Largest resident set of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # not ru_maxrss there: a child starts with that of its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(candidate: str, size: str, n: str, batch: str, released: str = "", steps: str = "2") -> None:
    """Print the peak before the network exists, and after some training steps."""
    device, folder = torch.device("cpu"), Path(released) if released else None
    build(candidate, "64K", device, released=folder)  # imports what the candidate needs
    before = peak_resident()
    model = build(candidate, size, device, released=folder)
    arguments, solution = random_batch(candidate, int(batch), int(n), device)
    step = training_step(model, arguments, solution)
    for _ in range(int(steps)):
        step()
    print(json.dumps({"before": before, "peak": peak_resident(), "parameters": parameters(model)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
