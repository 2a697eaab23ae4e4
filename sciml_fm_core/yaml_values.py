"""YAML as it is meant: values that readers take for different things are refused, with their line and a way out."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import yaml

from . import schema
from .messages import reason

_NUMBER = re.compile(r"(?i)[-+]?(0o?\d+|\d[\d_]*(\.[\d_]*)?(e[-+]?\d+)?|\.\d[\d_]*(e[-+]?\d+)?)")
"""What looks like a number; in YAML some of these are texts, and some are octal."""
_SURELY_NUMBER = re.compile(r"(?i)[-+]?((0|[1-9]\d*)(\.\d*(e[-+]\d+)?)?|\.\d+(e[-+]\d+)?|\.inf)|\.nan")
"""Numbers of which all readers make the same."""
MOST_MERGED = 1000
"""Keys of a mapping, with those that it merges."""


class _Loader(yaml.SafeLoader):
    """Loader of plain values: a key stands once, and an unquoted value that readers differ about becomes a text."""

    unsure: list[str]

    def compose_node(self, parent, index):
        event = self.peek_event()
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            problem = _problem(node.value, node.tag.rpartition(":")[2])
            if node.value.count("(") != node.value.count(")"):
                problem = f"{reprlib.repr(node.value)} lacks a parenthesis; quote a text with commas: 'SYS-1(5,10)'"
                if parent is not None and parent.flow_style:  # there a comma has cut it
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
            if problem:
                self.unsure.append(f"line {node.start_mark.line + 1}: {problem}")
                node.tag = self.DEFAULT_SCALAR_TAG
        return node

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        if len(node.value) > MOST_MERGED:  # merges of merges multiply
            about = f"expected at most {MOST_MERGED} merged keys, got more; write them out"
            raise yaml.MarkedYAMLError(problem=about, problem_mark=node.start_mark)

    def construct_mapping(self, node, deep=False):
        seen: dict[Any, yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                lines = f"lines {seen[name].start_mark.line + 1} and {key.start_mark.line + 1}"
                about = f"the key {reprlib.repr(key.value)} is there twice ({lines}); keep one"
                raise yaml.MarkedYAMLError(problem=about, problem_mark=key.start_mark)
            if name is not None:
                seen[name] = key
        return super().construct_mapping(node, deep)


def _problem(text: str, kind: str) -> str | None:
    """Say what else an unquoted scalar of a kind may be taken for; None where all readers agree."""
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f"{text} may be a text or true or false; write '{text}', or true or false"
    if kind == "timestamp" or re.fullmatch(r"[-+]?\d+(:\d+)+(\.\d*)?", text):
        return f"{text} may be a date or a time; quote the text: '{text}'"
    if (kind in ("int", "float") or _NUMBER.fullmatch(text)) and not _SURELY_NUMBER.fullmatch(text):
        return f"{text} may be a text or another number; write a number such as 8 or 1.0e-3, or quote it: '{text}'"
    return "None is a text in YAML; write null, or 'None'" if text == "None" else None


def parse_yaml(text: str, where: str, unsure: list[str] | None = None) -> Any:
    """Values of a YAML text, within the limits of `schema`.

    >>> parse_yaml("task: SYS-1(5,10)", "own.yaml")
    {'task': 'SYS-1(5,10)'}
    >>> parse_yaml("tasks: [SYS-1(5,10)]", "own.yaml")
    Traceback (most recent call last):
    ValueError: own.yaml, line 1: 'SYS-1(5' lacks a parenthesis; quote a text with commas: 'SYS-1(5,10)'

    Args:
        text: the YAML.
        where: the file and the kind: errors begin with them.
        unsure: what readers differ about, such as ``yes``, ``08`` or a date without quotes, is added to it and taken
            for text; where None, it is refused.

    Raises:
        ValueError: if it is no YAML, exceeds a limit, has a key twice, or an unquoted value that readers differ about.
    """
    try:
        loader = _Loader(text)
        loader.unsure = found = [] if unsure is None else unsure
        values = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        about = str(error.problem or error.context).replace("'\\t'", "a tab (write spaces)")
        raise ValueError(f"{where}{line}: {' '.join(about.split())[:300]}") from error
    except Exception as error:  # the parser lets others out too, such as KeyError and RecursionError
        raise ValueError(f"{where}: not readable as YAML: {reason(error)}") from error
    schema.check_limits(values, where)  # aliases make much of little
    if unsure is None and found:
        raise ValueError(f"{where}, {found[0]}")
    return values
