"""``OAuthMixin``: OAuth 1.0 and 1.0a (RFC 5849)."""

from __future__ import annotations

import binascii
import hmac
import secrets
import time
from base64 import b64decode, b64encode
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin

from cycloneish.auth.common import ClientMixin, deferred, handler_of
from cycloneish.auth.errors import AuthError
from cycloneish.auth.signatures import signature
from cycloneish.escape import to_basestring, utf8

__all__ = ["OAuthMixin"]

_COOKIE = "_oauth_request_token"


class OAuthMixin(ClientMixin):
    """Signing in with OAuth 1.0a, for a handler.

    Class attributes of a provider: ``_OAUTH_REQUEST_TOKEN_URL``, ``_OAUTH_AUTHORIZE_URL``,
    ``_OAUTH_ACCESS_TOKEN_URL``, ``_OAUTH_VERSION`` (``"1.0a"`` or ``"1.0"``), ``_OAUTH_NO_CALLBACKS``
    (callbacks are registered beforehand), ``_OAUTH_SIGNATURE_METHOD`` (``HMAC-SHA1``).  A subclass defines
    ``_oauth_consumer_token`` and ``_oauth_get_user_future``.

    Counterpart: ``tornado.auth.OAuthMixin``.
    """

    _OAUTH_REQUEST_TOKEN_URL: str
    _OAUTH_AUTHORIZE_URL: str
    _OAUTH_ACCESS_TOKEN_URL: str
    _OAUTH_VERSION = "1.0a"
    _OAUTH_NO_CALLBACKS = False
    _OAUTH_SIGNATURE_METHOD = "HMAC-SHA1"

    @deferred
    async def authorize_redirect(
        self,
        callback_uri: str | None = None,
        extra_params: dict[str, Any] | None = None,
        http_client: Any = None,
    ) -> None:
        """Get a request token and send the browser to the provider.

        :param callback_uri: where the provider sends it back to; ``oob`` shows the address instead.
        :param extra_params: further parameters of the request for the token.
        :param http_client: asks the provider.
        :returns: fires when the answer is finished.  It fails with ``AuthError``.
        """
        if callback_uri and self._OAUTH_NO_CALLBACKS:
            raise ValueError("callbacks are registered with this provider: no callback_uri")
        url = (
            self._oauth_request_token_url(callback_uri=callback_uri, extra_params=extra_params)
            if self._OAUTH_VERSION == "1.0a"
            else self._oauth_request_token_url()
        )
        response = await (http_client or self.get_auth_http_client()).fetch(url)
        self._on_request_token(self._OAUTH_AUTHORIZE_URL, callback_uri, response)

    @deferred
    async def get_authenticated_user(self, http_client: Any = None) -> dict[str, Any]:
        """Finish signing in, in the handler to which the provider has sent the browser back.

        :param http_client: asks the provider.
        :returns: fires with the user, ``access_token`` (a dict) included.  It fails with ``AuthError``.
        """
        handler = handler_of(self)
        request_key = handler.get_argument("oauth_token")
        verifier = handler.get_argument("oauth_verifier", None)
        cookie = handler.get_cookie(_COOKIE)
        if not cookie:
            raise AuthError("Missing OAuth request token cookie")
        handler.clear_cookie(_COOKIE)
        try:
            key, secret = (b64decode(part, validate=True).decode() for part in cookie.split("|"))
        except (binascii.Error, ValueError):
            raise AuthError("the OAuth request token cookie is malformed") from None
        if not hmac.compare_digest(key.encode(), request_key.encode()):
            raise AuthError("Request token does not match cookie")
        token = {"key": key, "secret": secret}
        if verifier:
            token["verifier"] = verifier
        client = http_client or self.get_auth_http_client()
        response = await client.fetch(self._oauth_access_token_url(token))
        access_token = _parse_token(response.body)
        user = await self._oauth_get_user_future(access_token)
        if not user:
            raise AuthError("Error getting user")
        user["access_token"] = access_token
        return user

    def _oauth_consumer_token(self) -> dict[str, Any]:
        """The credentials of the application: a dict with ``key`` and ``secret``; to be defined."""
        raise NotImplementedError

    async def _oauth_get_user_future(self, access_token: dict[str, Any]) -> dict[str, Any]:
        """The user, as a dict; to be defined."""
        raise NotImplementedError

    def _oauth_sign(
        self,
        method: str,
        url: str,
        parameters: dict[str, Any],
        token: dict[str, Any] | None,
        own: dict[str, Any],
    ) -> dict[str, Any]:
        """Complete the oauth parameters *own* of a request, the signature included."""
        consumer = self._oauth_consumer_token()
        args = {
            "oauth_consumer_key": to_basestring(consumer["key"]),
            "oauth_signature_method": self._OAUTH_SIGNATURE_METHOD,
            "oauth_timestamp": str(int(time.time())),
            "oauth_nonce": secrets.token_hex(16),
            "oauth_version": "1.0",
            **own,
        }
        args["oauth_signature"] = signature(
            method,
            url,
            {**args, **parameters},
            to_basestring(consumer["secret"]),
            to_basestring(token["secret"]) if token else "",
            self._OAUTH_SIGNATURE_METHOD,
            escape_secrets=self._OAUTH_VERSION == "1.0a",
        )
        return args

    def _oauth_request_token_url(
        self, callback_uri: str | None = None, extra_params: dict[str, Any] | None = None
    ) -> str:
        own: dict[str, Any] = {}
        if self._OAUTH_VERSION == "1.0a":
            if callback_uri == "oob":
                own["oauth_callback"] = "oob"
            elif callback_uri:
                own["oauth_callback"] = urljoin(handler_of(self).request.full_url(), callback_uri)
            own.update(extra_params or {})
        url = self._OAUTH_REQUEST_TOKEN_URL
        return url + "?" + urlencode(self._oauth_sign("GET", url, {}, None, own))

    def _on_request_token(self, authorize_url: str, callback_uri: str | None, response: Any) -> None:
        handler = handler_of(self)
        token = _parse_token(response.body)
        data = b64encode(utf8(token["key"])) + b"|" + b64encode(utf8(token["secret"]))
        # Lax and not Strict: the provider's redirect has to bring it.
        secure = handler.request.protocol == "https"
        handler.set_cookie(_COOKIE, data, httponly=True, samesite="Lax", secure=secure)
        args = {"oauth_token": token["key"]}
        if callback_uri == "oob":
            handler.finish(authorize_url + "?" + urlencode(args))
            return
        if callback_uri:
            args["oauth_callback"] = urljoin(handler.request.full_url(), callback_uri)
        handler.redirect(authorize_url + "?" + urlencode(args))

    def _oauth_access_token_url(self, request_token: dict[str, Any]) -> str:
        own = {"oauth_token": to_basestring(request_token["key"])}
        if "verifier" in request_token:
            own["oauth_verifier"] = request_token["verifier"]
        url = self._OAUTH_ACCESS_TOKEN_URL
        return url + "?" + urlencode(self._oauth_sign("GET", url, {}, request_token, own))

    def _oauth_request_parameters(
        self,
        url: str,
        access_token: dict[str, Any],
        parameters: dict[str, Any] = {},  # noqa: B006  (not changed)
        method: str = "GET",
    ) -> dict[str, Any]:
        """The oauth parameters of a request, signed.

        :param url: of the request.
        :param access_token: a dict with ``key`` and ``secret``.
        :param parameters: of the query and of an urlencoded body; those of an upload are not signed.
        """
        own = {"oauth_token": to_basestring(access_token["key"])}
        return self._oauth_sign(method, url, parameters, access_token, own)


def _parse_token(body: bytes) -> dict[str, Any]:
    """Read the answer of a token endpoint (RFC 5849 section 2.1).

    :raises AuthError: it is none.
    """
    try:
        fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        token: dict[str, Any] = {"key": fields.pop("oauth_token"), "secret": fields.pop("oauth_token_secret")}
    except (KeyError, ValueError):
        raise AuthError("the provider gives no token") from None
    return {**fields, **token}
