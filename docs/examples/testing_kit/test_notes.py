"""Tests of notes.py for trial: ``trial test_notes.py``."""

from notes import make_app
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from cycloneish.testing import AsyncHTTPTestCase, Client, ExpectLog, gen_test


# in memory
class NotesTests(TestCase):
    def setUp(self):
        self.client = Client(make_app(), xsrf=True, raise_errors=True)
        self.addCleanup(self.client.close)

    async def test_no_notes_yet(self):
        response = await self.client.get("/notes")
        self.assertEqual(response.code, 200)
        self.assertEqual(response.json(), {"notes": []})

    @inlineCallbacks
    def test_write_a_note(self):
        self.client.cookies.set_signed("user", "ann")
        response = yield self.client.post("/notes", form={"text": "milk"}, follow_redirects=True)
        self.assertEqual(response.json(), {"notes": [{"text": "milk", "files": []}]})
        self.assertEqual([past.code for past in response.history], [302])

    # requests
    async def test_upload(self):
        self.client.cookies.set_signed("user", "ann")
        await self.client.post(
            "/notes",
            form={"text": "look"},
            files={"picture": ("cat.png", b"\x89PNG...", "image/png")},
        )
        response = await self.client.get("/notes", params={"page": 1}, headers={"Accept": "application/json"})
        self.assertEqual(response.json()["notes"][0]["files"], ["cat.png"])

    async def test_strangers_write_no_notes(self):
        response = await self.client.post("/notes", form={"text": "x"})
        self.assertEqual(response.code, 403)

    # errors
    async def test_a_note_needs_text(self):
        self.client.cookies.set_signed("user", "ann")
        response = await self.client.post("/notes")
        self.assertEqual((response.code, response.reason), (400, "A note needs text"))

    async def test_the_shelf(self):
        with self.assertRaises(LookupError):
            await self.client.get("/broken")

    async def test_the_error_page(self):
        with ExpectLog("cycloneish.application", "Uncaught exception"):
            response = await self.client.get("/broken", raise_errors=False)
        self.assertEqual(response.code, 500)
        self.assertIsInstance(response.exception, LookupError)

    # streams
    async def test_ticks(self):
        exchange = self.client.open("GET", "/ticks")
        await exchange.when_headers()
        self.assertEqual(await exchange.read(), b"tick\n")
        self.assertEqual(await exchange.read(), b"tick\n")
        exchange.disconnect()
        self.assertEqual(self.client.app.notes, ["a client left"])


# sockets
class ServerTests(AsyncHTTPTestCase):
    def get_app(self):
        return make_app()

    async def test_over_a_socket(self):
        response = await self.fetch("/notes")
        self.assertEqual(response.code, 200)
        self.assertEqual(response.body, b'{"notes": []}')

    @gen_test(timeout=2)
    def test_with_yield(self):
        response = yield self.fetch("/notes", headers={"Accept-Encoding": "identity"})
        self.assertEqual(response.effective_url, self.get_url("/notes"))
