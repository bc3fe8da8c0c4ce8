import cyclone.web


class Main(cyclone.web.RequestHandler):
    def get(self):
        self.write("Hello, application")


class Application(cyclone.web.Application):
    def __init__(self):
        cyclone.web.Application.__init__(self, [(r"/", Main)], xheaders=False)
