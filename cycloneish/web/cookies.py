"""Cookies of the request and of the response, plain and signed.

Part of `RequestHandler`. The format of signed values is in `cycloneish.signing`; the response gets the
cookies when its head is written, so that a cookie set twice is sent once.
"""

from __future__ import annotations

import datetime
import re
import warnings
from http.cookies import CookieError, Morsel, SimpleCookie
from typing import Any, overload

from cycloneish import httputil
from cycloneish.escape import native_str
from cycloneish.signing import create_signed_value, decode_signed_value, get_signature_key_version
from cycloneish.web.base import HandlerBase

__all__ = ["CookiesMixin"]

_Expires = float | tuple[int, ...] | datetime.datetime

# RFC 6265, section 4.1.1: a semicolon ends an attribute, a line end the header. Blanks in names and
# attributes are refused for the clients that take them for an end as well.
# Above U+00FF there is no byte for a character in a header.
_UNSAFE_ATTRIBUTE = re.compile(r"[^\x21-\x3a\x3c-\x7e\x80-\xff]")
_UNSAFE_VALUE = re.compile(r"[^\x21-\xff]")
_quote = SimpleCookie().value_encode
_LONG_AGO = datetime.timedelta(days=365)


class CookiesMixin(HandlerBase):
    """`get_cookie`, `set_cookie` and their signed relatives."""

    # The cookies to be sent, by name; None while there are none, which is the case for most requests.
    _new_cookie: dict[str, Morsel[str]] | None = None

    @property
    def cookies(self) -> Any:
        """The cookies of the request, a dictionary of `http.cookies.Morsel`."""
        return self.request.cookies

    @overload
    def get_cookie(self, name: str, default: str) -> str: ...
    @overload
    def get_cookie(self, name: str, default: None = None) -> str | None: ...

    def get_cookie(self, name: str, default: str | None = None) -> str | None:
        """Return the value of the request's cookie *name*, or *default*.

        What this handler sets with `set_cookie` is seen by the next request only.
        """
        value = self.request._cookie_value(name)
        return default if value is None else value

    def set_cookie(
        self,
        name: str,
        value: str | bytes,
        domain: str | None = None,
        expires: _Expires | None = None,
        path: str = "/",
        expires_days: float | None = None,
        *,
        max_age: int | None = None,
        httponly: bool = False,
        secure: bool = False,
        samesite: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Send a cookie with the response.

        :param expires: when it ends: seconds since the epoch, a time tuple, or a `datetime`.
        :param expires_days: the same in days from now; *expires* goes first. With neither, it ends with the
            browser session.
        :param max_age: seconds; newer than *expires* and preferred by browsers.
        :param httponly: JavaScript does not see it.
        :param secure: only sent over TLS.
        :param samesite: `Strict`, `Lax` or `None` (as a string).
        :param kwargs: the same names in another spelling (`HttpOnly`, `SameSite`), as Tornado still takes
            them.
        :raises ValueError: the value has control characters or blanks.
        :raises http.cookies.CookieError: the name or an attribute would not stay inside its place in the
            header.
        """
        name = native_str(name)
        value = native_str(value)
        if _UNSAFE_VALUE.search(value):
            raise ValueError(f"Invalid cookie {name!r}: {value!r}")
        _refuse_unsafe(name, name=name, domain=domain, path=path, samesite=samesite, **kwargs)
        morsel: Morsel[str] = Morsel()
        morsel.set(name, value, _quote(value)[1])
        if domain:
            morsel["domain"] = domain
        if expires_days is not None and not expires:
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=expires_days)
        if expires:
            morsel["expires"] = httputil.format_timestamp(expires)
        if path:
            morsel["path"] = path
        if max_age:
            # int(), so that only a number can come out.
            morsel["max-age"] = str(int(max_age))
        if httponly:
            morsel["httponly"] = True
        if secure:
            morsel["secure"] = True
        if samesite:
            morsel["samesite"] = samesite
        if kwargs:
            for key, other in kwargs.items():
                morsel[key.replace("_", "-")] = other
            warnings.warn(
                f"set_cookie() takes its arguments in lower case: {sorted(kwargs)}",
                DeprecationWarning,
                stacklevel=2,
            )
        if self._new_cookie is None:
            self._new_cookie = {}
        # Out and in again: the last one set is the last one sent.
        self._new_cookie.pop(name, None)
        self._new_cookie[name] = morsel

    def clear_cookie(self, name: str, path: str = "/", domain: str | None = None, **kwargs: Any) -> None:
        """Tell the browser to forget the cookie *name*.

        :param path: as it was set with.
        :param domain: as it was set with.
        :param kwargs: as for `set_cookie`; sometimes samesite and secure have to be the same as well.
        """
        for excluded in ("expires", "max_age"):
            if excluded in kwargs:
                raise TypeError(f"clear_cookie() got an unexpected keyword argument '{excluded}'")
        expires = datetime.datetime.now(datetime.UTC) - _LONG_AGO
        self.set_cookie(name, value="", domain=domain, expires=expires, path=path, **kwargs)

    def clear_all_cookies(self, **kwargs: Any) -> None:
        """Tell the browser to forget every cookie it sent with this request; see `clear_cookie`."""
        for name in self.request.cookies:
            self.clear_cookie(name, **kwargs)

    # -- signed cookies ----------------------------------------------------------------------------

    def set_signed_cookie(
        self,
        name: str,
        value: str | bytes,
        expires_days: float | None = 30,
        version: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Send a cookie that nobody can forge (but anybody can read); needs the setting `cookie_secret`.

        :param expires_days: how long the browser keeps it; None: until it closes. `get_signed_cookie` has a
            limit of its own.
        :param version: of the signature's format; 2 unless given.
        :param kwargs: as for `set_cookie`.
        """
        self.set_cookie(
            name,
            self.create_signed_value(name, value, version=version),
            expires_days=expires_days,
            **kwargs,
        )

    def create_signed_value(self, name: str, value: str | bytes, version: int | None = None) -> bytes:
        """Return *value* signed and with the time; what `set_signed_cookie` sends."""
        self.require_setting("cookie_secret", "signed cookies")
        settings = self.application.settings
        secret = settings["cookie_secret"]
        key_version = None
        if isinstance(secret, dict):
            key_version = settings.get("key_version")
            if key_version is None:
                raise LookupError(
                    "a cookie_secret with several keys needs the setting 'key_version', the key to sign with"
                )
        return create_signed_value(secret, name, value, version=version, key_version=key_version)

    def get_signed_cookie(
        self,
        name: str,
        value: str | None = None,
        max_age_days: float = 31,
        min_version: int | None = None,
    ) -> bytes | None:
        """Return the value of the signed cookie *name*, or None if it is missing, forged or too old.

        :param value: a signed value that came another way than as a cookie.
        :param max_age_days: since it was signed.
        :param min_version: refuse older formats.
        """
        self.require_setting("cookie_secret", "signed cookies")
        if value is None:
            value = self.get_cookie(name)
        return decode_signed_value(
            self.application.settings["cookie_secret"],
            name,
            value,
            max_age_days=max_age_days,
            min_version=min_version,
        )

    def get_signed_cookie_key_version(self, name: str, value: str | None = None) -> int | None:
        """Return the number of the key that the cookie *name* was signed with, or None."""
        self.require_setting("cookie_secret", "signed cookies")
        if value is None:
            value = self.get_cookie(name)
        return None if value is None else get_signature_key_version(value)

    # The names until Tornado 6.3.
    set_secure_cookie = set_signed_cookie
    get_secure_cookie = get_signed_cookie
    get_secure_cookie_key_version = get_signed_cookie_key_version


def _refuse_unsafe(cookie: str, **attributes: Any) -> None:
    for name, value in attributes.items():
        if value is not None and _UNSAFE_ATTRIBUTE.search(str(value)):
            raise CookieError(f"Invalid cookie attribute {name}={value!r} for cookie {cookie!r}")
