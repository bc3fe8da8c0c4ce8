import sys
import uuid

import cyclone.auth
import cyclone.escape
import cyclone.web
from twisted.internet import reactor
from twisted.python import log

waiting = []


class Base(cyclone.web.RequestHandler):
    def get_current_user(self):
        user = self.get_secure_cookie("user")
        return cyclone.escape.json_decode(user) if user else None


class Login(Base):
    def post(self):
        user = {"name": self.get_argument("name")}
        self.set_secure_cookie("user", cyclone.escape.json_encode(user))
        self.redirect("/")


class Room(Base):
    @cyclone.web.authenticated
    def get(self):
        self.write("hello, " + self.current_user["name"])


class Say(Base):
    @cyclone.web.authenticated
    def post(self):
        message = {
            "id": str(uuid.uuid4()),
            "from": self.current_user["name"],
            "body": self.get_argument("body"),
        }
        self.write(message)
        for callback in waiting:
            callback([message])
        del waiting[:]


class Listen(Base):
    @cyclone.web.authenticated
    @cyclone.web.asynchronous
    def get(self):
        waiting.append(self.async_callback(self.on_messages))
        self.notifyFinish().addErrback(lambda _: waiting.clear())

    def on_messages(self, messages):
        self.finish({"messages": messages})


class Application(cyclone.web.Application):
    def __init__(self):
        handlers = [(r"/", Room), (r"/login", Login), (r"/say", Say), (r"/listen", Listen)]
        cyclone.web.Application.__init__(self, handlers, cookie_secret="not so secret", login_url="/login")


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    reactor.listenTCP(8888, Application(), interface="127.0.0.1")
    reactor.run()
