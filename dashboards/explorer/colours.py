"""The colours of both pages, by what they mean: those of predictions are the same in every figure of the studies."""

from __future__ import annotations

from sciml_fm_core.study.colours import MEANING

COLOURS = {
    "pretrained": MEANING["zero-shot"][0],
    "finetuned": MEANING["fine-tuned"][0],
    "scratch": MEANING["from scratch"][0],
    "handle": MEANING["from scratch"][0],
    "unlabelled": "#CC79A7",
    "resonance": "#CC79A7",
    "exact": "#888888",
    "edge": "#88888888",
    "ground": "#7f7f7f1f",
    "chosen": "#005a91",
    "positive": "#b2182b",
    "negative": "#2166ac",
    "warning": "#c04a00",
    "error": "#b3261e",
    "info": MEANING["zero-shot"][0],
    "notice": "#e0301e",
}


def coloured(css: str) -> str:
    """Put the colours into a style sheet, as values: a picture that is saved takes it along.

    >>> coloured(".edge { color: var(--negative) }")
    '.edge { color: #2166ac }'
    """
    for name, value in COLOURS.items():
        css = css.replace(f"var(--{name})", value)
    return css
