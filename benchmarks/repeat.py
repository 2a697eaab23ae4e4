"""Whether the choice of learning rates in the shipped records is fair: random points run again, every rate by itself.

    python benchmarks/repeat.py                       # ten points of the laptop records, about half an hour on one core
    python benchmarks/repeat.py --points 1 --most 8   # a minute; only points of up to 8 examples

Each rate of the grid is trained alone and to its end, and measured on the test examples: what was chosen on validation
is then compared with the best of all. What `--folder` holds already is not run again. `docs/fill_numbers.py` puts the
table into docs/results.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from sciml_fm_core.files import write_json
from sciml_fm_core.study.records import read_table, shipped_tables
from sciml_fm_core.study.registry import REGISTRY
from sciml_fm_core.study.runs import identity, run_study

RESULTS = Path(__file__).resolve().parent / "results" / "repeat.json"


def chosen_points(points: int, most: int, seed: int) -> list[tuple]:
    """Random shipped records with their runs; of those whose parent ships too, and that had several rates to choose."""
    runs = {identity(run): run for each in REGISTRY.values() if not each.table for run in each.runs("laptop")}
    records = {record["identity"]: record for record in read_table(shipped_tables()["laptop"])}
    found = [
        (run, records[name])
        for name, run in sorted(runs.items())
        if name in records and isinstance(run.parent, str) and 0 < run.examples <= most
    ]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return [found[i] for i in order[:points]]


def main() -> None:
    """Run the points again, and write what each rate gives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--most", type=int, default=2048, help="most examples of a point")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of points")
    parser.add_argument("--folder", type=Path, default=Path("runs/repeat"))
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for run, recorded in chosen_points(arguments.points, arguments.most, arguments.seed):
        alone = run_study([replace(run, learning_rates=(rate,)) for rate in run.learning_rates], arguments.folder)
        tested = {f"{record['learning_rate']:g}": record["error"] for record in alone}
        chosen = f"{recorded['learning_rate']:g}"
        rows.append(
            {
                **{key: recorded[key] for key in ("identity", "task", "recipe", "start", "examples", "seed")},
                "symmetries": bool(recorded.get("symmetries")),
                "steps": recorded["steps"],
                "chosen": chosen,
                "recorded": recorded["error"],
                "repeated": tested[chosen],
                "tested": tested,
                "hardware": alone[0]["hardware"],
                "torch": alone[0]["versions"]["torch"],
            }
        )
        beaten = tested[chosen] / min(tested.values()) - 1
        print(f"{run.task} {run.start} {run.examples}: {chosen} recorded {recorded['error']:.3%}, again "
              f"{tested[chosen]:.3%}, beaten by {beaten:.1%} on test", flush=True)  # fmt: skip
        write_json(arguments.json, {"seed": arguments.seed, "points": rows})


if __name__ == "__main__":
    main()
