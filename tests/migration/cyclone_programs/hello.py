import sys

import cyclone.web
from twisted.internet import reactor
from twisted.python import log


class Main(cyclone.web.RequestHandler):
    def get(self):
        self.write("Hello, plain")


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    reactor.listenTCP(8888, cyclone.web.Application([(r"/", Main)]), interface="127.0.0.1")
    reactor.run()
