"""Grammar of RFC 9110, 9112 and 3986 that several modules need: tokens, values, hosts, start lines.

Used by :mod:`~cycloneish.httputil.headers`, :mod:`~cycloneish.httputil.request` and the wire engines.
Everything here is linear in its input, and every cache is bounded in entries and in the length of an entry.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final, NamedTuple

from cycloneish.httputil.errors import HTTPInputError

__all__ = [
    "HTTP_WHITESPACE",
    "RequestStartLine",
    "ResponseStartLine",
    "canonical_name",
    "host_name",
    "parse_request_start_line",
    "parse_response_start_line",
    "responses",
    "split_host_and_port",
    "valid_host",
]

#: Optional white space of RFC 9110 section 5.6.3, for ``str.strip``. ``str.strip()`` alone takes far more.
HTTP_WHITESPACE: Final = " \t"

#: Reason phrase of each registered status code.
responses: Final[dict[int, str]] = {int(status): status.phrase for status in HTTPStatus}

_TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
#: RFC 9110 section 5.6.2, ``token``.
TOKEN: Final = re.compile(rf"[{_TCHAR}]+")
#: RFC 9110 section 5.5, ``field-value``, of a string that stands for bytes (latin-1).
FIELD_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
#: What no header may hold, whatever its character set. Bare CR and LF are among them, so values cannot
#: split lines.
CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_UNRESERVED: Final = r"A-Za-z0-9\-._~"
# A comma is a sub-delimiter of RFC 3986, but nobody's host has one, and two Host headers that a proxy
# folded into one do. It is left out.
_HOST: Final = re.compile(
    # Atomic and not possessive, which takes too much before Python 3.11.5 (gh-106052).
    rf"(?:(?>(?:[{_UNRESERVED}!$&'()*+;=]|%[0-9A-Fa-f]{{2}})*)"
    rf"|\[(?:[0-9A-Fa-f:.]+(?:%25[{_UNRESERVED}]+)?|[vV][0-9A-Fa-f]+\.[{_UNRESERVED}!$&'()*+;=:]+)\])"
    r"(?::[0-9]{0,5})?"
)
_REQUEST_LINE: Final = re.compile(rf"([{_TCHAR}]+) ([\x21-\x7e\x80-\xff]+) (HTTP/[0-9]\.[0-9])")
_STATUS_LINE: Final = re.compile(r"(HTTP/[0-9]\.[0-9]) ([0-9]{3}) ([\t\x20-\x7e\x80-\xff]*)")

_MAX_CACHED: Final = 1000
_MAX_CACHED_LENGTH: Final = 80
_names: dict[str, str] = {}
_hosts: dict[str, str] = {}


class RequestStartLine(NamedTuple):
    """Method, request target and version of a request, e.g. ``("GET", "/a?b=c", "HTTP/1.1")``."""

    method: str
    path: str
    version: str


class ResponseStartLine(NamedTuple):
    """Version, status code and reason phrase of a response, e.g. ``("HTTP/1.1", 200, "OK")``."""

    version: str
    code: int
    reason: str


def loose_name(name: str) -> str:
    """Return *name* in ``Http-Header-Case`` whether or not it is a token, for look-ups."""
    known = _names.get(name)
    if known is not None:
        return known
    return canonical_name(name) if TOKEN.fullmatch(name) else name


def canonical_name(name: str) -> str:
    """Return a header name in ``Http-Header-Case``: ``content-TYPE`` gives ``Content-Type``.

    Names seen before cost one dictionary look-up.

    :raises HTTPInputError: *name* is no token (RFC 9110 section 5.1).
    """
    known = _names.get(name)
    if known is not None:
        return known
    if not TOKEN.fullmatch(name):
        raise HTTPInputError(f"Invalid header name {name[:100]!r}")
    known = "-".join([word.capitalize() for word in name.split("-")])
    if len(name) <= _MAX_CACHED_LENGTH:
        if len(_names) >= _MAX_CACHED:
            _names.clear()
        _names[name] = known
    return known


def split_host_and_port(netloc: str) -> tuple[str, int | None]:
    """Split ``"example.com:8080"`` into ``("example.com", 8080)``; the port is ``None`` when there is none.

    Brackets of an IPv6 address stay: ``"[::1]:80"`` gives ``("[::1]", 80)``.
    """
    host, _, port = netloc.rpartition(":")
    if host and port.isascii() and port.isdigit():
        return host, int(port)
    return netloc, None


def host_name(host: str) -> str | None:
    """Return the name in a Host header in lower case and without port, or ``None`` when it is not valid.

    The grammar is RFC 9112 section 3.2 (``uri-host [":" port]``), without commas. The empty value is valid,
    as the RFC has it for targets without an authority.
    """
    name = _hosts.get(host)
    if name is None:
        if not _HOST.fullmatch(host):
            return None
        name = split_host_and_port(host.lower())[0]
        if len(host) <= _MAX_CACHED_LENGTH:
            if len(_hosts) >= _MAX_CACHED:
                _hosts.clear()
            _hosts[host] = name
    return name


def valid_host(host: str) -> bool:
    """Tell whether *host* is an acceptable Host header. The answer is cached."""
    return host_name(host) is not None


def parse_request_start_line(line: str) -> RequestStartLine:
    """Split ``"GET /foo HTTP/1.1"`` (RFC 9112 section 3).

    :raises HTTPInputError: it is malformed, or the version is not 1.x.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HTTPInputError("Malformed HTTP request line")
    method, target, version = match.groups()
    if not version.startswith("HTTP/1."):
        raise HTTPInputError(f"Unexpected HTTP version {version!r}", status=505)
    return RequestStartLine(method, target, version)


def parse_response_start_line(line: str) -> ResponseStartLine:
    """Split ``"HTTP/1.1 200 OK"`` (RFC 9112 section 4). A missing reason phrase is the empty string.

    :raises HTTPInputError: it is malformed, or the version is not 1.x.
    """
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise HTTPInputError("Error parsing response start line")
    version, code, reason = match.groups()
    if not version.startswith("HTTP/1."):
        raise HTTPInputError(f"Unexpected HTTP version {version!r}")
    return ResponseStartLine(version, int(code), reason)
