"""What a notebook shows of a study: its progress, what the records are, paragraphs. Needs IPython."""

from __future__ import annotations

from IPython.display import Markdown, display

from sciml_fm_core.files import results_folder

from .engine import GridProgress
from .figures import Drawing, export
from .records import write_table
from .registry import results


def show(*paragraphs: str) -> None:
    """Display paragraphs of Markdown."""
    display(Markdown("\n\n".join(paragraphs)))


def show_answer(*paragraphs: str) -> None:
    """Display paragraphs of Markdown that the reader opens by a click."""
    show("<details><summary><b>Answer</b></summary>", *paragraphs, "</details>")


def status_line():
    """Display a line of Markdown; returns a function that replaces its text."""
    shown = display(Markdown("starting"), display_id=True)
    return lambda text: shown.update(Markdown(text))


def run_experiment(experiment: str, budget: str, **options) -> list[dict]:
    """Compute or read the records of an experiment, as `registry.results`, and display the progress in one line.

    Raises:
        ValueError: on an unknown experiment or budget.
    """
    update = status_line()

    def follow(progress: GridProgress) -> None:
        left = progress.seconds_left
        update(
            f"{progress.done} of {progress.total} runs" + ("" if left is None else f", about {left / 60:.0f} min left")
        )

    options["folder"] = results_folder(options.get("folder", "runs/study"))
    options["folder"].parent.mkdir(parents=True, exist_ok=True)
    records = results(experiment, budget, callback=follow, **options)
    first, hardware = records[0], sorted({record["hardware"] for record in records})
    minutes = sum(record["total_seconds"] for record in records) / 60
    tested = ""
    if "test" in first and "test_resolution" in first:
        n = first["test_resolution"]
        tested = f" Errors on {first['test']} test examples at {n} x {n}."
    update(
        f"**{len(records)} points**, budget {budget}, {minutes:.0f} process minutes on {'; '.join(hardware)}.{tested} "
        f"Versions {first['versions']}."
    )
    return records


def save_outputs(records: list[dict], figures: dict[str, Drawing], output: str) -> None:
    """Write the figures as PNG and SVG and the records as a table, and list the files."""
    folder = results_folder(output)
    paths = [*export(figures, folder), write_table(records, folder / "records.csv")]
    print(*[path.name for path in paths], sep="\n")


leave = save_outputs  # its former name
