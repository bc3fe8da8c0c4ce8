"""Header fields as a mapping, and the ``value; key=value`` syntax inside them.

Made by the wire engines for requests, by handlers for responses, by the client for both, and by the form
parsers for the parts of a multipart body. This is the hottest class of the package: a lookup by the usual
spelling is one dictionary access, and the engine hands over the dictionary it filled itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, TypeVar, overload
from urllib.parse import unquote_to_bytes

from cycloneish.httputil.errors import HTTPInputError
from cycloneish.httputil.grammar import (
    CONTROL,
    FIELD_VALUE,
    HTTP_WHITESPACE,
    canonical_name,
    loose_name,
)

__all__ = ["HTTPHeaders"]

_T = TypeVar("_T")


class HTTPHeaders(MutableMapping[str, str]):
    """A mapping from header name to value that ignores the case of names and remembers repeated headers.

    Reading a repeated header gives its values joined by commas (RFC 9110 section 5.3); :meth:`get_list`
    gives them one by one, which ``Set-Cookie`` needs.

    >>> h = HTTPHeaders({"content-type": "text/html"})
    >>> h.add("Set-Cookie", "A=B")
    >>> h.add("set-cookie", "C=D")
    >>> list(h)
    ['Content-Type', 'Set-Cookie']
    >>> h["set-cookie"], h.get_list("set-cookie")
    ('A=B,C=D', ['A=B', 'C=D'])

    :param args: one mapping (a value may be a list of values) or an iterable of pairs, as for ``dict``.
    :param kwargs: further headers.

    Counterpart: ``tornado.httputil.HTTPHeaders``.
    """

    # A string for what came once, a list only for what came more often: most headers come once.
    __slots__ = ("_values",)
    _values: dict[str, str | list[str]]

    @overload
    def __init__(self, arg: Mapping[str, list[str]], /) -> None: ...
    @overload
    def __init__(self, arg: Mapping[str, str], /) -> None: ...
    @overload
    def __init__(self, arg: Iterable[tuple[str, str]], /) -> None: ...
    @overload
    def __init__(self, **kwargs: str) -> None: ...

    def __init__(self, *args: Any, **kwargs: str) -> None:
        self._values = {}
        if args or kwargs:
            if len(args) == 1 and not kwargs and isinstance(args[0], HTTPHeaders):
                self._values = _copy_values(args[0]._values)
            else:
                self.update(*args, **kwargs)

    @classmethod
    def _from_dict(cls, values: dict[str, str | list[str]]) -> HTTPHeaders:
        """Adopt *values* unchecked: canonical names, checked values, lists for repeated ones only."""
        headers = cls.__new__(cls)
        headers._values = values
        return headers

    def add(self, name: str, value: str, *, _chars_are_bytes: bool = True) -> None:
        """Append a value to the header *name*.

        :raises HTTPInputError: the name is no token, or the value has control characters, white space at an
            end, or (unless ``_chars_are_bytes`` is false) characters above U+00FF.
        """
        name = canonical_name(name)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if _chars_are_bytes:
            if not FIELD_VALUE.fullmatch(value):
                raise HTTPInputError(f"Invalid header value {value[:100]!r}")
        elif CONTROL.search(value):
            raise HTTPInputError(f"Invalid header value {value[:100]!r}")
        values = self._values
        old = values.get(name)
        if old is None:
            values[name] = value
        elif isinstance(old, str):
            values[name] = [old, value]
        else:
            old.append(value)

    def get_list(self, name: str) -> list[str]:
        """Return a new list of all values of the header *name*, empty when there is none."""
        found = self._values.get(name)
        if found is None:
            found = self._values.get(loose_name(name))
            if found is None:
                return []
        return [found] if isinstance(found, str) else list(found)

    def get_all(self) -> Iterator[tuple[str, str]]:
        """Yield every (name, value) pair, a repeated header once for each value."""
        for name, value in self._values.items():
            if isinstance(value, str):
                yield name, value
            else:
                for one in value:
                    yield name, one

    def parse_line(self, line: str, *, _chars_are_bytes: bool = True) -> None:
        r"""Add one header line, with or without its line end.

        >>> h = HTTPHeaders()
        >>> h.parse_line("Content-Length: 42\r\n")
        >>> h["content-length"]
        '42'

        :raises HTTPInputError: no colon, a folded line (RFC 9112 section 5.2), or what :meth:`add` refuses.
        """
        if line.endswith("\n"):
            line = line[:-2] if line.endswith("\r\n") else line[:-1]
        if not line:
            return
        if line[0] in HTTP_WHITESPACE:
            raise HTTPInputError("header line cannot start with whitespace, folding not supported")
        name, colon, value = line.partition(":")
        if not colon:
            raise HTTPInputError("no colon in header line")
        self.add(name, value.strip(HTTP_WHITESPACE), _chars_are_bytes=_chars_are_bytes)

    @classmethod
    def parse(cls, headers: str, *, _chars_are_bytes: bool = True) -> HTTPHeaders:
        """Make headers of text: lines that end in CRLF, or, out of tolerance, in LF alone.

        The server's engine has its own stricter parser; this one is for clients, tests and parts of forms.

        :raises HTTPInputError: a line is malformed.
        """
        result = cls()
        start = 0
        # str.splitlines would also take U+0085 and others for line ends, and a header could hide in a value.
        while (end := headers.find("\n", start) + 1) > 0:
            result.parse_line(headers[start:end], _chars_are_bytes=_chars_are_bytes)
            start = end
        result.parse_line(headers[start:], _chars_are_bytes=_chars_are_bytes)
        return result

    def __setitem__(self, name: str, value: str) -> None:
        if not isinstance(value, str):
            self._values[canonical_name(name)] = _to_text(value)
        else:
            self._values[canonical_name(name)] = value

    def __contains__(self, name: object) -> bool:
        return name in self._values or (isinstance(name, str) and loose_name(name) in self._values)

    def __getitem__(self, name: str) -> str:
        value = self._values.get(name)
        if value is None:
            value = self._values[loose_name(name)]
        return value if isinstance(value, str) else ",".join(value)

    @overload
    def get(self, key: str, default: None = None) -> str | None: ...
    @overload
    def get(self, key: str, default: str) -> str: ...
    @overload
    def get(self, key: str, default: _T) -> str | _T: ...

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of the header *key*, repeated ones joined by commas, or *default*."""
        # Mapping.get goes through an exception, which is slow for the many headers that are not there.
        value = self._values.get(key)
        if value is None:
            value = self._values.get(loose_name(key))
            if value is None:
                return default
        return value if isinstance(value, str) else ",".join(value)

    def __delitem__(self, name: str) -> None:
        del self._values[loose_name(name)]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def clear(self) -> None:
        """Remove all headers."""
        self._values.clear()

    def copy(self) -> HTTPHeaders:
        """Return headers that share nothing with these."""
        return type(self)._from_dict(_copy_values(self._values))

    __copy__ = copy

    def __str__(self) -> str:
        return "".join([f"{name}: {value}\n" for name, value in self.get_all()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.get_all())!r})"


def _copy_values(values: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
    return {name: value if isinstance(value, str) else list(value) for name, value in values.items()}


def _to_text(value: Any) -> str | list[str]:
    """Take what Tornado's mapping takes besides strings: lists of values, bytes, numbers."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list | tuple):
        values = [one if isinstance(one, str) else str(_to_text(one)) for one in value]
        return values[0] if len(values) == 1 else values
    return str(value)


# One parameter: a name, and a value that is quoted (also without its closing quote) or reaches to the next
# semicolon. Nothing is tried again, so the time is linear. Groups
# are atomic and not possessive, which takes too much before Python 3.11.5 (gh-106052).
_PARAMETER: Final = re.compile(
    r';\s*+([^=;"]*+)(?>(?:=\s*+(?:"((?>(?:[^"\\]++|\\.)*))[^;]*+|([^;]*+)))?)', re.DOTALL
)
_ESCAPED: Final = re.compile(r'\\(["\\])')


def _parse_header(line: str, *, extended: bool = True) -> tuple[str, dict[str, str]]:
    r"""Split a header like ``form-data; name="a"`` into its first part and its parameters.

    Parameter names are in lower case; parameters without ``=`` are left out. Values are unquoted, and an
    extended value (``name*=utf-8''%c3%a4``, RFC 8187) stands under its plain name and wins over the plain
    one.

    >>> _parse_header('form-data; foo="b\\\\a\\"r"; file*=utf-8\'\'T%C3%A4st')
    ('form-data', {'foo': 'b\\a"r', 'file': 'Täst'})
    """
    main, semicolon, _ = line.partition(";")
    parameters: dict[str, str] = {}
    if not semicolon:
        return main.strip(), parameters
    decoded_values: dict[str, str] = {}
    for match in _PARAMETER.finditer(line, len(main)):
        name, quoted, plain = match.groups()
        name = name.strip().lower()
        if quoted is not None:
            parameters[name] = _ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted
        elif plain is not None:
            plain = plain.strip()
            decoded = _decode_extended(plain) if extended and name.endswith("*") else None
            if decoded is None:
                parameters[name] = plain
            else:
                decoded_values[name[:-1]] = decoded
    parameters.update(decoded_values)
    return main.strip(), parameters


def _decode_extended(value: str) -> str | None:
    charset, _, rest = value.partition("'")
    _, quote, text = rest.partition("'")
    if not quote:
        return None
    try:
        return unquote_to_bytes(text).decode(charset or "utf-8")
    except (LookupError, ValueError):
        return None


def _encode_header(key: str, pdict: Mapping[str, Any]) -> str:
    """Undo :func:`_parse_header`; a parameter whose value is ``None`` stands alone.

    >>> _encode_header("deflate", {"window_bits": 15, "no_takeover": None})
    'deflate; no_takeover; window_bits=15'
    """
    # Sorted, so that the result does not depend on how the mapping was filled.
    return "; ".join([key, *[k if v is None else f"{k}={v}" for k, v in sorted(pdict.items())]])
