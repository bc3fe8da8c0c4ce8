"""Who asks, and in which language: the current user and the locale of a request.

Part of `RequestHandler`. Both are found out when they are first looked at, and kept for the request.
"""

from __future__ import annotations

import re
from typing import Any

from cycloneish.locale import Locale
from cycloneish.locale import get as get_locale
from cycloneish.web.base import HandlerBase

__all__ = ["VisitorMixin"]

# RFC 9110, section 12.4.2.
_QUALITY = re.compile(r"[qQ]=([01](?:\.[0-9]{0,3})?|\.[0-9]{1,3})")
_MAX_LANGUAGES = 64


class VisitorMixin(HandlerBase):
    """`current_user` and `locale`."""

    _locale: Locale | None = None

    @property
    def locale(self) -> Locale:
        """The language of the response: `get_user_locale`, else `get_browser_locale`; may be set."""
        if self._locale is None:
            self._locale = self.get_user_locale() or self.get_browser_locale()
        return self._locale

    @locale.setter
    def locale(self, value: Locale) -> None:
        self._locale = value

    def get_user_locale(self) -> Locale | None:
        """Override to say which locale the user has chosen; None means to ask the browser."""
        return None

    def get_browser_locale(self, default: str = "en_US") -> Locale:
        """Return the locale that fits the request's *Accept-Language* best, or *default*.

        Source: RFC 9110, section 12.5.4.
        """
        header = self.request.headers.get("Accept-Language")
        if header:
            wanted: list[tuple[float, str]] = []
            for item in header.split(",", _MAX_LANGUAGES)[:_MAX_LANGUAGES]:
                code, *parameters = item.strip().split(";")
                quality = _quality(parameters[0]) if parameters else 1.0
                if quality > 0 and code:
                    wanted.append((quality, code))
            if wanted:
                wanted.sort(key=_by_quality, reverse=True)
                return get_locale(*[code for _, code in wanted])
        return get_locale(default)

    # -- the user ----------------------------------------------------------------------------------

    @property
    def current_user(self) -> Any:
        """The user of this request: what `get_current_user` returned, or what was set, usually in `prepare`.

        An asynchronous look-up has to be in `prepare`::

            async def prepare(self):
                self.current_user = await load_user(self.get_signed_cookie("user"))
        """
        if "_current_user" not in self.__dict__:
            self._current_user = self.get_current_user()
        return self._current_user

    @current_user.setter
    def current_user(self, value: Any) -> None:
        self._current_user = value

    def get_current_user(self) -> Any:
        """Override to find out who asks, for example from a signed cookie. May not be asynchronous."""
        return None

    def get_login_url(self) -> str:
        """Where `authenticated` sends those who are not signed in: the setting `login_url`."""
        self.require_setting("login_url", "@authenticated")
        return str(self.application.settings["login_url"])


def _quality(parameter: str) -> float:
    match = _QUALITY.fullmatch(parameter.strip())
    return float(match[1]) if match else 0.0 if parameter.strip()[:2] in ("q=", "Q=") else 1.0


def _by_quality(item: tuple[float, str]) -> float:
    return item[0]
