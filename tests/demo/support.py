"""The demo in this process, on a database of its own, for tests of its pages and of its jobs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from cycloneish.demo import make_app
from cycloneish.testing import Client, Exchange, HTTPResponse
from tests.db.support import fresh_url

PASSWORD = "correct horse"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


class Stream:
    """What an open request has received so far."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.body = b""
        self.close = exchange.disconnect
        self._read(b"")

    def _read(self, data: bytes) -> None:
        self.body += data
        if not self._exchange.closed:
            self._exchange.read().addCallbacks(self._read, lambda _: None)


class RoundtableTestCase(TestCase):
    timeout = 60

    async def start(self) -> Client:
        self.folder = Path(tempfile.mkdtemp(prefix="cycloneish-demo-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.database = fresh_url()
        self.app = make_app(str(self.folder), self.database)
        await self.app.service.startService()
        self.addCleanup(self.app.service.stopService)
        return self.client()

    def client(self, **options: Any) -> Client:
        client = Client(self.app, xsrf=True, **options)
        self.addCleanup(client.close)
        return client

    async def sign_up(
        self, client: Client, name: str = "Ann", password: str = PASSWORD, **more: str
    ) -> HTTPResponse:
        return await client.post("/sign-up", form={"name": name, "password": password, **more})

    async def messages(self, client: Client, path: str = "/messages.json") -> Any:
        return (await client.get(path)).json()
