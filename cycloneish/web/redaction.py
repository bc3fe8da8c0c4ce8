"""What may be shown of a request and of a program's variables, and what is a secret.

`cycloneish.web.debug` shows nothing that has not come through here. A value is hidden because of its
name (a password field, an *Authorization* header), and wherever else it turns up: in another variable,
in the message of the exception, in a line of source.

No code of the application runs: only plain data (text, numbers, lists and dictionaries of them, by
exact type) is shown by value, everything else by its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote_plus

from cycloneish.httputil import HTTPInputError

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler

__all__ = ["HIDDEN", "Redactor", "is_secret_name"]

HIDDEN = "•••••• (hidden)"

_SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|secret|token|auth(?!or(?!i))|cookie|session|credential|signature|xsrf|csrf|jwt|bearer"
    r"|dsn|database_?url|conninfo|private|(?:api|access|signing|encryption|license|master)[-_]?key"
    r"|credit_?card|card_?n|(?:^|[-_])(?:otp|cvv|cvc|pin|nonce|salt)(?:$|[-_])",
    re.IGNORECASE,
)
# Too common as names of variables, but nothing to show when a client sends them.
_SECRET_ARGUMENT = re.compile(r"key|code|sig", re.IGNORECASE)
# Settings about secrets that are none.
_HARMLESS_SETTING = re.compile(r"_(?:name|kwargs|version|path|header|days|class)$")
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
# An assignment or keyword argument of a literal to a name, for source lines.
_LITERAL = re.compile(r"""(["']?)([A-Za-z_][\w-]*)\1(\s*[=:]\s*[rbuRBU]{0,2})("[^"]*"|'[^']*')""")
# Characters. A shorter value is hidden where it stands, but not wherever the same letters turn up.
_SHORTEST_PASSWORD = 4
_SHORTEST_SECRET = 8
_MOST_SECRETS = 2000
_LONGEST_LOOKED_AT = 20_000  # characters of one value
_SHOWN = 300  # characters of one value
_ITEMS = 20  # of a list or dictionary
_PLAIN_SCALARS = (str, bytes, bytearray, int, float, complex, bool, type(None))
_PLAIN_DATA = (*_PLAIN_SCALARS, dict, list, tuple, set, frozenset)


def is_secret_name(name: str) -> bool:
    """Whether what has this name is likely a secret."""
    return _SECRET_NAME.search(name) is not None


def _is_secret_argument(name: str) -> bool:
    return is_secret_name(name) or _SECRET_ARGUMENT.fullmatch(name) is not None


class Redactor:
    """Turns values into text that can be shown; knows the secrets of one request.

    :param handler: of the request.
    """

    def __init__(self, handler: RequestHandler) -> None:
        self._request = handler.request
        self._known: set[str] = set()
        self._secrets: re.Pattern[str] | None = None
        for secret, shortest in self._find_secrets(handler):
            self._learn(secret, shortest)

    def learn(self, name: str, value: object) -> None:
        """Hide *value*, from now on, wherever it turns up, if *name* says that it is a secret."""
        if is_secret_name(name):
            for text in _strings_in(value):
                self._learn(text, _SHORTEST_SECRET)

    def _learn(self, secret: str, shortest: int) -> None:
        if shortest <= len(secret) <= _LONGEST_LOOKED_AT and len(self._known) < _MOST_SECRETS:
            forms = (
                secret,
                quote(secret, errors="replace"),
                quote_plus(secret, errors="replace"),
                unquote_plus(secret),
                repr(secret)[1:-1],
            )
            self._known.update(filter(None, forms))
            self._secrets = None

    def _find_secrets(self, handler: RequestHandler) -> Iterator[tuple[str, int]]:
        """Secrets, and from which length on each is searched for."""
        for name, value in list(handler.application.settings.items()):
            if isinstance(name, str) and is_secret_name(name) and not _HARMLESS_SETTING.search(name):
                for text in _strings_in(value):
                    yield text, _SHORTEST_PASSWORD
        for name, value in self._request.headers.get_all():
            if name != "Cookie" and is_secret_name(name):
                for text in (value, *value.split(None, 1)[1:]):  # behind "Basic" and "Bearer"
                    yield text, _SHORTEST_SECRET
        for header in self._request.headers.get_list("Cookie"):
            for pair in header.split(";"):
                yield pair.partition("=")[2].strip().strip('"'), _SHORTEST_SECRET
        for kind in ("query_arguments", "body_arguments"):
            for name, values in self._get_arguments(kind).items():
                if _is_secret_argument(name):
                    for one in values:
                        yield one.decode("utf-8", "replace"), _SHORTEST_PASSWORD

    # -- text -----------------------------------------------------------------------------------------

    def text(self, text: str, limit: int = _SHOWN) -> str:
        """Return *text* without the secrets in it, cut to about *limit* characters."""
        text = text[:_LONGEST_LOOKED_AT]
        if self._known:
            if self._secrets is None:
                # The longest first, as one may be a part of another.
                ordered = sorted(self._known, key=len, reverse=True)
                self._secrets = re.compile("|".join(map(re.escape, ordered)))
            text = self._secrets.sub(HIDDEN, text)
        if "://" in text:
            text = _CREDENTIALS_IN_URL.sub(HIDDEN, text)
        return text if len(text) <= limit else text[:limit] + " …"

    def source(self, line: str) -> str:
        """Return a line of source without literals that are given to a secret name."""

        def hide(match: re.Match[str]) -> str:
            quote_mark, name, between, _ = match.groups()
            if not is_secret_name(name):
                return match.group()
            return f"{quote_mark}{name}{quote_mark}{between}{HIDDEN}"

        return self.text(_LITERAL.sub(hide, line[:_LONGEST_LOOKED_AT]), 400)

    def url(self, url: str) -> str:
        """Return *url* without the values of arguments that have a secret name."""
        before, mark, query = url[:_LONGEST_LOOKED_AT].partition("?")
        shown = []
        for argument in query.split("&"):
            name, equals, value = argument.partition("=")
            hidden = bool(value) and _is_secret_argument(unquote_plus(name))
            shown.append(name + equals + (HIDDEN if hidden else value))
        return self.text(before + mark + "&".join(shown), 1000)

    # -- values ---------------------------------------------------------------------------------------

    def variable(self, name: str, value: object, depth: int = 0) -> str:
        """Return what to show for the variable *name*."""
        if is_secret_name(name) and type(value) in _PLAIN_DATA and not (value is None or type(value) is bool):
            return HIDDEN
        return self.plain(value, depth)

    def plain(self, value: object, depth: int = 0) -> str:
        """Return *value* as text if it is plain data, else the name of its type in angle brackets."""
        kind: type = type(value)
        data: Any = value
        if kind in _PLAIN_SCALARS:
            return self._scalar(data)
        if depth > 2:
            return "…"
        if kind is dict:
            return self._dict(data, depth)
        if kind in (list, tuple, set, frozenset):
            return self._items(kind, data, depth)
        return f"<{kind.__module__}.{kind.__qualname__}>"

    def _scalar(self, value: Any) -> str:
        if isinstance(value, str):
            return repr(self.text(value))
        if isinstance(value, bytes | bytearray):
            return "b" + repr(self.text(bytes(value[:_LONGEST_LOOKED_AT]).decode("latin-1")))
        if isinstance(value, int) and value.bit_length() > 512:
            return f"<int of {value.bit_length()} bits>"
        return repr(value)

    def _dict(self, value: dict[Any, Any], depth: int) -> str:
        parts = []
        for key, item in list(value.items())[:_ITEMS]:
            shown = self.plain(key, depth + 1)
            name = key.decode("latin-1") if type(key) is bytes else key
            if type(name) is str:
                parts.append(f"{shown}: {self.variable(name, item, depth + 1)}")
            else:
                parts.append(f"{shown}: {self.plain(item, depth + 1)}")
        if len(value) > _ITEMS:
            parts.append(f"… {len(value) - _ITEMS} more")
        return "{" + ", ".join(parts) + "}"

    def _items(self, kind: type, value: Any, depth: int) -> str:
        parts = [self.plain(item, depth + 1) for item in list(value)[:_ITEMS]]
        if len(value) > _ITEMS:
            parts.append(f"… {len(value) - _ITEMS} more")
        inside = ", ".join(parts)
        if kind is list:
            return f"[{inside}]"
        if kind is tuple:
            return f"({inside})"
        return f"{kind.__name__}({{{inside}}})"

    # -- the request ----------------------------------------------------------------------------------

    def headers(self) -> list[tuple[str, str]]:
        """Names and values of the request's headers."""
        return [
            (self.text(name), HIDDEN if is_secret_name(name) else self._header(name, value))
            for name, value in self._request.headers.get_all()
        ]

    def _header(self, name: str, value: str) -> str:
        # The referring page may have had a token in its address.
        return self.url(value) if name == "Referer" else self.text(value)

    def cookies(self) -> list[tuple[str, str]]:
        """Names of the request's cookies; what is in them is hidden."""
        pairs = "; ".join(self._request.headers.get_list("Cookie")).split(";")
        names = [pair.partition("=")[0].strip() for pair in pairs]
        return [(self.text(name, 100), HIDDEN) for name in names if name]

    def arguments(self, kind: str) -> list[tuple[str, str]]:
        """Names and values of the request's `query_arguments` or `body_arguments`."""
        rows = []
        for name, values in list(self._get_arguments(kind).items())[:100]:
            shown = [self.text(value.decode("utf-8", "replace")) for value in values[:_ITEMS]]
            rows.append((self.text(name, 100), HIDDEN if _is_secret_argument(name) else "\n".join(shown)))
        return rows

    def files(self) -> list[tuple[str, str]]:
        """Field names of uploaded files, with the names and types that the client gave them."""
        try:
            files = self._request.files
        except HTTPInputError:
            return []
        return [
            (self.text(name, 100), self.text(f"{file.filename} ({file.content_type})"))
            for name, uploads in files.items()
            for file in uploads[:_ITEMS]
        ]

    def _get_arguments(self, kind: str) -> Mapping[str, list[bytes]]:
        try:
            found: Mapping[str, list[bytes]] = getattr(self._request, kind)
        except HTTPInputError:  # it may be why there is an error to show
            return {}
        return found


def _strings_in(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, str):
        yield value
    elif depth < 3:
        members: Iterable[object] = ()
        if isinstance(value, dict):
            members = value.values()
        elif isinstance(value, list | tuple | set):
            members = value
        for member in members:
            yield from _strings_in(member, depth + 1)
