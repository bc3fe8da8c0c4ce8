import sys

import cyclone.sse
import cyclone.web
from twisted.internet import reactor, task
from twisted.python import log


class Clock(cyclone.sse.SSEHandler):
    clients = []

    def bind(self):
        self.clients.append(self)

    def unbind(self):
        self.clients.remove(self)

    @classmethod
    def tick(cls):
        for client in cls.clients:
            client.sendEvent("tick", event="time", eid=7)
            client.sendEvent({"clients": len(cls.clients)})


class Count(cyclone.web.RequestHandler):
    def get(self):
        self.write(str(len(Clock.clients)))


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.LoopingCall(Clock.tick).start(0.1)
    reactor.listenTCP(
        8888, cyclone.web.Application([(r"/live", Clock), (r"/count", Count)]), interface="127.0.0.1"
    )
    reactor.run()
