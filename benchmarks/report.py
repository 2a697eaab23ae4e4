"""Tables and the plot, from the JSON that `run` writes: ``python benchmarks/report.py benchmarks/results/cpu.json``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
PEERS = ("neuraloperator", "released")

TITLES = {
    "limits": "Limits of the device (float32)",
    "generation": "Generating and solving examples",
    "training": "Training steps: forward, loss, backward, Adam",
    "inference": "Inference",
    "memory": "Peak memory of training steps",
    "few-shot": "Fine-tuning on few examples: a grid of learning rates against one",
    "few-shot curve": "Fine-tuning on few examples: error after some seconds",
    "data": "Examples for training: fresh, from memory or a file; and written to a file",
    "equal time": "Pre-training: error after equal time",
}
CASES = {
    "generation": ("task", "resolution"),
    "training": ("size", "resolution", "batch"),
    "inference": ("size", "resolution", "batch"),
    "memory": ("size", "resolution", "batch"),
    "few-shot": ("task", "examples", "steps"),
    "few-shot curve": ("task", "examples", "seconds"),
    "data": ("task", "resolution"),
    "equal time": ("task", "size", "time_limit"),
}
"""What tells the comparisons of a section apart."""

COLORS = {"ours": "#0072B2", "ours, gated": "#56B4E9", "ours, compiled": "#009E73"}
COLORS |= {
    "ours, plain": "#CC79A7",
    "ours, bfloat16": "#F0E442",
    "ours, one at a time": "#56B4E9",
    "neuraloperator": "#E69F00",
    "released": "#999999",
}


def sections(rows: list[dict]) -> dict[str, dict[tuple, list[dict]]]:
    """Measurements by section and case, in the order of measurement."""
    groups: dict[str, dict[tuple, list[dict]]] = {}
    for row in rows:
        case = tuple(row.get(name) for name in CASES.get(row["section"], ()))
        groups.setdefault(row["section"], {}).setdefault(case, []).append(row)
    return groups


def ratios(row: dict, group: list[dict]) -> dict[str, float]:
    """How many times better than each peer of its group a measurement of ours is; ``best peer`` is the harder one."""
    if row["candidate"] in PEERS or row["unit"] not in ("examples/s", "MB"):
        return {}
    higher = row["unit"] == "examples/s"
    peers = {other["candidate"]: other["value"] for other in group if other["candidate"] in PEERS}
    found = {name: row["value"] / value if higher else value / row["value"] for name, value in peers.items()}
    return found | {"best peer": min(found.values())} if found else {}


def table(section: str, groups: dict[tuple, list[dict]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a section, as text."""
    rows = [row for group in groups.values() for row in group]
    compared = [*PEERS, "best peer"] if any(ratios(row, group) for group in groups.values() for row in group) else []
    header = [*(name.replace("_", " ") for name in CASES.get(section, ())), "what", "value", "spread"]
    header += [f"times {name}" for name in compared]
    extra = [
        name
        for name in (
            "parameters",
            "share_of_matrix_rate",
            "share_of_bandwidth",
            "share_of_step",
            "examples_seen",
            "times_one_rate",
            "error",
        )
        if any(name in row for row in rows)
    ]
    header += [name.replace("_", " ") for name in extra]
    lines = []
    for case, group in groups.items():
        for row in group:
            times = ratios(row, group)
            line = [*(_text(value) for value in case), row["candidate"], _value(row)]
            line.append(f"{row['spread']:.0%}" if "spread" in row else "")
            line += [f"{times[name]:.2f}" if name in times else "" for name in compared]
            lines.append(line + [_extra(name, row) for name in extra])
    return header, lines


def _text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _value(row: dict) -> str:
    if row["unit"] == "error":
        return f"{row['value']:.2%}"
    unit = row["unit"].replace("examples/s", "/s")
    return f"{row['value']:.3g} {unit}" if row["value"] < 1000 else f"{row['value']:,.0f} {unit}"


def _extra(name: str, row: dict) -> str:
    if name not in row:
        return ""
    if name.startswith("share"):
        return f"{row[name]:.0%}"
    if name == "times_one_rate":
        return f"{row[name]:.2f}"
    return f"{row[name]:.2%}" if name == "error" else f"{row[name]:,}"


def conditions(result: dict) -> str:
    """On what and when it was measured, in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['hardware']}; {result['platform']}; {versions}; {result['date']}; seed {result['seed']}; "
        f"`{result['command']}`, {result['seconds']:.0f} s."
    )


def markdown(result: dict, plot: str | None = None) -> str:
    """All tables as Markdown."""
    parts = [conditions(result)]
    if plot:
        parts.append(f"![Examples per second, ours and its peers]({plot})")
    for section, groups in sections(result["measurements"]).items():
        header, lines = table(section, groups)
        parts.append(f"### {TITLES[section]}")
        rows = [header, ["---"] * len(header), *lines]
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    if result["skipped"]:
        parts.append("Not measured:\n\n" + "\n".join(f"- {line}" for line in result["skipped"]))
    return "\n\n".join(parts)


def write_readme(result: dict, plot: str | None, path: Path = FOLDER / "README.md") -> None:
    """Put the tables between the markers of the README.

    Raises:
        ValueError: if the markers are missing.
    """
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path}: expected the markers {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{markdown(result, plot)}\n\n{END}{after}", encoding="utf-8")


def write_plot(result: dict, path: Path) -> bool:
    """Draw the throughputs as bars, with the ratio of ours to the better peer above; False where there are none."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(_panels(result))
    if not panels:
        return False
    widths = [len(groups) for _, groups in panels]
    figure, all_axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(2.5 + 1.25 * sum(widths), 4.6),
        width_ratios=widths,
        layout="constrained",
        squeeze=False,
    )
    handles: dict[str, object] = {}
    for axes, (title, groups) in zip(all_axes[0], panels, strict=True):
        _bars(axes, title, groups, handles)
    all_axes[0][0].set_ylabel("examples per second")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(f"{result['hardware']}, float32; above ours: times the better peer", fontsize=10)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True


def _panels(result: dict) -> Iterator[tuple[str, dict[str, list[dict]]]]:
    """Title and bars by label of each panel: the sections that measure rates, on the finest grid."""
    by_section = sections(result["measurements"])
    finest = max((row.get("resolution", 0) for row in result["measurements"]), default=0)
    for section, title in (("generation", "generation"), ("training", "training step"), ("inference", "inference")):
        groups = {case: group for case, group in by_section.get(section, {}).items() if case[1] == finest}
        if section == "inference" and groups:  # one example is a latency: the table has it
            groups = {case: group for case, group in groups.items() if case[2] > 1}
        if groups:
            names = [str(case[0]) for case in groups]
            labels = [
                f"{name}\nbatch {case[2]}" if names.count(name) > 1 else name
                for name, case in zip(names, groups, strict=True)
            ]
            yield f"{title}, {finest} x {finest}", dict(zip(labels, groups.values(), strict=True))


def _bars(axes, title: str, groups: dict[str, list[dict]], handles: dict) -> None:
    names = list(dict.fromkeys(row["candidate"] for group in groups.values() for row in group))
    width = 0.84 / len(names)
    for position, group in enumerate(groups.values()):
        for row in group:
            x = position + (names.index(row["candidate"]) - (len(names) - 1) / 2) * width
            bar = axes.bar(x, row["value"], width * 0.94, color=COLORS.get(row["candidate"], "#444444"))
            handles.setdefault(row["candidate"], bar[0])
            better = ratios(row, group).get("best peer")
            if better is not None and row["candidate"] == "ours":  # more would not be readable
                text = f"{better:.0f}x" if better >= 20 else f"{better:.1f}x"
                axes.annotate(text, (x, row["value"]), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def main(arguments: list[str] | None = None) -> None:
    """Write the tables into the README and the plot beside the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="JSON written by run.py")
    parser.add_argument("--readme", type=Path, default=FOLDER / "README.md", help="file with the markers")
    options = parser.parse_args(arguments)
    result = json.loads(options.result.read_text(encoding="utf-8"))
    picture = options.result.with_suffix(".png")
    drawn = write_plot(result, picture)
    readme = options.readme.resolve()
    shown = picture.resolve()
    relative = shown.relative_to(readme.parent) if shown.is_relative_to(readme.parent) else shown.name
    write_readme(result, str(relative) if drawn else None, readme)
    print(f"{options.readme.name} and {picture.name} written")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
