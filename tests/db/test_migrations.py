"""`cycloneish migrate` as a user runs it, and a program that looks after its schema before it answers."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.cli import main
from cycloneish.db import Database
from cycloneish.db.errors import SchemaBehind
from cycloneish.db.migrations import Migrations
from tests.db.support import ask, fresh_url
from tests.db.test_database import deferred
from tests.programs import Running, Visitor, run_command

MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
"""

APP = """
import os
from sqlalchemy import func, select
from cycloneish.cli import main
from cycloneish.db import Database
from cycloneish.web import Application, RequestHandler
from models import Note

class Count(RequestHandler):
    async def get(self):
        self.write({"notes": await self.db.scalar(select(func.count()).select_from(Note))})

def make_app():
    return Application([("/", Count)], database=Database(os.environ["DATABASE_URL"]))
"""


class MigrateTest(SynchronousTestCase):
    """The command, in a folder with models."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.url = ""
        (self.folder / "models.py").write_text(MODELS)

    def migrate(self, *arguments: str, fails: bool = False) -> str:
        """Run the command in this process, as starting one takes longer than what it does."""
        sys.modules.pop("models", None)
        self.patch(sys, "path", [path for path in sys.path if path != str(self.folder)])
        self.patch(sys, "dont_write_bytecode", True)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        os.environ["DATABASE_URL"] = self.url
        self.addCleanup(os.environ.pop, "DATABASE_URL", None)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                status = main(["migrate", *arguments])
            except SystemExit as error:
                print(error)
                status = 1
        self.assertEqual(bool(status), fails, output.getvalue())
        return output.getvalue()

    def add_column(self) -> None:
        (self.folder / "models.py").write_text(MODELS + "    author: Mapped[str | None]\n")

    def test_every_command_on_postgresql(self) -> None:
        self.url = fresh_url()
        self.migrate("init", "--models", "models:Base")
        self.assertIn("not empty", self.migrate("init", fails=True))
        self.assertIn("nothing yet", self.migrate("current"))
        self.assertIn("wrote", self.migrate("revision", "--autogenerate", "-m", "first tables"))
        self.assertIn("behind by 1", self.migrate("check", fails=True))
        self.assertIn("now at", self.migrate("upgrade"))
        self.assertEqual(ask(self.url, "select count(*) from note"), 0)
        self.assertIn("up to date", self.migrate("check"))
        self.add_column()
        self.assertIn("author", self.migrate("check", fails=True))
        self.migrate("revision", "--autogenerate", "-m", "authors")
        self.migrate("upgrade")
        self.assertIn("up to date", self.migrate("check"))
        self.assertEqual(ask(self.url, "select count(author) from note"), 0)
        history = self.migrate("history")
        self.assertIn("authors", history.splitlines()[0])
        self.assertIn("(head) (current)", history)
        self.migrate("downgrade")
        self.assertIn("behind by 1", self.migrate("check", fails=True))
        self.migrate("downgrade", "base")
        self.assertIsNone(ask(self.url, "select to_regclass('note')"))
        self.migrate("stamp", "head")
        self.assertIn("author", self.migrate("check", fails=True))

    def test_sqlite_and_errors_in_words(self) -> None:
        self.url = f"sqlite:///{self.folder}/notes.db"
        self.assertIn("no migrations", self.migrate("upgrade", fails=True))
        self.migrate("init", "--models", "models:Base", "--dir", "steps")
        self.migrate("revision", "--autogenerate", "--dir", "steps")
        self.migrate("upgrade", "--dir", "steps")
        self.assertIn("up to date", self.migrate("check", "--dir", "steps"))
        self.url = ""
        self.assertIn("which database", self.migrate("current", "--dir", "steps", fails=True))
        self.assertIn("There are: init", self.migrate(fails=True))

    def test_a_program_checks_or_upgrades_before_it_answers(self) -> None:
        self.url = fresh_url()
        (self.folder / "app.py").write_text(APP)
        self.migrate("init", "--models", "models:Base")
        self.migrate("revision", "--autogenerate", "--app", "app:make_app")
        free = ("--app", "app:make_app", "--listen", "tcp:0:interface=127.0.0.1")
        refused = Running(run_command(*free, "--schema", "check"), self.folder, DATABASE_URL=self.url)
        self.assertEqual(refused.process.wait(60), 1)
        refused.stop()
        self.assertIn("behind by 1 migration(s)", refused.output)
        for how in ("upgrade", "check"):
            program = Running(run_command(*free, "--schema", how), self.folder, DATABASE_URL=self.url)
            self.addCleanup(program.stop)
            self.assertEqual(Visitor(program.url()).get("/")[2], '{"notes": 0}')


class OnTheReactorTest(TestCase):
    """Migrations through a running `Database`: nothing blocks, and two programs do not disturb each other."""

    timeout = 60

    @deferred
    async def test_up_and_down(self) -> None:
        migrations = Migrations(self.mktemp())
        folder = migrations.directory
        migrations.create()
        (folder / "versions" / "one.py").write_text(
            "from alembic import op\nrevision = 'one'\ndown_revision = None\n"
            "def upgrade():\n    op.execute('create table note (id int)')\n"
            "def downgrade():\n    op.execute('drop table note')\n"
        )
        urls = {"postgresql": fresh_url(), "sqlite": f"sqlite:///{folder}/notes.db"}
        for url in urls.values():
            first, second = Database(url), Database(url)
            for db in (first, second):
                db.startService()
                self.addCleanup(db.stopService)
                await db.when_ready()
            with self.assertRaises(SchemaBehind):
                await first.run_connection(migrations.require)
            both: list[Any] = [db.run_connection(migrations.upgrade) for db in (first, second)]
            for upgrading in both:
                await upgrading
            await second.run_connection(migrations.require)
            self.assertEqual(await first.run_connection(migrations.current), ["one"])
            self.assertIn("note", await first.inspect(lambda found: found.get_table_names()))
            await first.execute(text("insert into note values (1)"))
            await first.run_connection(migrations.downgrade, "-1")
            self.assertNotIn("note", await first.inspect(lambda found: found.get_table_names()))
