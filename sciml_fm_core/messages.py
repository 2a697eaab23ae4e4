"""Messages in one line, whatever names and causes are in them."""

from __future__ import annotations

import errno
import re

from safetensors import SafetensorError

LONGEST_WORD = 200
"""Characters of a name that are shown whole."""
LONGEST_LINE = 4000
_NO_MEMORY = re.compile(
    r"(?i)out of memory|not enough memory|can(not|'t) allocate|unable to allocate|bad_alloc|storage size .* overflow"
)
"""What PyTorch, safetensors and their allocators say."""


def printable(text: object) -> str:
    r"""What a file or a command says, with escapes in place of what ends a line or moves the cursor.

    >>> print(printable("u\n"))
    u\n
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def reason(error: BaseException) -> str:
    """What an error says, on one line and shortened."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def one_line(text: str) -> str:
    r"""A text in one line, `printable`; long names and texts are shortened.

    >>> one_line("two\nlines\x1b[31m")
    'two\\nlines\\x1b[31m'
    """
    half = LONGEST_WORD // 2
    shown = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:half]}...{word[0][-half:]}", printable(text))
    return shown if len(shown) <= LONGEST_LINE else f"{shown[:LONGEST_LINE]}..."


def memory_problem(error: BaseException) -> str | None:
    """Say that memory was lacking, and how much was asked for, where an error or its cause comes from that; else None.

    >>> memory_problem(RuntimeError("can't allocate memory: you tried to allocate 8000000000 bytes"))
    'not enough memory: 8.00 GB more were asked for'
    """
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        by_text = isinstance(cause, RuntimeError | SafetensorError) and _NO_MEMORY.search(text)
        if isinstance(cause, MemoryError) or by_text or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            asked = re.search(r"(?i)allocate ([\d.]+) ?(bytes|[KMGTP]?i?B)\b", text)
            return "not enough memory" + (f": {_size(*asked.groups())} more were asked for" if asked else "")
        cause = cause.__cause__ or cause.__context__
    return None


def _size(number: str, unit: str) -> str:
    if unit != "bytes":
        return f"{number} {unit}"
    return f"{float(number) / 1e9:,.2f} GB" if float(number) >= 1e9 else f"{float(number) / 1e6:.2f} MB"
