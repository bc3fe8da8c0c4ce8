"""JSON-RPC: a handler whose ``jsonrpc_…`` methods are called by clients that send JSON.

Put into the routes of an application as any handler::

    class Calculator(JsonrpcRequestHandler):
        def jsonrpc_add(self, a, b):
            return a + b

        async def jsonrpc_population(self, city):
            row = await self.settings["db"].fetch_one("SELECT people FROM cities WHERE name = %s", city)
            return row.people

    Application([(r"/rpc", Calculator)])

Calls of version 1.0 are answered as Cyclone answers them, calls that say ``"jsonrpc": "2.0"`` as that version
of the protocol wants it, batches and notifications included.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList

from cycloneish.coroutines import as_deferred, drive
from cycloneish.escape import json_decode, json_encode
from cycloneish.log import app_log
from cycloneish.web import HTTPError, RequestHandler

__all__ = ["JsonrpcError", "JsonrpcRequestHandler"]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

_UNIDENTIFIED = object()


class JsonrpcError(Exception):
    """What a ``jsonrpc_…`` method raises to choose the error that the client sees.

    :param code: a number; those from -32768 to -32000 belong to the protocol.
    :param message: one sentence.
    :param data: anything that JSON can hold, for clients of version 2.0.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class JsonrpcRequestHandler(RequestHandler):
    """Answers calls with its methods whose names begin with ``jsonrpc_``.

    They get the parameters of the call, after the groups of the route's pattern, and return what JSON can
    hold, or a Deferred or awaitable of that. An exception becomes the ``error`` of the answer: in version 1.0
    code 0 and its text, as in Cyclone. In version 2.0 the text of an exception that is no
    :exc:`JsonrpcError` is kept from the client, and logged.

    Counterpart: ``cyclone.jsonrpc.JsonrpcRequestHandler``. Source: jsonrpc.org, versions 1.0 and 2.0.
    """

    max_batch = 100
    """Calls that one batch (version 2.0) may have; they run at the same time."""

    def set_default_headers(self) -> None:
        """Say that the answer is JSON."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")

    async def post(self, *args: str) -> None:
        """Answer one call, or a batch of them.

        :raises HTTPError: 400 for what is no call of version 1.0.
        """
        try:
            message = json_decode(self.request.body)
        except (ValueError, RecursionError) as error:  # the latter for lists in lists in lists
            raise HTTPError(400, "JSON-RPC: %s", error) from None
        if isinstance(message, list):
            await self._answer_batch(message, args)
            return
        answer = await self._answer(message, args)
        self._send(answer)

    async def _answer_batch(self, batch: list[Any], args: tuple[str, ...]) -> None:
        if not batch or len(batch) > self.max_batch:
            self._send(_failed(None, INVALID_REQUEST, f"a batch has 1 to {self.max_batch} calls"))
            return
        outcomes = await DeferredList(
            [drive(self._answer(message, args, in_batch=True)) for message in batch], consumeErrors=True
        )
        self._send([answer for _, answer in outcomes if answer is not None] or None)

    def _send(self, answer: Any) -> None:
        if answer is None:
            # Notifications have no answer.
            self.set_status(204)
            self.clear_header("Content-Type")
            self.finish()
        else:
            self.finish(json_encode(answer))

    async def _answer(self, message: Any, args: tuple[str, ...], *, in_batch: bool = False) -> Any:
        if in_batch or (isinstance(message, dict) and message.get("jsonrpc") == "2.0"):
            return await self._answer_2(message, args)
        return await self._answer_1(message, args)

    async def _answer_1(self, message: Any, args: tuple[str, ...]) -> Any:
        if not isinstance(message, dict) or "id" not in message or not isinstance(message.get("method"), str):
            raise HTTPError(400, "JSON-RPC: no call: %.80r", message)
        params = message.get("params", [])
        if not isinstance(params, list):
            raise HTTPError(400, "JSON-RPC: params are no list: %.80r", params)
        method = self._method(message["method"])
        answer: dict[str, Any] = {"result": None, "error": None, "id": message["id"]}
        if method is None:
            answer["error"] = {"code": 0, "message": f"method not found: {message['method']}"}
            return answer
        try:
            answer["result"] = await as_deferred(method(*args, *params))
            json_encode(answer["result"])
        except Exception as error:
            self._log_failure(message["method"], error)
            answer["result"] = None
            answer["error"] = {"code": getattr(error, "code", 0), "message": str(error)}
        return answer

    async def _answer_2(self, message: Any, args: tuple[str, ...]) -> Any:
        call_id = _call_id(message)
        if (
            not isinstance(message, dict)
            or message.get("jsonrpc") != "2.0"
            or not isinstance(message.get("method"), str)
            or not isinstance(message.get("params", []), list | dict)
        ):
            return _failed(None if call_id is _UNIDENTIFIED else call_id, INVALID_REQUEST, "Invalid Request")
        answer = await self._call(message["method"], message.get("params", []), args, call_id)
        return None if call_id is _UNIDENTIFIED else answer

    async def _call(self, name: str, params: Any, args: tuple[str, ...], call_id: Any) -> dict[str, Any]:
        method = self._method(name)
        if method is None:
            return _failed(call_id, METHOD_NOT_FOUND, "Method not found")
        try:
            result = method(*args, **params) if isinstance(params, dict) else method(*args, *params)
            result = await as_deferred(result)
            json_encode(result)
        except JsonrpcError as error:
            return _failed(call_id, error.code, str(error), error.data)
        except Exception as error:
            self._log_failure(name, error)
            if isinstance(error, TypeError) and _is_about_the_call(error):
                return _failed(call_id, INVALID_PARAMS, "Invalid params")
            return _failed(call_id, INTERNAL_ERROR, "Internal error")
        return {"jsonrpc": "2.0", "result": result, "id": call_id}

    def _method(self, name: str) -> Any:
        method = getattr(self, f"jsonrpc_{name}", None)
        return method if callable(method) else None

    def _log_failure(self, name: str, error: Exception) -> None:
        if not isinstance(error, JsonrpcError):
            app_log.error("jsonrpc_%s failed (%s)", name, self.request.remote_ip, exc_info=error)


def _call_id(message: Any) -> Any:
    return message.get("id", _UNIDENTIFIED) if isinstance(message, dict) else None


def _is_about_the_call(error: TypeError) -> bool:
    """Whether the arguments did not fit: then no frame of the method itself is in the traceback."""
    frames = error.__traceback__
    return frames is not None and frames.tb_next is None


def _failed(call_id: Any, code: int, message: str, data: Any = None) -> dict[str, Any]:
    error = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": None if call_id is _UNIDENTIFIED else call_id}
