"""The figures and findings of the notebook `convergence`."""

from __future__ import annotations

from statistics import median

from sciml_fm_core.experiments.convergence.method import SHARE
from sciml_fm_core.study.analysis import select, table, verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_lines, panels

CURVES = {"error": "error of the solution", "distance": "distance to its own finest answer", "aliasing": "aliasing"}
TOLD = {"dimensionless": "told the time", "symbol": "conditioned on the symbol"}


def name_of(record):
    """An operator, in words."""
    if record["parent"]:
        return record["parent"]
    points = " and ".join(str(n) for _, n in record["resolution"])
    own = record["architecture"] in ("unet", "vit")
    return (
        f"{record['architecture']} {record['size']}, own grid" if own else f"fno {record['size']}, trained on {points}"
    )


def way(record):
    """How an operator of the heat equation was trained, in words."""
    one = record["shortest"] == record["longest"]
    return f"{TOLD[record['recipe']]}, trained on {'one step' if one else 'a range'}"


def over_seeds(steps: list[dict], curve: str) -> list[dict]:
    """Medians of one curve, a record for each way and step."""
    found = []
    for words in dict.fromkeys(map(way, steps)):
        own = [record for record in steps if way(record) == words]
        for i, number in enumerate(own[0]["numbers"]):
            value = median(record[curve][i] for record in own)
            found.append({"way": words, "number": number, "step": own[0]["whole"] / number, "error": value})
    return found


def parts(records: list[dict]) -> tuple[dict[str, list[dict]], list[dict]]:
    """The records of grids, one for each task and seed, by `name_of` their operator; and those of steps of time."""
    grids = select(records, kind="convergence")
    by_name = {name: [r for r in grids if name_of(r) == name] for name in dict.fromkeys(map(name_of, grids))}
    return by_name, select(records, kind="flow")


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    (grids, steps), drawn = parts(records), []
    for name, own in grids.items():
        points = own[0]["resolutions"]
        values = [
            {"n": n, "curve": words, "error": median(record[curve][i] for record in own)}
            for curve, words in CURVES.items()
            for i, n in enumerate(points)
        ]
        values = [value for value in values if value["error"] > 0]  # the finest answer is at no distance from itself
        ticks = [(n, str(n)) for n in points]
        axis, side = "points in each direction", "relative to the solution"
        drawn.append(error_lines(values, lambda r: r["n"], axis, lambda r: r["curve"], name, ticks=ticks, ylabel=side))
    refined_grids = panels(drawn, 3)
    drawn, ticks = [], sorted({(value["step"], f"{value['step']:g}") for value in over_seeds(steps, "error")})
    for curve, title in (("error", "error"), ("to_table", "distance to a table of one step")):
        values = over_seeds(steps, curve)
        axis, side = "step of time", "relative to the solution"
        drawn.append(
            error_lines(values, lambda r: r["step"], axis, lambda r: r["way"], title, ticks=ticks, ylabel=side)
        )
    return {"refined_grids": refined_grids, "refined_steps": panels(drawn, 2)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    grids, steps = parts(records)

    def shares(name, n):
        """Distance over error on a grid, of each task and seed."""
        pairs = ((record, record["resolutions"].index(n)) for record in grids[name])
        return [record["distance"][i] / record["error"][i] for record, i in pairs]

    sentences, verdicts, rows = [], [], []
    for name, own in grids.items():
        n, coarsest = own[0]["trained_on"], own[0]["resolutions"][0]
        there, below = shares(name, n), shares(name, coarsest)
        passed = sum(record["passes"] for record in own)
        error = f"{median(record['error'][-1] for record in own):.2%}"
        cells = [f"{max(there):.1%}", f"{median(below):.0%}", f"{max(below):.0%}", f"{passed} of {len(own)}"]
        rows.append([name, n, error, *cells])
    header = ["operator", "trained to", "error on the finest", "largest share there"]
    sentences.append(table([*header, f"median share on {coarsest}", f"largest on {coarsest}", "passes"], rows))
    sentences.append(
        "A share is the distance to the operator's own finest answer over its error. On the grid of its training and "
        f"finer ones at most {SHARE:.0%} passes. Rows count each task and each of "
        f"{len({record['seed'] for record in records})} draws of sources (and seeds of training, where there was one)."
    )
    ships = [name for name, own in grids.items() if own[0]["parent"]]
    failing = [name for name in ships if not all(record["passes"] for record in grids[name])]
    verdicts.append(("every operator that ships learned an operator", not failing))
    worst = max(max(shares(name, grids[name][0]["trained_on"])) for name in ships)
    sentences.append(
        f"**Operators that ship.** {len(ships) - len(failing)} of {len(ships)} pass; on the grid where their training "
        f"ended the distance is at most {worst:.1%} of the error. Failing somewhere: {', '.join(failing) or 'none'}."
    )
    coarse = [share for name in ships for share in shares(name, coarsest)]
    sentences.append(
        f"On {coarsest} x {coarsest} points, where their training began and the last of their modes is at the Nyquist "
        f"wavenumber, the distance is {min(coarse):.0%} to {max(coarse):.0%} of the error (median "
        f"{median(coarse):.0%})."
    )
    alone = [name for name in grids if name.endswith(f"trained on {coarsest}")]
    for name in alone:
        own, found = grids[name], shares(name, coarsest)
        passed = sum(record["passes"] for record in own)
        change = median(record["error"][-1] / record["error"][0] for record in own)
        sentences.append(
            f"**{name}, and never on a finer grid.** The distance on its own grid is {min(found):.1%} to "
            f"{max(found):.1%} of the error; {passed} of {len(own)} pass. On {own[0]['resolutions'][-1]} points its "
            f"error is {change:.2f} times that on {coarsest}."
        )
    verdicts.append((f"on {coarsest} points their answers depend on the grid", median(coarse) > SHARE))
    if alone:
        own = [record for name in alone for record in grids[name]]
        passed = [record for record in own if record["passes"]]
        verdicts.append(
            (f"FNOs that were trained on {coarsest} points alone, for minutes, pass", len(passed) == len(own))
        )
        task = own[0]["task"]
        shipped = [record for name in ships for record in select(grids[name], task=task)]
        aliased, errors = (
            [median(record[curve][i] for record in part) for part in (shipped, own)]
            for curve, i in (("aliasing", 0), ("error", -1))
        )
        sentences.append(
            f"On {task}, aliasing on {coarsest} points is {aliased[0]:.3%} of the solution in the operators that "
            f"ship and {aliased[1]:.3%} in these, the error {errors[0]:.2%} and {errors[1]:.2%} (medians)."
        )
    by_construction = [name for name in grids if name.endswith("own grid")]
    if all(record["passes"] for name in by_construction for record in grids[name]):
        sentences.append(
            f"**{' and '.join(by_construction)}** pass by construction, with errors of "
            + " and ".join(f"{grids[name][0]['error'][-1]:.1%}" for name in by_construction)
            + ": the criterion asks whether the grid matters, and not whether the answer is right. What aliasing they "
            f"show on {coarsest} points is in waves at the Nyquist wavenumber of their own grid, lost on any other."
        )
    errors, to_table = over_seeds(steps, "error"), over_seeds(steps, "to_table")
    rows, tables, flows = [], [], []
    for words in dict.fromkeys(map(way, steps)):
        own = [value for value in errors if value["way"] == words]
        table_of = {value["number"]: value["error"] for value in to_table if value["way"] == words}
        one = steps[0]
        asked = [value for value in own if abs(value["number"] * one["table_step"] - one["whole"]) > 1e-9]
        nearer = [value["error"] < table_of[value["number"]] for value in asked]
        if not any(nearer):
            tables.append(words)
        if all(nearer):
            flows.append(words)
        rows.append([words, *(f"{value['error']:.1%}" for value in own), f"{sum(nearer)} of {len(nearer)}"])
    header = ["heat equation", *(f"{value['number']} steps of {value['step']:g}" for value in own)]
    sentences.append(table([*header, "nearer to the solution than to a table"], rows))
    sentences.append(
        f"**Steps of time.** A flow, for every other step than that of the table: {'; '.join(flows) or 'none'}. "
        f"A table of one step: {'; '.join(tables) or 'none'}."
    )
    one_step = {recipe: f"{told}, trained on one step" for recipe, told in TOLD.items()}
    verdicts.append(("told the time and trained on one step, it is a table", one_step["dimensionless"] in tables))
    verdicts.append(("conditioned on the symbol and trained on one step, it is a flow", one_step["symbol"] in flows))
    growth = {words: [v["error"] for v in errors if v["way"] == words] for words in flows}
    if growth:
        sentences.append(
            "No flow is exact: errors of single steps add up. From the best to the smallest step the error grows "
            + ", ".join(f"{found[-1] / min(found):.0f} times ({words})" for words, found in growth.items())
            + ", where a numerical method would converge."
        )
    sentences += verdict_sentences(verdicts, of="the claim")
    return sentences
