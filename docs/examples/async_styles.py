"""Every way to write an asynchronous handler, side by side; started on any reactor:

cycloneish run --app async_styles:make_app
"""

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from cycloneish.coroutines import drive
from cycloneish.web import Application, HTTPError, RequestHandler


# coroutine
class Coroutine(RequestHandler):
    async def get(self):
        text = await deferLater(reactor, 0.01, str.upper, "awaited")
        self.write(text)


# inline callbacks
class InlineCallbacks(RequestHandler):
    @inlineCallbacks
    def get(self):
        text = yield deferLater(reactor, 0.01, str.upper, "yielded")
        self.write(text)


# deferred
class Deferred(RequestHandler):
    def get(self):
        return deferLater(reactor, 0.01, self.write, "returned")


# several
class Several(RequestHandler):
    async def price(self, shop):
        await deferLater(reactor, 0.01)
        if shop == "closed":
            raise HTTPError(503, reason=f"The shop is {shop}")
        return len(shop)

    async def get(self):
        started = [drive(self.price(shop)) for shop in self.get_arguments("shop")]
        prices = await gatherResults(started, consumeErrors=True)
        self.write({"cheapest": min(prices)})


# thread
class InThread(RequestHandler):
    async def get(self):
        total = await deferToThread(sum, range(100_000))
        self.write(str(total))


# cancelled
class Cancelled(RequestHandler):
    cancel_on_disconnect = True
    released = 0

    async def get(self):
        try:
            await deferLater(reactor, 60)
        finally:
            Cancelled.released += 1


# end
class Released(RequestHandler):
    def get(self):
        self.write(str(Cancelled.released))


def make_app():
    return Application(
        [
            (r"/coroutine", Coroutine),
            (r"/inline-callbacks", InlineCallbacks),
            (r"/deferred", Deferred),
            (r"/several", Several),
            (r"/thread", InThread),
            (r"/cancelled", Cancelled),
            (r"/released", Released),
        ]
    )
