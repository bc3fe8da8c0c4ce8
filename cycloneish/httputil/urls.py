"""Small conversions of URLs, query strings, dates and credentials, for handlers and clients alike."""

from __future__ import annotations

import calendar
import datetime
import math
import time
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import AnyStr, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["encode_username_password", "format_timestamp", "qs_to_qsl", "url_concat"]

# Not strftime, which follows the locale of the process.
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def url_concat(
    url: str,
    args: Mapping[str, str] | list[tuple[str, str]] | tuple[tuple[str, str], ...] | None,
) -> str:
    """Add query arguments to a URL that may have some already.

    >>> url_concat("http://example.com/foo?a=b#top", [("c", "d"), ("c", "d2")])
    'http://example.com/foo?a=b&c=d&c=d2#top'

    :param args: a mapping, or pairs where a name may come more than once; ``None`` returns the URL as it is.
    :raises TypeError: *args* is something else.
    """
    if args is None:
        return url
    if isinstance(args, Mapping):
        pairs: Iterable[tuple[str, str]] = args.items()
    elif isinstance(args, list | tuple):
        pairs = args
    else:
        raise TypeError(f"'args' must be a dict, a list or a tuple, not {type(args).__name__}")
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *pairs])
    return urlunsplit(parts._replace(query=query))


def qs_to_qsl(qs: Mapping[str, list[AnyStr]]) -> Iterable[tuple[str, AnyStr]]:
    """Turn the result of ``parse_qs`` into pairs, as ``parse_qsl`` gives them."""
    for name, values in qs.items():
        for value in values:
            yield name, value


@lru_cache(maxsize=64)
def _format_seconds(seconds: int) -> str:
    when = time.gmtime(seconds)
    return (
        f"{_DAYS[when.tm_wday]}, {when.tm_mday:02d} {_MONTHS[when.tm_mon - 1]} {when.tm_year:04d} "
        f"{when.tm_hour:02d}:{when.tm_min:02d}:{when.tm_sec:02d} GMT"
    )


def format_timestamp(
    ts: int | float | tuple[int, ...] | time.struct_time | datetime.datetime,
) -> str:
    """Format a time as HTTP does (RFC 9110 section 5.6.7, IMF-fixdate).

    >>> format_timestamp(1359312200)
    'Sun, 27 Jan 2013 18:43:20 GMT'

    The last results are cached, so that the ``Date`` header of a busy server is formatted once a second.

    :param ts: seconds since the epoch, a UTC time tuple, or a ``datetime``; a naive one stands for UTC.
    :raises TypeError: *ts* is something else.
    """
    if isinstance(ts, int):
        return _format_seconds(ts)
    if isinstance(ts, float):
        return _format_seconds(math.floor(ts))
    if isinstance(ts, datetime.datetime):
        return _format_seconds(calendar.timegm(ts.utctimetuple()))
    if isinstance(ts, tuple):
        return _format_seconds(calendar.timegm(ts))
    raise TypeError(f"unknown timestamp type: {ts!r}")


def encode_username_password(username: str | bytes, password: str | bytes) -> bytes:
    """Return ``username:password`` as bytes for HTTP authentication, text in UTF-8 and NFC (RFC 7617)."""
    if isinstance(username, str):
        username = unicodedata.normalize("NFC", username).encode()
    if isinstance(password, str):
        password = unicodedata.normalize("NFC", password).encode()
    return username + b":" + password
