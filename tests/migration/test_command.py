"""`cycloneish migrate-imports`: what becomes of a source text, of files, and what is printed."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from textwrap import dedent
from unittest import mock

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.cli import main
from cycloneish.migration.command import MigrateOptions, migrate
from cycloneish.migration.names import Place, place_of
from cycloneish.migration.rewrite import NotPython, rewrite


class RewriteTest(SynchronousTestCase):
    def check(self, old: str, new: str, *notes: str) -> None:
        """Each of *notes* is a line number and a piece of the note."""
        text, found = rewrite(dedent(old))
        self.assertEqual(text, dedent(new))
        said = [f"{note.line} {note.text}" for note in found]
        self.assertEqual(len(said), len(notes), said)
        for line, expected in zip(said, notes, strict=True):
            number, _, piece = expected.partition(" ")
            self.assertTrue(line.startswith(f"{number} ") and piece in line, line)

    def test_modules_and_the_names_they_bind(self) -> None:
        self.check(
            """\
            import os, tornado.web, tornado.escape as escape   # kept
            import cyclone.web

            class A(tornado.web.RequestHandler, cyclone.web.UIModule):
                x = escape.utf8(other.tornado.web)
            """,
            """\
            import os, cycloneish.web, cycloneish.escape as escape   # kept
            import cycloneish.web

            class A(cycloneish.web.RequestHandler, cycloneish.web.UIModule):
                x = escape.utf8(other.tornado.web)
            """,
        )

    def test_from_imports(self) -> None:
        self.check(
            """\
            from tornado import web, escape as e, version
            from tornado.web import (
                HTTPError,  # raised
                url,
            )
            from tornado.httputil import *
            from cyclone.testing import CycloneTestCase
            from . import tornado
            """,
            """\
            from cycloneish import web, escape as e, version
            from cycloneish.web import (
                HTTPError,  # raised
                url,
            )
            from cycloneish.httputil import *
            from cycloneish.testing.cyclone import CycloneTestCase
            from . import tornado
            """,
        )

    def test_what_is_not_here_becomes_a_comment(self) -> None:
        self.check(
            """\
            from tornado import tcpserver, web
            from tornado.netutil import bind_sockets
            import tornado.process, os
            def late():
                import cyclone.app
                return tornado.process.cpu_count(), tornado.nonsense
            """,
            """\
            # not in cycloneish: from tornado import tcpserver, web
            from cycloneish import web
            # not in cycloneish: from tornado.netutil import bind_sockets
            pass
            # not in cycloneish: import tornado.process, os
            import os
            def late():
                # not in cycloneish: import cyclone.app
                pass
                return tornado.process.cpu_count(), tornado.nonsense
            """,
            "1 tornado.tcpserver is not here",
            "2 endpoint strings",
            "3 spawnProcess",
            "5 project generator",
            "6 spawnProcess",
        )

    def test_asyncio_run(self) -> None:
        self.check(
            """\
            import asyncio
            from tornado.web import Application
            asyncio.run(main())
            asyncio.run(main(), debug=True)
            """,
            """\
            import asyncio
            from cycloneish.web import Application
            import cycloneish.ioloop
            cycloneish.ioloop.run(main())
            asyncio.run(main(), debug=True)
            """,
            "3 asyncio.run became",
        )
        both = "import asyncio\nimport tornado.ioloop\nasyncio.run(main())\n"
        self.check(
            both, "import asyncio\nimport cycloneish.ioloop\ncycloneish.ioloop.run(main())\n", "3 became"
        )

    def test_versions(self) -> None:
        self.check(
            "import tornado\nprint(tornado.version)\n", "import cycloneish\nprint(cycloneish.version)\n"
        )

    def test_names_that_need_a_look(self) -> None:
        self.check(
            """\
            import logging
            import tornado.ioloop
            from cyclone import redis
            loop = tornado.ioloop.IOLoop.add_handler
            log = logging.getLogger("tornado.access")
            request.connection.stream.close()
            def documented():
                '''About tornado.web.

                And more.'''
            """,
            """\
            import logging
            import cycloneish.ioloop
            from cycloneish import redis
            loop = cycloneish.ioloop.IOLoop.add_handler
            log = logging.getLogger("tornado.access")
            request.connection.stream.close()
            def documented():
                '''About tornado.web.

                And more.'''
            """,
            "3 cycloneish[redis]",
            "4 reactor.addReader",
            "5 tornado.access",
            "6 Twisted protocol",
        )

    def test_a_module_that_nobody_knows(self) -> None:
        self.check(
            "import tornado.mystery\n", "# not in cycloneish: import tornado.mystery\npass\n", "1 not known"
        )

    def test_a_program_of_something_else_stays(self) -> None:
        source = "import asyncio\nasyncio.run(main())\n"
        self.assertEqual(rewrite(source), (source, []))
        self.check("# tornado in a comment\nimport os\n", "# tornado in a comment\nimport os\n")

    def test_no_python(self) -> None:
        error = self.assertRaises(NotPython, rewrite, "import tornado\nprint 'two'\n")
        self.assertIn("line 2", str(error))

    def test_places(self) -> None:
        self.assertEqual(place_of("tornado.auth"), Place("cycloneish.auth"))
        self.assertIs(place_of("os.path"), None)


class CommandTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        (self.folder / "build").mkdir(parents=True)
        (self.folder / "build" / "old.py").write_text("import tornado.web\n")
        (self.folder / "app.py").write_bytes(b"import tornado.web\r\nx = 'tornado.access'\r\n")
        (self.folder / "other.py").write_text("import os\n")
        (self.folder / "page.html").write_text("<p>tornado</p>\n{% import tornado.escape %}\n")

    def run_it(self, *arguments: str) -> tuple[int, str]:
        options = MigrateOptions()
        options.parseOptions([*arguments, str(self.folder)])  # type: ignore[no-untyped-call]
        out = io.StringIO()
        return migrate(options, out), out.getvalue()

    def test_in_place(self) -> None:
        status, said = self.run_it()
        self.assertEqual(status, 0)
        self.assertEqual(
            (self.folder / "app.py").read_bytes(), b"import cycloneish.web\r\nx = 'tornado.access'\r\n"
        )
        self.assertEqual((self.folder / "build" / "old.py").read_text(), "import tornado.web\n")
        self.assertIn(f"{self.folder}/app.py: rewritten", said)
        self.assertIn(f"{self.folder}/app.py:2: the text names tornado.access", said)
        self.assertIn(f"{self.folder}/page.html:2: the template names tornado", said)
        self.assertIn("1 file rewritten, 2 to look at", said)
        self.assertIn("0 files rewritten", self.run_it()[1])

    def test_looking_first(self) -> None:
        before = (self.folder / "app.py").read_bytes()
        for option, expected in (("--diff", "+import cycloneish.web"), ("--dry-run", "would be rewritten")):
            status, said = self.run_it(option)
            self.assertEqual((status, (self.folder / "app.py").read_bytes()), (0, before))
            self.assertIn(expected, said)

    def test_what_is_no_python_is_named_and_left(self) -> None:
        (self.folder / "old.py").write_text("import tornado\nprint 'two'\n")
        (self.folder / "odd.py").write_bytes(b"# coding: utf-8\nimport tornado # \xff\n")
        status, said = self.run_it()
        self.assertEqual(status, 1)
        self.assertIn(f"{self.folder}/old.py: is no Python 3", said)
        self.assertIn(f"{self.folder}/odd.py: is no Python 3", said)
        self.assertIn("app.py: rewritten", said)

    def test_one_file_and_the_command_line(self) -> None:
        self.patch(sys, "stdout", io.StringIO())
        self.patch(sys, "stderr", io.StringIO())
        self.assertEqual(main(["migrate-imports", str(self.folder / "app.py")]), 0)
        self.assertEqual(main(["migrate-imports"]), 2)
        self.assertIn("which files", sys.stderr.getvalue())
        self.assertRaises(usage.UsageError, MigrateOptions().parseOptions, ["/no/such/path"])

    def test_without_libcst(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        gone = {"libcst": None, "cycloneish.migration.rewrite": None}
        with mock.patch.dict(sys.modules, gone):
            del sys.modules["cycloneish.migration.rewrite"]
            with mock.patch.dict(sys.modules):
                status, _ = self.run_it()
        self.assertEqual(status, 1)
        self.assertIn("cycloneish[migrate]", sys.stderr.getvalue())
