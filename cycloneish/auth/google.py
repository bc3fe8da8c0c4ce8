"""``GoogleOAuth2Mixin``: signing in with Google, and with its ID token (OpenID Connect)."""

from __future__ import annotations

from typing import Any

from cycloneish.auth.common import deferred, handler_of
from cycloneish.auth.oauth2 import OAuth2Mixin
from cycloneish.auth.oidc import verify_id_token

__all__ = ["GoogleOAuth2Mixin"]


class GoogleOAuth2Mixin(OAuth2Mixin):
    """Signing in with Google.

    The application's settings have ``google_oauth={"key": CLIENT_ID, "secret": CLIENT_SECRET}``.  With
    ``openid`` in the scope, the ID token that comes with the access token is verified (signature, issuer,
    audience, time, nonce), and what it says is in ``claims``.

    Counterpart: ``tornado.auth.GoogleOAuth2Mixin``.
    """

    _OAUTH_AUTHORIZE_URL = "https://accounts.google.com/o/oauth2/v2/auth"
    _OAUTH_ACCESS_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105
    _OAUTH_USERINFO_URL = "https://www.googleapis.com/oauth2/v1/userinfo"
    _OAUTH_JWKS_URL = "https://www.googleapis.com/oauth2/v3/certs"
    _OAUTH_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
    _OAUTH_NO_CALLBACKS = False
    _OAUTH_PKCE = True
    _OAUTH_SETTINGS_KEY = "google_oauth"

    def get_google_oauth_settings(self) -> dict[str, str]:
        """The credentials of the application: a dict with ``key`` and ``secret``."""
        settings: dict[str, str] = handler_of(self).settings[self._OAUTH_SETTINGS_KEY]
        return settings

    @deferred
    async def get_authenticated_user(
        self,
        redirect_uri: str,
        code: str,
        client_id: str | None = None,
        client_secret: str | None = None,
    ) -> dict[str, Any]:
        """Finish signing in.

        :param redirect_uri: the one that ``authorize_redirect`` was given.
        :param code: the argument of this name.
        :returns: fires with the answer of the token endpoint: ``access_token``, ``expires_in`` and so on, and
            ``claims`` where there is an ID token.  It fails with ``AuthError``.
        """
        kept = self.check_state(redirect_uri)
        if client_id is None or client_secret is None:
            settings = self.get_google_oauth_settings()
            client_id, client_secret = client_id or settings["key"], client_secret or settings["secret"]
        answer = await self._exchange_code(redirect_uri, code, client_id, client_secret, kept)
        if "id_token" in answer:
            answer["claims"] = await verify_id_token(
                answer["id_token"],
                client_id,
                self._OAUTH_ISSUERS,
                kept.get("nonce"),
                self._OAUTH_JWKS_URL,
                self.get_auth_http_client(),
            )
        return answer
