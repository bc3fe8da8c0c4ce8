"""The ``cycloneish`` command: serves an application without ``twistd``'s own options, and has what one needs
around it.  :data:`COMMANDS` is the list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python import usage

from cycloneish.migration.command import MigrateOptions, migrate
from cycloneish.service.certificate import CertificateOptions, make_certificate
from cycloneish.service.options import CommandLine, RunOptions
from cycloneish.service.program import Program
from cycloneish.service.reactors import install_reactor
from cycloneish.service.schema import SchemaOptions, migrate_schema
from cycloneish.service.worker import WorkerOptions, work

__all__ = ["CommandOptions", "main"]


class _RunOptions(CommandLine, RunOptions):
    """Serve an application in the foreground."""

    synopsis = "Usage: cycloneish run [options]"
    optParameters = [["reactor", "r", None, "Which reactor to run on: asyncio, epoll, poll, select, …"]]


class _Command(NamedTuple):
    """What reads the command line of a command, what does it and gives the exit status, its line of help."""

    options: type[usage.Options]
    do: Callable[[Any], int]
    help: str


class CommandOptions(CommandLine):
    """The command line of ``cycloneish``."""

    @property
    def subCommands(self) -> list[list[Any]]:
        """The commands, as Twisted wants them."""
        return [[name, None, command.options, command.help] for name, command in COMMANDS.items()]

    def getSynopsis(self) -> str:
        # With the mistake in a command's options, that command's help is shown.
        return self.subOptions.synopsis if self.subCommand else self.synopsis

    def postOptions(self) -> None:
        if self.subCommand is None:
            raise usage.UsageError(f"which command? There are: {', '.join(COMMANDS)}")


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
    return COMMANDS[str(options.subCommand)].do(options.subOptions)


def run(options: RunOptions) -> int:
    """Serve until a signal ends it; gives the exit status."""
    if not install_reactor(options["reactor"]):
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


COMMANDS = {
    "run": _Command(_RunOptions, run, "Serve an application, or the demo"),
    "worker": _Command(WorkerOptions, work, "Run background tasks"),
    "cert": _Command(CertificateOptions, make_certificate, "Make a TLS certificate for development"),
    "migrate": _Command(SchemaOptions, migrate_schema, "Change the schema of the database, step by step"),
    "migrate-imports": _Command(
        MigrateOptions, migrate, "Rewrite the imports of a Tornado or Cyclone program"
    ),
}
