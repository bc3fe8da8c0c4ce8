"""Providers of sign-in on this machine, which check what real ones check and refuse the rest.

:class:`Provider` speaks OAuth 2.0 with PKCE (RFC 6749, RFC 7636), has a Graph API that wants its
``appsecret_proof`` and takes uploads, GitHub's ``/user``, and ID tokens with their keys; and OAuth 1.0a with
signatures (RFC 5849), written apart from the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cycloneish.web import Application, HTTPError, RequestHandler

CLIENT = {"key": "the-client", "secret": "the-client's secret"}
USER = {"id": "7", "login": "ann", "name": "Ann", "email": "ann@example.com"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def percent(text: str) -> str:
    return quote(text, safe="-._~")


class Provider:
    """What the handlers share."""

    def __init__(self) -> None:
        self.redirect_uris: set[str] = set()
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()
        self.uploads: dict[str, dict[str, Any]] = {}
        self.request_tokens: dict[str, dict[str, str]] = {}
        self.access_tokens: dict[str, str] = {}
        self.nonces: set[str] = set()
        #: Whether the page of the provider is answered by itself.
        self.automatic = True
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        #: What a test changes in the next ID token.
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.issuer = "https://accounts.google.com"

    def application(self) -> Application:
        routes: list[tuple[str, type[Base]]] = [
            ("/graph/oauth/access_token", Token),
            ("/uploads", Uploads),
            ("/authorize", Authorize),
            ("/token", Token),
            ("/user", User),
            ("/userinfo", User),
            ("/certs", Certificates),
            ("/graph/me", GraphMe),
            ("/graph/me/photos", Photos),
            ("/graph/([0-9]+)", GraphNode),
            ("/oauth1/request_token", RequestToken),
            ("/oauth1/authorize", Authorize1),
            ("/oauth1/access_token", AccessToken),
            (r"/oauth1/api/(.*)\.json", Api1),
        ]
        return Application([(path, handler, {"provider": self}) for path, handler in routes])

    def id_token(self, client_id: str, nonce: str | None) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": client_id,
            "sub": "7",
            "iat": now,
            "exp": now + 60,
            "nonce": nonce,
        }
        head = b64(json.dumps({"alg": "RS256", "kid": "k1", **self.header}).encode())
        body = b64(json.dumps({**claims, **self.claims}).encode())
        signed = self.key.sign(f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{head}.{body}.{b64(signed)}"


class Base(RequestHandler):
    provider: Provider

    def initialize(self, provider: Provider) -> None:
        self.provider = provider

    def refuse(self, error: str, status: int = 400) -> None:
        self.set_status(status)
        self.finish({"error": error})

    def token(self) -> str:
        given = self.request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = given or self.get_argument("access_token", "")
        if given not in self.provider.tokens:
            raise HTTPError(401)
        return given


class Authorize(Base):
    """Where the user allows the application to know who that is."""

    def get(self) -> None:
        provider = self.provider
        if self.get_argument("client_id") != CLIENT["key"] or self.get_argument("response_type") != "code":
            raise HTTPError(400)
        if self.get_argument("redirect_uri") not in provider.redirect_uris:
            raise HTTPError(400, "not a registered redirect_uri")
        if len(self.get_argument("state", "")) < 16:
            raise HTTPError(400, "no state")
        if self.get_argument("code_challenge_method", "S256") != "S256":
            raise HTTPError(400)
        if provider.automatic:
            self.allow()
        else:
            self.write('<form method="post"><button id="allow">Allow</button></form>')

    def post(self) -> None:
        self.allow()

    def allow(self) -> None:
        code = secrets.token_hex(8)
        names = ("redirect_uri", "code_challenge", "nonce", "scope")
        self.provider.codes[code] = {name: self.get_query_argument(name, "") for name in names}
        back = self.get_query_argument("redirect_uri")
        back += "?" + urlencode({"code": code, "state": self.get_query_argument("state")})
        self.redirect(back)


class Token(Base):
    def get(self) -> None:
        self.post()

    def post(self) -> None:
        kept = self.provider.codes.pop(self.get_argument("code"), None)
        if self.get_argument("client_id") != CLIENT["key"] or not hmac.compare_digest(
            self.get_argument("client_secret").encode(), CLIENT["secret"].encode()
        ):
            return self.refuse("invalid_client", 401)
        if kept is None or kept["redirect_uri"] != self.get_argument("redirect_uri"):
            return self.refuse("invalid_grant")
        if kept["code_challenge"]:
            verifier = self.get_argument("code_verifier", "")
            if b64(hashlib.sha256(verifier.encode()).digest()) != kept["code_challenge"]:
                return self.refuse("invalid_grant")
        token = secrets.token_hex(16)
        self.provider.tokens.add(token)
        answer = {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        if "openid" in kept["scope"].split():
            answer["id_token"] = self.provider.id_token(CLIENT["key"], kept["nonce"])
        self.finish(answer)
        return None


class User(Base):
    def get(self) -> None:
        self.token()
        self.finish(USER)


class Certificates(Base):
    def get(self) -> None:
        numbers = self.provider.key.public_key().public_numbers()
        parts = {
            name: b64(n.to_bytes((n.bit_length() + 7) // 8, "big"))
            for name, n in (("n", numbers.n), ("e", numbers.e))
        }
        self.finish({"keys": [{"kid": "k1", "kty": "RSA", "use": "sig", "alg": "RS256", **parts}]})


class Graph(Base):
    def prepare(self) -> None:
        token = self.token()
        proof = hmac.new(CLIENT["secret"].encode(), token.encode(), hashlib.sha256).hexdigest()
        if self.get_query_argument("appsecret_proof", "") != proof:
            raise HTTPError(400, "no appsecret_proof")


class GraphMe(Graph):
    def get(self) -> None:
        self.finish({name: USER.get(name) for name in self.get_argument("fields").split(",")})


class Photos(Graph):
    def post(self) -> None:
        (picture,) = self.request.files["source"]
        key = str(len(self.provider.uploads) + 1)
        self.provider.uploads[key] = {
            "caption": self.get_body_argument("caption", ""),
            "type": picture.content_type,
            "name": picture.filename,
            "body": picture.body,
        }
        self.finish({"id": key})


class Uploads(Base):
    """What has been uploaded, for the test to look at."""

    def get(self) -> None:
        sizes = {
            key: {**one, "body": None, "size": len(one["body"])} for key, one in self.provider.uploads.items()
        }
        self.finish(sizes)


class GraphNode(Graph):
    def get(self, key: str) -> None:
        upload = self.provider.uploads[key]
        self.set_header("Content-Type", upload["type"])
        self.finish(upload["body"])

    def delete(self, key: str) -> None:
        del self.provider.uploads[key]
        self.finish({"success": True})


class Signed(Base):
    """OAuth 1.0a: every request is signed by the application, later ones by the user's token too."""

    def check(self, token_secret: str) -> None:
        pairs = parse_qsl(self.request.query, keep_blank_values=True)
        if self.request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            pairs += parse_qsl(self.request.body.decode(), keep_blank_values=True)
        given = dict(pairs)
        if (
            given["oauth_consumer_key"] != CLIENT["key"]
            or abs(time.time() - int(given["oauth_timestamp"])) > 60
        ):
            raise HTTPError(401)
        if given["oauth_nonce"] in self.provider.nonces:
            raise HTTPError(401, "used before")
        self.provider.nonces.add(given["oauth_nonce"])
        encoded = sorted((percent(k), percent(v)) for k, v in pairs if k != "oauth_signature")
        url = f"{self.request.protocol}://{self.request.host}{self.request.path}"
        text = "&".join(f"{k}={v}" for k, v in encoded)
        base = "&".join(percent(part) for part in (self.request.method or "", url, text))
        key = f"{percent(CLIENT['secret'])}&{percent(token_secret)}"
        right = hmac.new(key.encode(), base.encode(), hashlib.sha1).digest()
        if not hmac.compare_digest(base64.b64decode(given["oauth_signature"]), right):
            raise HTTPError(401, "signature")


class RequestToken(Signed):
    def get(self) -> None:
        self.check("")
        if self.get_argument("oauth_callback") not in self.provider.redirect_uris:
            raise HTTPError(401)
        token, secret = secrets.token_hex(8), "sécret &" + secrets.token_hex(8)
        self.provider.request_tokens[token] = {
            "secret": secret,
            "callback": self.get_argument("oauth_callback"),
        }
        self.finish(
            urlencode(
                {"oauth_token": token, "oauth_token_secret": secret, "oauth_callback_confirmed": "true"}
            )
        )


class Authorize1(Base):
    def get(self) -> None:
        token = self.get_argument("oauth_token")
        kept = self.provider.request_tokens[token]
        kept["verifier"] = secrets.token_hex(8)
        self.redirect(
            kept["callback"] + "?" + urlencode({"oauth_token": token, "oauth_verifier": kept["verifier"]})
        )


class AccessToken(Signed):
    def get(self) -> None:
        kept = self.provider.request_tokens.pop(self.get_argument("oauth_token"))
        self.check(kept["secret"])
        if self.get_argument("oauth_verifier") != kept["verifier"]:
            raise HTTPError(401)
        token, secret = secrets.token_hex(8), secrets.token_hex(8)
        self.provider.access_tokens[token] = secret
        self.finish(urlencode({"oauth_token": token, "oauth_token_secret": secret, "screen_name": "ann"}))


class Api1(Signed):
    def get(self, path: str) -> None:
        self.check(self.provider.access_tokens[self.get_argument("oauth_token")])
        self.finish({"screen_name": "ann", "name": "Ann", "path": path})

    def post(self, path: str) -> None:
        self.check(self.provider.access_tokens[self.get_argument("oauth_token")])
        files = {name: len(parts[0].body) for name, parts in self.request.files.items()}
        self.finish({"status": self.get_body_argument("status", ""), "files": files})


class _Local(set[str]):
    """The login page of any program on this machine is registered."""

    def __contains__(self, uri: object) -> bool:
        return (
            isinstance(uri, str)
            and re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/(login|sign-in/github)", uri) is not None
        )


def for_browsers() -> Application:
    """The provider as a program, which asks the user."""
    provider = Provider()
    provider.redirect_uris = _Local()
    provider.automatic = False
    return provider.application()
