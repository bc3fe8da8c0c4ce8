"""``OAuth2Mixin``: OAuth 2.0 (RFC 6749) with state and PKCE (RFC 7636).

Base of the mixins for Google, Facebook and GitHub.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import urlencode

from cycloneish.auth.common import ClientMixin, deferred, handler_of
from cycloneish.auth.errors import AuthError
from cycloneish.escape import json_decode
from cycloneish.httpclient.multipart import FileParts, encode_form, encode_multipart
from cycloneish.httputil import url_concat

__all__ = ["OAuth2Mixin"]

#: Seconds that somebody may take to sign in at the provider.
_MAX_AGE = 900
_COOKIE = "_oauth2_"


class OAuth2Mixin(ClientMixin):
    """Signing in with OAuth 2.0, for a handler.

    Class attributes of a provider: ``_OAUTH_AUTHORIZE_URL``, ``_OAUTH_ACCESS_TOKEN_URL``; ``_OAUTH_PKCE``,
    whether it knows PKCE.

    Where the application has a ``cookie_secret``, ``authorize_redirect`` sends a random ``state`` along and
    binds it to the browser with a signed cookie, and ``check_state``, which every ``get_authenticated_user``
    calls, refuses a callback that has not got it.  Without a ``cookie_secret`` there is no such check, as in
    Tornado.

    Counterpart: ``tornado.auth.OAuth2Mixin``, which leaves state and PKCE to the program.
    """

    _OAUTH_AUTHORIZE_URL: str
    _OAUTH_ACCESS_TOKEN_URL: str
    _OAUTH_PKCE = False
    #: Whether access tokens go into the header Authorization rather than into the URL.
    _OAUTH_TOKEN_IN_HEADER = False

    def authorize_redirect(
        self,
        redirect_uri: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        extra_params: dict[str, Any] | None = None,
        scope: list[str] | None = None,
        response_type: str = "code",
    ) -> None:
        """Send the browser to the provider.

        :param redirect_uri: where the provider sends it back to.
        :param client_id: of the application.
        :param client_secret: not used; Cyclone and older Tornados have it.
        :param extra_params: further parameters of the URL; a ``state`` among them is sent in place of a
            random one, and bound to the browser like it.
        :param scope: what is asked for.
        :param response_type: ``code``.
        """
        args: dict[str, Any] = {"response_type": response_type}
        if redirect_uri is not None:
            args["redirect_uri"] = redirect_uri
        if client_id is not None:
            args["client_id"] = client_id
        if scope:
            args["scope"] = " ".join(scope)
        args.update(extra_params or {})
        handler = handler_of(self)
        if handler.settings.get("cookie_secret"):
            self._bind_state(args)
        handler.redirect(url_concat(self._OAUTH_AUTHORIZE_URL.rstrip("?"), args))

    def _bind_state(self, args: dict[str, Any]) -> None:
        """Add state, PKCE and nonce to *args*, and remember them in a cookie of their own for each
        attempt."""
        handler = handler_of(self)
        state = args.setdefault("state", secrets.token_urlsafe(24))
        kept = {"state": state, "redirect_uri": args.get("redirect_uri")}
        if self._OAUTH_PKCE:
            verifier = kept["verifier"] = secrets.token_urlsafe(48)
            digest = hashlib.sha256(verifier.encode("ascii")).digest()
            args["code_challenge"] = urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
            args["code_challenge_method"] = "S256"
        if "openid" in str(args.get("scope", "")).split() and "nonce" not in args:
            args["nonce"] = kept["nonce"] = secrets.token_urlsafe(24)
        handler.set_signed_cookie(
            _cookie_for(str(state)),
            json.dumps(kept),
            expires_days=None,
            max_age=_MAX_AGE,
            httponly=True,
            samesite="Lax",
            secure=handler.request.protocol == "https",
        )

    def check_state(self, redirect_uri: str | None = None) -> dict[str, Any]:
        """Check that this browser was sent to the provider by us, and that the provider did not refuse.

        :param redirect_uri: has to be the one that was sent along.
        :returns: what was remembered: ``verifier`` (PKCE) and ``nonce`` where there are any.
        :raises AuthError: it is not so.
        """
        handler = handler_of(self)
        error = handler.get_argument("error", None)
        if not handler.settings.get("cookie_secret"):
            if error is not None:
                raise AuthError(f"the provider says {error[:100]!r}")
            return {}
        state = handler.get_argument("state", "")
        name = _cookie_for(state)
        cookie = handler.get_signed_cookie(name, max_age_days=_MAX_AGE / 86400)
        if cookie is None:
            raise AuthError("the state is not that of this browser, or too old")
        handler.clear_cookie(name)
        kept: dict[str, Any] = json.loads(cookie)
        if not hmac.compare_digest(str(kept["state"]).encode(), state.encode()):
            raise AuthError("the state is not that of this browser")
        if error is not None:
            raise AuthError(f"the provider says {error[:100]!r}")
        if redirect_uri is not None and kept["redirect_uri"] not in (None, redirect_uri):
            raise AuthError("the redirect_uri is another than at the beginning")
        return kept

    def _oauth_request_token_url(
        self,
        redirect_uri: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        code: str | None = None,
        extra_params: dict[str, Any] | None = None,
    ) -> str:
        args = {
            "redirect_uri": redirect_uri,
            "code": code,
            "client_id": client_id,
            "client_secret": client_secret,
            **(extra_params or {}),
        }
        present = {name: value for name, value in args.items() if value is not None}
        return url_concat(self._OAUTH_ACCESS_TOKEN_URL.rstrip("?"), present)

    async def _exchange_code(
        self, redirect_uri: str, code: str, client_id: str, client_secret: str, kept: dict[str, Any]
    ) -> dict[str, Any]:
        """Turn the code into tokens (RFC 6749 section 4.1.3).

        :raises AuthError: the provider does not take it.
        """
        form = {
            "redirect_uri": redirect_uri,
            "code": code,
            "client_id": client_id,
            "client_secret": client_secret,
            "grant_type": "authorization_code",
        }
        if "verifier" in kept:
            form["code_verifier"] = kept["verifier"]
        response = await self.get_auth_http_client().fetch(
            self._OAUTH_ACCESS_TOKEN_URL,
            method="POST",
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            body=urlencode(form),
            raise_error=False,
        )
        return token_response(response)

    @deferred
    async def oauth2_request(
        self,
        url: str,
        access_token: str | None = None,
        post_args: dict[str, Any] | None = None,
        *,
        method: str | None = None,
        files: FileParts | None = None,
        **args: Any,
    ) -> Any:
        """Ask the provider's API.

        :param url: what to fetch.
        :param access_token: of the user.
        :param post_args: fields of a form, which make it a POST.
        :param method: another one, such as ``DELETE``.
        :param files: files to upload with *post_args*, by field: ``(name, content, content type)``.
        :param args: arguments in the URL.
        :returns: fires with the JSON of the answer.  It fails with ``HTTPClientError`` where the status is
            not one of success.
        """
        options: dict[str, Any] = {"method": method or "GET"}
        if access_token:
            if self._OAUTH_TOKEN_IN_HEADER:
                options["headers"] = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
            else:
                args = {"access_token": access_token, **args}
        if post_args is not None or files is not None:
            options["method"] = method or "POST"
            body, content_type = form_body(post_args or {}, files)
            options["body"] = body
            options.setdefault("headers", {})["Content-Type"] = content_type
            options["allow_nonstandard_methods"] = True
        response = await self.get_auth_http_client().fetch(url_concat(url, args) if args else url, **options)
        return json_decode(response.body) if response.body else None


def _cookie_for(state: str) -> str:
    """The name of the cookie for *state*, which may be any text."""
    return _COOKIE + hashlib.sha256(state.encode()).hexdigest()


def form_body(fields: dict[str, Any], files: FileParts | None) -> tuple[bytes, str]:
    """The body of a form and its type: multipart only where there are files."""
    if files is None:
        return encode_form(fields), "application/x-www-form-urlencoded"
    return encode_multipart(fields, files)


def token_response(response: Any) -> dict[str, Any]:
    """Read the answer of a token endpoint (RFC 6749 section 5).

    :raises AuthError: it is an error, or no answer of that kind.
    """
    try:
        answer = json_decode(response.body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AuthError(f"the provider answers {response.code}, and no token")
    if "error" in answer or response.code != 200 or not isinstance(answer.get("access_token"), str):
        raise AuthError(f"the provider gives no token: {response.code} {str(answer.get('error'))[:200]}")
    return answer
