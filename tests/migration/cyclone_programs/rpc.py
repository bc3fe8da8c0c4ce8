import sys

import cyclone.httpclient
import cyclone.jsonrpc
import cyclone.web
import cyclone.xmlrpc
from twisted.internet import defer, reactor, task
from twisted.python import log


class Xml(cyclone.xmlrpc.XmlrpcRequestHandler):
    allowNone = True

    def xmlrpc_sort(self, items):
        return sorted(items)

    @defer.inlineCallbacks
    def xmlrpc_later(self, text):
        yield task.deferLater(reactor, 0.01, lambda: None)
        defer.returnValue(text.upper())


class Json(cyclone.jsonrpc.JsonrpcRequestHandler):
    def jsonrpc_sort(self, items):
        return sorted(items)

    @defer.inlineCallbacks
    def jsonrpc_fetch(self, url):
        response = yield cyclone.httpclient.fetch(url)
        defer.returnValue(response.body)


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    application = cyclone.web.Application([(r"/xmlrpc", Xml), (r"/jsonrpc", Json)])
    reactor.listenTCP(8888, application, interface="127.0.0.1")
    reactor.run()
