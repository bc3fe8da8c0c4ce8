"""``GitHubMixin``: signing in with GitHub."""

from __future__ import annotations

from typing import Any

from cycloneish.auth.common import deferred, handler_of
from cycloneish.auth.oauth2 import OAuth2Mixin

__all__ = ["GitHubMixin"]


class GitHubMixin(OAuth2Mixin):
    """Signing in with GitHub.

    The application's settings have ``github_oauth={"key": CLIENT_ID, "secret": CLIENT_SECRET}``::

        class Login(RequestHandler, GitHubMixin):
            async def get(self):
                if self.get_argument("code", None):
                    user = await self.get_authenticated_user(REDIRECT_URI, self.get_argument("code"))
                else:
                    key = self.settings["github_oauth"]["key"]
                    self.authorize_redirect(REDIRECT_URI, key, scope=["read:user"])
    """

    _OAUTH_AUTHORIZE_URL = "https://github.com/login/oauth/authorize"
    _OAUTH_ACCESS_TOKEN_URL = "https://github.com/login/oauth/access_token"  # noqa: S105
    _GITHUB_BASE_URL = "https://api.github.com"
    _OAUTH_PKCE = True
    _OAUTH_TOKEN_IN_HEADER = True
    _OAUTH_SETTINGS_KEY = "github_oauth"

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
        :returns: fires with the user (``login``, ``id``, ``name``, …) and ``access_token``.  It fails with
            ``AuthError``.
        """
        kept = self.check_state(redirect_uri)
        if client_id is None or client_secret is None:
            settings = handler_of(self).settings[self._OAUTH_SETTINGS_KEY]
            client_id, client_secret = client_id or settings["key"], client_secret or settings["secret"]
        token = await self._exchange_code(redirect_uri, code, client_id, client_secret, kept)
        user: dict[str, Any] = await self.github_request("/user", token["access_token"])
        return {**user, "access_token": token["access_token"]}

    @deferred
    async def github_request(
        self,
        path: str,
        access_token: str | None = None,
        post_args: dict[str, Any] | None = None,
        **args: Any,
    ) -> Any:
        """Ask GitHub's API; see ``OAuth2Mixin.oauth2_request``."""
        return await self.oauth2_request(self._GITHUB_BASE_URL + path, access_token, post_args, **args)
