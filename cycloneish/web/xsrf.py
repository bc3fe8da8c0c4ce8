"""Protection against requests that another site makes a browser send.

Part of `RequestHandler`; two independent ways, each switched on by a setting:

* `xsrf_cookies`: a random token in a cookie has to come back as an argument or a header.
* `cross_origin_protection`: the browser says where a request comes from (*Sec-Fetch-Site*, *Origin*), and
  only this origin and the setting `trusted_origins` are accepted. Needs nothing in the forms.

GET, HEAD and OPTIONS are not checked: they must not change anything.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from binascii import a2b_hex, b2a_hex
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from cycloneish.escape import utf8, xhtml_escape
from cycloneish.log import gen_log
from cycloneish.web.arguments import ArgumentsMixin
from cycloneish.web.cookies import CookiesMixin
from cycloneish.web.errors import HTTPError
from cycloneish.web.visitor import VisitorMixin

__all__ = ["XsrfMixin"]

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_VERSION = re.compile(r"([1-9][0-9]*)\|")
_TOKEN_BYTES = 16
_MASK_BYTES = 4


class _Token(NamedTuple):
    """A token without its mask; the version is None for one that was made for this response."""

    version: int | None
    token: bytes
    timestamp: float


class XsrfMixin(ArgumentsMixin, CookiesMixin, VisitorMixin):
    """`xsrf_token`, `check_xsrf_cookie`, `check_trusted_origin`."""

    xsrf_cookie_name: str | None = None
    """The name of the cookie with the token; None: the setting of this name, else `_xsrf` (Cyclone)."""

    _xsrf_token: bytes | None = None
    _raw_xsrf_token: _Token | None = None

    def _cross_origin_protection(self) -> None:
        """Run the checks that are switched on. WebSockets begin with a GET and have their own check."""
        if self.request.method in SAFE_METHODS:
            return
        settings = self.application.settings
        if settings.get("xsrf_cookies"):
            self.check_xsrf_cookie()
        if settings.get("cross_origin_protection"):
            refusal = self._check_cross_origin(self.check_trusted_origin)
            if refusal is not None:
                raise HTTPError(403, refusal)

    # -- by token ----------------------------------------------------------------------------------

    @property
    def xsrf_token(self) -> bytes:
        """The token that a form or a script has to send back; looking at it sends the cookie if there is none
        yet.

        It is masked anew for each response, so that compression cannot give it away (the BREACH attack).
        Settings: `xsrf_cookie_name` (`_xsrf`), `xsrf_cookie_version` (2), `xsrf_cookie_kwargs` (for
        `set_cookie`).
        """
        if self._xsrf_token is None:
            self._xsrf_token = self._make_xsrf_token()
        return self._xsrf_token

    def _make_xsrf_token(self) -> bytes:
        settings = self.application.settings
        version, token, timestamp = self._get_raw_xsrf_token()
        output_version = settings.get("xsrf_cookie_version", 2)
        if output_version == 1:
            output = b2a_hex(token)
        elif output_version == 2:
            mask = os.urandom(_MASK_BYTES)
            output = b"|".join(
                (b"2", b2a_hex(mask), b2a_hex(_masked(mask, token)), str(int(timestamp)).encode())
            )
        else:
            raise ValueError(f"the setting xsrf_cookie_version is {output_version!r}; it can be 1 or 2")
        if version is None:
            kwargs = dict(settings.get("xsrf_cookie_kwargs", {}))
            if "expires_days" not in kwargs and self.current_user:
                kwargs["expires_days"] = 30
            self.set_cookie(self._xsrf_name(), output, **kwargs)
        return output

    def _xsrf_name(self) -> str:
        # Cyclone has it on the class, Tornado among the settings.
        name: str = self.xsrf_cookie_name or self.application.settings.get("xsrf_cookie_name", "_xsrf")
        return name

    def _get_raw_xsrf_token(self) -> _Token:
        """The token of the request's cookie, or a new one, whose version is None."""
        if self._raw_xsrf_token is None:
            cookie = self.get_cookie(self._xsrf_name())
            found = _decode(cookie) if cookie else None
            self._raw_xsrf_token = found or _Token(None, os.urandom(_TOKEN_BYTES), time.time())
        return self._raw_xsrf_token

    def check_xsrf_cookie(self) -> None:
        """Raise `HTTPError` (403) unless the request brings the token of its cookie back.

        It is looked for in the argument `_xsrf` and in the headers *X-XSRFToken* and *X-CSRFToken*. Override
        to do nothing in a handler that is called by programs and does not look at cookies.
        """
        headers = self.request.headers
        given = self.get_argument("_xsrf", None) or headers.get("X-Xsrftoken") or headers.get("X-Csrftoken")
        if not given:
            raise HTTPError(403, f"'_xsrf' argument missing from {self.request.method}")
        found = _decode(given)
        if found is None or not found.token:
            raise HTTPError(403, "'_xsrf' argument has invalid format")
        if not hmac.compare_digest(found.token, self._get_raw_xsrf_token().token):
            raise HTTPError(403, f"XSRF cookie does not match {self.request.method} argument")

    def xsrf_form_html(self) -> str:
        """The hidden field for a form: `{% module xsrf_form_html() %}` in a template."""
        return f'<input type="hidden" name="_xsrf" value="{xhtml_escape(self.xsrf_token)}"/>'

    # -- by origin ---------------------------------------------------------------------------------

    def _check_cross_origin(self, check: Callable[[str], bool]) -> str | None:
        """Why the request is refused, or None. *check* is asked about another origin."""
        headers = self.request.headers
        site = headers.get("Sec-Fetch-Site")
        if site in ("same-origin", "none"):
            return None
        origin = headers.get("Origin")
        if site is not None:  # same-site, cross-site
            return (
                None if origin and check(origin) else f"Sec-Fetch-Site {site} & origin {origin!r} not allowed"
            )
        # No browser of these years over TLS. Without an origin, it is no browser at all.
        if origin is None or self._origin_matches_host(origin) or check(origin):
            return None
        return f"Origin {origin!r} not allowed"

    def _origin_matches_host(self, origin: str) -> bool:
        # The scheme is left out of it: behind a proxy that ends TLS it is not known for sure.
        try:
            return urlsplit(origin).netloc.lower() == self.request.headers.get("Host", "").lower()
        except ValueError:
            return False

    def check_trusted_origin(self, origin: str) -> bool:
        """Whether *origin* (such as `https://example.com`), which is not this one, may send requests here.

        Unless overridden, it has to be in the setting `trusted_origins`. It is asked before `prepare`, and by
        WebSocket handlers as well. Whoever returns True for everybody must not trust cookies.
        """
        return origin in self.application.settings.get("trusted_origins", ())


def _masked(mask: bytes, data: bytes) -> bytes:
    """XOR *data* with the repeated *mask*; its own inverse."""
    if not data or not mask:
        return data
    size = len(data)
    repeated = (mask * (size // len(mask) + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(size)


def _decode(text: str) -> _Token | None:
    """Read a token as it came, or None if it is none."""
    try:
        match = _VERSION.match(text)
        if match is None:
            # Version 1 is the token in hexadecimal, and before that it was any text.
            try:
                token = a2b_hex(text)
            except ValueError:
                token = utf8(text)
            return _Token(1, token, int(time.time()))
        if match[1] != "2":
            return None
        _, mask, masked, timestamp = text.split("|")
        raw_mask = a2b_hex(mask)
        if len(raw_mask) != _MASK_BYTES:
            return None
        return _Token(2, _masked(raw_mask, a2b_hex(masked)), int(timestamp))
    except ValueError:
        gen_log.debug("malformed XSRF token")
        return None
