"""What the demo does in the background, and that its links lead nowhere they should not."""

from __future__ import annotations

import io
import socket
from typing import Any

from PIL import Image
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.demo.jobs import SMALL, PublicResolver, smaller, title_of
from cycloneish.web import Application, RequestHandler
from tests.db.support import ask, until
from tests.demo.support import RoundtableTestCase


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(target, kind)
    return target.getvalue()


class Smaller(SynchronousTestCase):
    def test_large_pictures_become_small_ones(self) -> None:
        for kind in ("PNG", "JPEG", "GIF", "WEBP"):
            made = smaller(picture(2000, 1000, kind))
            assert made is not None
            with Image.open(io.BytesIO(made)) as small:
                self.assertEqual((small.format, small.size), ("WEBP", (SMALL[0], SMALL[0] // 2)))

    def test_what_stays_as_it_is(self) -> None:
        frames = io.BytesIO()
        red, blue = (Image.new("RGB", (2000, 10), colour) for colour in ("red", "blue"))
        red.save(frames, "GIF", save_all=True, append_images=[blue])
        for data in (
            picture(*SMALL),
            frames.getvalue(),
            b"",
            b"\x89PNG\r\n\x1a\n" + bytes(50),
            picture(900, 900)[:200],
        ):
            self.assertIs(smaller(data), None)

    def test_titles(self) -> None:
        for page, title in (
            (b"<html><TITLE lang=en>\n A &amp;\tB </title>", "A & B"),
            (b"<title></title>", None),
            (b"<title>" + b"x" * 500 + b"</title>", "x" * 200),
            ("<title>Grüße</title>".encode(), "Grüße"),
            (b"<p>none", None),
        ):
            self.assertEqual(title_of(page), title)


class Resolver(TestCase):
    async def test_only_public_addresses(self) -> None:
        for host in (
            "127.0.0.1",
            "localhost",
            "10.1.2.3",
            "169.254.169.254",
            "::1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ):
            with self.assertRaises(OSError, msg=host):
                await PublicResolver().resolve(host, 80)
        self.assertEqual(
            await PublicResolver().resolve("93.184.215.14", 80), [(socket.AF_INET, ("93.184.215.14", 80))]
        )


class Afterwards(RoundtableTestCase):
    """What appears by itself once a message is there."""

    async def test_a_small_picture_and_the_title_of_a_link(self) -> None:
        class Linked(RequestHandler):
            def get(self) -> None:
                self.write("<title>A page &lt;b&gt;</title>")

        server = Application([("/", Linked)], log_function=lambda handler: None).listen(0, "127.0.0.1")
        self.addCleanup(server.stop)
        port = server.ports[0].getHost().port
        client = await self.start()
        await self.sign_up(client)
        board = self.app.service

        class Anywhere:
            """As the public web is not to be had here."""

            async def resolve(self, host: str, port: int, family: int = 0) -> Any:
                return [(socket.AF_INET, ("127.0.0.1", port))]

        board.jobs.resolver = Anywhere()
        page = await client.websocket("/live?after=0")
        await client.post(
            "/",
            form={"text": f"see http://page.example:{port}/"},
            files={"picture": ("p.png", picture(1600, 1200))},
        )
        seen: list[str] = []
        while not any("A page &lt;b&gt;" in text for text in seen) or not ask(
            self.database, "select thumbnail is not null from picture"
        ):
            seen.append(str(await page.read_message()))
        page.close()
        message = (await self.messages(client))["messages"][0]
        self.assertEqual(message["link"]["title"], "A page <b>")
        small = await client.get(message["picture"] + "/small")
        self.assertEqual(small.headers["Content-Type"], "image/webp")
        with Image.open(io.BytesIO(small.body)) as image:
            self.assertEqual(image.size, SMALL)
        await until(lambda: not board.readers)

    async def test_a_link_into_the_servers_own_network_is_not_followed(self) -> None:
        asked: list[str] = []

        class Secret(RequestHandler):
            def get(self) -> None:
                asked.append(self.request.uri or "")

        server = Application([("/.*", Secret)], log_function=lambda handler: None).listen(0, "127.0.0.1")
        self.addCleanup(server.stop)
        port = server.ports[0].getHost().port
        client = await self.start()
        await self.sign_up(client)
        board = self.app.service
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            await client.post("/", form={"text": f"http://{host}:{port}/"})
        worker = next(part for part in board.jobs if part.name == "worker")
        await until(lambda: worker.stats.succeeded + worker.stats.retried + worker.stats.failed >= 3)
        self.assertEqual(asked, [])
