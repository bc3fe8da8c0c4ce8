"""What a path pattern says without being tried: its fixed beginning, its only path, how to fill it.

Called by :class:`cycloneish.routing.PathMatches` when a rule is made. All of it is careful in one
direction: where a pattern is too clever to be understood here, the answer is "unknown", and the regular
expression decides.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["fixed_prefix", "literal_path", "reverse_pieces"]

_SPECIAL: Final = frozenset(".^$*+?{}[]|()\\")
_QUANTIFIERS: Final = frozenset("*+?{")


def literal_path(regex: re.Pattern[str]) -> str | None:
    """Return the only path that *regex* matches, or ``None`` when there may be others."""
    pattern = _plain(regex)
    if pattern is None:
        return None
    text, end = _fixed_text(pattern)
    return text if pattern[end:] == "$" else None


def fixed_prefix(regex: re.Pattern[str]) -> str:
    """Return what every path that *regex* matches begins with; empty when that is not known."""
    pattern = _plain(regex)
    if pattern is None or _has_alternatives(pattern):
        return ""
    return _fixed_text(pattern)[0]


def reverse_pieces(regex: re.Pattern[str]) -> list[str] | None:
    """Split a pattern into the fixed texts around its groups; ``None`` when it is not made of these alone.

    As in Tornado, a dot or a quantifier outside groups stands for itself, as people write ``/robots.txt``;
    but a quantifier behind a group is dropped.
    """
    pattern = regex.pattern.removeprefix("^")
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1]
    pieces = [""]
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
            if position == len(pattern) or pattern[position].isalnum():
                return None
            pieces[-1] += pattern[position]
        elif char == "(":
            if pattern.startswith("(?", position) and not pattern.startswith("(?P<", position):
                return None
            pieces.append("")
            position = _group_end(pattern, position)
            if pattern[position + 1 : position + 2] in ("?", "*", "+"):
                position += 1
        elif char in "[]{}|)":
            return None
        else:
            pieces[-1] += char
        position += 1
    return pieces if len(pieces) - 1 == regex.groups else None


def _plain(regex: re.Pattern[str]) -> str | None:
    """Return the pattern without a leading ``^``; ``None`` when flags give its characters another meaning."""
    return None if regex.flags & ~re.UNICODE else regex.pattern.removeprefix("^")


def _fixed_text(pattern: str) -> tuple[str, int]:
    """Return the fixed text that *pattern* begins with, and where in the pattern it ends."""
    text: list[str] = []
    start = position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\" and not pattern[position + 1].isalnum():
            start = position
            text.append(pattern[position + 1])
            position += 2
        elif char in _SPECIAL:
            break
        else:
            start = position
            text.append(char)
            position += 1
    if text and pattern[position : position + 1] in _QUANTIFIERS:
        # The quantifier belongs to the last character, which is not fixed then.
        text.pop()
        position = start
    return "".join(text), position


def _has_alternatives(pattern: str) -> bool:
    """Tell whether there is a ``|`` outside all groups, so that paths may begin in different ways."""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "|":
            return True
        if char == "\\":
            position += 1
        elif char == "[":
            position = _class_end(pattern, position)
        elif char == "(":
            position = _group_end(pattern, position)
        position += 1
    return False


def _group_end(pattern: str, start: int) -> int:
    """Return where the group that begins at *start* ends."""
    depth = 0
    position = start
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
        elif char == "[":
            position = _class_end(pattern, position)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if not depth:
                break
        position += 1
    return position


def _class_end(pattern: str, start: int) -> int:
    """Return where the character class that begins at *start* ends."""
    first = position = start + (2 if pattern.startswith("^", start + 1) else 1)
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
        elif char == "]" and position > first:
            # A bracket right behind the opening one stands for itself.
            break
        position += 1
    return position
