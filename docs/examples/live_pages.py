"""A page that shows what is said, in every browser and whichever process said it.

    twistd -n cycloneish --app live_pages:make_app

Set BUS to postgresql://… or amqp://… for several processes; without it there is one.
"""

import os

from cycloneish.bus import Bus, Gap, Message, Subscription, open_bus
from cycloneish.sse import SSEHandler
from cycloneish.web import Application, RequestHandler

PAGE = """<!doctype html>
<title>Live</title>
<form method="post" action="/say"><input name="text" autofocus><button>Say</button></form>
<ul id="said"></ul>
<script>
  const news = new EventSource("/news");
  news.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = JSON.parse(event.data).text;
    document.getElementById("said").prepend(line);
  };
  news.addEventListener("gap", () => location.reload());
</script>
"""


class Page(RequestHandler):
    def get(self):
        self.write(PAGE)


class Say(RequestHandler):
    async def post(self):
        await self.settings["bus"].publish("said", {"text": self.get_body_argument("text")})
        self.redirect("/", status=303)


class News(SSEHandler):
    subscription: Subscription | None = None

    async def bind(self):
        bus: Bus = self.settings["bus"]
        self.subscription = await bus.subscribe("said", self.show, on_gap=self.tell)
        if not self.is_open:  # the browser has left meanwhile
            self.subscription.close()

    def unbind(self):
        if self.subscription is not None:
            self.subscription.close()

    def show(self, message: Message):
        # The Deferred of `send_event`: a slow browser gets its next message when it took this one.
        return self.send_event(message.text)

    def tell(self, gap: Gap):
        return self.send_event("some are missing", event="gap")


def make_app():
    bus = open_bus(os.environ.get("BUS", "memory:"))
    app = Application([(r"/", Page), (r"/say", Say), (r"/news", News)], bus=bus)
    app.service = bus  # started before the port opens, stopped after the last request
    return app
