# hello.py
from cycloneish.web import Application, RequestHandler


class Hello(RequestHandler):
    async def get(self, name):
        self.write({"hello": name})


def make_app():
    return Application([(r"/hello/(\w+)", Hello)])
