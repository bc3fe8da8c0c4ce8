"""An application with a service of its own: started before the port opens, stopped after the last request.

cycloneish run --app with_service:make_app
"""

from twisted.application.internet import TimerService
from twisted.internet import reactor
from twisted.internet.task import deferLater

from cycloneish.web import Application, RequestHandler


class Ticks(TimerService):
    """Counts seconds; a database pool or a message queue would stand in its place."""

    def __init__(self):
        super().__init__(1, self.tick)
        self.count = 0

    def tick(self):
        self.count += 1


class TicksHandler(RequestHandler):
    def get(self):
        service = self.application.service
        self.write({"ticks": service.count, "running": bool(service.running)})


class SlowHandler(RequestHandler):
    async def get(self):
        await deferLater(reactor, 0.5)
        self.write({"running": bool(self.application.service.running)})


async def make_app():
    await deferLater(reactor, 0.01)  # a factory may wait: for a secret from a vault, for example
    app = Application([(r"/", TicksHandler), (r"/slow", SlowHandler)])
    app.service = Ticks()
    return app
