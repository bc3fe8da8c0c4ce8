"""Attacks on signing in: forged callbacks, replayed answers, wrong and malformed credentials."""

from __future__ import annotations

import base64
import inspect
import re
from typing import Any

from cycloneish.auth import (
    DigestAuth,
    basic,
    basic_auth,
    bearer_auth,
    digest,
    oauth1,
    oauth2,
    oidc,
    same_secret,
)
from cycloneish.httpclient import HTTPResponse
from cycloneish.httpclient.digest import best_challenge, digest_credentials
from cycloneish.web import RequestHandler
from tests.auth.test_providers import ProviderTestCase

PASSWORDS = {"ann": "pass:wörd"}


def check(name: str, password: str) -> str | None:
    return name if same_secret(password, PASSWORDS.get(name, "")) and name in PASSWORDS else None


async def check_later(name: str, password: str) -> str | None:
    return check(name, password)


class StateTest(ProviderTestCase):
    async def refused(self, url: str) -> None:
        answer = await self.visit(url, follow_redirects=False)
        self.assertEqual(answer.code, 403, answer.body)

    async def test_a_callback_without_or_with_another_state(self) -> None:
        back = await self.sent_back("/github")
        state = re.search("state=([^&]+)", back)
        assert state is not None
        for other in (
            "",
            "x" * 32,
            state[1][:-1] + "A" if state[1][-1] != "A" else state[1][:-1] + "B",
            "é",
            "%00",
            "a;b",
        ):
            await self.refused(back.replace(state[1], other))
        await self.refused(re.sub("[&]state=[^&]+", "", back))

    async def test_a_state_of_the_program_is_bound_to_the_browser(self) -> None:
        back = await self.sent_back("/ownstate")
        self.assertIn("state=%2Fwhere%3Fto%3D%C3%A9", back)
        await self.refused(back.replace("%2Fwhere", "%2Felsewhere"))
        self.assertEqual((await self.visit(back)).code, 200)
        back = await self.sent_back("/ownstate")
        self.browser.cookies.clear()
        await self.refused(back)

    async def test_a_callback_in_another_browser(self) -> None:
        back = await self.sent_back("/github")
        self.browser.cookies.clear()
        await self.refused(back)

    async def test_a_callback_twice(self) -> None:
        back = await self.sent_back("/github")
        self.assertEqual((await self.visit(back)).code, 200)
        await self.refused(back)

    async def test_a_forged_cookie(self) -> None:
        back = await self.sent_back("/github")
        for cookie in self.browser.cookies:
            cookie.value = "x" + cookie.value[1:]
        await self.refused(back)

    async def test_a_code_of_another_and_a_refusal(self) -> None:
        back = await self.sent_back("/github")
        await self.refused(re.sub("code=[^&]+", "code=stolen", back))
        back = await self.sent_back("/github")
        await self.refused(re.sub("code=[^&]+", "error=access_denied", back))

    async def test_a_stolen_code_is_of_no_use_without_the_verifier(self) -> None:
        # A code of the victim, put into the attacker's own callback.
        theirs = re.search("code=([^&]+)", await self.sent_back("/github"))
        mine = await self.sent_back("/github")
        assert theirs is not None
        await self.refused(re.sub("code=[^&]+", f"code={theirs[1]}", mine))

    async def test_oauth1_cookies(self) -> None:
        to_provider = await self.visit("/twitter", follow_redirects=False)
        back = (await self.visit(to_provider.headers["Location"], follow_redirects=False)).headers["Location"]
        await self.refused(re.sub("oauth_token=[^&]+", "oauth_token=other", back))
        for evil in ("", "x", "a|b|c", "!|!", "YQ==|", "|", "/w==|/w=="):
            answer = await self.visit(
                back, headers={"Cookie": f"_oauth_request_token={evil}"}, follow_redirects=False
            )
            self.assertEqual(answer.code, 403, evil)


class IdTokenTest(ProviderTestCase):
    async def refused(
        self, claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None
    ) -> None:
        self.provider.claims, self.provider.header = claims or {}, header or {}
        answer = await self.visit("/google")
        self.assertEqual(answer.code, 403, (claims, header))

    async def test_claims(self) -> None:
        for claims in (
            {"nonce": "another"},
            {"nonce": None},
            {"iss": "https://evil.example"},
            {"aud": "another"},
            {"aud": ["the-client", "another"]},
            {"azp": "another"},
            {"exp": 1},
            {"exp": "never"},
            {"iat": 9999999999},
            {"sub": None},
        ):
            await self.refused(claims)

    async def test_signatures(self) -> None:
        for header in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "ES256"}, {"kid": "other"}, {"kid": ["x"]}):
            await self.refused(header=header)
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.assertEqual((await self.visit("/google")).code, 403)  # the header of before
        self.provider.header = {}
        self.assertEqual((await self.visit("/google")).code, 200)
        self.provider.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        await self.refused()  # signed with a key that is not the published one


class HandlerAuthTestCase(ProviderTestCase):
    def setUp(self) -> None:
        super().setUp()
        guard = self.guard = DigestAuth("Accounts", PASSWORDS.get)

        class Basic(RequestHandler):
            @basic_auth(check, realm='Acc"ounts')
            def get(self) -> None:
                self.finish(f"hello {self.current_user}")

            @basic_auth(check_later)
            async def post(self) -> None:
                self.finish(f"hello later {self.current_user}")

        class Careless(RequestHandler):
            @basic_auth(lambda name, password: PASSWORDS.get(name, "") and same_secret(password, "x"))
            def get(self) -> None:
                self.finish(f"hello {self.current_user}")

        class Bearer(RequestHandler):
            @bearer_auth(lambda token: "ann" if same_secret(token, "abc.def=") else None, scope="read")
            def get(self) -> None:
                self.finish(f"hello {self.current_user}")

        class Digest(RequestHandler):
            @guard
            def get(self) -> None:
                self.finish(f"hello {self.current_user}")

        self.application.add_handlers(
            ".*", [("/basic", Basic), ("/careless", Careless), ("/bearer", Bearer), ("/digest", Digest)]
        )

    async def with_header(self, path: str, value: str | None, **options: Any) -> HTTPResponse:
        headers = {} if value is None else {"Authorization": value}
        return await self.visit(path, headers=headers, **options)


class BasicTest(HandlerAuthTestCase):
    def encoded(self, text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    async def test_right(self) -> None:
        answer = await self.with_header("/basic", self.encoded("ann:pass:wörd"))
        self.assertEqual((answer.code, answer.body), (200, b"hello ann"))
        answer = await self.with_header("/basic", self.encoded("ann:pass:wörd"), method="POST", body=b"")
        self.assertEqual((answer.code, answer.body), (200, b"hello later ann"))
        answer = await self.visit("/basic", auth_username="ann", auth_password="pass:wörd")
        self.assertEqual(answer.code, 200)

    async def test_wrong_and_malformed(self) -> None:
        values = [
            None, "", "Basic", "Basic ", "Basic !!!", "Basic YW5u", "Basic /w==", "Bearer x", "basic: x",
            self.encoded("ann:wrong"), self.encoded("bob:pass:wörd"), self.encoded(":"),
            self.encoded("\0:\0"),
        ]  # fmt: skip
        for value in values:
            for method in ("GET", "POST"):
                body = None if method == "GET" else b""
                answer = await self.with_header("/basic", value, method=method, body=body)
                self.assertEqual(answer.code, 401, value)
                self.assertTrue(answer.headers["WWW-Authenticate"].startswith('Basic realm="'))
        answer = await self.visit("/basic")
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="Acc\\"ounts", charset="UTF-8"')

    async def test_a_check_that_gives_nothing_true_lets_nobody_in(self) -> None:
        for name in ("nobody", "ann", ""):
            answer = await self.with_header("/careless", self.encoded(f"{name}:y"))
            self.assertEqual(answer.code, 401, name)


class BearerTest(HandlerAuthTestCase):
    async def test_right_and_wrong(self) -> None:
        self.assertEqual((await self.with_header("/bearer", "Bearer abc.def=")).body, b"hello ann")
        for value in ("Bearer other", "Bearer a b", "Bearer =", 'Bearer "x"', "bearer abc.def", "Bearer é"):
            answer = await self.with_header("/bearer", value)
            self.assertEqual(answer.code, 401, value)
            self.assertEqual(
                answer.headers["WWW-Authenticate"], 'Bearer realm="api", scope="read", error="invalid_token"'
            )
        answer = await self.visit("/bearer")
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Bearer realm="api", scope="read"')


class DigestTest(HandlerAuthTestCase):
    async def answer(self, **changes: str) -> str:
        """Credentials that are right, but for *changes* in the text."""
        challenge = best_challenge([(await self.visit("/digest")).headers["WWW-Authenticate"]])
        assert challenge is not None
        made = digest_credentials(challenge, "ann", PASSWORDS["ann"], "GET", "/digest")
        for name, value in changes.items():
            made = re.sub(rf'\b{name}=("[^"]*"|[^,]*)', f"{name}={value}", made)
        return made

    async def test_right(self) -> None:
        answer = await self.visit(
            "/digest", auth_username="ann", auth_password="pass:wörd", auth_mode="digest"
        )
        self.assertEqual((answer.code, answer.body), (200, b"hello ann"))

    async def test_a_replay(self) -> None:
        made = await self.answer()
        self.assertEqual((await self.with_header("/digest", made)).code, 200)
        again = await self.with_header("/digest", made)
        self.assertEqual(again.code, 401)
        self.assertIn("stale=true", again.headers["WWW-Authenticate"])

    async def test_an_expired_nonce(self) -> None:
        made = await self.answer()
        now = self.guard._now()
        self.guard._now = lambda: now + 301
        answer = await self.with_header("/digest", made)
        self.assertIn("stale=true", answer.headers["WWW-Authenticate"])

    async def test_wrong_and_malformed(self) -> None:
        for changes in (
            {"response": '"0"'}, {"username": '"bob"'}, {"nonce": '"x"'}, {"nonce": '"1-2-3"'},
            {"nonce": '"é-é"'},
            {"uri": '"/other"'}, {"nc": "00000000"}, {"nc": "zz"}, {"nc": "0000fff1"}, {"qop": "auth-int"},
            {"algorithm": "MD5"}, {"realm": '"other"'}, {"cnonce": '"other"'},
        ):  # fmt: skip
            answer = await self.with_header("/digest", await self.answer(**changes))
            self.assertEqual(answer.code, 401, changes)
        for value in (
            None,
            "Digest",
            "Digest x",
            "Digest " + "a=b," * 2000,
            'Digest username="',
            "Digest =,=,",
            "Digest a=b, a=b",
        ):
            answer = await self.with_header("/digest", value)
            self.assertEqual(answer.code, 401, value)
            self.assertIn("algorithm=SHA-256", answer.headers["WWW-Authenticate"])

    def test_counters(self) -> None:
        guard = DigestAuth("r", PASSWORDS.get, max_nonces=3)
        taken = [
            counter for counter in (1, 3, 2, 2, 3, 1, 4, 0, -1, 5000) if guard._take_counter("n", counter)
        ]
        self.assertEqual(taken, [1, 3, 2, 4])
        key = guard._key
        for number in range(4):
            guard._take_counter(f"n{number}", 1)
        self.assertLess(len(guard._seen), 4)
        self.assertNotEqual(guard._key, key)


class SourceTest(ProviderTestCase):
    def test_secrets_are_compared_in_constant_time(self) -> None:
        for module in (basic, digest, oauth1, oauth2, oidc):
            self.assertIn(
                "compare_digest" if module is not digest else "same_secret", inspect.getsource(module)
            )
