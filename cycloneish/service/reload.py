"""Restarting the program when one of its files changes (``--debug``).

The running process keeps serving until a changed file at least compiles, and a restarted program that
cannot be imported waits for the next change instead of ending: saving a half-written line costs nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.task import LoopingCall

__all__ = ["RELOADED", "Reloader", "restart", "wait_for_change", "was_restarted"]

log = logging.getLogger("cycloneish.general")

#: Set in the environment of a program that was restarted, and so is being worked on.
RELOADED = "CYCLONEISH_RELOADED"
#: Seconds between two looks at the files.
INTERVAL = 0.5


def was_restarted() -> bool:
    """Whether this process came from :func:`restart`."""
    return RELOADED in os.environ


def restart() -> None:
    """Become the same program again, started anew with the same command line. Does not return."""
    os.environ[RELOADED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (our own command line)


class FileTimes:
    """Modification times of the program's files; :meth:`changed` says which are new since the last look.

    Watched are the files of all loaded modules outside the standard library and site-packages (those do
    not change under a running program, and there are many), and *more* besides.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        self.more = tuple(more)
        self._installed = tuple(
            sysconfig.get_path(place) + os.sep for place in ("stdlib", "platstdlib", "purelib", "platlib")
        )
        self._times: dict[str, float] = {}

    def changed(self) -> list[str]:
        """Files whose time differs from the last call's; none in the first call."""
        found = []
        for file in self._files():
            try:
                modified = os.stat(file).st_mtime
            except OSError:
                continue  # an editor may be replacing it at this moment; the next look will see it
            if self._times.setdefault(file, modified) != modified:
                self._times[file] = modified
                found.append(file)
        return found

    def _files(self) -> Iterator[str]:
        yield from self.more
        for module in loaded_modules():
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and not file.startswith(self._installed):
                yield file


def loaded_modules() -> list[object]:
    """What is imported now."""
    return list(sys.modules.values())


class Reloader:
    """Looks at the files every half second and calls back once, when a restart makes sense.

    :param on_change: called with no argument; stops the program and restarts it.
    :param clock: the reactor.
    :param more: files to watch besides the modules, the configuration file for example.
    """

    def __init__(self, on_change: Callable[[], object], clock: Any, more: Iterable[str] = ()) -> None:
        self._on_change = on_change
        self._files = FileTimes(more)
        self._call = LoopingCall(self.look)
        self._call.clock = clock

    def start(self) -> None:
        """Begin looking."""
        self._files.changed()
        self._call.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Stop looking; harmless when it is not running."""
        if self._call.running:
            self._call.stop()

    def look(self) -> None:
        """One look: restart if files changed and every changed module compiles."""
        changed = self._files.changed()
        if not changed:
            return
        for file in changed:
            problem = compile_problem(file)
            if problem is not None:
                log.error("not restarting, the old code keeps running: %s", problem)
                return
        log.info("%s changed, restarting", ", ".join(changed))
        self.stop()
        self._on_change()


def compile_problem(file: str) -> str | None:
    """Why *file* cannot be compiled as Python, in one line, or None (also for files of other kinds)."""
    if not file.endswith(".py"):
        return None
    try:
        with open(file, "rb") as source:
            compile(source.read(), file, "exec")
    except (SyntaxError, ValueError) as error:
        return f"{file}: {error}"
    except OSError:
        return None
    return None


def wait_for_change(error: BaseException, sleep: Callable[[float], object] = time.sleep) -> None:
    """Block until a file changes that has to do with *error*: a loaded module or a file of its traceback.

    Only for a program that was restarted and could not be imported; no reactor runs then.
    """
    files = set()
    frames = error.__traceback__
    while frames is not None:
        files.add(frames.tb_frame.f_code.co_filename)
        frames = frames.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        files.add(error.filename)
    times = FileTimes(file for file in files if os.path.exists(file))
    times.changed()
    while not times.changed():
        sleep(INTERVAL)
