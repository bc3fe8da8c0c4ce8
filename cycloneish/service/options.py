"""Command lines: what they have in common, and the one that ``cycloneish run`` and ``twistd`` share."""

from __future__ import annotations

import os
from typing import Any

from twisted.python import usage

import cycloneish

__all__ = ["DEFAULT_APP", "DEFAULT_ENDPOINT", "CommandLine", "RunOptions"]

#: Where an application listens that was not told where to: this machine only.
DEFAULT_ENDPOINT = "tcp:8888:interface=127.0.0.1"
#: What runs without ``--app``.
DEFAULT_APP = "cycloneish.demo:make_app"
#: Where the demo keeps its database without ``--data``, seen from the current directory.
DEFAULT_DATA = "roundtable-data"


class CommandLine(usage.Options):
    """The command line of one command of ``cycloneish``."""

    synopsis = "Usage: cycloneish <command> [options]"

    def getSynopsis(self) -> str:
        """The line of usage, in front of which Twisted would put the synopsis of the command."""
        return self.synopsis

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"cycloneish {cycloneish.version}")
        raise SystemExit(0)


class RunOptions(usage.Options):
    """Which application to serve, and how."""

    synopsis = "[options]"
    longdesc = (
        "Serve a cycloneish application. Without --app this is the demo, a small message board that "
        "keeps its data in a private PostgreSQL."
    )

    optFlags = [
        ["debug", None, "Restart when a file of the program changes, and show tracebacks in the browser"],
        ["access-log", None, "Log every request; without it only those that failed"],
        ["xheaders", None, "Trust X-Real-Ip, X-Forwarded-For and -Proto: only behind a proxy that sets them"],
    ]
    optParameters = [
        ["app", None, None, "The application or a function that makes it: package.module:name"],
        ["config", None, None, "A file of settings in Python syntax (cycloneish.options)"],
        [
            "schema",
            None,
            None,
            "Before answering, 'check' that all migrations were run, or 'upgrade'",
        ],
        ["migrations", None, "migrations", "The directory of the migrations, for --schema"],
        ["data", None, None, f"Where the demo keeps its data (default: ./{DEFAULT_DATA})"],
        ["database", None, None, "The demo's PostgreSQL, where several processes share it: postgresql://…"],
        ["amqp", None, None, "The demo's broker, over which they share what happens: amqp://…"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Endpoint to listen on, repeatable: tcp:8888, unix:/run/app.sock,
        ssl:443:privateKey=key.pem:certKey=cert.pem (default: tcp:8888:interface=127.0.0.1)"""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def postOptions(self) -> None:
        for option in ("data", "database", "amqp"):
            if self[option] is not None and self["app"] is not None:
                raise usage.UsageError(f"--{option} is an option of the demo; with --app it has no meaning")
        if self["app"] is not None and ":" not in self["app"]:
            raise usage.UsageError(
                f"--app {self['app']}: write package.module:name, where name is an Application or a function "
                "that makes one"
            )
        if self["schema"] not in (None, "check", "upgrade"):
            raise usage.UsageError(f"--schema {self['schema']}: write check or upgrade")
        if not self["listen"]:
            self["listen"].append(DEFAULT_ENDPOINT)

    @property
    def app_name(self) -> str:
        """The name to load: what ``--app`` says, else the demo."""
        return self["app"] or DEFAULT_APP

    @property
    def factory_options(self) -> dict[str, Any]:
        """Keyword arguments for the factory: the demo takes the folder of its data, other factories none."""
        if self["app"] is not None:
            return {}
        # Absolute, as a daemon goes to another directory before it makes the application.
        given = {name: self[name] for name in ("database", "amqp") if self[name] is not None}
        return {"data": os.path.abspath(self["data"] or DEFAULT_DATA), **given}
