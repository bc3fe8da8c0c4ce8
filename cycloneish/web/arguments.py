"""Arguments of a request, as text: from the query, from the body, from the path.

Part of `RequestHandler`. Nothing is parsed or decoded before a handler asks for it.
"""

from __future__ import annotations

import re
from typing import Any, Final, overload

from cycloneish.escape import to_unicode
from cycloneish.web.base import HandlerBase
from cycloneish.web.errors import HTTPError, MissingArgumentError

__all__ = ["ArgumentsMixin"]


class _Required:
    """Stands for "no default": an argument without one has to be there."""

    def __repr__(self) -> str:
        return "<required>"


REQUIRED: Final = _Required()

# All but tab, newline, vertical tab, form feed and carriage return, which people do type into a text area.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f]")


class ArgumentsMixin(HandlerBase):
    """`get_argument` and its relatives."""

    @overload
    def get_argument(self, name: str, default: str, strip: bool = True) -> str: ...
    @overload
    def get_argument(self, name: str, default: _Required = REQUIRED, strip: bool = True) -> str: ...
    @overload
    def get_argument(self, name: str, default: None, strip: bool = True) -> str | None: ...

    def get_argument(
        self, name: str, default: str | _Required | None = REQUIRED, strip: bool = True
    ) -> str | None:
        """Return the last value of the argument *name* from the query or the body.

        :param default: what to return if it is missing; without a default it is required.
        :param strip: remove white space at both ends.
        :raises MissingArgumentError: (400) it is required and missing.
        :raises HTTPError: (400) it is not UTF-8, or the body cannot be parsed.
        """
        return self._last(self._decoded(name, self.request._known_arguments(), strip), name, default)

    def get_arguments(self, name: str, strip: bool = True) -> list[str]:
        """Return all values of the argument *name* from the query and the body, in that order."""
        if not isinstance(strip, bool):
            raise TypeError("get_arguments() takes no default: its second argument is strip, True or False")
        return self._decoded(name, self.request._known_arguments(), strip)

    @overload
    def get_body_argument(self, name: str, default: str, strip: bool = True) -> str: ...
    @overload
    def get_body_argument(self, name: str, default: _Required = REQUIRED, strip: bool = True) -> str: ...
    @overload
    def get_body_argument(self, name: str, default: None, strip: bool = True) -> str | None: ...

    def get_body_argument(
        self, name: str, default: str | _Required | None = REQUIRED, strip: bool = True
    ) -> str | None:
        """Return the last value of the argument *name* from the body; see `get_argument`."""
        return self._last(self._decoded(name, self.request._known_body_arguments(), strip), name, default)

    def get_body_arguments(self, name: str, strip: bool = True) -> list[str]:
        """Return all values of the argument *name* from the body."""
        return self._decoded(name, self.request._known_body_arguments(), strip)

    @overload
    def get_query_argument(self, name: str, default: str, strip: bool = True) -> str: ...
    @overload
    def get_query_argument(self, name: str, default: _Required = REQUIRED, strip: bool = True) -> str: ...
    @overload
    def get_query_argument(self, name: str, default: None, strip: bool = True) -> str | None: ...

    def get_query_argument(
        self, name: str, default: str | _Required | None = REQUIRED, strip: bool = True
    ) -> str | None:
        """Return the last value of the argument *name* from the query; see `get_argument`."""
        return self._last(self._decoded(name, self.request._known_query_arguments(), strip), name, default)

    def get_query_arguments(self, name: str, strip: bool = True) -> list[str]:
        """Return all values of the argument *name* from the query."""
        return self._decoded(name, self.request._known_query_arguments(), strip)

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Turn the bytes of an argument into text; override for another encoding than UTF-8.

        Called for every argument that is asked for, and for every group of the path.

        :param name: of the argument, or None for an unnamed group of the path.
        :raises HTTPError: (400) they are not UTF-8.
        """
        try:
            # An optional group of the path that matched nothing is None and stays so.
            return to_unicode(value)
        except UnicodeDecodeError:
            raise HTTPError(400, f"Invalid unicode in {name or 'url'}: {value[:40]!r}") from None

    def _decoded(self, name: str, source: dict[str, list[bytes]], strip: bool) -> list[str]:
        values = source.get(name)
        if values is None:
            return []
        decoded = []
        for value in values:
            text: Any = self.decode_argument(value, name=name)
            # An override may return bytes or something else; that is left as it is.
            if isinstance(text, str) and not text.isprintable():
                text = _CONTROL_CHARACTERS.sub(" ", text)
            decoded.append(text.strip() if strip else text)
        return decoded

    def _last(self, values: list[str], name: str, default: str | _Required | None) -> str | None:
        if values:
            return values[-1]
        if isinstance(default, _Required):
            raise MissingArgumentError(name)
        return default
