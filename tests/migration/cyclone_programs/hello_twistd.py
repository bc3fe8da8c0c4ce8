import cyclone.web
from twisted.application import internet, service


class Main(cyclone.web.RequestHandler):
    def get(self):
        self.write("Hello, twistd")


application = service.Application("hello")
internet.TCPServer(8888, cyclone.web.Application([(r"/", Main)]), interface="127.0.0.1").setServiceParent(
    application
)
