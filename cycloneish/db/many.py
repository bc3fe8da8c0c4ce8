"""Many rows with few statements: what ``execute_many`` sends.

psycopg2's asynchronous mode has no ``executemany``.  An INSERT gets the rows of a batch behind one VALUES;
other statements are sent several in one message.  The driver binds every row's values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["batches_of", "split_values"]

#: Bytes at which a batch is sent though it has room for more rows.
_LONGEST = 1_000_000

_TOKEN = re.compile(
    r"""
    (?P<skip> \be'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
            | --[^\n]* | /\*.*?\*/ | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
  | (?P<values> \bvalues\b )
  | (?P<open> \( ) | (?P<close> \) )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"%(?:%|s|\(\w+\)s)")


def split_values(sql: str) -> tuple[str, str, str] | None:
    """An INSERT as (before, the group behind VALUES, after), where all placeholders are in that group.

    None for every other statement, and for one with several groups.
    """
    if not re.match(r"\s*(insert|with)\b", sql, re.IGNORECASE):
        return None
    depth = 0
    seen = False
    start = -1
    for token in _TOKEN.finditer(sql):
        if token["values"] and depth == 0:
            seen = True
        elif token["open"]:
            if seen and depth == 0 and start < 0:
                start = token.start()
            depth += 1
        elif token["close"]:
            depth -= 1
            if depth == 0 and start >= 0:
                before, group, after = sql[:start], sql[start : token.end()], sql[token.end() :]
                outside = [found[0] for found in _PLACEHOLDER.finditer(before + after)]
                if after.lstrip().startswith(",") or any(found != "%%" for found in outside):
                    return None
                return before.replace("%%", "%"), group, after.replace("%%", "%")
    return None


def batches_of(
    sql: str,
    rows: Iterable[Sequence[Any] | Mapping[str, Any]],
    size: int,
    bind: Callable[[str, Any], bytes],
) -> Iterator[bytes]:
    """The messages to send for *rows*, each with at most *size* of them.

    :param bind: puts the values of a row into a text with placeholders.
    """
    parts = split_values(sql)
    statement = sql.rstrip().rstrip(";") if parts is None else parts[1]
    before, after = (b"", b"") if parts is None else (parts[0].encode(), parts[2].encode())
    # The line end is for a statement that ends in a comment.
    separator = b"\n;" if parts is None else b","
    batch: list[bytes] = []
    length = 0
    for row in rows:
        bound = bind(statement, row)
        batch.append(bound)
        length += len(bound)
        if len(batch) >= size or length >= _LONGEST:
            yield before + separator.join(batch) + after
            batch, length = [], 0
    if batch:
        yield before + separator.join(batch) + after
