"""Each mixin against a provider that checks what the real one documents."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.auth import (
    FacebookGraphMixin,
    GitHubMixin,
    GoogleOAuth2Mixin,
    OpenIdMixin,
    TwitterMixin,
    oidc,
)
from cycloneish.auth.signatures import base_string, signature
from cycloneish.httpclient import CookieJar, HTTPResponse
from cycloneish.web import Application, RequestHandler
from tests.auth.provider import CLIENT, USER, Provider
from tests.httpclient.support import ClientTestCase, response


class Login(RequestHandler):
    """The part of each handler that points to the local provider."""

    def initialize(self, base: str, here: str) -> None:
        self._OAUTH_AUTHORIZE_URL = f"{base}/authorize"
        self._OAUTH_ACCESS_TOKEN_URL = f"{base}/token"
        self._OAUTH_JWKS_URL = f"{base}/certs"
        self._GITHUB_BASE_URL = base
        self._FACEBOOK_BASE_URL = f"{base}/graph"
        self.here = here + (self.request.path or "")

    def get_auth_http_client(self) -> Any:
        return self.settings["client"]


class GitHub(Login, GitHubMixin):
    async def get(self) -> None:
        if self.get_argument("code", None) or self.get_argument("error", None):
            self.finish(await self.get_authenticated_user(self.here, self.get_argument("code", "")))
        else:
            self.authorize_redirect(self.here, CLIENT["key"], scope=["read:user"])


class OwnState(GitHub):
    """A program that keeps in the state where somebody wanted to go, as many written for Tornado do."""

    def authorize_redirect(self, *args: Any, **options: Any) -> None:
        super().authorize_redirect(*args, **options, extra_params={"state": "/where?to=é&and=how"})


class Google(Login, GoogleOAuth2Mixin):
    async def get(self) -> None:
        if self.get_argument("code", None):
            answer = await self.get_authenticated_user(self.here, self.get_argument("code"))
            url = self._OAUTH_AUTHORIZE_URL.replace("authorize", "userinfo")
            user = await self.oauth2_request(url, access_token=answer["access_token"])
            self.finish({**user, "claims": answer["claims"]})
        else:
            self.authorize_redirect(self.here, CLIENT["key"], scope=["openid", "email"])


class Facebook(Login, FacebookGraphMixin):
    async def get(self) -> None:
        if self.get_argument("code", None):
            user = await self.get_authenticated_user(
                self.here, CLIENT["key"], CLIENT["secret"], self.get_argument("code"), extra_fields=["email"]
            )
            assert user is not None
            token = user["access_token"]
            photo = await self.facebook_request(
                "/me/photos", token, {"caption": "ä"}, files={"source": ("ä.png", b"\x89PNG\0", "image/png")}
            )
            gone = await self.facebook_request(f"/{photo['id']}", token, method="DELETE")
            self.finish({**user, "photo": photo, "gone": gone})
        else:
            self.authorize_redirect(self.here, CLIENT["key"], scope=["email"])


class Twitter(RequestHandler, TwitterMixin):
    def initialize(self, base: str, here: str) -> None:
        self._OAUTH_REQUEST_TOKEN_URL = f"{base}/oauth1/request_token"
        self._OAUTH_ACCESS_TOKEN_URL = f"{base}/oauth1/access_token"
        self._OAUTH_AUTHORIZE_URL = f"{base}/oauth1/authorize"
        self._TWITTER_BASE_URL = f"{base}/oauth1/api"
        self.here = here + (self.request.path or "")

    def get_auth_http_client(self) -> Any:
        return self.settings["client"]

    async def get(self) -> None:
        if not self.get_argument("oauth_token", None):
            await self.authorize_redirect(self.here)
            return
        user = await self.get_authenticated_user()
        token = user["access_token"]
        said = await self.twitter_request("/statuses/update", token, {"status": "1 + 1 = 2 & ä"}, trim="a b")
        sent = await self.twitter_request(
            "/media/upload", token, {"status": "not signed"}, files={"media": ("m", b"12345")}
        )
        self.finish({"user": user, "said": said, "sent": sent})


class ProviderTestCase(ClientTestCase):
    """An application with the handlers, a provider, and a browser."""

    def setUp(self) -> None:
        super().setUp()
        oidc._keys.clear()
        self.provider = Provider()
        base = self.listen(self.provider.application())
        self.application = Application(cookie_secret="s" * 32, client=self.client)
        self.here = self.listen(self.application)
        handlers = (GitHub, OwnState, Google, Facebook, Twitter)
        arguments = {"base": base, "here": self.here}
        self.application.add_handlers(
            ".*", [(f"/{handler.__name__.lower()}", handler, arguments) for handler in handlers]
        )
        self.provider.redirect_uris = {f"{self.here}/{handler.__name__.lower()}" for handler in handlers}
        self.application.settings.update(
            github_oauth=CLIENT,
            google_oauth=CLIENT,
            facebook_secret=CLIENT["secret"],
            twitter_consumer_key=CLIENT["key"],
            twitter_consumer_secret=CLIENT["secret"],
        )
        self.browser = self.make_client(cookies=CookieJar())

    def listen(self, application: Application) -> str:
        server = application.listen(0, address="127.0.0.1")
        port = server.ports[0] if hasattr(server, "ports") else server
        self.addCleanup(self._end, server)
        return f"http://127.0.0.1:{port.getHost().port}"

    def _end(self, server: Any) -> Any:
        self.client.close()
        self.browser.close()
        stop = getattr(server, "stop", None) or server.stopListening
        return stop()

    def visit(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        url = path if path.startswith("http") else self.here + path
        return self.browser.fetch(url, raise_error=False, **options)  # type: ignore[no-any-return]

    async def sent_back(self, path: str) -> str:
        """Go to the provider and allow it, and stop before the way back is gone."""
        to_provider = await self.visit(path, follow_redirects=False)
        back = await self.visit(to_provider.headers["Location"], follow_redirects=False)
        self.assertEqual(back.code, 302, back.body)
        return back.headers["Location"]


class SignInTest(ProviderTestCase):
    async def test_github(self) -> None:
        answer = await self.visit("/github")
        self.assertEqual(answer.code, 200, answer.body)
        user = answer.json()
        self.assertIn(user.pop("access_token"), self.provider.tokens)
        self.assertEqual(user, USER)

    async def test_google_with_an_id_token(self) -> None:
        answer = await self.visit("/google")
        self.assertEqual(answer.code, 200, answer.body)
        self.assertEqual(answer.json()["email"], USER["email"])
        self.assertEqual(answer.json()["claims"]["sub"], "7")

    async def test_facebook_with_an_upload_and_a_deletion(self) -> None:
        answer = await self.visit("/facebook")
        self.assertEqual(answer.code, 200, answer.body)
        user = answer.json()
        self.assertEqual(
            (user["name"], user["email"], user["session_expires"]), ("Ann", USER["email"], "3600")
        )
        self.assertEqual(user["gone"], {"success": True})
        self.assertEqual(self.provider.uploads, {})

    async def test_twitter_with_signatures_of_every_kind(self) -> None:
        answer = await self.visit("/twitter")
        self.assertEqual(answer.code, 200, answer.body)
        found = answer.json()
        self.assertEqual(found["user"]["username"], "ann")
        self.assertEqual(found["said"]["status"], "1 + 1 = 2 & ä")
        self.assertEqual(found["sent"]["files"], {"media": 5})

    async def test_two_tabs_at_once(self) -> None:
        first = await self.sent_back("/github")
        second = await self.sent_back("/github")
        for back in (first, second):
            self.assertEqual((await self.visit(back)).code, 200)

    async def test_cookie_and_url(self) -> None:
        answer = await self.visit("/github", follow_redirects=False)
        cookie = answer.headers["Set-Cookie"]
        for attribute in ("HttpOnly", "SameSite=Lax", "Max-Age=900"):
            self.assertIn(attribute.lower(), cookie.lower())
        self.assertIn("code_challenge_method=S256", answer.headers["Location"])
        self.assertNotIn("secret", answer.headers["Location"])


class SignatureTest(ClientTestCase):
    def test_the_example_of_the_rfc(self) -> None:
        # RFC 5849 section 3.4.1.1.
        url = "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b"
        parameters = {
            "oauth_consumer_key": "9djdj82h48djs9d2",
            "oauth_token": "kkk9d7dh3k39sjv7",
            "oauth_signature_method": "HMAC-SHA1",
            "oauth_timestamp": "137131201",
            "oauth_nonce": "7d8f3e4a",
            "c2": "",
            "a3": "2 q",
        }
        expected = (
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%25"
            "40%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_m"
            "ethod%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        )
        self.assertEqual(base_string("post", url, parameters), expected)

    def test_methods(self) -> None:
        self.assertEqual(signature("GET", "https://a/", {}, "c&", "t", "PLAINTEXT"), "c%26&t")
        self.assertRaises(ValueError, signature, "GET", "http://a/", {}, "c", "t", "PLAINTEXT")
        self.assertRaises(ValueError, signature, "GET", "http://a/", {}, "c", "t", "RSA-MD5")
        self.assertNotEqual(
            signature("GET", "http://a/", {}, "c"), signature("GET", "http://a/", {}, "c", "", "HMAC-SHA256")
        )


class OpenIdTest(ProviderTestCase):
    def setUp(self) -> None:
        super().setUp()
        test = self
        self.confirmation = b""
        server = self.serve(lambda request, _: response(self.confirmation))

        class OpenId(RequestHandler, OpenIdMixin):
            _OPENID_ENDPOINT = server.url("/openid")

            def get_auth_http_client(self) -> Any:
                return test.client

            async def get(self) -> None:
                if self.get_argument("openid.mode", None):
                    self.finish(await self.get_authenticated_user())
                else:
                    self.authenticate_redirect()

        self.application.add_handlers(".*", [("/openid", OpenId)])

    async def asked(self, query: str, answer: bytes) -> HTTPResponse:
        self.confirmation = answer
        return await self.visit("/openid" + query, follow_redirects=False)

    AX = "&openid.ns.ax=http://openid.net/srv/ax/1.0&openid.ax.type.email=http://axschema.org/contact/email"
    GOOD = "?openid.mode=id_res&openid.ax.value.email=a@b" + AX

    async def test_it_asks_and_believes_only_an_exact_answer(self) -> None:
        answer = await self.asked("", b"")
        self.assertIn("openid.mode=checkid_setup", answer.headers["Location"])
        answer = await self.asked(self.GOOD, b"ns:x\nis_valid:true\n")
        self.assertEqual(answer.json(), {"name": "a", "email": "a@b"})

    async def test_other_answers(self) -> None:
        for confirmed in (b"is_valid:false\n", b"x:is_valid:true\n", b"is_valid:true-ish\n", b""):
            self.assertEqual((await self.asked(self.GOOD, confirmed)).code, 403)

    async def test_what_is_not_signed_or_for_another_page_is_not_believed(self) -> None:
        answer = await self.asked(self.GOOD + "&openid.signed=claimed_id", b"is_valid:true\n")
        self.assertEqual(answer.json(), {})
        answer = await self.asked(self.GOOD + "&openid.return_to=http://other/openid", b"is_valid:true\n")
        self.assertEqual(answer.code, 403)
