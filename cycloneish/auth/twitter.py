"""``TwitterMixin``: signing in with Twitter (OAuth 1.0a), and its API 1.1."""

from __future__ import annotations

from typing import Any

from cycloneish.auth.common import deferred, handler_of
from cycloneish.auth.oauth1 import OAuthMixin
from cycloneish.auth.oauth2 import form_body
from cycloneish.escape import json_decode
from cycloneish.httpclient.multipart import FileParts
from cycloneish.httputil import url_concat

__all__ = ["TwitterMixin"]


class TwitterMixin(OAuthMixin):
    """Signing in with Twitter.

    The application's settings have ``twitter_consumer_key`` and ``twitter_consumer_secret``.  Counterpart:
    ``tornado.auth.TwitterMixin``.
    """

    _OAUTH_REQUEST_TOKEN_URL = "https://api.twitter.com/oauth/request_token"  # noqa: S105
    _OAUTH_ACCESS_TOKEN_URL = "https://api.twitter.com/oauth/access_token"  # noqa: S105
    _OAUTH_AUTHORIZE_URL = "https://api.twitter.com/oauth/authorize"
    _OAUTH_AUTHENTICATE_URL = "https://api.twitter.com/oauth/authenticate"
    _OAUTH_NO_CALLBACKS = False
    _TWITTER_BASE_URL = "https://api.twitter.com/1.1"

    @deferred
    async def authenticate_redirect(self, callback_uri: str | None = None) -> None:
        """Like ``authorize_redirect``, but who has allowed it before is not asked again.

        :param callback_uri: where the provider sends the browser back to.
        """
        response = await self.get_auth_http_client().fetch(
            self._oauth_request_token_url(callback_uri=callback_uri)
        )
        self._on_request_token(self._OAUTH_AUTHENTICATE_URL, None, response)

    @deferred
    async def twitter_request(
        self,
        path: str,
        access_token: dict[str, Any] | None = None,
        post_args: dict[str, Any] | None = None,
        *,
        files: FileParts | None = None,
        **args: Any,
    ) -> Any:
        """Ask the API.

        :param path: such as ``/statuses/update``, or a whole URL.
        :param access_token: of the user: a dict with ``key`` and ``secret``.
        :param post_args: fields, which make it a POST.
        :param files: files to upload; the fields of such a body are not signed.
        :param args: arguments in the URL.
        :returns: fires with the JSON of the answer.
        """
        url = path if path.startswith(("http:", "https:")) else f"{self._TWITTER_BASE_URL}{path}.json"
        method = "GET" if post_args is None and files is None else "POST"
        if access_token:
            signed = args if files is not None else {**args, **(post_args or {})}
            args = {**args, **self._oauth_request_parameters(url, access_token, signed, method)}
        options: dict[str, Any] = {"method": method}
        if method == "POST":
            options["body"], content_type = form_body(post_args or {}, files)
            options["headers"] = {"Content-Type": content_type}
        response = await self.get_auth_http_client().fetch(url_concat(url, args), **options)
        return json_decode(response.body)

    def _oauth_consumer_token(self) -> dict[str, Any]:
        handler = handler_of(self)
        handler.require_setting("twitter_consumer_key", "Twitter OAuth")
        handler.require_setting("twitter_consumer_secret", "Twitter OAuth")
        return {
            "key": handler.settings["twitter_consumer_key"],
            "secret": handler.settings["twitter_consumer_secret"],
        }

    async def _oauth_get_user_future(self, access_token: dict[str, Any]) -> dict[str, Any]:
        user: dict[str, Any] = await self.twitter_request(
            "/account/verify_credentials", access_token=access_token
        )
        if user:
            user["username"] = user["screen_name"]
        return user
