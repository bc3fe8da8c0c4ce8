"""The error page of debug mode: what it shows, and what it must not."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import HTTPHeaders, HTTPServerRequest
from cycloneish.web import Application, RequestHandler
from cycloneish.web.debug import render_debug_page
from cycloneish.web.redaction import HIDDEN, Redactor, is_secret_name
from tests.web.live import LiveTestCase, sleep

BROWSER = {"Accept": "text/html,*/*"}


class Exploding:
    """Counts the times its code is run by somebody who shows it."""

    runs: list[str] = []

    def __repr__(self) -> str:
        self.runs.append("repr")
        return "<script>alert(1)</script>"

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        self.runs.append(name)
        raise AttributeError(name)


def page_for(
    error: BaseException | Failure, request: HTTPServerRequest | None = None, **settings: Any
) -> str:
    """The page for *error*, which is raised first unless it was."""
    if isinstance(error, Failure):
        exc_info: Any = (error.type, error.value, error.getTracebackObject())
    else:
        if error.__traceback__ is None:
            try:
                raise error
            except BaseException:
                pass
        exc_info = (type(error), error, error.__traceback__)
    if request is None:
        request = HTTPServerRequest("GET", "/path?a=1", host="example.com")
    handler = RequestHandler(Application([], **settings), request)
    handler.path_args, handler.path_kwargs = [], {}
    return render_debug_page(handler, exc_info)


def shown(page: str) -> str:
    """The text of a page, without its style."""
    body = page[page.index("<body>") :]
    return unescape(re.sub(r"<[^>]*>", " ", body))


class ContentTests(SynchronousTestCase):
    def test_the_exception_the_frames_and_the_source_around_them(self) -> None:
        def innermost() -> None:
            answer = 42
            raise LookupError(f"not found <b>{answer}</b>")

        try:
            innermost()
        except LookupError as error:
            page = page_for(error)
        self.assertIn("<title>LookupError: not found &lt;b&gt;42&lt;/b&gt;</title>", page)
        text = shown(page)
        self.assertIn("LookupError", text)
        self.assertIn("innermost", text)
        self.assertIn("answer = 42", text, "the line before the one that raised")
        self.assertIn("test_debug.py", text)
        self.assertRegex(page, r"<th>answer</th><td>42</td>")
        self.assertNotIn("<b>42", page)
        self.assertIn("GET /path?a=1", text)
        self.assertIn("http://example.com/path?a=1", text)

    def test_causes_and_contexts(self) -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise ValueError("second") from error
        except ValueError as error:
            caused = shown(page_for(error))
        self.assertIn("It was caused by", caused)
        self.assertIn("first", caused)
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            self.assertIn("while this was handled", shown(page_for(error)))
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second") from None
        except ValueError as error:
            self.assertNotIn('<p class="link">', page_for(error))

    def test_circles_groups_notes_and_first_errors(self) -> None:
        one, other = ValueError("one"), ValueError("other")
        one.__cause__, other.__cause__ = other, one
        self.assertEqual(page_for(one).count("It was caused by"), 2)  # in HTML, and in plain text
        group = ExceptionGroup("several", [ValueError("member one"), KeyError("member two")])
        group.add_note("look here")
        text = shown(page_for(group))
        for expected in ("member one", "member two", "look here", "Number 2 of 2"):
            self.assertIn(expected, text)
        first = FirstError(Failure(OSError("in the list")), 3)
        self.assertIn("The Deferred number 3 failed with", shown(page_for(first)))

    def test_a_failure_without_a_traceback_object(self) -> None:
        try:
            raise ValueError("cleaned")
        except ValueError:
            failure = Failure()
        failure.cleanFailure()
        self.assertIn("cleaned", shown(page_for(failure)))

    def test_an_exception_without_anything(self) -> None:
        page = page_for(ValueError())
        self.assertIn("<title>ValueError</title>", page)
        handler = RequestHandler(Application([]), HTTPServerRequest("GET", "/", host="a"))
        self.assertIn("<h1>Error</h1>", render_debug_page(handler, (None, None, None)))

    def test_an_exception_that_cannot_be_printed(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        self.assertIn("cannot be made", shown(page_for(Mute())))

    def test_a_deep_recursion_is_cut_in_the_middle(self) -> None:
        def down(level: int) -> None:
            if level == 0:
                raise RecursionError
            down(level - 1)

        try:
            down(500)
        except RecursionError as error:
            page = page_for(error)
        self.assertIn("more frames", page)
        self.assertLess(len(page), 600_000)

    def test_the_request(self) -> None:
        headers = HTTPHeaders({"X-Shown": "yes", "Content-Type": "application/x-www-form-urlencoded"})
        request = HTTPServerRequest(
            "POST", "/p?q=1&q=2", headers=headers, body=b"name=<i>bob</i>&password=opensesame", host="a"
        )
        page = page_for(ValueError(), request)
        text = shown(page)
        for expected in ("X-Shown", "yes", "Query arguments", "1\n2", "name", "<i>bob</i>", "password"):
            self.assertIn(expected, text)
        self.assertNotIn("<i>bob", page)
        self.assertNotIn("opensesame", page)

    def test_uploaded_files_by_name(self) -> None:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a<b.txt"\r\n'
            b"Content-Type: a/b\r\n\r\ncontent of it\r\n--x--\r\n"
        )
        headers = HTTPHeaders({"Content-Type": "multipart/form-data; boundary=x"})
        page = page_for(ValueError(), HTTPServerRequest("POST", "/", headers=headers, body=body, host="a"))
        self.assertIn("a&lt;b.txt (a/b)", page)
        self.assertNotIn("content of it", page)

    def test_a_malformed_form_is_no_second_error(self) -> None:
        headers = HTTPHeaders({"Content-Type": "multipart/form-data; boundary=x"})
        page = page_for(ValueError(), HTTPServerRequest("POST", "/", headers=headers, body=b"--x", host="a"))
        self.assertIn("ValueError", page)


class SafetyTests(SynchronousTestCase):
    def test_the_page_has_no_script_and_forbids_any(self) -> None:
        page = page_for(ValueError("<script>alert(1)</script>"))
        self.assertNotIn("<script", page)
        self.assertIn("default-src 'none'", page)

    def test_no_code_of_the_application_runs(self) -> None:
        Exploding.runs.clear()

        class Text(str):
            def __repr__(self) -> str:
                Exploding.runs.append("Text")
                return "x"

        def failing() -> None:
            exploding = Exploding()
            listed = [exploding, {exploding: 1, "a": exploding}, Text("x")]
            assert listed
            raise ValueError

        try:
            failing()
        except ValueError as error:
            page = page_for(error)
        self.assertEqual([run for run in Exploding.runs if run != "__await__"], [])
        self.assertIn("Exploding&gt;", page)

    def test_secrets_do_not_show_wherever_they_stand(self) -> None:
        headers = HTTPHeaders()
        headers.add("Cookie", "sid=cookievalue123; theme=dark")
        headers.add("Authorization", "Bearer bearervalue123")
        headers.add("X-Api-Key", "apikeyvalue123")
        headers.add("Referer", "http://a/?reset_token=refererval")
        request = HTTPServerRequest("GET", "/?code=codevalue&key=keyvalue&page=2", headers=headers, host="a")
        settings = {
            "cookie_secret": {1: "cookiesecret123", 2: b"cookiesecret456"},
            "database_url": "postgresql://bob:dbpassword@db/x",
        }

        def failing(password: str, token: bytes) -> None:
            copied = "sid=cookievalue123 and bearervalue123"
            nested: dict[str, Any] = {
                "user": "bob",
                "passwd": "nestedvalue",
                "inner": [{"api_key": "innervalue"}],
            }
            url = "https://bob:urlpassword@host/"
            secret_key = "literalvalue"
            connect = {"password": "keywordvalue"}
            nested["itself"] = nested
            self.assertTrue([copied, nested, url, secret_key, connect])
            raise ValueError(
                f"cannot connect with cookiesecret123 to {settings['database_url']} by {password}"
            )

        try:
            failing("localpassword", b"localtoken12")
        except ValueError as error:
            page = page_for(error, request, **settings)
        text = shown(page)
        for secret in [
            "cookievalue123",
            "bearervalue123",
            "apikeyvalue123",
            "refererval",
            "codevalue",
            "keyvalue",
            "cookiesecret123",
            "cookiesecret456",
            "dbpassword",
            "localpassword",
            "localtoken12",
            "nestedvalue",
            "innervalue",
            "urlpassword",
            "literalvalue",
            "keywordvalue",
        ]:
            self.assertNotIn(secret, text, secret)
        for harmless in ["sid", "Authorization", "bob", "page=2", "secret_key"]:
            self.assertIn(harmless, text)
        self.assertIn(HIDDEN, text)


class RedactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        request = HTTPServerRequest("GET", "/", host="a")
        self.redactor = Redactor(RequestHandler(Application([]), request))

    def test_names(self) -> None:
        for name in [
            "password",
            "PASSWD",
            "user_pwd",
            "Set-Cookie",
            "X-Auth-Token",
            "api_key",
            "apiKey",
            "otp",
        ]:
            self.assertTrue(is_secret_name(name), name)
        for name in ["author", "cwd", "keyboard", "footprint", "discard", "status_code", "name", "pinned"]:
            self.assertFalse(is_secret_name(name), name)

    def test_values(self) -> None:
        plain = self.redactor.plain
        for value, expected in [
            (None, "None"),
            (1.5, "1.5"),
            (b"a\xff", "b'a\xff'"),
            ((1, "a"), "(1, 'a')"),
            ({1}, "set({1})"),
            ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': …}}}"),
            ([[[[1]]]], "[[[…]]]"),
            (list(range(100)), "[" + ", ".join(map(str, range(20))) + ", … 80 more]"),
            (1 << 5000, "<int of 5001 bits>"),
            (self, f"<{type(self).__module__}.RedactorTests>"),
            ({2: 3}, "{2: 3}"),
        ]:
            self.assertEqual(plain(value), expected)
        self.assertLess(len(plain("x" * 10_000)), 400)
        self.assertLess(len(plain({str(n): n for n in range(100)})), 400)

    def test_secret_names_with_values_that_tell_nothing(self) -> None:
        variable = self.redactor.variable
        self.assertEqual(variable("password", None), "None")
        self.assertEqual(variable("is_authenticated", True), "True")
        self.assertEqual(variable("session", self), f"<{type(self).__module__}.RedactorTests>")
        self.assertEqual(variable("password", "x"), HIDDEN)


class Failing(RequestHandler):
    async def get(self, how: str) -> None:
        await getattr(self, how)()

    async def coroutine(self) -> None:
        await self.deeper()

    async def deeper(self) -> None:
        await sleep(0)
        raise RuntimeError("deep down")

    @inlineCallbacks
    def generator(self) -> Any:
        yield sleep(0)
        yield self.inner_generator()

    @inlineCallbacks
    def inner_generator(self) -> Any:
        yield sleep(0)
        raise RuntimeError("deep down")

    async def gathered(self) -> None:
        await gatherResults([Deferred.fromCoroutine(self.deeper())], consumeErrors=True)

    async def later(self) -> None:
        from twisted.internet import reactor

        await deferLater(reactor, 0, self.raise_later)

    def raise_later(self) -> None:
        raise RuntimeError("deep down")


class ServedTests(LiveTestCase):
    async def page(self, how: str, **settings: Any) -> Any:
        self.serve(Application([("/(.*)", Failing)], **settings))
        return await self.fetch(f"/{how}", headers=BROWSER)

    async def test_the_traceback_goes_across_awaits_and_generators(self) -> None:
        for how, functions in [
            ("coroutine", ["get", "coroutine", "deeper"]),
            ("generator", ["get", "generator", "inner_generator"]),
            ("gathered", ["deeper"]),
            ("later", ["later", "raise_later"]),
        ]:
            response = await self.page(how, debug=True, autoreload=False)
            self.assertEqual(response.code, 500)
            self.assertEqual(response.headers["Content-Type"], "text/html; charset=UTF-8")
            page = response.body.decode()
            for function in functions:
                self.assertIn(f"<b>Failing.{function}</b>", page, f"{how}: {function}")
            self.assertIn("deep down", page)

    async def test_without_debug_nothing_of_it_shows(self) -> None:
        response = await self.page("coroutine")
        self.assertEqual(response.code, 500)
        self.assertNotIn(b"deep", response.body)
