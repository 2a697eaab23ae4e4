"""Operators as folders of the Hugging Face Hub: a bundle, and a card that says what it was trained on and how well.

Needs the extra ``hub``. A name that is no folder is asked for at the Hub. Nothing is ever unpickled.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from .operator import Operator, load_operator

FILE = "operator.safetensors"
_DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")

_CARD = """---
license: mit
library_name: sciml-fm
tags: [neural-operator, partial-differential-equations, scientific-machine-learning]
---

# {title}

A neural operator that {what}, in physical units:
`sciml_fm_core.models.hub.from_pretrained("this folder or name").predict(source, coefficients)`

- Data: {seen} examples of {tasks}; recipe {recipe}, architecture {architecture}.
- Command: `{command}`

| task | relative error | |
|---|---|---|
{errors}

Errors are means of the relative L2 error over test examples. Beyond these ranges compare with solutions.

MIT licence. To cite: Subramanian et al., arXiv:2306.00258, and sciml-fm, as its CITATION.cff says.
"""


def model_card(operator: Operator) -> str:
    """What README.md of its folder says; of given fields, no equation and no task."""
    card, trained, (first, *_) = operator.card, operator.tasks, operator.systems
    equations = ", ".join(f"${system.equation}$" for system in operator.systems)
    rows = [
        f"| {label} | {error:.2%} | {'in range' if label in trained or not first.is_known else 'out of range'} |"
        for label, error in (card.get("errors") or {}).items()
    ]
    return _CARD.format(
        title=" and ".join(system.title or system.name for system in operator.systems),
        what=f"solves {equations} on the periodic unit square" if first.is_known else f"takes {first.name}",
        seen=card.get("examples_seen") or "an unknown number of",
        tasks=f"{', '.join(trained) or 'unknown tasks'}, made by the solvers of sciml-fm"
        if first.is_known
        else "given fields",
        errors="\n".join(rows) or "| none measured | | |",
        **{key: card.get(key) or "unknown" for key in ("recipe", "architecture", "command")},
    )


@cache
def _hub_class() -> Any:
    try:
        from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
    except ImportError:
        raise ValueError("hub: expected the package huggingface_hub; pip install 'sciml-fm[hub]'") from None

    class HubOperator(ModelHubMixin):
        def __init__(self, operator: Operator):
            self.operator = operator

        def _save_pretrained(self, save_directory: Path) -> None:
            self.operator.save(save_directory / FILE)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **options: Any):
            used = {key: options[key] for key in _DOWNLOAD if key in options}
            own = Path(model_id) / FILE
            return cls(load_operator(own if own.parent.is_dir() else Path(hf_hub_download(model_id, FILE, **used))))

        def generate_model_card(self, *_: Any, **__: Any):
            return ModelCard(model_card(self.operator))

    return HubOperator


def save_pretrained(operator: Operator, folder: str | Path, **options: Any) -> None:
    """Write a folder with bundle and model card; options are those of the mixin's method, such as ``push_to_hub``."""
    _hub_class()(operator).save_pretrained(folder, **options)


def from_pretrained(name_or_folder: str | Path, **options: Any) -> Operator:
    """The operator of a folder, or of a name at the Hub; options are those of the mixin's method."""
    return _hub_class().from_pretrained(str(name_or_folder), **options).operator
