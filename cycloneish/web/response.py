"""The head of a response: status, headers, validators.

Part of `RequestHandler`, which writes it with the first piece of the body.
"""

from __future__ import annotations

import datetime
import hashlib
import numbers
import re
import time

from cycloneish import __version__, httputil
from cycloneish.httputil import HTTPHeaders, HTTPInputError, ResponseStartLine, responses
from cycloneish.web.base import HandlerBase

__all__ = ["HeaderValue", "ResponseMixin"]

HeaderValue = str | bytes | int | numbers.Integral | datetime.datetime

# RFC 9110, section 5.5. A line end would end the header, and NUL some parsers.
_valid_value = re.compile(r"[\x09\x20-\x7e\x80-\xff]*").fullmatch
# RFC 9112, section 4, without "<", which has no place in a reason but in an attack on what shows it.
_valid_reason = re.compile(r"[\x09\x20-\x3b\x3d-\x7e\x80-\xff]+").fullmatch
_ETAGS = re.compile(r'\*|(?:W/)?"[^"]*"')
# RFC 9110, section 15.4.5: not for a 304, for which what the client has stays valid.
_REPRESENTATION_HEADERS = ("Content-Encoding", "Content-Language", "Content-Type")


class _Defaults:
    """The headers that every response starts with, made anew when the second changes."""

    __slots__ = ("second", "values")

    def __init__(self) -> None:
        self.second = -1
        self.values: dict[str, str | list[str]] = {}

    def renew(self, second: int) -> dict[str, str | list[str]]:
        self.second = second
        self.values = {
            "Server": f"cycloneish/{__version__}",
            "Content-Type": "text/html; charset=UTF-8",
            "Date": httputil.format_timestamp(second),
        }
        return self.values


_defaults = _Defaults()
_OK = responses[200]
# The usual start lines, so that they need not be made for each response.
_START_LINES = {code: ResponseStartLine("", code, reason) for code, reason in responses.items()}


class ResponseMixin(HandlerBase):
    """Status and headers of the response."""

    _headers: HTTPHeaders
    _write_buffer: list[bytes]
    _status_code = 200
    _reason = _OK

    def clear(self) -> None:
        """Start over: default headers, status 200, nothing written."""
        second = int(time.time())
        values = _defaults.values if second == _defaults.second else _defaults.renew(second)
        self._headers = HTTPHeaders._from_dict(values.copy())
        self.set_default_headers()
        self._write_buffer = []
        self._status_code = 200
        self._reason = _OK

    def set_default_headers(self) -> None:
        """Override to set headers for every response of this handler, error pages included."""

    def set_status(self, status_code: int, reason: str | None = None) -> None:
        """Set the status of the response.

        :param reason: the phrase behind the number; a known number has one. What cannot stand there becomes
            "Unknown": errors are reported through this method, so it does not raise any.
        """
        self._status_code = status_code
        if reason is None:
            self._reason = responses.get(status_code, "Unknown")
        else:
            self._reason = str(reason) if _valid_reason(str(reason)) else "Unknown"

    def get_status(self) -> int:
        """The status of the response so far."""
        return self._status_code

    def _start_line(self) -> ResponseStartLine:
        line = _START_LINES.get(self._status_code)
        if line is not None and line.reason == self._reason:
            return line
        return ResponseStartLine("", self._status_code, self._reason)

    # -- headers -----------------------------------------------------------------------------------

    def set_header(self, name: str, value: HeaderValue) -> None:
        """Set a header of the response, in place of what it was.

        :param value: text, bytes (taken as Latin-1), a whole number, or a `datetime`, which becomes an HTTP
            date.
        :raises ValueError: name or value would not stay inside the header: line ends, NUL, other control
            characters.
        :raises TypeError: for another kind of value.
        """
        text = self._convert_header_value(value)
        try:
            self._headers[name] = text
        except HTTPInputError as error:
            # Its author is this program, not the client.
            raise ValueError(f"Unsafe header name {name!r}") from error

    def add_header(self, name: str, value: HeaderValue) -> None:
        """Add a header beside those of the same name; otherwise as `set_header`."""
        text = self._convert_header_value(value)
        try:
            self._headers.add(name, text)
        except HTTPInputError as error:
            raise ValueError(f"Unsafe header {name!r}: {text!r}") from error

    def clear_header(self, name: str) -> None:
        """Take back what `set_header` and `add_header` did for *name*."""
        if name in self._headers:
            del self._headers[name]

    def _convert_header_value(self, value: HeaderValue) -> str:
        if isinstance(value, str):
            text = value
        elif isinstance(value, bytes):
            text = value.decode("latin-1")
        elif isinstance(value, numbers.Integral):
            return str(value)
        elif isinstance(value, datetime.datetime):
            return httputil.format_timestamp(value)
        else:
            raise TypeError(
                f"a header cannot have the value {value!r}: give text, bytes, a whole number or a datetime"
            )
        if _valid_value(text) is None:
            raise ValueError(f"Unsafe header value {text!r}")
        return text

    def _clear_representation_headers(self) -> None:
        for name in _REPRESENTATION_HEADERS:
            self.clear_header(name)

    # -- validators --------------------------------------------------------------------------------

    def compute_etag(self) -> str | None:
        """Return the entity tag of what was written, in quotes; override to compute it otherwise, None for
        none.

        Source: RFC 9110, section 8.8.3.
        """
        # BLAKE2 and not SHA-1: for a small page OpenSSL takes longer to set its hash up than to run it.
        buffer = self._write_buffer
        if len(buffer) == 1:
            return f'"{hashlib.blake2b(buffer[0], digest_size=16).hexdigest()}"'
        hasher = hashlib.blake2b(digest_size=16)
        for part in buffer:
            hasher.update(part)
        return f'"{hasher.hexdigest()}"'

    def set_etag_header(self) -> None:
        """Set *Etag* to what `compute_etag` returns; happens by itself to a 200 that is sent in one piece."""
        etag = self.compute_etag()
        if etag is None:
            return
        if type(self).compute_etag is ResponseMixin.compute_etag:
            self._headers._values["Etag"] = etag  # known to be well-formed
        else:
            self.set_header("Etag", etag)

    def check_etag_header(self) -> bool:
        """Whether the client has this version already: its *If-None-Match* names the response's *Etag*.

        The comparison is the weak one, by RFC 9110, section 13.1.2. A handler that knows its tag early::

            self.set_etag_header()
            if self.check_etag_header():
                self.set_status(304)
                return
        """
        condition = self.request.headers.get("If-None-Match")
        if not condition:
            return False
        etag = self._headers.get("Etag", "")
        if not etag:
            return False
        etags = _ETAGS.findall(condition)
        return bool(etags) and (
            etags[0] == "*" or etag.removeprefix("W/") in [e.removeprefix("W/") for e in etags]
        )
