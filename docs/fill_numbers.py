"""Insert the numbers of docs/results.md from the shipped records and cards; --check tells whether they are there."""

import sys
from pathlib import Path

from sciml_fm_core.models.operator import read_header, shipped_operators
from sciml_fm_core.study.analysis import select, table
from sciml_fm_core.study.records import read_table, shipped_tables

PAGE = Path(__file__).with_name("results.md")
RECORDS = [{"architecture": "fno"} | record for record in read_table(shipped_tables()["laptop"])]


def percent(value: float) -> str:
    """Two significant digits."""
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def origin(records: list[dict], experiments: str) -> str:
    """Where records come from: number, cost, hardware, command."""
    hours = sum(record["total_seconds"] for record in records) / 3600
    first = records[0]
    n, torch = first["test_resolution"], first["versions"]["torch"]
    return (
        f"{len(records)} runs, {hours:.1f} process hours on {first['hardware']}, torch {torch}, seed 0 unless said; "
        f"errors on {first['test']} test examples at {n} x {n}. Made by `sciml-fm study {experiments}--budget laptop`."
    )


def _operator_and_task(record: dict) -> tuple:
    return tuple(record[key] for key in ("parent", "recipe", "size", "pretraining_examples", "task"))


def study() -> str:
    """Error against examples for the medium shifts, and how often fine-tuning harmed."""
    halved = [record for record in RECORDS if record["halve_at"]]
    counts, rows = (0, 8, 64, 512, 2048), []
    for task, parent in (("SYS-1(5,10)", "sys-1"), ("SYS-1(5,10)", "sys-1-paper"), ("SYS-2(1,2)", "sys-2")):
        for start in ("fine-tuned", "from scratch"):
            found = select(halved, task=task, start=start, seed=0, shipped_parent=parent)
            errors = {record["examples"]: record["error"] for record in found}
            rows.append([task, f"`{parent}`", start, *(percent(errors[count]) for count in counts)])
    tuned = select(halved, start="fine-tuned")
    zero = {_operator_and_task(record): record["error"] for record in tuned if not record["examples"]}
    tried = [record for record in tuned if record["examples"]]
    worse = sum(record["error"] > zero[_operator_and_task(record)] for record in tried)
    header = ["task", "operator", "start", *(f"{count:,} examples" for count in counts)]
    harm = f"In {worse} of {len(tried)} records the fine-tuned operator is worse than the untouched one."
    return f"{origin(halved, '')}\n\n{table(header, rows)}\n\n{harm}"


def architectures() -> str:
    """Three networks of about 1M parameters, pre-trained for about equal time."""
    found = [record for record in RECORDS if not record["halve_at"]]
    counts, rows = (0, 8, 64, 512), []
    for name in dict.fromkeys(record["architecture"] for record in found):
        own = select(found, architecture=name)
        errors = [percent(select(own, start="fine-tuned", examples=count)[0]["error"]) for count in counts]
        scratch = percent(select(own, start="from scratch", examples=512)[0]["error"])
        cost = f"{own[0]['pretraining_examples']:,} in {own[0]['pretraining_seconds']:.0f} s"
        rows.append([f"`{name}`", f"{own[0]['parameters']:,}", cost, *errors, scratch])
    tuned = (f"fine-tuned, {count}" for count in counts)
    header = ["network", "parameters", "pre-training examples", *tuned, "from scratch, 512"]
    return f"SYS-1(1,5) to SYS-1(5,10). {origin(found, 'architectures ')}\n\n{table(header, rows)}"


def operators() -> str:
    """What the cards of the shipped operators say."""
    rows = []
    for name, path in shipped_operators().items():
        card = read_header(path)["card"]
        errors = ", ".join(f"{label} {percent(error)}" for label, error in card["errors"].items())
        minutes = f"{card['seconds'] / 60:.0f} min"
        rows.append(
            [f"`{name}`", " + ".join(card["tasks"]), card["recipe"], f"{card['examples_seen']:,}", minutes, errors]
        )
    measured = (
        f"Mean relative errors on {card['errors_measured_on']}; trained on {card['hardware']}, seed {card['seed']}."
    )
    header = ["name", "trained on", "recipe", "examples", "time", "mean relative errors"]
    return f"{measured}\n\n{table(header, rows)}\n\n{last_steps('sys-1')} {last_steps('sys-3')}"


def last_steps(name: str) -> str:
    """What the steps on the finer grid did, on the validation examples of the pre-training."""
    card = read_header(shipped_operators()[name])["card"]
    coarse, fine = card["resolution"].values()
    switch = max(map(float, card["resolution"])) * card["curve"][-1][0]
    before = min(error for step, error in card["curve"] if step <= switch)
    return (
        f"On its validation examples at {fine} x {fine}, `{name}` reached {percent(before)} while it was trained at "
        f"{coarse} x {coarse}, and {percent(card['best_validation_error'])} after its last steps at {fine} x {fine}."
    )


def filled(text: str) -> str:
    """The page with every section made anew."""
    for make in (study, architectures, operators):
        begin, end = f"<!-- {make.__name__} -->", f"<!-- /{make.__name__} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(0 if filled(before) == before else f"{PAGE.name}: not up to date; run python docs/fill_numbers.py")
    PAGE.write_text(filled(before), encoding="utf-8")
