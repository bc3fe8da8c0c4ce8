"""``python -m benchmarks.servers.websocket_echo PEER PORT``: an echo over WebSockets by one of the peers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

LIMIT = 16 * 1024 * 1024


def cycloneish(port: int) -> None:
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor

    from cycloneish.web import Application
    from cycloneish.websocket import WebSocketHandler

    class Echo(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, isinstance(message, bytes))

    Application([("/", Echo)], log_function=lambda handler: None).listen(port, "127.0.0.1", backlog=4096)
    reactor.run()


def cycloneish_python(port: int) -> None:
    """Without the unmasking in C."""
    sys.modules["websockets"] = None  # type: ignore[assignment]
    cycloneish(port)


def tornado(port: int) -> None:
    import asyncio

    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    class Echo(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, isinstance(message, bytes))

    async def main() -> None:
        Application([("/", Echo)], log_function=lambda handler: None).listen(port, "127.0.0.1", backlog=4096)
        await asyncio.Event().wait()

    asyncio.run(main())


def aiohttp(port: int) -> None:
    from aiohttp import WSMsgType, web

    async def echo(request: Any) -> Any:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/", echo)
    web.run_app(application, host="127.0.0.1", port=port, print=None, access_log=None, backlog=4096)


def autobahn(port: int) -> None:
    from twisted.internet import epollreactor

    epollreactor.install()
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from twisted.internet import reactor

    class Echo(WebSocketServerProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.sendMessage(payload, isBinary)

    factory = WebSocketServerFactory()
    factory.protocol = Echo
    reactor.listenTCP(port, factory, backlog=4096, interface="127.0.0.1")
    reactor.run()


def websockets(port: int) -> None:
    import asyncio

    from websockets.asyncio.server import serve

    logging.disable(logging.CRITICAL)

    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    async def main() -> None:
        async with serve(echo, "127.0.0.1", port, compression=None, max_size=LIMIT, backlog=4096):
            await asyncio.Event().wait()

    asyncio.run(main())


PEERS: dict[str, Callable[[int], None]] = {
    "cycloneish": cycloneish,
    "cycloneish-python": cycloneish_python,
    "tornado": tornado,
    "aiohttp": aiohttp,
    "autobahn": autobahn,
    "websockets": websockets,
}


if __name__ == "__main__":
    PEERS[sys.argv[1]](int(sys.argv[2]))
