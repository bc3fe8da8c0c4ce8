"""asyncio and Deferreds in one method; started on the asyncio reactor:

cycloneish run --reactor asyncio --app asyncio_beside:make_app
"""

import asyncio

from twisted.internet import reactor
from twisted.internet.task import deferLater

from cycloneish.web import Application, RequestHandler


class Both(RequestHandler):
    async def get(self):
        async with asyncio.timeout(5):
            first = await asyncio.to_thread(str.upper, "asyncio")
        second = await deferLater(reactor, 0.01, str.upper, "Deferred")
        self.write(f"{first} and {second}")


class TooSlow(RequestHandler):
    async def get(self):
        try:
            async with asyncio.timeout(0.05):
                await deferLater(reactor, 60)
        except TimeoutError:
            self.set_status(504)


def make_app():
    return Application([(r"/both", Both), (r"/too-slow", TooSlow)])
