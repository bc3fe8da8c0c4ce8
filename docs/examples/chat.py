"""A chat: rooms over WebSockets.

cycloneish run --app chat:make_app
"""

from cycloneish.web import Application, RequestHandler
from cycloneish.websocket import Hub, WebSocketHandler

PAGE = """<!doctype html>
<title>Chat</title>
<form><input name="text" autofocus><button>Say</button></form>
<ul id="said"></ul>
<script>
  const socket = new WebSocket(location.href.replace("http", "ws").replace("/room/", "/socket/"));
  socket.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = JSON.parse(event.data).text;
    document.getElementById("said").prepend(line);
  };
  document.forms[0].onsubmit = (event) => {
    event.preventDefault();
    socket.send(event.target.text.value);
    event.target.reset();
  };
</script>
"""


class Page(RequestHandler):
    def get(self, room):
        self.write(PAGE)


class Chat(WebSocketHandler):
    def initialize(self, hub):
        self.hub = hub

    def get_compression_options(self):
        return {"min_size": 200, "server_no_context_takeover": True}

    async def open(self, room):
        self.room = room
        await self.hub.join(room, self)
        await self.write_message({"text": f"Welcome to {room}"})

    async def on_message(self, message):
        await self.hub.broadcast(self.room, {"text": message})


def make_app():
    hub = Hub()
    return Application(
        [
            (r"/room/(\w+)", Page),
            (r"/socket/(\w+)", Chat, {"hub": hub}),
        ],
        websocket_ping_interval=30,
        websocket_max_message_size=64 * 1024,
    )
