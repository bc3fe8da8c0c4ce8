"""JSON-RPC and XML-RPC, called as their clients call them."""

from __future__ import annotations

import json
import xmlrpc.client
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.jsonrpc import JsonrpcError, JsonrpcRequestHandler
from cycloneish.testing import Client
from cycloneish.web import Application
from cycloneish.xmlrpc import XmlrpcRequestHandler


class Json(JsonrpcRequestHandler):
    def jsonrpc_echo(self, text: Any) -> Any:
        return text

    def jsonrpc_later(self, text: str) -> Deferred[str]:
        return succeed(text.upper())

    async def jsonrpc_subtract(self, minuend: int, subtrahend: int) -> int:
        return minuend - subtrahend

    def jsonrpc_fails(self) -> None:
        raise ValueError("the secret reason")

    def jsonrpc_refuses(self) -> None:
        raise JsonrpcError(17, "not today", {"when": "tomorrow"})

    def jsonrpc_odd(self) -> object:
        return object()

    jsonrpc_number = 3


class JsonTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(Application([(r"/rpc", Json), (r"/rpc/(\w+)", Json)]))
        self.addCleanup(self.client.close)

    def ask(self, message: Any, path: str = "/rpc") -> Any:
        body = message if isinstance(message, str) else json.dumps(message)
        return self.successResultOf(self.client.post(path, body=body))

    def call(self, method: str, *params: Any) -> Any:
        response = self.ask({"id": 1, "method": method, "params": list(params)})
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers["Content-Type"], "application/json; charset=UTF-8")
        return response.json()

    def test_a_result(self) -> None:
        self.assertEqual(self.call("echo", "ö"), {"result": "ö", "error": None, "id": 1})

    def test_a_deferred_and_a_coroutine(self) -> None:
        self.assertEqual(self.call("later", "abc")["result"], "ABC")
        self.assertEqual(self.call("subtract", 5, 3)["result"], 2)

    def test_groups_of_the_path_come_first(self) -> None:
        response = self.ask({"id": 1, "method": "subtract", "params": []}, "/rpc/x")
        self.assertIn("subtrahend", response.json()["error"]["message"])
        self.flushLoggedErrors(TypeError)

    def test_failures_of_version_1_have_their_text(self) -> None:
        answer = self.call("fails")
        self.assertEqual(
            answer, {"result": None, "error": {"code": 0, "message": "the secret reason"}, "id": 1}
        )
        self.assertEqual(self.call("refuses")["error"], {"code": 17, "message": "not today"})
        self.assertIn("JSON", self.call("odd")["error"]["message"])

    def test_methods_that_are_none(self) -> None:
        for name in ("nothing", "number"):
            self.assertEqual(self.call(name)["error"], {"code": 0, "message": f"method not found: {name}"})

    def test_what_is_no_call_is_refused(self) -> None:
        for message in (
            "{",
            '"text"',
            {"method": "echo"},
            {"id": 1, "method": 3},
            {"id": 1, "method": "echo", "params": "text"},
            "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
        ):
            self.assertEqual(self.ask(message).code, 400, message)

    def test_version_2(self) -> None:
        def call(**message: Any) -> Any:
            return self.ask({"jsonrpc": "2.0", "id": 7, **message}).json()

        self.assertEqual(
            call(method="subtract", params={"minuend": 9, "subtrahend": 4}),
            {"jsonrpc": "2.0", "result": 5, "id": 7},
        )
        self.assertEqual(call(method="none")["error"]["code"], -32601)
        self.assertEqual(call(method="subtract", params=[1])["error"]["code"], -32602)
        self.assertEqual(call(method=1)["error"]["code"], -32600)
        self.assertEqual(call(method="fails")["error"], {"code": -32603, "message": "Internal error"})
        self.assertEqual(
            call(method="refuses")["error"],
            {"code": 17, "message": "not today", "data": {"when": "tomorrow"}},
        )

    def test_batches_and_notifications(self) -> None:
        batch = [
            {"jsonrpc": "2.0", "id": 1, "method": "echo", "params": ["a"]},
            {"jsonrpc": "2.0", "method": "echo", "params": ["unheard"]},
            1,
        ]
        answers = self.ask(batch).json()
        self.assertEqual([answer["id"] for answer in answers], [1, None])
        response = self.ask({"jsonrpc": "2.0", "method": "echo", "params": ["unheard"]})
        self.assertEqual((response.code, response.body), (204, b""))
        self.assertEqual(self.ask([batch[1]]).code, 204)
        self.assertEqual(self.ask([]).json()["error"]["code"], -32600)
        self.assertEqual(self.ask([batch[0]] * 101).json()["error"]["code"], -32600)


class Weather:
    def xmlrpc_today(self) -> str:
        return "sunny"


class Xml(XmlrpcRequestHandler):
    def getSubHandler(self, prefix: str) -> Any:
        return Weather() if prefix == "weather" else None

    def xmlrpc_sort(self, items: list[int]) -> list[int]:
        return sorted(items)

    async def xmlrpc_later(self, text: str) -> str:
        return await succeed(text.upper())

    def xmlrpc_nothing(self) -> None:
        return None

    def xmlrpc_fails(self) -> None:
        raise ValueError("the secret reason")

    def xmlrpc_refuses(self) -> None:
        raise xmlrpc.client.Fault(17, "not today")

    xmlrpc_number = 3


class XmlWithNone(Xml):
    allowNone = True


class XmlTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(Application([(r"/xml", Xml), (r"/none", XmlWithNone)]))
        self.addCleanup(self.client.close)

    def call(self, name: str, *params: Any, path: str = "/xml") -> Any:
        body = xmlrpc.client.dumps(params, name)
        response = self.successResultOf(self.client.post(path, body=body))
        self.assertEqual(response.headers["Content-Type"], "text/xml")
        return xmlrpc.client.loads(response.body)[0][0]

    def fault(self, name: str, *params: Any) -> tuple[int, str]:
        fault = self.assertRaises(xmlrpc.client.Fault, self.call, name, *params)
        return fault.faultCode, fault.faultString

    def test_results(self) -> None:
        self.assertEqual(self.call("sort", [3, 1, 2]), [1, 2, 3])
        self.assertEqual(self.call("later", "abc"), "ABC")

    def test_sub_handlers(self) -> None:
        self.assertEqual(self.call("weather.today"), "sunny")
        self.assertEqual(self.fault("news.today"), (8001, "no such subHandler news"))
        self.assertEqual(self.fault("weather.news.today"), (8001, "no such subHandler news"))

    def test_none_has_to_be_allowed(self) -> None:
        self.assertEqual(self.fault("nothing")[0], 8002)
        self.assertIs(self.call("nothing", path="/none"), None)

    def test_faults(self) -> None:
        self.assertEqual(self.fault("fails"), (8002, "error"))
        self.assertEqual(self.fault("refuses"), (17, "not today"))
        self.assertEqual(self.fault("absent"), (8001, "function absent not found"))
        self.assertEqual(self.fault("number"), (8001, "function number not callable"))

    def test_what_is_no_call(self) -> None:
        bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><methodCall><methodName>&a;</methodName></methodCall>'
        for body in (b"no xml", bomb.encode(), bomb.encode("utf-16")):
            response = self.successResultOf(self.client.post("/xml", body=body))
            fault = self.assertRaises(xmlrpc.client.Fault, xmlrpc.client.loads, response.body)
            self.assertEqual(fault.faultCode, 8002)
