"""Heads of messages and targets of requests: what is sent is checked here, and what comes is read.

Called by the connection and by the fetch.  Nothing with a control character leaves this module.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from cycloneish.httputil import HTTPHeaders, HTTPInputError, ResponseStartLine, parse_response_start_line
from cycloneish.httputil.grammar import CONTROL, HTTP_WHITESPACE, TOKEN, canonical_name, valid_host

__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "Target",
    "body_framing",
    "parse_response_head",
    "parse_url",
    "request_head",
]

#: Lengths of a body that is not announced in bytes.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_MAX_LENGTH_DIGITS: Final = 18
#: What may stand in a path or query as it is; ``%`` because it is taken for encoded already.
_SAFE: Final = "/%:?#[]@!$&'()*+,;=~-._"
_NUMERIC_HOST: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_SCHEMES: Final = {"http": 80, "https": 443}


class Target(NamedTuple):
    """A URL taken apart."""

    scheme: str
    #: Name or address as it is connected to: lower case, IDNA, no brackets.
    host: str
    port: int
    #: For the Host header; without the port where that is the usual one.
    authority: str
    #: For the request line: path and query.
    path: str
    username: str | None
    password: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials belong to (RFC 6454)."""
        return self.scheme, self.host, self.port


@lru_cache(maxsize=512)
def parse_url(url: str) -> Target:
    """Take *url* apart.

    :raises ValueError: it is not absolute, not http or https, or holds what no URL may hold.
    """
    if not url.isprintable() and CONTROL.search(url.replace("\t", "\n")):
        raise ValueError(f"control character in the URL {_without_credentials(url)!r}")
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"Unsupported url scheme: {_without_credentials(url)}")
    netloc = parts.netloc.rpartition("@")[2]
    host = parts.hostname or ""
    if not host or "\\" in netloc or " " in netloc:
        raise ValueError(f"no host in the URL {_without_credentials(url)!r}")
    port = parts.port  # raises ValueError where it is none
    if port == 0:
        raise ValueError(f"port 0 in the URL {_without_credentials(url)!r}")
    if ":" in host:
        ipaddress.IPv6Address(host)
        shown = f"[{host}]"
    else:
        host = shown = _ascii_host(host)
    usual = _SCHEMES[parts.scheme]
    authority = shown if port is None or port == usual else f"{shown}:{port}"
    path = quote(parts.path or "/", _SAFE)
    if not path.startswith("/"):
        path = "/" + path
    if parts.query:
        path += "?" + quote(parts.query, _SAFE)
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Target(parts.scheme, host, port or usual, authority, path, username, password)


def _without_credentials(url: str) -> str:
    return re.sub(r"//[^/?#]*@", "//", url)[:200]


def _ascii_host(host: str) -> str:
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"not a host name: {host[:200]!r}") from error
    if _NUMERIC_HOST.fullmatch(host):
        # inet_aton would read 127.1 or 0x7f000001 as an address; who compared the text with a list would not.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{host[:200]!r} is not an IPv4 address in its usual form") from None
    if not valid_host(host):
        raise ValueError(f"not a host name: {host[:200]!r}")
    return host


def request_head(method: str, path: str, headers: HTTPHeaders) -> bytes:
    """Write the head of a request.

    :raises ValueError: the method is no token, or a field holds a control character or what is not latin-1.
    """
    if not TOKEN.fullmatch(method):
        raise ValueError(f"not a method: {method[:100]!r}")
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.get_all()]
    text = "".join(lines)
    if not text.isprintable():
        for line in lines:
            if CONTROL.search(line):
                raise ValueError(f"control character in a header field: {line.partition(':')[0][:100]!r}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def parse_response_head(head: bytes, max_fields: int) -> tuple[ResponseStartLine, HTTPHeaders]:
    """Read the head of a response, which ends before the empty line.

    :param max_fields: most header fields to accept.
    :raises HTTPInputError: it is malformed.
    """
    text = head.decode("latin-1")
    lines = text.replace("\r\n", "\n").split("\n")
    start_line = parse_response_start_line(lines[0])
    if len(lines) > max_fields + 1:
        raise HTTPInputError("Too many header fields")
    odd = not "".join(lines).isprintable()
    values: dict[str, str | list[str]] = {}
    del lines[0]
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or line[0] in HTTP_WHITESPACE:
            if line and line[0] in HTTP_WHITESPACE:
                raise HTTPInputError("header line cannot start with whitespace, folding not supported")
            raise HTTPInputError("no colon in header line")
        name = canonical_name(name)
        value = value.strip(HTTP_WHITESPACE)
        if odd and CONTROL.search(value):
            raise HTTPInputError(f"Invalid header value {value[:100]!r}")
        known = values.get(name)
        if known is None:
            values[name] = value
        elif isinstance(known, str):
            values[name] = [known, value]
        else:
            known.append(value)
    return start_line, HTTPHeaders._from_dict(values)


def body_framing(method: str, start_line: ResponseStartLine, headers: HTTPHeaders) -> int:
    """How the body of a response is framed (RFC 9112 section 6.3).

    :returns: its length in bytes, ``CHUNKED`` or ``UNTIL_CLOSE``.
    :raises HTTPInputError: the fields contradict each other.
    """
    coding = headers.get("Transfer-Encoding")
    length = headers.get("Content-Length")
    code = start_line.code
    if method == "HEAD" or code == 304:
        return 0
    if code == 204:
        if coding is not None or length not in (None, "0"):
            raise HTTPInputError(f"Response with code {code} should not have body")
        return 0
    if coding is not None:
        if length is not None:
            raise HTTPInputError("Message with both Transfer-Encoding and Content-Length")
        if coding.lower() != "chunked" or start_line.version == "HTTP/1.0":
            raise HTTPInputError(f"Unsupported Transfer-Encoding {coding[:100]}")
        return CHUNKED
    if length is None:
        return UNTIL_CLOSE
    if "," in length:
        different = {one.strip(HTTP_WHITESPACE) for one in length.split(",")}
        if len(different) > 1:
            raise HTTPInputError(f"Multiple unequal Content-Lengths: {length[:100]!r}")
        length = different.pop()
    if not (length.isascii() and length.isdigit()):
        raise HTTPInputError(f"Only integer Content-Length is allowed: {length[:100]!r}")
    if len(length) > _MAX_LENGTH_DIGITS:
        raise HTTPInputError("Content-Length too long")
    return int(length)
