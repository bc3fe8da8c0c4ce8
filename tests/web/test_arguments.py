"""Arguments as text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.web import Application, HTTPError, MissingArgumentError, RequestHandler
from tests.web.fake import Logs, fetch, form


class Arguments(RequestHandler):
    def post(self) -> None:
        self.write(
            {
                "last": self.get_argument("a", "none"),
                "all": self.get_arguments("a"),
                "query": self.get_query_arguments("a"),
                "body": self.get_body_arguments("a"),
                "query_last": self.get_query_argument("a", None),
                "body_last": self.get_body_argument("a", None),
                "raw": self.get_argument("a", "none", strip=False),
            }
        )

    get = post


class ArgumentTests(SynchronousTestCase):
    def test_query_and_body(self) -> None:
        connection = fetch(Arguments, "/?a=1&a=2", **form("a=+3+&b=4"))
        self.assertEqual(
            connection.body,
            b'{"last": "3", "all": ["1", "2", "3"], "query": ["1", "2"], "body": ["3"], '
            b'"query_last": "2", "body_last": "3", "raw": " 3 "}',
        )

    def test_defaults(self) -> None:
        connection = fetch(Arguments, "/")
        self.assertEqual(
            connection.body,
            b'{"last": "none", "all": [], "query": [], "body": [], "query_last": null, "body_last": null, '
            b'"raw": "none"}',
        )

    def test_missing(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.get_argument("needed")

        with Logs() as logs:
            self.assertEqual(fetch(Handler).code, 400)
        self.assertIn("Missing argument needed", logs.text)
        self.assertEqual(MissingArgumentError("q").arg_name, "q")

    def test_control_characters_become_spaces(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.write(self.get_argument("a"))

        self.assertEqual(fetch(Handler, "/?a=x%00%1by%0az").body, b"x  y\nz")

    def test_invalid_utf8_is_400(self) -> None:
        with Logs() as logs:
            self.assertEqual(fetch(Arguments, "/?a=%ff").code, 400)
        self.assertIn("Invalid unicode in a: b'\\xff'", logs.text)

    def test_malformed_form_is_400_and_logged_once(self) -> None:
        with Logs("cycloneish.general", "cycloneish.application") as logs:
            connection = fetch(
                Arguments, "/", "POST", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nbad"
            )
        self.assertEqual(connection.code, 400)
        self.assertEqual(len(logs.records), 1)
        self.assertIsNone(logs.records[0].exc_info)

    def test_handler_that_asks_for_nothing_parses_nothing(self) -> None:
        class Handler(RequestHandler):
            def post(self) -> None:
                self.write(self.request.body)

        connection = fetch(Handler, "/", "POST", {"Content-Type": "multipart/form-data; boundary=x"}, b"bad")
        self.assertEqual((connection.code, connection.body), (200, b"bad"))

    def test_default_for_a_list_is_refused(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.get_arguments("a", "default")  # type: ignore[arg-type]

        with Logs() as logs:
            self.assertEqual(fetch(Handler).code, 500)
        self.assertIn("Uncaught exception", logs.text)

    def test_decoding_can_be_overridden(self) -> None:
        class Handler(RequestHandler):
            def decode_argument(self, value: bytes, name: str | None = None) -> str:
                return f"{name}={value.decode('latin-1')}"

            def get(self, *args: str, **kwargs: str) -> None:
                self.write({"args": args, "kwargs": kwargs, "a": self.get_argument("a")})

        app = Application([(r"/p/(.*)", Handler), (r"/n/(?P<one>.*)", Handler)])
        self.assertEqual(
            fetch(app, "/p/%e4?a=%f6").body,
            b'{"args": ["None=\\u00e4"], "kwargs": {}, "a": "a=\\u00f6"}',
        )
        self.assertIn(b'"kwargs": {"one": "one=x"}', fetch(app, "/n/x?a=1").body)

    def test_path_arguments(self) -> None:
        class Handler(RequestHandler):
            def prepare(self) -> None:
                self.seen = (list(self.path_args), dict(self.path_kwargs))

            def get(self, *args: str | None, **kwargs: str) -> None:
                self.write({"args": args, "kwargs": kwargs, "seen": self.seen})

        app = Application([(r"/(\w+)/(\w+)?", Handler)])
        self.assertEqual(
            fetch(app, "/a/").body, b'{"args": ["a", null], "kwargs": {}, "seen": [["a", null], {}]}'
        )

    def test_invalid_path_argument_is_400(self) -> None:
        class Handler(RequestHandler):
            def get(self, name: str) -> None:
                raise HTTPError(500)

        with Logs() as logs:
            self.assertEqual(fetch(Application([(r"/(.*)", Handler)]), "/%ff").code, 400)
        self.assertIn("Invalid unicode in url", logs.text)
