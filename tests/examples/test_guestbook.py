"""The guest book on cycloneish, and the same file on Tornado with its imports changed: the same answers."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.programs import EXAMPLES, Running, Visitor, run_command

SECRET = "the same on both sides"
ON_TORNADO = """
import asyncio
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from guestbook import make_app

async def main():
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(make_app()).add_sockets(sockets)
    print("answers on http://127.0.0.1:%d" % sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
# What differs between two runs of the same program.
RANDOM = [
    (re.compile(r'name="_xsrf" value="[^"]*"'), 'name="_xsrf" value="…"'),
    (re.compile(r"\d\d \w+ \d{4}, \d\d:\d\d"), "when"),
]
# Header fields that are the server's business, not the application's; Allow belongs to a 405 (RFC 9110,
# 15.5.6), and Tornado leaves it out.
OF_THE_SERVER = {
    "Allow",
    "Server",
    "Date",
    "Connection",
    "Etag",
    "Transfer-Encoding",
    "Content-Length",
    "Set-Cookie",
}

Answer = tuple[int, dict[str, str], str]


class GuestbookTest(SynchronousTestCase):
    def on_cycloneish(self) -> Visitor:
        command = run_command("--app", "guestbook:make_app", "--listen", "tcp:0:interface=127.0.0.1")
        return self.visitor(command, EXAMPLES / "guestbook")

    def on_tornado(self) -> Visitor:
        folder = Path(self.mktemp())
        shutil.copytree(EXAMPLES / "guestbook", folder, ignore=shutil.ignore_patterns("__pycache__"))
        program = folder / "guestbook.py"
        moved, changes = re.subn(r"(?m)^((?:from|import) )cycloneish\b", r"\1tornado", program.read_text())
        self.assertEqual(changes, 2)
        program.write_text(moved)
        (folder / "on_tornado.py").write_text(ON_TORNADO)
        return self.visitor([sys.executable, "on_tornado.py"], folder)

    def visitor(self, command: list[str], folder: Path) -> Visitor:
        program = Running(command, folder, GUESTBOOK_SECRET=SECRET)
        self.addCleanup(program.stop)
        return Visitor(program.url())

    def sign_in(self, visitor: Visitor, name: str = "Ada") -> Answer:
        visitor.get("/sign-in")
        form = {"_xsrf": visitor.cookies["_xsrf"], "guest": name, "next": "/"}
        return visitor.ask("POST", "/sign-in", form)

    def write(self, visitor: Visitor, text: str) -> Answer:
        return visitor.ask("POST", "/", {"_xsrf": visitor.cookies.get("_xsrf", ""), "text": text})

    def visit(self, visitor: Visitor) -> list[tuple[str, Answer]]:
        """Everything a guest can do, with what came back."""
        seen: list[tuple[str, Answer]] = []

        def note(what: str, answer: Answer) -> None:
            status, headers, text = answer
            for random, name in RANDOM:
                text = random.sub(name, text)
            kept = {name: value for name, value in headers.items() if name not in OF_THE_SERVER}
            seen.append((what, (status, kept, text)))

        note("front page of an empty book", visitor.get("/"))
        note("a stranger writes", self.write(visitor, "I was here"))
        note("a stranger uses the API", visitor.ask("POST", "/api/entries", body=b'{"text": "hm"}'))
        note("no token", visitor.ask("POST", "/sign-in", {"guest": "Eve"}))
        note("sign in", self.sign_in(visitor))
        note("no name", visitor.ask("POST", "/sign-in", {"_xsrf": visitor.cookies["_xsrf"]}))
        note("write", self.write(visitor, "<b>Grüße</b> & kisses"))
        note("write nothing", self.write(visitor, " "))
        for number in range(11):
            note("write more", self.write(visitor, f"entry {number}"))
        note("use the API", visitor.ask("POST", "/api/entries", body=b'{"text": "by a program"}'))
        note("front page", visitor.get("/"))
        note("older entries", visitor.get("/?first=10"))
        note("no number", visitor.get("/?first=ten"))
        note("an entry", visitor.get("/entry/1"))
        note("no such entry", visitor.get("/entry/99"))
        note("export", visitor.get("/export"))
        note("static file", visitor.get("/static/guestbook.css"))
        note("no such file", visitor.get("/static/missing.css"))
        note("no such page", visitor.get("/missing"))
        note("wrong verb", visitor.ask("DELETE", "/"))
        note("head", visitor.ask("HEAD", "/export"))
        return seen

    def test_it_does_what_a_guest_book_does(self) -> None:
        visitor = self.on_cycloneish()
        self.assertIn("Nobody has written anything yet", visitor.get("/")[2])
        self.assertEqual(self.sign_in(visitor)[1]["Location"], "/")
        status, headers, _ = self.write(visitor, "<b>hello</b>")
        self.assertEqual((status, headers["Location"]), (303, "/entry/1"))
        page = visitor.get("/")[2]
        self.assertIn("&lt;b&gt;hello&lt;/b&gt;", page)
        self.assertIn(".entry { border-left", page)
        style = re.search(r'href="(/static/guestbook\.css\?v=[0-9a-f]+)"', page)
        assert style is not None
        self.assertIn("max-age", visitor.get(style.group(1))[1]["Cache-Control"])
        self.assertEqual(visitor.get("/export")[2], "1\tAda\t<b>hello</b>\n")

    def test_tornado_gives_the_same_answers(self) -> None:
        ours, theirs = self.visit(self.on_cycloneish()), self.visit(self.on_tornado())
        for (what, our_answer), (_, their_answer) in zip(ours, theirs, strict=True):
            self.assertEqual(our_answer, their_answer, what)

    def test_guests_stay_signed_in_when_the_book_moves(self) -> None:
        ours, theirs = self.on_cycloneish(), self.on_tornado()
        self.sign_in(theirs)
        ours.cookies = dict(theirs.cookies)
        self.assertEqual(self.write(ours, "moved")[0], 303)
        self.sign_in(ours, "Grace")
        theirs.cookies = dict(ours.cookies)
        self.assertEqual(self.write(theirs, "and back")[0], 303)
        self.assertEqual(theirs.get("/export")[2], "1\tGrace\tand back\n")
