"""A body in the pieces in which it came, read as if it were one: a large form is copied once, and not twice.

Made by :mod:`cycloneish.web.body`, kept by the request until somebody asks for its ``body``, and read by
:mod:`cycloneish.httputil.forms`.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

__all__ = ["MIN_PIECE", "Pieces"]

#: Smaller pieces than this, on average, are better joined.
MIN_PIECE: Final = 16384


class Pieces:
    """Bytes in several pieces.

    :param pieces: none of them empty, unless it is the only one.

    >>> body = Pieces([b"one t", b"wo thr", b"ee"])
    >>> len(body), body.find(b"two"), body[4:7], body.startswith(b"three", 8)
    (13, 4, b'two', True)
    """

    __slots__ = ("_ends", "_pieces")

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, part: slice) -> bytes:
        """The bytes of a slice; its bounds count from the beginning, in steps of one."""
        pieces = self._pieces
        if len(pieces) == 1:
            return pieces[0][part]
        start, stop, _ = part.indices(self._ends[-1])
        if start >= stop:
            return b""
        first = bisect_right(self._ends, start)
        last = bisect_right(self._ends, stop - 1)
        start -= self._ends[first] - len(pieces[first])
        stop -= self._ends[last] - len(pieces[last])
        if first == last:
            return pieces[first][start:stop]
        # Views, so that the join copies every byte once.
        return b"".join(
            [memoryview(pieces[first])[start:], *pieces[first + 1 : last], memoryview(pieces[last])[:stop]]
        )

    def find(self, needle: bytes, start: int = 0, stop: int | None = None) -> int:
        """The offset of the first *needle* within the bounds, or -1; as ``bytes.find``."""
        pieces = self._pieces
        if len(pieces) == 1:
            return pieces[0].find(needle, start, stop)
        end = self._ends[-1] if stop is None else min(stop, self._ends[-1])
        overlap = len(needle) - 1
        index = bisect_right(self._ends, start)
        while index < len(pieces) and start + overlap < end:
            piece_end = self._ends[index]
            base = piece_end - len(pieces[index])
            found = pieces[index].find(needle, start - base, end - base)
            if found >= 0:
                return base + found
            # What begins in this piece and ends in a later one.
            seam = max(start, piece_end - overlap)
            found = self[seam : min(end, piece_end + overlap)].find(needle)
            if found >= 0:
                return seam + found
            start = piece_end
            index += 1
        return -1

    def startswith(self, prefix: bytes, start: int = 0) -> bool:
        """Whether *prefix* stands at *start*."""
        return self[start : start + len(prefix)] == prefix

    def join(self) -> bytes:
        """All of it as one."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
