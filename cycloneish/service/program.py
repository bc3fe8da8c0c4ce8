"""One run of the program, from the command line to the exit status; shared by the two commands."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from cycloneish import autoreload
from cycloneish.options import Error as OptionsError
from cycloneish.options import options as global_options
from cycloneish.service import logs
from cycloneish.service.loading import AppNotFound, NotAnApp, import_problem, load_object
from cycloneish.service.options import RunOptions
from cycloneish.service.schema import look_after_schema
from cycloneish.service.web import CannotStart, WebService

__all__ = ["Program"]

log = logging.getLogger("cycloneish.general")


class Program:
    """Loads the application that *options* name and holds the service that serves it.

    :param options: the parsed command line.
    :param daemon: whether ``twistd`` goes to the background, where nobody reads an exit status later on.
    :raises SystemExit: status 1, after a message, when the application or the configuration cannot be loaded.
    """

    def __init__(self, options: RunOptions, *, daemon: bool = False) -> None:
        self.options = options
        #: What the process shall end with.
        self.exit_status = 0
        #: Whether it shall be started anew instead.
        self.restarts = False
        # First of all, so that a configuration file finds the log set up and adds no second output.
        logs.set_up(requests=bool(options["access-log"]))
        source = self._load(options.app_name)
        self._read_config(options["config"])
        self.service = WebService(
            source,
            options["listen"],
            name=options.app_name,
            xheaders=bool(options["xheaders"]),
            debug=bool(options["debug"]),
            factory_options=options.factory_options,
            schema=self._schema(),
            raise_at_once=daemon,
        )
        self.service.started.addCallbacks(self._started, self._failed)

    def exit_with_the_interpreter(self) -> None:
        """Have :meth:`finish` called at the very end, where a main program of another's returns normally."""
        atexit.register(self.finish)

    def finish(self) -> None:
        """End the process as this run asks: restart, or exit with status 1; return where all went well."""
        if self.restarts:
            autoreload.restart()
        if self.exit_status:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            # Within an exit handler there is no other way to still set the status.
            os._exit(self.exit_status)

    def _schema(self) -> Any:
        """What looks after the schema of the database at the start, if that is wanted."""
        how = self.options["schema"]
        # A daemon goes to another directory before that.
        directory = os.path.abspath(self.options["migrations"])
        return (lambda database: look_after_schema(database, directory, how)) if how else None

    def _load(self, name: str) -> Any:
        try:
            return load_object(name)
        except AppNotFound as error:
            raise SystemExit(f"cycloneish: {error}") from None
        except Exception as error:
            sys.stderr.write(import_problem(error))
            sys.stderr.write(f"cycloneish: {name} could not be imported, see above\n")
            if self.options["debug"] and autoreload.was_restarted():
                sys.stderr.write("cycloneish: waiting for a file to change\n")
                sys.stderr.flush()
                autoreload.watch_traceback(error)
                autoreload.wait()
            raise SystemExit(1) from None

    def _read_config(self, file: str | None) -> None:
        if file is None:
            return
        autoreload.watch(file)
        try:
            global_options.parse_config_file(file)
        except (OSError, SyntaxError, NameError, ValueError, TypeError, OptionsError) as error:
            raise SystemExit(f"cycloneish: --config {file}: {error}") from None

    def _started(self, _: None) -> None:
        # What a program consists of stays to its end. Looking through it for garbage stops the reactor for
        # tens of milliseconds, several times a second when many requests wait for something.
        gc.collect()
        gc.freeze()
        if self.options["debug"]:
            watcher = autoreload.Watcher(self._restart)
            watcher.start(self._reactor)
            self._reactor.addSystemEventTrigger("before", "shutdown", watcher.stop)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # stopped by hand while it started
        if failure.check(CannotStart, NotAnApp):
            log.critical("%s", failure.value)
        else:
            log.critical("%s could not be started", self.service.label, exc_info=failure.value)
        self.exit_status = 1
        self._reactor.callWhenRunning(self._stop)

    def _restart(self) -> None:
        self.restarts = True
        self._stop()

    def _stop(self) -> None:
        if self._reactor.running:
            self._reactor.stop()

    @property
    def _reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor
