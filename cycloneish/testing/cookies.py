"""The cookies that a test client keeps between its requests.

Owned by :class:`~cycloneish.testing.Client`. One jar is for one site, so domains are not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import Any

from cycloneish.httputil import HTTPHeaders
from cycloneish.signing import create_signed_value, decode_signed_value

__all__ = ["CookieJar"]


@dataclass(slots=True)
class _Cookie:
    name: str
    value: str
    coded: str
    path: str
    secure: bool
    expires: float | None

    def is_for(self, path: str, secure: bool) -> bool:
        if self.secure and not secure:
            return False
        prefix = self.path if self.path.endswith("/") else f"{self.path}/"
        return path == self.path or path.startswith(prefix)


class CookieJar(MutableMapping[str, str]):
    """Cookies by name. What the server sets goes in, what is due goes out, as in a browser (RFC 6265).

    ::

        client.cookies["theme"] = "dark"
        client.cookies.set_signed("user", "ann")        # signed in
        self.assertEqual(client.cookies.get_signed("user"), b"ann")

    :param settings: the application's; ``cookie_secret`` and ``key_version`` sign cookies.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self._settings = settings or {}
        self._cookies: dict[tuple[str, str], _Cookie] = {}
        self._codec: SimpleCookie = SimpleCookie()

    def __getitem__(self, name: str) -> str:
        for cookie in self._fresh():
            if cookie.name == name:
                return cookie.value
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        keys = [key for key in self._cookies if key[0] == name]
        if not keys:
            raise KeyError(name)
        for key in keys:
            del self._cookies[key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(cookie.name for cookie in self._fresh()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def set(self, name: str, value: str | bytes, path: str = "/", secure: bool = False) -> None:
        """Put a cookie into the jar as if the server had set it."""
        text = value.decode() if isinstance(value, bytes) else value
        value, coded = self._codec.value_encode(text)
        self._cookies[name, path] = _Cookie(name, value, coded, path, secure, None)

    def set_signed(self, name: str, value: str | bytes, version: int | None = None) -> None:
        """Sign *value* as ``RequestHandler.set_signed_cookie`` does and put it into the jar.

        :raises LookupError: the application has no ``cookie_secret``.
        """
        key_version = self._settings.get("key_version")
        self.set(name, create_signed_value(self._secret(), name, value, version, key_version=key_version))

    def get_signed(self, name: str, max_age_days: float = 31, min_version: int | None = None) -> bytes | None:
        """The verified value of a signed cookie in the jar, or None.

        :raises LookupError: the application has no ``cookie_secret``.
        """
        return decode_signed_value(
            self._secret(), name, self.get(name), max_age_days=max_age_days, min_version=min_version
        )

    #: Cyclone's and older Tornado's names.
    set_secure_cookie = set_signed
    get_secure_cookie = get_signed

    def header(self, path: str, secure: bool) -> str | None:
        """What goes into the Cookie header of a request, longer paths first, or None."""
        due = [cookie for cookie in self._fresh() if cookie.is_for(path, secure)]
        due.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.coded}" for cookie in due) or None

    def extract(self, headers: HTTPHeaders, path: str) -> None:
        """Take the Set-Cookie headers of a response to a request for *path*."""
        for line in headers.get_list("Set-Cookie"):
            self._take(line, path)

    def _take(self, line: str, request_path: str) -> None:
        pair, *attributes = line.split(";")
        name, equals, coded = pair.strip().partition("=")
        if not equals or not name:
            return
        path, expires, secure, max_age = "", None, False, None
        for attribute in attributes:
            key, _, value = attribute.strip().partition("=")
            match key.lower():
                case "path":
                    path = value
                case "secure":
                    secure = True
                case "max-age" if value.lstrip("-").isdigit():
                    max_age = int(value)
                case "expires":
                    try:
                        expires = parsedate_to_datetime(value).timestamp()
                    except ValueError:
                        pass
        if not path.startswith("/"):
            path = request_path.rpartition("/")[0] or "/"
        if max_age is not None:
            expires = time.time() + max_age
        value, coded = self._codec.value_decode(coded)
        if expires is not None and expires <= time.time():
            self._cookies.pop((name, path), None)
        else:
            self._cookies[name, path] = _Cookie(name, value, coded, path, secure, expires)

    def _fresh(self) -> list[_Cookie]:
        now = time.time()
        return [cookie for cookie in self._cookies.values() if cookie.expires is None or cookie.expires > now]

    def _secret(self) -> Any:
        try:
            return self._settings["cookie_secret"]
        except KeyError:
            raise LookupError("signed cookies need the setting 'cookie_secret' of the application") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"
