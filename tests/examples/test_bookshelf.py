"""The tutorial's shelf of books: started as its page says, filled, and asked."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.db.support import fresh_url
from tests.programs import EXAMPLES, Running, Visitor, run_command


class BookshelfTest(SynchronousTestCase):
    def test_it_migrates_itself_and_keeps_books(self) -> None:
        command = run_command(
            "--app", "bookshelf:make_app", "--schema", "upgrade", "--listen", "tcp:0:interface=127.0.0.1"
        )
        program = Running(
            command, EXAMPLES / "bookshelf", DATABASE_URL=fresh_url(), PYTHONDONTWRITEBYTECODE="1"
        )
        self.addCleanup(program.stop)
        visitor = Visitor(program.url())
        status, _, page = visitor.get("/")
        self.assertEqual(status, 200)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page)
        assert token is not None
        for title in ("Emma", "Persuasion"):
            form = {"title": title, "author": "Jane Austen", "_xsrf": token.group(1)}
            self.assertEqual(visitor.ask("POST", "/", form)[0], 303)
        page = visitor.get("/")[2]
        self.assertIn("Jane Austen", page)
        self.assertIn("<li>Emma</li><li>Persuasion</li>", page)
        self.assertEqual(
            json.loads(visitor.get("/author/1")[2]), {"name": "Jane Austen", "books": ["Emma", "Persuasion"]}
        )
        self.assertEqual(json.loads(visitor.get("/longest")[2]), {"Jane Austen": "Persuasion"})
        self.assertEqual(visitor.get("/author/9")[0], 404)
        status, _, page = visitor.ask("POST", "/", {"title": "", "author": "Ann", "_xsrf": token.group(1)})
        self.assertEqual(status, 422)
        self.assertIn('id="title-error"', page)
        self.assertIn('value="Ann"', page)
