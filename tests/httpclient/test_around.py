"""What is built around the client: many fetches at once, treq, the blocking client, the command."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from twisted.internet.threads import deferToThread

from cycloneish.httpclient import (
    AsyncHTTPClient,
    HTTPClient,
    HTTPClientError,
    HTTPStreamClosedError,
    JsonRPC,
    fetch_all,
)
from cycloneish.httpclient.command import main
from cycloneish.testing import AsyncHTTPTestCase
from cycloneish.web import Application, RequestHandler
from tests.httpclient.support import ClientTestCase, response


class FetchAllTest(ClientTestCase):
    async def test_so_many_at_a_time_and_in_order(self) -> None:
        waiting: list[Any] = []
        server = self.serve(lambda request, one: waiting.append((request, one)))
        client = self.make_client(max_clients=100)
        done = fetch_all([server.url(f"/{number}") for number in range(10)], limit=3, client=client)
        most = 0
        for left in range(10, 0, -1):
            await self.until(lambda left=left: len(waiting) == min(3, left))
            most = max(most, len(waiting))
            request, one = waiting.pop()
            one.transport.write(response(request.split()[1]))
        self.assertEqual(most, 3)
        self.assertEqual([answer.body for answer in await done], [b"/%d" % number for number in range(10)])

    async def test_the_first_error_ends_it(self) -> None:
        server = self.serve(lambda request, _: response(b"", status="500 No") if b"/2" in request else None)
        client = self.make_client(max_clients=100)
        done = fetch_all((server.url(f"/{number}") for number in range(100)), limit=5, client=client)
        await self.error_of(done, HTTPClientError)
        self.assertEqual(len(client.active), 0)
        self.assertLessEqual(len(server.requests), 5)

    async def test_errors_at_once_nothing_and_cancelling(self) -> None:
        await self.error_of(fetch_all(["ftp://a/"] * 5000, client=self.client), ValueError)
        self.assertEqual(await fetch_all([], client=self.client), [])
        self.assertRaises(ValueError, fetch_all, [], limit=0)
        server = self.serve(lambda request, _: None)
        done = fetch_all([server.url()] * 5, client=self.client)
        await self.until(lambda: len(server.requests) == 5)
        done.cancel()
        done.addErrback(lambda _: None)
        self.assertEqual(len(self.client.active), 0)


class TreqTest(ClientTestCase):
    async def test_treq_on_our_connections(self) -> None:
        server = self.serve(lambda request, _: response(request, "Set-Cookie: a=1"))
        treq = self.client.treq()
        answer = await treq.get(server.url("/x"), params={"q": "1"})
        self.assertEqual(answer.code, 200)
        self.assertTrue((await answer.content()).startswith(b"GET /x?q=1 HTTP/1.1\r\n"))
        answer = await treq.post(server.url(), json={"a": 1})
        self.assertTrue((await answer.content()).endswith(b'{"a":1}'))
        answer = await treq.post(server.url(), files={"f": ("a.txt", io.BytesIO(b"file"))})
        self.assertIn(b"\r\n\r\nfile\r\n", await answer.content())
        self.assertEqual(len(server.conversations), 1)

    async def test_bodies_of_every_kind_and_errors(self) -> None:
        server = self.serve(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"4000\r\n%b\r\n" % (b"x" * 0x4000) * 20
            + b"0\r\n\r\n"
        )
        treq = self.client.treq()
        for _ in range(2):
            answer = await treq.get(server.url())
            self.assertEqual(len(await answer.content()), 0x4000 * 20)
        self.assertEqual(len(server.conversations), 1)
        empty = self.serve(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(await (await treq.get(empty.url())).content(), b"")
        rubbish = self.serve(b"rubbish\r\n\r\n")
        await self.error_of(treq.get(rubbish.url()), HTTPStreamClosedError)
        await self.error_of(treq.get("http://127.0.0.1:1/"), OSError)

    async def test_a_stale_connection_is_replaced(self) -> None:
        def answer(request: bytes, conversation: Any) -> bytes | None:
            if len(conversation.requests) == 2:
                conversation.transport.loseConnection()
                return None
            return response(b"ok")

        server = self.serve(answer)
        treq = self.client.treq()
        for _ in range(3):
            self.assertEqual(await (await treq.get(server.url())).content(), b"ok")


class BlockingTest(ClientTestCase):
    async def test_in_a_thread(self) -> None:
        server = self.serve(
            lambda request, _: response(b"ok", status="404 No" if b"/no" in request else "200 OK")
        )

        def work() -> tuple[bytes, int]:
            with HTTPClient() as client:
                body = client.fetch(server.url()).body
                try:
                    client.fetch(server.url("/no"))
                except HTTPClientError as error:
                    return body, error.code
            raise AssertionError

        self.assertEqual(await deferToThread(work), (b"ok", 404))
        client = HTTPClient()
        client.close()
        self.assertRaises(RuntimeError, client.fetch, server.url())

    async def test_the_command(self) -> None:
        server = self.serve(response(b"the body", "X-A: 1"))
        out = io.StringIO()

        def work() -> None:
            with contextlib.redirect_stdout(out):
                main(["httpclient", "--print_headers", server.url()])

        await deferToThread(work)
        self.assertIn("X-A: 1", out.getvalue())
        self.assertIn("the body", out.getvalue())


class JsonRPCTest(ClientTestCase):
    async def test_results_and_errors(self) -> None:
        self.addCleanup(lambda: AsyncHTTPClient().close())
        server = self.serve(
            lambda request, _: response(
                b'{"error": "no"}' if b'"bad"' in request else b'{"result": 3, "error": null, "id": 1}'
            )
        )
        rpc = JsonRPC(server.url())
        self.assertEqual(await rpc.add(1, 2), 3)
        self.assertIn(b'"params": [1, 2]', server.requests[0])
        await self.error_of(rpc.bad(), RuntimeError)


class Front(RequestHandler):
    """Asks the other page of its own server."""

    async def get(self) -> None:
        answer = await AsyncHTTPClient().fetch(f"http://{self.request.host}/back")
        self.finish(answer.body)


class Back(RequestHandler):
    def get(self) -> None:
        self.finish("from behind")


class TestingKitTest(AsyncHTTPTestCase):
    def get_app(self) -> Application:
        return Application([("/", Front), ("/back", Back)])

    async def test_a_handler_that_uses_the_shared_client_leaves_nothing(self) -> None:
        answer = await self.fetch("/")
        self.assertEqual(answer.body, b"from behind")
