"""The ``cycloneish`` command: ``run`` serves an application without ``twistd``'s own options, and
``migrate-imports`` helps to move one in.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from twisted.application.reactors import NoSuchReactor, getReactorTypes, installReactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python import usage

import cycloneish
from cycloneish.migration.command import MigrateOptions, migrate
from cycloneish.service.options import RunOptions
from cycloneish.service.program import Program

__all__ = ["CommandOptions", "main"]


class _Version:
    """The option that Twisted would answer with its own version."""

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"cycloneish {cycloneish.version}")
        raise SystemExit(0)


class _RunOptions(_Version, RunOptions):
    """Serve an application in the foreground."""

    synopsis = "Usage: cycloneish run [options]"
    optParameters = [["reactor", "r", None, "Which reactor to run on: asyncio, epoll, poll, select, …"]]

    def getSynopsis(self) -> str:
        # Twisted would put the synopsis of the command in front.
        return self.synopsis


class CommandOptions(_Version, usage.Options):
    """The command line of ``cycloneish``."""

    synopsis = "Usage: cycloneish <command> [options]"
    subCommands = [
        ["run", None, _RunOptions, "Serve an application, or the demo"],
        ["migrate-imports", None, MigrateOptions, "Rewrite the imports of a Tornado or Cyclone program"],
    ]

    def getSynopsis(self) -> str:
        # With the mistake in a command's options, that command's help is shown.
        return self.subOptions.synopsis if self.subCommand else self.synopsis

    def postOptions(self) -> None:
        if self.subCommand is None:
            raise usage.UsageError("which command? There are: run, migrate-imports")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: the command line without the program's name; by default the process's.
    :returns: the exit status: 0, 1 when the program could not start, 2 for a wrong command line.
    """
    options = CommandOptions()  # type: ignore[no-untyped-call]
    try:
        options.parseOptions(list(sys.argv[1:] if arguments is None else arguments))  # type: ignore[no-untyped-call]
    except usage.UsageError as error:
        print(f"{options}\ncycloneish: {error}", file=sys.stderr)
        return 2
    if options.subCommand == "migrate-imports":
        return migrate(options.subOptions)
    return run(options.subOptions)


def run(options: RunOptions) -> int:
    """Serve until a signal ends it; gives the exit status."""
    if options["reactor"] is not None:
        try:
            installReactor(options["reactor"])
        except NoSuchReactor:
            names = ", ".join(sorted(reactor.shortName for reactor in getReactorTypes()))
            print(
                f"cycloneish: no reactor is called {options['reactor']!r}; there are: {names}",
                file=sys.stderr,
            )
            return 2
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    program = Program(options)

    from twisted.internet import reactor

    reactor.addSystemEventTrigger("before", "shutdown", program.service.stopService)
    program.service.startService()
    reactor.run()
    if program.restarts:
        program.finish()
    return program.exit_status
