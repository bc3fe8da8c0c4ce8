"""Each example of the documentation, started as its first lines say and asked what its page promises."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from twisted.trial.unittest import SynchronousTestCase

from tests.programs import EXAMPLES, ROOT, Running, Visitor, environment, run_command

FREE_PORT = ("--listen", "tcp:0:interface=127.0.0.1")


class ExampleTest(SynchronousTestCase):
    def start(self, app: str, *options: str) -> tuple[Running, Visitor]:
        program = Running(run_command("--app", app, *FREE_PORT, *options), EXAMPLES)
        self.addCleanup(program.stop)
        return program, Visitor(program.url())

    def test_hello(self) -> None:
        _, visitor = self.start("hello:make_app")
        status, headers, text = visitor.get("/hello/world")
        self.assertEqual((status, text), (200, '{"hello": "world"}'))
        self.assertEqual(headers["Content-Type"], "application/json; charset=UTF-8")

    def test_the_readme_shows_hello_as_it_is(self) -> None:
        shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        assert shown is not None
        self.assertEqual(shown.group(1), (EXAMPLES / "hello.py").read_text())

    def test_pages_made_of_the_answers_of_others(self) -> None:
        class Prices(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                prices = {"/bread": b"3", "/milk": b"2", "/log": b"line\n" * 10_000}
                body = prices.get(self.path)
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Prices)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        program = Running(
            run_command("--app", "fetching_pages:make_app", *FREE_PORT),
            EXAMPLES,
            PRICES=f"http://127.0.0.1:{server.server_port}",
        )
        self.addCleanup(program.stop)
        visitor = Visitor(program.url())
        self.assertEqual(visitor.get("/price/bread")[2], '{"thing": "bread", "price": 3}')
        self.assertEqual(visitor.get("/price/gold")[0], 404)
        self.assertEqual(visitor.get("/basket?thing=bread&thing=milk")[2], '{"total": 5}')
        self.assertEqual(len(visitor.get("/log")[2]), 50_000)

    def test_every_way_to_be_asynchronous_on_the_usual_reactor_and_on_asyncio(self) -> None:
        for options in ((), ("--reactor", "asyncio")):
            _, visitor = self.start("async_styles:make_app", *options)
            self.assertEqual(visitor.get("/coroutine")[2], "AWAITED")
            self.assertEqual(visitor.get("/inline-callbacks")[2], "YIELDED")
            self.assertEqual(visitor.get("/deferred")[2], "returned")
            self.assertEqual(visitor.get("/thread")[2], "4999950000")
            self.assertEqual(visitor.get("/several?shop=baker&shop=tailor")[2], '{"cheapest": 5}')
            self.assertEqual(visitor.get("/several?shop=baker&shop=closed")[0], 503)

    def test_a_client_that_leaves_cancels_the_work_on_every_reactor(self) -> None:
        for options in ((), ("--reactor", "asyncio")):
            _, visitor = self.start("async_styles:make_app", *options)
            with socket.create_connection((visitor.host, visitor.port), 30) as raw:
                raw.sendall(b"GET /cancelled HTTP/1.1\r\nHost: here\r\n\r\n")
                time.sleep(0.3)
                self.assertEqual(visitor.get("/released")[2], "0")
            until = time.monotonic() + 30
            while visitor.get("/released")[2] != "1" and time.monotonic() < until:
                time.sleep(0.05)
            self.assertEqual(visitor.get("/released")[2], "1")

    def test_asyncio_beside_deferreds(self) -> None:
        _, visitor = self.start("asyncio_beside:make_app", "--reactor", "asyncio")
        self.assertEqual(visitor.get("/both")[2], "ASYNCIO and DEFERRED")
        self.assertEqual(visitor.get("/too-slow")[0], 504)

    def test_asyncio_on_another_reactor_is_one_clear_error(self) -> None:
        program, visitor = self.start("asyncio_beside:make_app", "--reactor", "select")
        self.assertEqual(visitor.get("/both")[0], 500)
        self.assertEqual(program.stop(), 0)
        self.assertIn("asyncio", program.output)

    def test_a_service_runs_from_before_the_first_request_to_after_the_last(self) -> None:
        _, visitor = self.start("with_service:make_app")
        self.assertIn('"running": true', visitor.get("/")[2])

    def test_chat(self) -> None:
        _, visitor = self.start("chat:make_app")
        self.assertIn("new WebSocket", visitor.get("/room/kitchen")[2])
        url = f"ws://{visitor.host}:{visitor.port}/socket/kitchen"
        client = subprocess.run(
            [sys.executable, "chat_client.py", url, "hello"],
            cwd=EXAMPLES,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(client.stderr, "")
        said = [json.loads(line)["text"] for line in client.stdout.splitlines()]
        self.assertEqual(said, ["Welcome to kitchen", "hello"])

    def test_a_live_page_shows_what_is_said(self) -> None:
        _, visitor = self.start("live_pages:make_app")
        self.assertIn("EventSource", visitor.get("/")[2])
        with socket.create_connection((visitor.host, visitor.port), 30) as raw, raw.makefile("rb") as events:
            raw.sendall(b"GET /news HTTP/1.1\r\nHost: here\r\n\r\n")
            while events.readline().strip():
                pass  # the head
            # It says nothing before it is subscribed, so say it until it is heard.
            raw.settimeout(0.5)
            heard = b""
            until = time.monotonic() + 30
            while b"h\\u00e9" not in heard and time.monotonic() < until:
                self.assertEqual(visitor.ask("POST", "/say", {"text": "hé"})[0], 303)
                with contextlib.suppress(TimeoutError):
                    heard += raw.recv(4096)
            self.assertIn(b'data: {"text":"h\\u00e9"}', heard)

    def test_work_is_done_in_the_background(self) -> None:
        report = EXAMPLES / "somebody-2026.txt"
        self.addCleanup(report.unlink, missing_ok=True)
        program, visitor = self.start("jobs:make_app")
        status, _, text = visitor.ask("POST", "/reports", {"name": "somebody"})
        self.assertEqual(status, 202)
        program.wait_for(rf"task jobs.report\[{json.loads(text)['task']}\] succeeded")
        self.assertEqual(report.read_text(), "The report of somebody for 2026\n")

    def test_no_example_is_left_out(self) -> None:
        tested = {
            "hello.py",
            "async_styles.py",
            "asyncio_beside.py",
            "with_service.py",
            "chat.py",
            "chat_client.py",
            "live_pages.py",
            "jobs.py",
            "guestbook",
            "bookshelf",
            "testing_kit",
            "fetching_pages.py",
            "amqp",  # tests.amqp.test_examples
            "sign_in.py",  # tests.browser.test_sign_in
            "sign_up",  # tests.browser.test_forms
        }
        here = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
        self.assertEqual(here, tested)
