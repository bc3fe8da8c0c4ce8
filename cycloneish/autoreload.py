"""Start the program anew when one of its files changes: Tornado's `autoreload`, which ``--debug`` uses.

A program calls `start` once its reactor runs, or is itself run by ``python -m cycloneish.autoreload
script.py``, which also waits for a change when the script cannot be imported. `cycloneish.service` uses
`Watcher` instead, to stop in order first. The old code keeps running while a changed file does not compile,
so that a half-written line costs nothing.

Counterpart: `tornado.autoreload`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import sys
import sysconfig
import time
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from cycloneish.log import gen_log

__all__ = [
    "Watcher",
    "add_reload_hook",
    "main",
    "restart",
    "start",
    "stop",
    "wait",
    "was_restarted",
    "watch",
    "watch_traceback",
]

_USAGE = """usage:
  python -m cycloneish.autoreload [--until-success] -m package.module [arguments]
  python -m cycloneish.autoreload [--until-success] path/to/script.py [arguments]"""

_INTERVAL = 0.5  # seconds between two looks at the files
_RESTARTED = "CYCLONEISH_RESTARTED"  # set in the environment of a program that was started anew
_INSTALLED = tuple(
    sysconfig.get_path(place) + os.sep for place in ("stdlib", "platstdlib", "purelib", "platlib")
)

_watched_files: set[str] = set()
_reload_hooks: list[Callable[[], None]] = []
_watcher: Watcher | None = None


class Watcher:
    """Looks at the files of the program and calls back once, when a restart makes sense.

    :param on_change: called with no argument when files have changed and all of them compile.

    Watched are the files of all imported modules, except those of Python and of installed packages, and the
    files named with `watch`.
    """

    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._times: dict[str, float] = {}
        self._call = LoopingCall(self.look)
        self._changed()

    def start(self, clock: IReactorTime, interval: float = _INTERVAL) -> None:
        """Begin to look, every *interval* seconds."""
        self._call.clock = clock
        self._call.start(interval, now=False)

    def stop(self) -> None:
        """Look no more; harmless when it does not."""
        if self._call.running:
            self._call.stop()

    @property
    def running(self) -> bool:
        """Whether it looks."""
        return bool(self._call.running)

    def look(self) -> bool:
        """One look; whether it has called back."""
        changed = self._changed()
        problems = [problem for path in changed if (problem := _syntax_problem(path)) is not None]
        if problems:
            gen_log.error("not restarting, the old code keeps running: %s", problems[0])
        if not changed or problems:
            return False
        gen_log.info("%s modified; restarting server", ", ".join(changed))
        self.stop()
        self._on_change()
        return True

    def _changed(self) -> list[str]:
        """Files whose time differs from the last look's; none at the first."""
        found = []
        for path in _files():
            try:
                modified = os.stat(path).st_mtime
            except OSError:
                continue  # an editor may be about to put the new file there
            if self._times.setdefault(path, modified) != modified:
                self._times[path] = modified
                found.append(path)
        return found


def start(check_time: int = 500, *, reactor: IReactorTime | None = None) -> None:
    """Begin to look at the files, see `Watcher`, and start the program anew when they change.

    :param check_time: milliseconds between two looks.
    """
    global _watcher
    if _watcher is not None and _watcher.running:
        return
    if reactor is None:
        from twisted.internet import reactor as default_reactor

        reactor = cast("IReactorTime", default_reactor)
    _watcher = Watcher(restart)
    _watcher.start(reactor, check_time / 1000)


def stop() -> None:
    """Look no more (ours; for tests and programs that stop their reactor by themselves)."""
    global _watcher
    if _watcher is not None:
        _watcher.stop()
    _watcher = None


def wait() -> None:
    """Block until a watched file changes, then start the program anew; for the end of a script.

    Not to be called while a reactor runs, which would be blocked.
    """
    watcher = Watcher(restart)
    while not watcher.look():
        time.sleep(_INTERVAL)


def watch(filename: str) -> None:
    """Watch *filename* as well; the files of imported modules are watched anyway."""
    # The program may go to another directory.
    _watched_files.add(os.path.abspath(filename))


def watch_traceback(error: BaseException) -> None:
    """Watch the files that *error* came through: one that cannot be imported is in no list of modules."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        files.append(error.filename)
    for file in files:
        if os.path.exists(file):
            watch(file)


def add_reload_hook(fn: Callable[[], None]) -> None:
    """Have *fn* called before the program is started anew, for example to close what would stay open."""
    _reload_hooks.append(fn)


def was_restarted() -> bool:
    """Whether this process came from `restart`, and so is being worked on."""
    return _RESTARTED in os.environ


def restart() -> None:
    """Become the same program again, with the command line the interpreter was given. Does not return."""
    for hook in _reload_hooks:
        hook()
    os.environ[_RESTARTED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (our own command line)


def _files() -> Iterator[str]:
    yield from _watched_files
    for module in list(sys.modules.values()):
        # Some modules replace themselves in sys.modules by objects that have answers to everything.
        path = getattr(module, "__file__", None) if isinstance(module, types.ModuleType) else None
        if isinstance(path, str) and not path.startswith(_INSTALLED):
            yield path[:-1] if path.endswith((".pyc", ".pyo")) else path


def _syntax_problem(path: str) -> str | None:
    """Why *path* cannot be compiled as Python, or None (also for files of other kinds)."""
    if not path.endswith(".py"):
        return None
    try:
        with open(path, "rb") as source:
            compile(source.read(), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return f"{path}: {error}"
    except OSError:
        return None
    return None


def main() -> None:
    """Run a script or module, and run it again whenever its source changes.

    ::

        python -m cycloneish.autoreload [--until-success] -m package.module [arguments]
        python -m cycloneish.autoreload [--until-success] path/to/script.py [arguments]

    When it ends, or cannot be imported, the next change starts it again; with ``--until-success`` not
    after it ended with the status 0.
    """
    arguments = sys.argv[1:]
    until_success = arguments[:1] == ["--until-success"]
    if until_success:
        arguments.pop(0)
    is_module = arguments[:1] == ["-m"]
    command = arguments[1:] if is_module else arguments
    if not command or command[0].startswith("-"):
        print(_USAGE, file=sys.stderr)
        sys.exit(1)
    wrapper_argv = sys.argv
    status: Any = 1
    try:
        if is_module:
            sys.argv = [wrapper_argv[0], *command[1:]]
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ending:
        status = ending.code
        gen_log.info("Script exited with status %s", status)
    except Exception as error:
        gen_log.warning("Script exited with uncaught exception", exc_info=True)
        watch_traceback(error)
    else:
        status = 0
        gen_log.info("Script exited normally")
    finally:
        sys.argv = wrapper_argv
    _watch_command(command[0], is_module)
    if until_success and not status:
        return
    wait()


def _watch_command(name: str, is_module: bool) -> None:
    """Watch what was run: it is in no list of modules any more."""
    if not is_module:
        watch(name)
        return
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    if spec is not None and spec.origin is not None:
        watch(spec.origin)


if __name__ == "__main__":
    # What the script imports is not this copy of the module, and must be the one that knows what to watch.
    importlib.import_module("cycloneish.autoreload").main()
