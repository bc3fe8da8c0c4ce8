"""Migrations: the schema of a database in steps, on Alembic.

:class:`Migrations` is a directory of them.  Its methods take a connection of SQLAlchemy's: a blocking one in
the command ``cycloneish migrate`` (:func:`blocking_engine` makes that), or one on the reactor in a service::

    await db.run_connection(Migrations("migrations").upgrade)

The directory's own ``env.py`` names the mapped classes and calls :func:`run_environment`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

from twisted.internet.defer import DeferredLock

from .bridge import inside, wait
from .cluster import Cluster
from .errors import MissingDependency, SchemaBehind

# It tells of each of its own parts at INFO when it is imported.
logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
try:
    import sqlalchemy
    from alembic import command, context
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
except ImportError as error:
    raise MissingDependency(error.name or "alembic", "orm") from error

__all__ = ["Migrations", "blocking_engine", "run_environment"]

_turns = DeferredLock()
_threads = threading.Lock()
# Any number will do, as long as all programs take the same one.
_LOCK = 7_303_014_622

_ENVIRONMENT = '''\
"""Tells Alembic where the models are, so that it can compare them with the database."""

from cycloneish.db.migrations import run_environment
{imports}
run_environment({metadata})
'''

_SCRIPT = '''\
"""${message}

Made on ${create_date}, after ${down_revision or "nothing"}.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


class Migrations:
    """The migrations in *directory*.

    :param output: where listings go; nowhere by default.
    """

    def __init__(self, directory: str | os.PathLike[str], *, output: TextIO | None = None) -> None:
        self.directory = Path(directory)
        self._output = output if output is not None else open(os.devnull, "w")  # noqa: SIM115

    def create(self, models: str | None = None) -> None:
        """Make the directory.

        :param models: where the mapped classes are, ``package.module:Base`` (or ``:metadata``).
        :raises FileExistsError: there is one.
        """
        if self.directory.exists() and any(self.directory.iterdir()):
            raise FileExistsError(f"{self.directory} is there and not empty")
        module, _, name = (models or "").partition(":")
        imports, metadata = "", "None"
        if models:
            name = name or "Base"
            imports = f"from {module} import {name.partition('.')[0]}\n"
            metadata = name if name.endswith("metadata") else f"{name}.metadata"
        (self.directory / "versions").mkdir(parents=True)
        environment = _ENVIRONMENT.format(imports=imports, metadata=metadata)
        (self.directory / "env.py").write_text(environment)
        (self.directory / "script.py.mako").write_text(_SCRIPT)

    def upgrade(self, connection: sqlalchemy.Connection, revision: str = "head") -> None:
        """Bring the database to *revision*, the newest by default."""
        with _alone(connection), _alembic():
            command.upgrade(self._config(connection), revision)

    def downgrade(self, connection: sqlalchemy.Connection, revision: str) -> None:
        """Go back to *revision*: ``-1`` is one step, ``base`` all of them."""
        with _alone(connection), _alembic():
            command.downgrade(self._config(connection), revision)

    def revision(self, connection: sqlalchemy.Connection, message: str, *, autogenerate: bool = False) -> str:
        """Write a new migration.

        :param autogenerate: with the differences between the models and the database in it.
        :returns: the path of the file.
        """
        with _alembic():
            made = command.revision(self._config(connection), message, autogenerate=autogenerate)
        script: Any = made[0] if isinstance(made, list) else made
        return str(script.path)

    def stamp(self, connection: sqlalchemy.Connection, revision: str) -> None:
        """Note that the database is at *revision*, without doing anything."""
        with _alembic():
            command.stamp(self._config(connection), revision)

    def history(self, connection: sqlalchemy.Connection | None = None) -> None:
        """List the migrations, the newest first; with a connection the current one is marked."""
        with _alembic():
            command.history(self._config(connection), indicate_current=connection is not None)

    def check(self, connection: sqlalchemy.Connection) -> None:
        """Make sure that the database is at the newest revision, and that this is what the models say.

        :raises SchemaBehind: it is behind.
        :raises alembic.util.exc.CommandError: the models have changes that no migration makes.
        """
        self.require(connection)
        with _alembic():
            command.check(self._config(connection))

    def current(self, connection: sqlalchemy.Connection) -> list[str]:
        """The revisions that the database is at; none for one that was never migrated."""
        return list(MigrationContext.configure(connection).get_current_heads())

    def behind(self, connection: sqlalchemy.Connection) -> list[str]:
        """The revisions that the database lacks, the next one first."""
        scripts = ScriptDirectory.from_config(self._config(None))
        current = tuple(self.current(connection))
        missing = [step.revision for step in scripts.iterate_revisions("heads", current or "base")]
        return [revision for revision in reversed(missing) if revision not in current]

    def require(self, connection: sqlalchemy.Connection) -> None:
        """Make sure that nothing is missing.

        :raises SchemaBehind: something is; the text says what to do.
        """
        missing = self.behind(connection)
        if missing:
            raise SchemaBehind(
                f"the schema of the database is behind by {len(missing)} migration(s), next {missing[0]}: "
                f"run 'cycloneish migrate upgrade --dir {self.directory}', or start with --schema upgrade"
            )

    def _config(self, connection: sqlalchemy.Connection | None) -> Config:
        if not (self.directory / "env.py").exists():
            raise FileNotFoundError(
                f"{self.directory} has no migrations: make it with 'cycloneish migrate init --dir …'"
            )
        config = Config(stdout=self._output, attributes={"connection": connection})
        config.set_main_option("script_location", str(self.directory).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        return config


@contextmanager
def _alembic() -> Iterator[None]:
    """Alembic keeps what it is at in one place for the whole process: one user at a time."""
    if inside():
        wait(_turns.acquire())
        try:
            yield
        finally:
            _turns.release()
    else:
        with _threads:
            yield


@contextmanager
def _alone(connection: sqlalchemy.Connection) -> Iterator[None]:
    """Keep other programs from migrating the same PostgreSQL database at a time."""
    if connection.dialect.name != "postgresql" or connection.in_transaction():
        yield
        return
    connection.exec_driver_sql(f"select pg_advisory_lock({_LOCK})")
    connection.commit()
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.rollback()
            connection.exec_driver_sql(f"select pg_advisory_unlock({_LOCK})")
            connection.commit()


def run_environment(metadata: Any = None, **options: Any) -> None:
    """What ``env.py`` does: run the migrations on the connection that :class:`Migrations` was given.

    :param metadata: the tables of the models, for ``--autogenerate`` and ``check``.
    :param options: for Alembic's ``context.configure``.
    """
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("these migrations are run with 'cycloneish migrate'")
    # SQLite cannot change tables; Alembic then makes a new one and copies.
    options.setdefault("render_as_batch", connection.dialect.name == "sqlite")
    context.configure(connection=connection, target_metadata=metadata, **options)
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def blocking_engine(url: str) -> Iterator[sqlalchemy.Engine]:
    """An engine with a blocking driver, for commands; *url* as for :class:`~cycloneish.db.database.Database`.

    An embedded server is started, and stopped afterwards where nobody else uses it.
    """
    scheme, _, rest = url.partition(":")
    cluster: Cluster | None = None
    if scheme == "embedded":
        cluster = Cluster(unquote(rest.removeprefix("//")))
        url = cluster.start()
    elif scheme in ("postgres", "postgresql", "postgresql+txpostgres"):
        url = f"postgresql:{rest}"
    try:
        if cluster is not None or url.startswith("postgresql:"):
            import psycopg2

            engine = sqlalchemy.create_engine(
                "postgresql+psycopg2://",
                creator=lambda: psycopg2.connect(url),
                poolclass=sqlalchemy.pool.NullPool,
            )
        else:
            engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
        yield engine
        engine.dispose()
    finally:
        if cluster is not None:
            cluster.stop()
