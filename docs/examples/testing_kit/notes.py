"""A small application to test: notes, for those who are signed in."""

from twisted.internet import reactor
from twisted.internet.task import deferLater

from cycloneish.web import Application, HTTPError, RequestHandler, authenticated


class Notes(RequestHandler):
    def get_current_user(self):
        return self.get_signed_cookie("user")

    def get(self):
        self.write({"notes": self.application.notes})

    @authenticated
    async def post(self):
        text = self.get_argument("text", "")
        if not text:
            raise HTTPError(400, reason="A note needs text")
        await deferLater(reactor, 0.01)  # a database would be asked here
        files = [file.filename for files in self.request.files.values() for file in files]
        self.application.notes.append({"text": text, "files": files})
        self.redirect("/notes")


class Ticks(RequestHandler):
    async def get(self):
        try:
            while True:
                self.write("tick\n")
                await self.flush()
                await deferLater(reactor, 0.01)
        finally:
            self.application.notes.append("a client left")


class Broken(RequestHandler):
    def get(self):
        raise LookupError("no such shelf")


def make_app():
    app = Application(
        [("/notes", Notes), ("/ticks", Ticks), ("/broken", Broken)],
        cookie_secret="kept somewhere else in real life",
        login_url="/sign-in",
        xsrf_cookies=True,
        cancel_on_disconnect=True,
    )
    app.notes = []
    return app
