"""The command line of the ablations: which variants, how long, and what the results file holds already."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch


def variants_parser(doc: str, variants: Mapping, results: Path) -> argparse.ArgumentParser:
    """The options that every ablation has; a script may add its own."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--only", default=",".join(variants), help="names of variants, separated by commas")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--count", type=int, default=128, help="test examples of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=results)
    return parser


def begin(parser: argparse.ArgumentParser, variants: Mapping) -> tuple[argparse.Namespace, list[str], dict]:
    """Arguments, the variants asked for, and what their file holds already; on one thread from here on."""
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in variants]:
        parser.error(f"expected variants among {', '.join(variants)}, got {', '.join(unknown)}")
    torch.set_num_threads(1)
    results = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
    return arguments, names, results
