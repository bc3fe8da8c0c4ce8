"""``FacebookGraphMixin``: signing in with Facebook, and the Graph API with uploads and deletions."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from cycloneish.auth.common import deferred, handler_of
from cycloneish.auth.errors import AuthError
from cycloneish.auth.oauth2 import OAuth2Mixin, token_response
from cycloneish.httpclient.multipart import FileParts

__all__ = ["FacebookGraphMixin"]

_FIELDS = ("id", "name", "first_name", "last_name", "locale", "picture", "link")


class FacebookGraphMixin(OAuth2Mixin):
    """Signing in with Facebook.

    ::

        class Login(RequestHandler, FacebookGraphMixin):
            async def get(self):
                options = dict(
                    redirect_uri=REDIRECT_URI, client_id=self.settings["facebook_api_key"])
                if self.get_argument("code", None):
                    user = await self.get_authenticated_user(
                        client_secret=self.settings["facebook_secret"],
                        code=self.get_argument("code"), **options)
                else:
                    self.authorize_redirect(scope=["email"], **options)

    Counterpart: ``tornado.auth.FacebookGraphMixin``.
    """

    _OAUTH_ACCESS_TOKEN_URL = "https://graph.facebook.com/oauth/access_token?"  # noqa: S105
    _OAUTH_AUTHORIZE_URL = "https://www.facebook.com/dialog/oauth?"
    _OAUTH_NO_CALLBACKS = False
    _OAUTH_PKCE = True
    _FACEBOOK_BASE_URL = "https://graph.facebook.com"

    @deferred
    async def get_authenticated_user(
        self,
        redirect_uri: str,
        client_id: str,
        client_secret: str,
        code: str,
        extra_fields: Any = None,
    ) -> dict[str, Any] | None:
        """Finish signing in.

        :param redirect_uri: the one that ``authorize_redirect`` was given.
        :param code: the argument of this name.
        :param extra_fields: fields of the user besides the usual ones.
        :returns: fires with the user: ``id``, ``name``, ``picture`` and so on, ``access_token``, and
            ``session_expires`` in seconds, as text.  It fails with ``AuthError``.
        """
        kept = self.check_state(redirect_uri)
        extra = {"code_verifier": kept["verifier"]} if "verifier" in kept else None
        url = self._oauth_request_token_url(redirect_uri, client_id, client_secret, code, extra)
        token = token_response(await self.get_auth_http_client().fetch(url, raise_error=False))
        fields = dict.fromkeys([*_FIELDS, *(extra_fields or ())])
        user = await self.facebook_request(
            "/me",
            access_token=token["access_token"],
            appsecret_proof=_proof(client_secret, token["access_token"]),
            fields=",".join(fields),
        )
        if user is None:
            return None
        if not isinstance(user, dict):
            raise AuthError("the Graph API gives no user")
        found = {field: user.get(field) for field in fields}
        found["access_token"] = token["access_token"]
        found["session_expires"] = str(token.get("expires_in"))
        return found

    @deferred
    async def facebook_request(
        self,
        path: str,
        access_token: str | None = None,
        post_args: dict[str, Any] | None = None,
        *,
        method: str | None = None,
        files: FileParts | None = None,
        **args: Any,
    ) -> Any:
        """Ask the Graph API.

        :param path: such as ``/me/photos``.
        :param access_token: of the user.
        :param post_args: fields, which make it a POST.
        :param method: ``DELETE`` and so on.
        :param files: files to upload, by field: ``{"source": ("me.png", data, "image/png")}``.
        :param args: arguments in the URL.
        :returns: fires with the JSON of the answer.

        Where the application has the setting ``facebook_secret``, each request has its ``appsecret_proof``.
        """
        secret = handler_of(self).settings.get("facebook_secret")
        if secret and access_token:
            args.setdefault("appsecret_proof", _proof(secret, access_token))
        return await self.oauth2_request(
            self._FACEBOOK_BASE_URL + path, access_token, post_args, method=method, files=files, **args
        )


def _proof(secret: str, access_token: str) -> str:
    return hmac.new(secret.encode(), access_token.encode(), hashlib.sha256).hexdigest()
