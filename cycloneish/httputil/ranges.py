"""The ``Range`` and ``Content-Range`` headers (RFC 9110 section 14), for static files.

Only ASCII digits count as digits, and the work is bounded by the number of ranges.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_range_set"]

# 30 digits are beyond every file; int() of thousands of digits is slow, and refused by Python above 4300.
_DIGITS: Final = re.compile(r"[0-9]{1,30}")
_RANGE_SPEC: Final = re.compile(r"[ \t]*([0-9]{0,30})-([0-9]{0,30})[ \t]*")


def _int_or_none(text: str) -> int | None:
    text = text.strip(" \t")
    if not text:
        return None
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"not a decimal number: {text[:40]!r}")
    return int(text)


def _parse_request_range(range_header: str) -> tuple[int | None, int | None] | None:
    """Parse a ``Range`` header that has one range, as indexes for a Python slice.

    >>> _parse_request_range("bytes=1-2"), _parse_request_range("bytes=6-"), _parse_request_range("bytes=-6")
    ((1, 3), (6, None), (-6, None))
    >>> _parse_request_range("bytes=-0"), _parse_request_range("bytes=")
    ((None, 0), (None, None))
    >>> _parse_request_range("foo=42") is _parse_request_range("bytes=1-2,6-10") is None
    True

    :returns: ``(start, end)``, or ``None`` for another unit, several ranges or nonsense; the header is then
        ignored.
    """
    unit, _, spec = range_header.partition("=")
    if unit.strip(" \t") != "bytes":
        return None
    first, _, last = spec.partition("-")
    try:
        start = _int_or_none(first)
        end = _int_or_none(last)
    except ValueError:
        return None
    if end is not None:
        if start is not None:
            return start, end + 1
        if end:
            return -end, None
    return start, end


def parse_range_set(range_header: str, size: int, max_ranges: int = 100) -> list[tuple[int, int]] | None:
    """Parse a ``Range`` header with any number of ranges against a file of *size* bytes.

    Ranges that overlap or touch are joined, so that a client cannot have the file sent many times over
    (RFC 9110 section 14.2 allows that); the order of the request is otherwise kept.

    >>> parse_range_set("bytes=0-9, 5-19, -5", 100)
    [(0, 20), (95, 100)]
    >>> parse_range_set("bytes=200-", 100)
    []

    :returns: pairs of start and end (exclusive); an empty list when no range can be satisfied (answer 416);
        ``None`` when the header is to be ignored: another unit, malformed, or more than *max_ranges*.
    """
    unit, equals, spec = range_header.partition("=")
    if not equals or unit.strip(" \t") != "bytes" or spec.count(",") >= max_ranges:
        return None
    found: list[tuple[int, int]] = []
    for piece in spec.split(","):
        match = _RANGE_SPEC.fullmatch(piece)
        if match is None:
            return None
        first, last = match.groups()
        if first:
            start = int(first)
            end = min(int(last) + 1, size) if last else size
            if last and int(last) < start:
                return None
        elif last:
            start = max(size - int(last), 0)
            end = size
        else:
            return None
        if start < end:
            found.append((start, end))
    return _join(found)


def _join(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    positions: list[int] = []
    # Sweep in file order, but let each joined range stand where its earliest member stood in the request.
    for index in sorted(range(len(ranges)), key=ranges.__getitem__):
        start, end = ranges[index]
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            positions[-1] = min(positions[-1], index)
        else:
            joined.append((start, end))
            positions.append(index)
    return [one for _, one in sorted(zip(positions, joined, strict=True))]


def _get_content_range(start: int | None, end: int | None, total: int) -> str:
    """Return the ``Content-Range`` value of a slice.

    >>> _get_content_range(None, 1, 4), _get_content_range(1, 3, 4), _get_content_range(None, None, 4)
    ('bytes 0-0/4', 'bytes 1-2/4', 'bytes 0-3/4')
    """
    return f"bytes {start or 0}-{(end or total) - 1}/{total}"
