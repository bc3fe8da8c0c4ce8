"""A handler that streams a table as CSV, and how much memory that takes; run by test_streaming.

``python -m tests.db.csv_program URL ROWS`` serves, asks itself, and prints rows, bytes and growth as JSON.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

from sqlalchemy import text
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import react

from cycloneish.db import Database
from cycloneish.service.web import WebService
from cycloneish.web import Application, RequestHandler

QUERY = (
    "select n, md5(n::text) as name, now() + n * interval '1 second' as at from generate_series(1, :rows) n"
)


class Export(RequestHandler):
    """The whole table, batch by batch, as fast as the client reads."""

    async def get(self, rows: str) -> None:
        self.set_header("Content-Type", "text/csv; charset=UTF-8")
        async with self.db.stream(text(QUERY), {"rows": int(rows)}, batch=1000) as stream:
            while batch := await stream.fetch():
                lines = io.StringIO()
                csv.writer(lines).writerows(batch)
                self.write(lines.getvalue())
                await self.flush()


class Counter(Protocol):
    """Counts what comes and keeps none of it."""

    def __init__(self) -> None:
        self.lines = self.bytes = 0
        self.done: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.bytes += len(data)
        # A line of the table has a comma, one of the framing has none; a comma can stand at a border, a
        # time of day cannot be told from its parts: count the time zone, of which there is one in a row.
        self.lines += data.count(b"+00:00\r\n")

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(None)


def resident() -> int:
    """This process's memory in use, in KiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def main(url: str, rows: int) -> None:
    from twisted.internet import reactor

    app = Application([(r"/([0-9]+)", Export)], database=Database(url))
    service = WebService(app, ["tcp:0:interface=127.0.0.1"])
    service.startService()
    await service.started
    port = service.ports[0].getHost().port
    highest = before = 0
    counter = Counter()
    for count in (2000, rows):  # the first one gets everything loaded
        before = highest = resident()
        counter = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Counter())
        counter.transport.write(f"GET /{count} HTTP/1.0\r\nHost: here\r\n\r\n".encode())
        while not counter.done.called:
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.02, pause.callback, None)
            await pause
            highest = max(highest, resident())
    result = {"lines": counter.lines, "bytes": counter.bytes, "growth": (highest - before) / 1024}
    print(json.dumps(result))
    await service.stopService()


if __name__ == "__main__":
    react(lambda _: Deferred.fromCoroutine(main(sys.argv[1], int(sys.argv[2]))))
