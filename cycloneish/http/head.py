"""The head of an HTTP/1 request: bytes in, start line and headers out, or an error.

One strict grammar (RFC 9112 sections 2 to 6), called by :mod:`~cycloneish.http.http1` with a complete
head.  What the RFC lets a server repair, this refuses: whatever two parsers could read in two ways is
an attack sooner or later.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cycloneish.http.limits import Limits
from cycloneish.httputil import HTTPHeaders, HTTPInputError, RequestStartLine, valid_host
from cycloneish.httputil.grammar import CONTROL, HTTP_WHITESPACE, canonical_name

__all__ = ["CHUNKED", "RequestHead", "check_partial_head", "parse_request_head"]

#: ``RequestHead.body_length`` of a body in chunked transfer coding.
CHUNKED: Final = -1

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD_BEGUN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: [\x21-\x7e]{0,100}|\Z)")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_HTTP_VERSION: Final = re.compile(r"HTTP/[0-9]\.[0-9]")
_DIGITS: Final = re.compile(r"[0-9]+")
_ABSOLUTE_TARGET: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
_C1_CONTROL: Final = re.compile(r"[\x80-\x9f]")
#: A Content-Length with more digits than this is no length of anything.
_MAX_LENGTH_DIGITS: Final = 18


class RequestHead(NamedTuple):
    """A request without its body."""

    start_line: RequestStartLine
    headers: HTTPHeaders
    #: Bytes of body to come, or :data:`CHUNKED`.
    body_length: int
    #: Whether the client wants the connection kept.
    keep_alive: bool


def parse_request_head(head: bytes, limits: Limits) -> RequestHead:
    """Parse *head*, which ends before the empty line.

    :param head: request line and header fields, separated by CRLF, without the last CRLF.
    :raises HTTPInputError: with the status to answer (400, 414, 431, 505).
    """
    lines = head.decode("latin-1").split("\r\n")
    if len(lines) > limits.max_header_fields + 1:
        raise HTTPInputError("Too many header fields", status=431)
    # One look at everything in C: only odd text pays for the closer one.
    odd = not "".join(lines).isprintable()
    start_line = _parse_request_line(lines[0], limits)
    values: dict[str, str | list[str]] = {}
    del lines[0]
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HTTPInputError("no colon in header line")
        name = canonical_name(name)
        value = value.strip(HTTP_WHITESPACE)
        if name in values:
            known = values[name]
            if isinstance(known, str):
                values[name] = [known, value]
            else:
                known.append(value)
        else:
            values[name] = value
    start_line = _check_host(start_line, values)
    body_length = _body_length(start_line.version, values)
    if odd:
        _check_characters(lines)
    return RequestHead(
        start_line, HTTPHeaders._from_dict(values), body_length, _keep_alive(start_line, values)
    )


def check_partial_head(data: bytes, limits: Limits, scanned: int = 0) -> None:
    """Refuse as early as possible what has arrived of a head that is not complete yet.

    :param scanned: so many bytes at the beginning were looked at before, but for up to 3 bytes: the work is
        that of what is new, however small the pieces are in which a head comes.
    :raises HTTPInputError: it can never become a valid request, or is over a limit already.
    """
    if _BARE_LF.search(data, scanned):
        # Something else may be wrong as well, and is the better reason to log.
        whole = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
        parse_request_head(whole.replace(b"\n", b"\r\n"), limits)
        raise HTTPInputError("Malformed HTTP message: a line ends with a bare LF")
    end_of_line = data.find(b"\r\n", 0, limits.max_request_line + 2)
    if end_of_line < 0:
        if len(data) > limits.max_request_line:
            raise HTTPInputError("Request line too long", status=414)
        if not _METHOD_BEGUN.match(data):
            raise HTTPInputError("Malformed HTTP request line")
    elif end_of_line >= scanned - 1:
        _parse_request_line(data[:end_of_line].decode("latin-1"), limits)
    if len(data) > limits.max_header_size:
        raise HTTPInputError("Request header too large", status=431)


def _parse_request_line(line: str, limits: Limits) -> RequestStartLine:
    if len(line) > limits.max_request_line:
        raise HTTPInputError("Request line too long", status=414)
    parts = line.split(" ")
    if len(parts) != 3:
        raise HTTPInputError("Malformed HTTP request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        if _HTTP_VERSION.fullmatch(version):
            raise HTTPInputError(f"Unsupported HTTP version {version}", status=505)
        raise HTTPInputError("Malformed HTTP request line")
    if method not in _USUAL_METHODS and not _METHOD.fullmatch(method):
        raise HTTPInputError("Malformed HTTP request line")
    if not target.isascii() or not target.isprintable() or "#" in target:
        raise HTTPInputError("Malformed HTTP request line: invalid character in the target")
    if target[:1] != "/" and not _other_target(method, target):
        raise HTTPInputError("Malformed HTTP request line: invalid target")
    return RequestStartLine(method, target, version)


def _other_target(method: str, target: str) -> bool:
    """Whether *target* is one of RFC 9112 section 3.2's rarer forms."""
    if target == "*":
        return method == "OPTIONS"
    if method == "CONNECT":
        return valid_host(target)
    return _ABSOLUTE_TARGET.fullmatch(target) is not None


def _check_host(start_line: RequestStartLine, values: dict[str, str | list[str]]) -> RequestStartLine:
    """Check Host (RFC 9112 section 3.2); the target of an absolute-form request loses its authority."""
    host = values.get("Host")
    if host is None:
        if start_line.version == "HTTP/1.1":
            raise HTTPInputError("Missing Host header")
    elif not isinstance(host, str):
        raise HTTPInputError("Multiple Host headers")
    elif not valid_host(host):
        raise HTTPInputError(f"Invalid Host header: {host[:100]!r}")
    if start_line.path[:1] == "/":
        return start_line
    absolute = _ABSOLUTE_TARGET.fullmatch(start_line.path)
    if absolute is None:
        return start_line
    authority, rest = absolute.groups()
    if not authority or (host is not None and authority.lower() != host.lower()):
        raise HTTPInputError("Host header differs from the host of the request target")
    if not valid_host(authority):
        raise HTTPInputError("Invalid host in the request target")
    values["Host"] = authority
    return start_line._replace(path=rest if rest.startswith("/") else "/" + rest)


def _body_length(version: str, values: dict[str, str | list[str]]) -> int:
    """How the body is framed (RFC 9112 section 6.3)."""
    coding = values.get("Transfer-Encoding")
    length = values.get("Content-Length")
    if coding is None:
        if length is None:
            return 0
        if isinstance(length, str):
            if len(length) <= _MAX_LENGTH_DIGITS and length.isascii() and length.isdigit():
                return int(length)
            if "," not in length:
                if length.isascii() and length.isdigit():
                    raise HTTPInputError("Content-Length too long", status=413)
                raise HTTPInputError(f"Only integer Content-Length is allowed: {length[:100]!r}")
        raise HTTPInputError(f"Multiple unequal Content-Lengths: {length!r:.100}")
    if length is not None:
        raise HTTPInputError("Message with both Transfer-Encoding and Content-Length")
    if isinstance(coding, list):
        coding = ",".join(coding)
    if coding.lower() != "chunked":
        raise HTTPInputError(f"Unsupported Transfer-Encoding {coding[:100]}")
    if version != "HTTP/1.1":
        raise HTTPInputError("Transfer-Encoding in an HTTP/1.0 message")
    return CHUNKED


def _keep_alive(start_line: RequestStartLine, values: dict[str, str | list[str]]) -> bool:
    connection = values.get("Connection")
    if connection is None:
        return start_line.version == "HTTP/1.1"
    if isinstance(connection, list):
        connection = ",".join(connection)
    tokens = {token.strip(HTTP_WHITESPACE) for token in connection.lower().split(",")}
    if "close" in tokens:
        return False
    return start_line.version == "HTTP/1.1" or "keep-alive" in tokens


def _check_characters(lines: list[str]) -> None:
    """Refuse control characters in header fields; bytes above 127 pass (RFC 9110 section 5.5).

    The C1 controls, which some parsers take for line ends, pass only as part of valid UTF-8.
    """
    for line in lines:
        if CONTROL.search(line):
            raise HTTPInputError("Control character in a header field")
        if _C1_CONTROL.search(line):
            try:
                line.encode("latin-1").decode("utf-8")
            except UnicodeDecodeError:
                raise HTTPInputError("Control character in a header field") from None
