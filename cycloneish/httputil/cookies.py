"""Reading the ``Cookie`` header the way browsers write it, in linear time.

Called by :attr:`HTTPServerRequest.cookies <cycloneish.httputil.HTTPServerRequest.cookies>`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http.cookies import CookieError, Morsel
from typing import Final

from cycloneish.httputil.grammar import HTTP_WHITESPACE

__all__ = ["is_cookie_name", "parse_cookie"]

_ESCAPE: Final = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


def _unescape(match: re.Match[str]) -> str:
    octal = match[1]
    return chr(int(octal, 8)) if octal else match[2]


def _unquote_cookie(value: str) -> str:
    """Take off the double quotes and the backslash escapes that ``http.cookies`` writes."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    value = value[1:-1]
    return _ESCAPE.sub(_unescape, value) if "\\" in value else value


def parse_cookie(cookie: str) -> dict[str, str]:
    """Parse the value of a ``Cookie`` header.

    Browsers follow no RFC here, and neither does this: every semicolon separates, also inside quotes, a piece
    without ``=`` is a value with the empty name, and of two cookies with one name the last one counts.

    >>> parse_cookie('chips=ahoy; vienna="fin\\\\"ger"')
    {'chips': 'ahoy', 'vienna': 'fin"ger'}

    Counterpart: ``tornado.httputil.parse_cookie``.
    """
    cookies: dict[str, str] = {}
    for piece in cookie.split(";"):
        name, equals, value = piece.partition("=")
        if not equals:
            name, value = "", piece
        # Only what browsers strip: behind another blank it is another name, without a ``__Host-`` prefix.
        name = name.strip(HTTP_WHITESPACE)
        value = value.strip(HTTP_WHITESPACE)
        if name or value:
            cookies[name] = _unquote_cookie(value) if value[:1] == '"' else value
    return cookies


@lru_cache(256)
def is_cookie_name(name: str) -> bool:
    """Whether the standard library takes *name* for that of a cookie.

    Remembered, so not to be asked about whatever a client sends.
    """
    morsel: Morsel[str] = Morsel()
    try:
        morsel.set(name, "", "")
    except CookieError:
        return False
    return True
