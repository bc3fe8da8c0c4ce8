"""Context variables belong to one request: set in `prepare`, seen by all of it, and by no other request."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import cycloneish

ROOT = Path(cycloneish.__file__).resolve().parent.parent


class ContextTests(SynchronousTestCase):
    def check(self, reactor: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.web.context_program", reactor],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        try:
            found = json.loads(done.stdout)
        except ValueError:
            self.fail(done.stdout + done.stderr)
        self.assertGreater(len(found), 100)
        self.assertIn("on_connection_close", found["waits"])
        self.assertIn("cancelled", found["waits"])
        self.assertIn("on_connection_close", found["streams-left"])
        wrong = {
            f"{name} in {where}": seen
            for name, places in found.items()
            for where, seen in places.items()
            if seen != ("nobody" if where == "initialize" else name) and not _is_twisteds(name, where)
        }
        self.assertEqual(wrong, {})

    def test_epoll(self) -> None:
        self.check("epoll")

    def test_poll(self) -> None:
        self.check("poll")

    def test_select(self) -> None:
        self.check("select")

    def test_asyncio(self) -> None:
        self.check("asyncio")

    if not hasattr(select, "epoll"):
        test_epoll.skip = "this system has no epoll"  # type: ignore[attr-defined]


def _is_twisteds(name: str, where: str) -> bool:
    """A callback of a Deferred runs in the context of whoever fires it, by Twisted's own rules."""
    return name.startswith("callbacks") and where == "on_finish"
