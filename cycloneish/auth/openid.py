"""``OpenIdMixin``: OpenID 2.0, which few providers speak any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from cycloneish.auth.common import ClientMixin, deferred, handler_of
from cycloneish.auth.errors import AuthError

__all__ = ["OpenIdMixin"]

_AX = "http://openid.net/srv/ax/1.0"
_SELECT = "http://specs.openid.net/auth/2.0/identifier_select"
_TYPES = {
    "email": "http://axschema.org/contact/email",
    "language": "http://axschema.org/pref/language",
    "username": "http://axschema.org/namePerson/friendly",
    "firstname": "http://axschema.org/namePerson/first",
    "fullname": "http://axschema.org/namePerson",
    "lastname": "http://axschema.org/namePerson/last",
}


class OpenIdMixin(ClientMixin):
    """Signing in with OpenID 2.0; ``_OPENID_ENDPOINT`` is the address of the provider.

    Counterpart: ``tornado.auth.OpenIdMixin``.
    """

    _OPENID_ENDPOINT: str

    def authenticate_redirect(
        self,
        callback_uri: str | None = None,
        ax_attrs: list[str] = ["name", "email", "language", "username"],  # noqa: B006  (not changed)
    ) -> None:
        """Send the browser to the provider.

        :param callback_uri: where it comes back to; this page by default.
        :param ax_attrs: what is asked for of the user.
        """
        handler = handler_of(self)
        args = self._openid_args(callback_uri or handler.request.uri or "/", ax_attrs)
        handler.redirect(self._OPENID_ENDPOINT + "?" + urlencode(args))

    def _openid_args(
        self, callback_uri: str, ax_attrs: Iterable[str] = (), oauth_scope: str | None = None
    ) -> dict[str, str]:
        handler = handler_of(self)
        url = urljoin(handler.request.full_url(), callback_uri)
        args = {
            "openid.ns": "http://specs.openid.net/auth/2.0",
            "openid.claimed_id": _SELECT,
            "openid.identity": _SELECT,
            "openid.return_to": url,
            "openid.realm": urljoin(url, "/"),
            "openid.mode": "checkid_setup",
        }
        required: list[str] = []
        for name in ax_attrs:
            required += ["firstname", "fullname", "lastname"] if name == "name" else [name]
        if required:
            args |= {"openid.ns.ax": _AX, "openid.ax.mode": "fetch_request"}
            args |= {f"openid.ax.type.{name}": _TYPES[name] for name in required}
            args["openid.ax.required"] = ",".join(required)
        if oauth_scope:
            args["openid.ns.oauth"] = "http://specs.openid.net/extensions/oauth/1.0"
            args["openid.oauth.consumer"] = handler.request.host.split(":")[0]
            args["openid.oauth.scope"] = oauth_scope
        return args

    @deferred
    async def get_authenticated_user(self, http_client: Any = None) -> dict[str, Any]:
        """Finish signing in: ask the provider whether what the browser brings is from it.

        :param http_client: asks.
        :returns: fires with the user: ``name``, ``email``, ``claimed_id`` and so on.  It fails with
            ``AuthError``.
        """
        handler = handler_of(self)
        args = {name: values[-1] for name, values in handler.request.arguments.items()}
        if handler.get_argument("openid.mode", "") == "cancel":
            raise AuthError("the user did not want to sign in")
        self._check_return_to()
        args["openid.mode"] = b"check_authentication"
        client = http_client or self.get_auth_http_client()
        response = await client.fetch(self._OPENID_ENDPOINT, method="POST", body=urlencode(args))
        if b"is_valid:true" not in response.body.split(b"\n"):
            raise AuthError("the provider does not confirm it")
        return self._user()

    def _check_return_to(self) -> None:
        """The answer has to be for this page (OpenID 2.0, section 11.1)."""
        handler = handler_of(self)
        back = handler.get_argument("openid.return_to", None)
        if back is not None:
            here, there = urlsplit(handler.request.full_url()), urlsplit(back)
            if (here.netloc, here.path) != (there.netloc, there.path):
                raise AuthError("the answer is for another page")

    def _user(self) -> dict[str, Any]:
        handler = handler_of(self)
        arguments = handler.request.arguments
        signed = handler.get_argument("openid.signed", None)
        trusted = None if signed is None else {f"openid.{name}" for name in signed.split(",")}

        def value_of(name: str) -> str:
            # What the provider has not signed is whatever somebody has added on the way.
            return "" if trusted is not None and name not in trusted else handler.get_argument(name, "")

        spaces = [name[10:] for name in arguments if name.startswith("openid.ns.") and value_of(name) == _AX]
        prefix = f"openid.{spaces[0]}." if spaces else None
        found = {}
        for field, uri in _TYPES.items():
            for name in arguments if prefix else ():
                if name.startswith(f"{prefix}type.") and value_of(name) == uri:
                    found[field] = value_of(f"{prefix}value.{name.removeprefix(f'{prefix}type.')}")
                    break
        first, last = found.get("firstname", ""), found.get("lastname", "")
        email = found.get("email", "")
        user = {
            "first_name": first,
            "last_name": last,
            "name": found.get("fullname") or " ".join(filter(None, [first, last])) or email.split("@")[0],
            "email": email,
            "locale": found.get("language", "").lower(),
            "username": found.get("username", ""),
            "claimed_id": value_of("openid.claimed_id"),
        }
        return {name: value for name, value in user.items() if value}
