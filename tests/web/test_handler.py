"""The life of a request: verbs, output, errors, and a client that goes away."""

from __future__ import annotations

import copy
import datetime
import logging
import pickle
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import HTTPInputError, HTTPOutputError
from cycloneish.iostream import StreamClosedError
from cycloneish.web import (
    Application,
    Finish,
    HTTPAuthenticationRequired,
    HTTPError,
    MissingArgumentError,
    RequestHandler,
    asynchronous,
)
from tests.web.fake import Exchange, FakeConnection, Logs, fetch


class Hello(RequestHandler):
    def get(self) -> None:
        self.write("Hello")


class VerbTests(SynchronousTestCase):
    def test_small_response_is_one_write_and_finish(self) -> None:
        connection = fetch(Hello)
        self.assertEqual(connection.calls, ["write_headers", "finish"])
        self.assertEqual((connection.code, connection.reason, connection.body), (200, "OK", b"Hello"))
        self.assertEqual(connection.headers["Content-Length"], "5")
        self.assertEqual(connection.headers["Content-Type"], "text/html; charset=UTF-8")
        self.assertTrue(connection.headers["Server"].startswith("cycloneish/"))
        self.assertIn("GMT", connection.headers["Date"])

    def test_sync_handler_never_meets_the_driver(self) -> None:
        self.patch(__import__("cycloneish.web.handler").web.handler, "drive", None)
        self.assertEqual(fetch(Hello).code, 200)

    def test_unimplemented_method_is_405_with_allow(self) -> None:
        connection = fetch(Hello, method="DELETE")
        self.assertEqual(connection.code, 405)
        self.assertEqual(connection.headers["Allow"], "GET")

    def test_unknown_method_is_405(self) -> None:
        self.assertEqual(fetch(Hello, method="BREW").code, 405)

    def test_further_methods_can_be_supported(self) -> None:
        class Brew(RequestHandler):
            SUPPORTED_METHODS = (*RequestHandler.SUPPORTED_METHODS, "BREW")

            def brew(self) -> None:
                self.write("coffee")

        self.assertEqual(fetch(Brew, method="BREW").body, b"coffee")

    def test_head_has_headers_and_no_body(self) -> None:
        class Handler(Hello):
            def head(self) -> None:
                self.get()

        connection = fetch(Handler, method="HEAD")
        self.assertEqual(connection.body, b"")
        self.assertEqual(connection.headers["Content-Length"], "5")

    def test_verb_that_returns_something_else_is_an_error_that_says_so(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> Any:
                return "Hello"

        with Logs() as logs:
            self.assertEqual(fetch(Handler).code, 500)
        self.assertIn("get() returned 'Hello'", logging.Formatter().formatException(logs.records[0].exc_info))

    def test_fired_deferred_is_as_good_as_none(self) -> None:
        class Handler(RequestHandler):
            def prepare(self) -> Deferred[None]:
                return succeed(None)

            def get(self) -> Deferred[None]:
                self.write("x")
                return succeed(None)

        self.patch(__import__("cycloneish.web.handler").web.handler, "drive", None)
        self.assertEqual(fetch(Handler).body, b"x")

    def test_prepare_may_finish_the_response(self) -> None:
        class Handler(RequestHandler):
            def prepare(self) -> None:
                self.finish("enough")

            def get(self) -> None:
                raise AssertionError

        self.assertEqual(fetch(Handler).body, b"enough")

    def test_initialize_gets_the_arguments_of_the_route(self) -> None:
        class Handler(RequestHandler):
            def initialize(self, greeting: str) -> None:
                self.greeting = greeting

            def get(self) -> None:
                self.write(self.greeting)

        app = Application([("/", Handler, {"greeting": "Moin"})])
        self.assertEqual(fetch(app).body, b"Moin")

    def test_failing_initialize_is_answered(self) -> None:
        class Handler(RequestHandler):
            def initialize(self) -> None:
                raise HTTPError(503)

        self.assertEqual(fetch(Handler).code, 503)

    def test_default_headers_are_not_shared(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.set_header("X-One", "1")
                self.set_header("Server", "other")

        fetch(Handler)
        connection = fetch(Hello)
        self.assertNotIn("X-One", connection.headers)
        self.assertNotEqual(connection.headers["Server"], "other")

    def test_set_default_headers_holds_for_error_pages(self) -> None:
        class Handler(RequestHandler):
            def set_default_headers(self) -> None:
                self.set_header("Server", "mine")

            def get(self) -> None:
                raise HTTPError(404)

        self.assertEqual(fetch(Handler).headers["Server"], "mine")

    def test_detach_hands_over_the_transport(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.result = self.detach()

        connection = fetch(Handler)
        self.assertEqual(connection.calls, ["detach"])


class OutputTests(SynchronousTestCase):
    def make(self, **requests: Any) -> tuple[RequestHandler, FakeConnection]:
        """A handler that is in the middle of its request."""
        made: list[RequestHandler] = []

        class Handler(RequestHandler):
            @asynchronous
            def get(self) -> None:
                made.append(self)

        connection = fetch(Handler, **requests)
        return made[0], connection

    def test_write_takes_text_bytes_and_dictionaries(self) -> None:
        handler, connection = self.make()
        handler.write("ä")
        handler.write(b"\xff")
        handler.write({"a": "</script>"})
        handler.finish()
        self.assertEqual(connection.body, b'\xc3\xa4\xff{"a": "<\\/script>"}')
        self.assertEqual(connection.headers["Content-Type"], "application/json; charset=UTF-8")

    def test_write_refuses_other_things(self) -> None:
        handler, _ = self.make()
        self.assertIn("put them into a dictionary", str(self.assertRaises(TypeError, handler.write, [1])))
        self.assertRaises(TypeError, handler.write, 1)

    def test_no_output_after_finish(self) -> None:
        handler, _ = self.make()
        handler.finish()
        self.assertRaises(RuntimeError, handler.write, "x")
        self.assertRaises(RuntimeError, handler.finish)
        self.assertRaises(RuntimeError, handler.render, "x.html")

    def test_flush_waits_for_the_connection(self) -> None:
        handler, connection = self.make()
        connection.drained = Deferred()
        handler.write("a")
        flushed = handler.flush()
        self.assertNoResult(flushed)
        connection.drained.callback(None)
        self.successResultOf(flushed)
        self.assertNotIn("Content-Length", connection.headers)
        connection.drained = None
        handler.write("b")
        self.successResultOf(handler.flush())
        self.successResultOf(handler.flush())
        self.assertEqual(connection.calls, ["write_headers", "write"])
        self.successResultOf(handler.finish("c"))
        self.assertEqual((connection.body, connection.finished), (b"abc", True))

    def test_etag_and_304(self) -> None:
        etag = fetch(Hello).headers["Etag"]
        self.assertRegex(etag, '^"[0-9a-f]{32}"$')
        for header in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            connection = fetch(Hello, headers={"If-None-Match": header})
            self.assertEqual((connection.code, connection.body), (304, b""), header)
            self.assertNotIn("Content-Type", connection.headers)
        self.assertEqual(fetch(Hello, headers={"If-None-Match": '"x"'}).code, 200)
        self.assertEqual(fetch(Hello, headers={"If-None-Match": "garbage"}).code, 200)

    def test_etag_of_several_writes_is_that_of_the_whole(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.write("Hel")
                self.write("lo")

        self.assertEqual(fetch(Handler).headers["Etag"], fetch(Hello).headers["Etag"])

    def test_etag_can_be_computed_or_left_out(self) -> None:
        class Own(Hello):
            def compute_etag(self) -> str | None:
                return 'W/"v1"'

        class Without(Hello):
            def compute_etag(self) -> str | None:
                return None

        class Evil(Hello):
            def compute_etag(self) -> str | None:
                return '"a\r\nb"'

        self.assertEqual(fetch(Own).headers["Etag"], 'W/"v1"')
        self.assertNotIn("Etag", fetch(Without).headers)
        with Logs():
            self.assertEqual(fetch(Evil).code, 500)
        handler, _ = self.make()
        self.assertFalse(handler.check_etag_header())
        handler, _ = self.make(headers={"If-None-Match": '"x"'})
        self.assertFalse(handler.check_etag_header())

    def test_204_has_no_body(self) -> None:
        handler, connection = self.make()
        handler.set_status(204)
        handler.finish()
        self.assertNotIn("Content-Length", connection.headers)
        handler, _ = self.make()
        handler.set_status(204)
        self.assertRaises(RuntimeError, handler.finish, "body")

    def test_redirects(self) -> None:
        for arguments, code in (({}, 302), ({"permanent": True}, 301), ({"status": 307}, 307)):
            handler, connection = self.make()
            handler.redirect("/föö", **arguments)
            self.assertEqual(connection.code, code)
            self.assertEqual(connection.headers["Location"], "/föö".encode().decode("latin-1"))
        handler, _ = self.make()
        self.assertRaises(ValueError, handler.redirect, "/", status=200)
        handler.flush()
        self.assertRaises(RuntimeError, handler.redirect, "/")

    def test_status_and_reason(self) -> None:
        handler, connection = self.make()
        handler.set_status(299)
        self.assertEqual((handler.get_status(), handler._reason), (299, "Unknown"))
        handler.set_status(200, "Fine")
        handler.finish()
        self.assertEqual((connection.code, connection.reason), (200, "Fine"))

    def test_unsafe_reasons_become_unknown(self) -> None:
        handler, _ = self.make()
        for reason in ("a\r\nX: y", "a\nb", "a\0b", "<script>", "\x7f", ""):
            handler.set_status(200, reason)
            self.assertEqual(handler._reason, "Unknown", repr(reason))

    def test_header_values(self) -> None:
        handler, _ = self.make()
        handler.set_header("x-a", b"\xe4")
        handler.set_header("X-B", 7)
        handler.set_header("X-C", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
        handler.add_header("X-D", "1")
        handler.add_header("X-D", "2")
        self.assertEqual(handler._headers["X-A"], "ä")
        self.assertEqual(handler._headers["X-B"], "7")
        self.assertEqual(handler._headers["X-C"], "Fri, 02 Jan 2026 03:04:05 GMT")
        self.assertEqual(handler._headers.get_list("X-D"), ["1", "2"])
        handler.clear_header("x-d")
        handler.clear_header("x-d")
        self.assertNotIn("X-D", handler._headers)
        self.assertRaises(TypeError, handler.set_header, "X", 1.5)

    def test_injection_is_refused_wherever_a_header_is_made(self) -> None:
        for bad in ("a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"):
            handler, _ = self.make()
            for call in (handler.set_header, handler.add_header):
                self.assertRaises(ValueError, call, "X-Good", bad)
                self.assertRaises(ValueError, call, "X-Good", bad.encode())
                self.assertRaises(ValueError, call, bad, "good")
            self.assertRaises(ValueError, handler.redirect, bad)


class ErrorTests(SynchronousTestCase):
    def raising(self, error: BaseException, **kwargs: Any) -> tuple[FakeConnection, Logs]:
        class Handler(RequestHandler):
            def get(self) -> None:
                raise error

        with Logs() as logs:
            return fetch(Handler, **kwargs), logs

    def test_http_error(self) -> None:
        connection, logs = self.raising(HTTPError(404, "no %s here", "cat"))
        self.assertEqual(connection.code, 404)
        self.assertIn(b"<title>404: Not Found</title>", connection.body)
        self.assertNotIn(b"cat", connection.body)
        self.assertIn("WARNING 404 GET / (192.0.2.7): no cat here", logs.text)

    def test_http_error_without_message_is_only_in_the_access_log(self) -> None:
        _, logs = self.raising(HTTPError(404))
        self.assertEqual([r.name for r in logs.records], ["cycloneish.access"])

    def test_reason_of_an_error(self) -> None:
        connection, _ = self.raising(HTTPError(400, reason="Bad & wrong"))
        self.assertEqual(connection.reason, "Bad & wrong")
        self.assertIn(b"400: Bad &amp; wrong", connection.body)
        connection, _ = self.raising(HTTPError(400, reason="a\r\nX: y"))
        self.assertEqual(connection.reason, "Unknown")

    def test_other_exceptions_are_500_and_logged_with_traceback(self) -> None:
        connection, logs = self.raising(ZeroDivisionError("secret"))
        self.assertEqual(connection.code, 500)
        self.assertNotIn(b"secret", connection.body)
        self.assertIn("ERROR Uncaught exception GET / (192.0.2.7)", logs.text)
        self.assertIsNotNone(logs.records[0].exc_info)

    def test_input_error_is_its_status_logged_once(self) -> None:
        connection, logs = self.raising(HTTPInputError("too big", status=413))
        self.assertEqual(connection.code, 413)
        self.assertEqual(
            [r.getMessage() for r in logs.records if r.name != "cycloneish.access"],
            ["413 GET / (192.0.2.7): too big"],
        )
        self.assertIsNone(logs.records[0].exc_info)

    def test_first_error_gives_the_status_inside(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> Deferred[Any]:
                return gatherResults(
                    [gatherResults([fail(HTTPError(418))], consumeErrors=True)], consumeErrors=True
                )

        with Logs():
            self.assertEqual(fetch(Handler).code, 418)

    def test_finish_ends_without_error(self) -> None:
        connection, _ = self.raising(Finish("bye"))
        self.assertEqual((connection.code, connection.body), (200, b"bye"))

    def test_finish_after_finish(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.finish("x")
                raise Finish

        self.assertEqual(fetch(Handler).body, b"x")

    def test_authentication_required(self) -> None:
        connection, _ = self.raising(HTTPAuthenticationRequired(realm='a "door"', charset="UTF-8"))
        self.assertEqual(connection.code, 401)
        self.assertEqual(
            connection.headers["WWW-Authenticate"], 'Basic realm="a \\"door\\"", charset="UTF-8"'
        )

    def test_error_after_finish_is_only_logged(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.finish("x")
                raise ValueError("late")

        with Logs() as logs:
            connection = fetch(Handler)
        self.assertEqual((connection.code, connection.calls.count("finish")), (200, 1))
        self.assertIn("Uncaught exception", logs.text)

    def test_error_after_flush_cuts_the_response_off(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.write("x")
                self.flush()
                raise ValueError

        with Logs() as logs:
            connection = fetch(Handler)
        self.assertEqual((connection.code, connection.finished), (200, True))
        self.assertIn("Cannot send error response after headers written", logs.text)

    def test_error_when_the_end_is_short_concludes_once(self) -> None:
        finished: list[str] = []

        class Handler(RequestHandler):
            def get(self) -> None:
                def finish() -> None:
                    raise HTTPOutputError("short")

                self.request.connection.finish = finish  # type: ignore
                self.finish("x")

            def on_finish(self) -> None:
                finished.append("x")

        with Logs() as logs:
            fetch(Handler)
        self.assertIn("Failed to flush partial response", logs.text)
        self.assertEqual(finished, ["x"])

    def test_write_error_can_be_overridden(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                raise HTTPError(409)

            def write_error(self, status_code: int, **kwargs: Any) -> None:
                self.write({"status": status_code, "error": str(kwargs["exc_info"][1])})

        self.assertEqual(fetch(Handler).body, b'{"status": 409, "error": "HTTP 409: Conflict"}')

    def test_failing_write_error_leaves_the_status(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                raise HTTPError(409)

            def write_error(self, status_code: int, **kwargs: Any) -> None:
                raise ValueError

        with Logs() as logs:
            connection = fetch(Handler)
        self.assertEqual((connection.code, connection.body), (409, b""))
        self.assertIn("Uncaught exception in write_error", logs.text)

    def test_send_error_without_body(self) -> None:
        for code in (204, 304):
            connection, _ = self.raising(HTTPError(code))
            self.assertEqual((connection.code, connection.body), (code, b""))

    def test_log_exception_can_be_overridden_and_may_fail(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                raise ValueError

            def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
                raise ZeroDivisionError

        with Logs() as logs:
            self.assertEqual(fetch(Handler).code, 500)
        self.assertIn("Error in exception logger", logs.text)

    def test_last_resort_when_all_else_fails(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                raise ValueError

            def finish(self, chunk: Any = None) -> Any:
                raise ZeroDivisionError

        with Logs() as logs:
            connection = fetch(Handler)
        self.assertEqual((connection.code, connection.finished), (500, True))
        self.assertIn("Exception in exception handler", logs.text)

    def test_failing_on_finish_is_logged_and_harmless(self) -> None:
        class Handler(Hello):
            def on_finish(self) -> None:
                raise ValueError

        with Logs() as logs:
            self.assertEqual(fetch(Handler).code, 200)
        self.assertIn("Uncaught exception in on_finish", logs.text)

    def test_traceback_for_debugging(self) -> None:
        connection, _ = self.raising(ValueError("oops"), serve_traceback=True)
        self.assertEqual(connection.headers["Content-Type"], "text/plain; charset=UTF-8")
        self.assertIn(b"ValueError: oops", connection.body)
        connection, _ = self.raising(
            ValueError("oops"), serve_traceback=True, headers={"Accept": "text/html"}
        )
        self.assertIn(b"ValueError", connection.body)
        self.assertTrue(connection.headers["Content-Type"].startswith("text/html"))

    def test_errors_can_be_copied_and_pickled(self) -> None:
        for error in (HTTPError(404, "no %s", 1, reason="x"), MissingArgumentError("q")):
            for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
                self.assertEqual(
                    (type(other), str(other), other.reason), (type(error), str(error), error.reason)
                )

    def test_percent_in_a_message_without_arguments(self) -> None:
        error = HTTPError(400, "100%")
        self.assertEqual((error.get_message(), error.log_message), ("100%", "100%%"))
        self.assertEqual(str(error), "HTTP 400: Bad Request (100%)")

    def test_a_generator_without_decorator_is_told_what_it_lacks(self) -> None:
        class Plain(RequestHandler):
            def get(self) -> Any:
                yield None

        class Async(RequestHandler):
            async def get(self) -> Any:
                yield None

        for handler in (Plain, Async):
            with Logs() as logs:
                self.assertEqual(fetch(handler).code, 500)
            shown = logging.Formatter().formatException(logs.records[0].exc_info)
            self.assertIn(f"{handler.__name__}.get() has a yield and is a generator", shown)

    def test_our_own_messages_need_no_arguments(self) -> None:
        # Error pages of JSON interfaces show `log_message` as it is.
        class Api(RequestHandler):
            def post(self) -> None:
                self.write(self.get_argument("a"))

            def write_error(self, status_code: int, **kwargs: Any) -> None:
                self.finish(kwargs["exc_info"][1].log_message)

        form = {"Content-Type": "application/x-www-form-urlencoded"}
        multipart = {"Content-Type": "multipart/form-data; boundary=x"}
        with Logs():
            self.assertEqual(fetch(Api, "/", "POST", form, b"a=%ff").body, b"Invalid unicode in a: b'\\xff'")
            self.assertIn(b"multipart/form-data", fetch(Api, "/", "POST", multipart, b"junk").body)
            missing = fetch(Api, "/", "POST", form, b"a=1", xsrf_cookies=True)
        self.assertEqual(missing.body, b"'_xsrf' argument missing from POST")


class DisconnectTests(SynchronousTestCase):
    def waiting(self, **attributes: Any) -> tuple[RequestHandler, FakeConnection, Deferred[str]]:
        """A handler that waits for the Deferred, and what it recorded in its list `seen`."""
        made: list[RequestHandler] = []
        wait: Deferred[str] = Deferred()

        class Handler(RequestHandler):
            async def get(self) -> None:
                made.append(self)
                self.seen: list[str] = []
                try:
                    self.write(await wait)
                except BaseException as error:
                    self.seen.append(type(error).__name__)
                    raise

            def on_connection_close(self) -> None:
                self.seen.append("close")

            def on_finish(self) -> None:
                self.seen.append("finish")

        for name, value in attributes.items():
            setattr(Handler, name, value)
        connection = fetch(Handler)
        return made[0], connection, wait

    def test_handler_goes_on_and_both_hooks_run_once(self) -> None:
        handler, connection, wait = self.waiting()
        with Logs() as logs:
            connection.lose()
            connection.lose()
            self.assertEqual(handler.seen, ["close"])  # type: ignore
            wait.callback("late")
        self.assertEqual(handler.seen, ["close", "finish"])  # type: ignore
        self.assertNotIn("ERROR", logs.text)

    def test_deferred_is_cancelled_on_request(self) -> None:
        handler, connection, wait = self.waiting(cancel_on_disconnect=True)
        with Logs() as logs:
            connection.lose()
        self.assertEqual(handler.seen, ["close", "CancelledError", "finish"])  # type: ignore
        self.assertTrue(wait.called)
        self.assertEqual(logs.text, "")

    def test_cancelling_can_be_a_setting(self) -> None:
        cancelled: list[object] = []
        wait: Deferred[None] = Deferred(cancelled.append)

        class Handler(RequestHandler):
            def get(self) -> Deferred[None]:
                return wait

        app = Application([("/", Handler)], cancel_on_disconnect=True)
        fetch(app).lose()
        self.assertEqual(cancelled, [wait])

    def test_long_poll_that_nobody_finishes_is_concluded(self) -> None:
        seen: list[str] = []

        class Handler(RequestHandler):
            @asynchronous
            def get(self) -> None:
                seen.append("get")
                self.application.waiting = self  # type: ignore

            def on_connection_close(self) -> None:
                seen.append("close")

            def on_finish(self) -> None:
                seen.append("finish")

        app = Application([("/", Handler)])
        connection = fetch(app)
        connection.lose()
        self.assertEqual(seen, ["get", "close", "finish"])
        handler = app.waiting  # type: ignore
        handler.write("dropped")
        self.failureResultOf(handler.flush(), StreamClosedError)
        handler.flush()  # nobody looks: nothing is logged
        self.failureResultOf(handler.finish("dropped"), StreamClosedError)
        self.assertEqual(connection.body, b"")

    def test_other_errors_are_still_logged(self) -> None:
        _, connection, wait = self.waiting()
        with Logs() as logs:
            connection.lose()
            wait.errback(ValueError("bug"))
        self.assertIn("Uncaught exception", logs.text)

    def test_failing_on_connection_close_is_logged(self) -> None:
        def fails(self: RequestHandler) -> None:
            raise ZeroDivisionError

        handler, connection, wait = self.waiting(on_connection_close=fails)
        with Logs() as logs:
            connection.lose()
            wait.callback("x")
        self.assertIn("Uncaught exception in on_connection_close", logs.text)
        self.assertEqual(handler.seen, ["finish"])  # type: ignore

    def test_no_close_after_the_response(self) -> None:
        handler, connection, wait = self.waiting()
        wait.callback("x")
        self.assertIsNone(connection.close_callback)
        self.assertEqual(handler.seen, ["finish"])  # type: ignore

    def test_notify_finish(self) -> None:
        handler, connection, wait = self.waiting()
        done = handler.notifyFinish()
        self.assertNoResult(done)
        wait.callback("x")
        self.successResultOf(done)
        handler, connection, wait = self.waiting()
        done = handler.notifyFinish()
        connection.lose()
        self.failureResultOf(done, ConnectionDone)
        wait.callback("x")

    def test_flush_that_fails_ends_the_handler_quietly(self) -> None:
        class Handler(RequestHandler):
            async def get(self) -> None:
                while True:
                    self.write("x")
                    await self.flush()

        app = Application([("/", Handler)])
        exchange = Exchange(app, "GET", "/")
        exchange.connection.drained = drained = Deferred()
        exchange.end()
        with Logs() as logs:
            exchange.connection.lose()
            drained.errback(StreamClosedError())
        self.assertEqual(logs.text, "")
        self.assertTrue(exchange.connection.finished)
