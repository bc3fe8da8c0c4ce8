"""What is done after the answer, in the background: small pictures, and the titles of linked pages."""

from __future__ import annotations

import io
import ipaddress
import logging
import re
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from PIL import Image
from sqlalchemy import update
from twisted.application.service import MultiService
from twisted.internet.threads import deferToThread

from cycloneish.demo.models import Message, Picture
from cycloneish.escape import xhtml_unescape
from cycloneish.httpclient import HTTPError
from cycloneish.simple_httpclient import SimpleAsyncHTTPClient
from cycloneish.tasks import Tasks, Worker

if TYPE_CHECKING:
    from cycloneish.demo.board import Board

log = logging.getLogger("cycloneish.demo")

#: Pixels that a picture in the list is wide and high at most.
SMALL = (800, 600)
#: Pixels that a picture may have; small files can be very large pictures.
MOST_PIXELS = 40_000_000
LONGEST_TITLE = 200

_LINK = re.compile(r"https?://[^\s<>\"']{4,500}")
_TITLE = re.compile(rb"<title[^>]{0,200}>(.{1,2000}?)</title", re.IGNORECASE | re.DOTALL)


class Jobs(MultiService):
    """The tasks and a worker that runs them.

    :param where: ``memory:``, or the URL of a broker where any process may take them.
    """

    def __init__(self, board: Board, where: str) -> None:
        super().__init__()
        self.board = board
        self.resolver = PublicResolver()
        self.tasks = Tasks(where, queue="roundtable")
        self.tasks.setServiceParent(self)
        Worker(self.tasks, concurrency=4).setServiceParent(self)
        self.make_small = self.tasks.task(name="roundtable.make_small", time_limit=60)(self._make_small)
        self.read_title = self.tasks.task(
            name="roundtable.read_title", autoretry_for=(OSError,), max_retries=2, time_limit=30
        )(self._read_title)

    async def look_after(self, message: int, text: str, picture: int | None) -> None:
        """Have done what a new message needs; it is stored, whatever becomes of that."""
        try:
            if picture is not None:
                await self.make_small.delay(message, picture)
            link = _LINK.search(text)
            if link is not None:
                await self.read_title.delay(message, link.group())
        except Exception:
            log.exception("message %d is stored, but its jobs are not", message)

    async def _make_small(self, message: int, number: int) -> None:
        picture = await self.board.picture(number)
        if picture is None:
            return
        small = await deferToThread(smaller, picture.data)
        if small is not None:
            changed = update(Picture).where(Picture.id == number).values(thumbnail=small)
            await self.board.db.execute(changed)
            await self.board.tell(message)

    async def _read_title(self, message: int, link: str) -> None:
        client = SimpleAsyncHTTPClient(force_instance=True, resolver=self.resolver, max_body_size=512 * 1024)
        try:
            page = await client.fetch(
                link, request_timeout=10, max_redirects=3, headers={"Accept": "text/html"}
            )
        except (HTTPError, ValueError) as error:
            log.info("no title for a link of message %d: %s", message, error)
            return
        finally:
            client.close()
        title = title_of(page.body) if "html" in page.headers.get("Content-Type", "") else None
        if title is not None:
            changed = update(Message).where(Message.id == message).values(link=link, link_title=title)
            await self.board.db.execute(changed)
            await self.board.tell(message)


def smaller(data: bytes) -> bytes | None:
    """A WebP of at most :data:`SMALL`, or None for what is small, animated or no picture."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "GIF", "WEBP"]) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS or getattr(picture, "is_animated", False):
                return None
            if width <= SMALL[0] and height <= SMALL[1]:
                return None
            picture.thumbnail(SMALL)
            target = io.BytesIO()
            picture.convert("RGBA" if "A" in picture.getbands() else "RGB").save(target, "WEBP", quality=80)
            return target.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def title_of(page: bytes) -> str | None:
    """The title of an HTML page, in one line."""
    found = _TITLE.search(page)
    if found is None:
        return None
    title = " ".join(xhtml_unescape(found.group(1).decode("utf-8", "replace")).split())
    return title[:LONGEST_TITLE] or None


class PublicResolver:
    """Finds addresses, but only public ones: a link must not lead into the network of the server."""

    async def resolve(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[tuple[int, Any]]:
        """Addresses for *host*, as Tornado's resolvers give them.

        :raises OSError: there is none, or one that is not public.
        """
        found = await deferToThread(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        for *_, address in found:
            if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
                raise OSError(f"{urlsplit('//' + host).hostname} is not a public address")
        return [(kind, address) for kind, _, _, _, address in found]
