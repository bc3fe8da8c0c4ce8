"""``cycloneish migrate``, and ``--schema`` of ``cycloneish run`` and ``twistd cycloneish``.

The work is done by :mod:`cycloneish.db.migrations`, which is only loaded when it is asked for.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python import usage

from cycloneish.db.errors import MissingDependency, SchemaBehind
from cycloneish.service.loading import load_object
from cycloneish.service.options import CommandLine

__all__ = ["SchemaOptions", "look_after_schema", "migrate_schema"]

DEFAULT_DIRECTORY = "migrations"


class _Command(CommandLine):
    optParameters: list[list[Any]] = [
        ["dir", "d", DEFAULT_DIRECTORY, "The directory of the migrations"],
        ["url", "u", None, "The database: postgresql://…, embedded:///DIR, sqlite:///FILE ($DATABASE_URL)"],
        ["app", None, None, "Take the database of this application: package.module:name"],
    ]
    takes = ""

    def getSynopsis(self) -> str:
        name = self.parent.subCommand if self.parent is not None else "…"
        return f"Usage: cycloneish migrate {name} [options] {self.takes}".rstrip()


class _Init(_Command):
    """Make the directory."""

    optParameters = [
        ["models", "m", None, "Where the mapped classes are: package.module:Base"],
    ]


class _Revision(_Command):
    """Write a new migration."""

    optFlags = [["autogenerate", None, "Fill it with what the models have and the database lacks"]]
    optParameters = [["message", "m", "changes", "What it does, in a few words"]]


class _Step(_Command):
    takes = "[REVISION]"
    default = "head"

    def parseArgs(self, revision: str | None = None) -> None:
        self["revision"] = revision or self.default


class _Upgrade(_Step):
    """Bring the database to a revision, by default the newest."""


class _Downgrade(_Step):
    """Go back to a revision, by default one step."""

    default = "-1"


class _Stamp(_Step):
    """Note a revision without doing anything, by default the newest."""


class _History(_Command):
    """List the migrations."""


class _Current(_Command):
    """Tell where the database is."""


class _Check(_Command):
    """Make sure that the database is up to date and that the models have no further changes."""


class SchemaOptions(CommandLine):
    """The schema of the database, in steps (Alembic)."""

    synopsis = "Usage: cycloneish migrate <command> [options]"
    subCommands: list[list[Any]] = [
        ["init", None, _Init, "Make the directory of migrations"],
        ["revision", None, _Revision, "Write a new migration"],
        ["upgrade", None, _Upgrade, "Bring the database to the newest revision, or to REVISION"],
        ["downgrade", None, _Downgrade, "Go back one step, or to REVISION"],
        ["history", None, _History, "List the migrations"],
        ["current", None, _Current, "Tell where the database is"],
        ["check", None, _Check, "Fail where the database is behind, or the models have changed"],
        ["stamp", None, _Stamp, "Note the newest revision, or REVISION, without doing anything"],
    ]

    def postOptions(self) -> None:
        if self.subCommand is None:
            names = ", ".join(str(command[0]) for command in self.subCommands)
            raise usage.UsageError(f"which command? There are: {names}")


def _url(options: Any) -> str:
    if options["app"]:
        return _url_of(load_object(options["app"]), options["app"])
    url = options["url"] or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit("cycloneish: which database? Give --url, --app, or DATABASE_URL in the environment")
    return str(url)


def _url_of(found: Any, name: str) -> str:
    if callable(found) and not hasattr(found, "settings") and not hasattr(found, "url"):
        found = found()
    database = getattr(found, "settings", {}).get("database", found)
    url = getattr(database, "url", None)
    if not isinstance(url, str):
        raise SystemExit(f"cycloneish: {name} has no setting 'database' with a cycloneish.db.Database")
    return url


def migrate_schema(options: SchemaOptions) -> int:
    """Run the command; gives the exit status."""
    try:
        module = import_module("cycloneish.db.migrations")
    except MissingDependency as error:
        print(f"cycloneish: {error}", file=sys.stderr)
        return 1
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    wanted: Any = options.subOptions
    migrations = module.Migrations(wanted["dir"], output=sys.stdout)
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if options.subCommand == "init":
            migrations.create(wanted["models"])
            print(f"made {wanted['dir']}; next: cycloneish migrate revision --autogenerate -m 'first tables'")
            return 0
        with module.blocking_engine(_url(wanted)) as engine, engine.connect() as connection:
            return _run(migrations, str(options.subCommand), wanted, connection)
    except (CommandError, SchemaBehind, SQLAlchemyError, OSError, ImportError) as error:
        print(f"cycloneish: {error}", file=sys.stderr)
        return 1


def _run(migrations: Any, name: str, wanted: Any, connection: Any) -> int:
    if name == "revision":
        path = migrations.revision(connection, wanted["message"], autogenerate=bool(wanted["autogenerate"]))
        print(f"wrote {path}; read it before you run it")
    elif name == "history":
        migrations.history(connection)
    elif name == "current":
        print(", ".join(migrations.current(connection)) or "nothing yet")
    elif name == "check":
        migrations.check(connection)
        print("up to date")
    else:
        getattr(migrations, name)(connection, wanted["revision"])
        print(f"now at {', '.join(migrations.current(connection)) or 'nothing'}")
    return 0


def look_after_schema(database: Any, directory: str, how: str) -> Deferred[None]:
    """Before the ports open: see that *database* has the newest schema, or bring it there.

    :param how: ``check`` or ``upgrade``.
    :returns: a Deferred; it fails with :exc:`~cycloneish.db.errors.SchemaBehind` where a check says no.
    """
    migrations = import_module("cycloneish.db.migrations").Migrations(directory)
    done: Deferred[None] = database.run_connection(
        migrations.upgrade if how == "upgrade" else migrations.require
    )
    return done
