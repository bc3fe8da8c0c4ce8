"""Tornado's `autoreload` on the reactor: start the program anew when one of its files changes.

A program calls `start` once its reactor runs, or is itself run by ``python -m cycloneish.autoreload
script.py``, which also waits for a change when the script cannot be imported. The old code keeps
running while a changed file does not compile, so that a half-written line costs nothing.

Counterpart: `tornado.autoreload`. ``twistd cycloneish --debug`` does the same without this module.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path and sys.path[0] == os.path.dirname(__file__):
    # `python cycloneish/autoreload.py` puts this directory first, and `import http` would then find ours.
    del sys.path[0]

import importlib
import importlib.util
import runpy
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from cycloneish.log import gen_log

__all__ = ["add_reload_hook", "main", "start", "wait", "watch"]

_USAGE = """usage:
  python -m cycloneish.autoreload [--until-success] -m package.module [arguments]
  python -m cycloneish.autoreload [--until-success] path/to/script.py [arguments]"""

_watched_files: set[str] = set()
_reload_hooks: list[Callable[[], None]] = []
_loop: LoopingCall | None = None
_reload_attempted = False
# Set while `main` runs the script: the command line to start again is then ours, not the script's.
_wrapper_argv: list[str] | None = None


def start(check_time: int = 500, *, reactor: IReactorTime | None = None) -> None:
    """Begin to look at the files.

    :param check_time: milliseconds between two looks.

    Watched are the files of all imported modules, and those named with `watch`.
    """
    global _loop
    if _loop is not None and _loop.running:
        return
    if reactor is None:
        from twisted.internet import reactor as default_reactor

        reactor = cast("IReactorTime", default_reactor)
    times: dict[str, float] = {}
    _reload_on_update(times)
    _loop = LoopingCall(_reload_on_update, times)
    _loop.clock = reactor
    _loop.start(check_time / 1000, now=False)


def stop() -> None:
    """Look no more (ours; for tests and programs that stop their reactor by themselves)."""
    global _loop
    if _loop is not None and _loop.running:
        _loop.stop()
    _loop = None


def wait() -> None:
    """Block until a watched file changes, then start the program anew; for the end of a script.

    Not to be called while a reactor runs, which would be blocked.
    """
    times: dict[str, float] = {}
    while True:
        _reload_on_update(times)
        time.sleep(0.5)


def watch(filename: str) -> None:
    """Watch *filename* as well; the files of imported modules are watched anyway."""
    _watched_files.add(filename)


def add_reload_hook(fn: Callable[[], None]) -> None:
    """Have *fn* called before the program is started anew, for example to close what would stay open."""
    _reload_hooks.append(fn)


def _reload_on_update(times: dict[str, float]) -> None:
    """One look at the files; *times* holds what the looks before have seen."""
    if _reload_attempted:
        return
    changed = [path for path in _files() if _has_changed(times, path)]
    if not changed:
        return
    for path in changed:
        problem = _syntax_error(path)
        if problem is not None:
            gen_log.error("%s modified, but not restarting before it compiles: %s", path, problem)
            return
    gen_log.info("%s modified; restarting server", ", ".join(changed))
    _reload()


def _files() -> set[str]:
    files = set(_watched_files)
    for module in list(sys.modules.values()):
        # Some modules replace themselves in sys.modules by objects that have answers to everything.
        if isinstance(module, types.ModuleType):
            path = getattr(module, "__file__", None)
            if isinstance(path, str):
                files.add(path[:-1] if path.endswith((".pyc", ".pyo")) else path)
    return files


def _has_changed(times: dict[str, float], path: str) -> bool:
    try:
        modified = os.stat(path).st_mtime
    except OSError:
        return False  # an editor may be about to put the new file there
    known = times.setdefault(path, modified)
    times[path] = modified
    return known != modified


def _syntax_error(path: str) -> str | None:
    if not path.endswith(".py"):
        return None
    try:
        with open(path, "rb") as source:
            compile(source.read(), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return str(error)
    except OSError:
        return None
    return None


def _reload() -> None:
    """Become the same program again. Does not return."""
    global _reload_attempted
    _reload_attempted = True
    for hook in _reload_hooks:
        hook()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *_command_line()])  # noqa: S606 (our own command line)


def _command_line() -> list[str]:
    """Arguments for the interpreter that start this program again, with the same sys.path."""
    if _wrapper_argv is not None:
        return ["-m", "cycloneish.autoreload", *_wrapper_argv]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name != "__main__":
        # Run with -m, which Python has replaced in sys.argv by the file's path. (A directory or a zip
        # file has a spec as well, whose name is "__main__".)
        return ["-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    return list(sys.argv)


def main() -> None:
    """Run a script or module, and run it again whenever its source changes.

    ::

        python -m cycloneish.autoreload [--until-success] -m package.module [arguments]
        python -m cycloneish.autoreload [--until-success] path/to/script.py [arguments]

    When it ends, or cannot be imported, the next change starts it again; with ``--until-success`` not
    after it ended with the status 0.
    """
    global _wrapper_argv
    arguments = sys.argv[1:]
    # Under the importable name, as what the script imports is another copy of this module than the one
    # that runs.
    importable = importlib.import_module("cycloneish.autoreload")
    _wrapper_argv = arguments.copy()
    vars(importable)["_wrapper_argv"] = _wrapper_argv
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
        _watch_traceback(error)
    else:
        status = 0
        gen_log.info("Script exited normally")
    finally:
        sys.argv = wrapper_argv
    _watch_command(command[0], is_module)
    if until_success and not status:
        return
    importable.wait()


def _watch_traceback(error: BaseException) -> None:
    """Watch the files that *error* came through: one that cannot be imported is in no module list."""
    importable = sys.modules["cycloneish.autoreload"]
    for frame in traceback.extract_tb(error.__traceback__):
        importable.watch(frame.filename)
    if isinstance(error, SyntaxError) and error.filename:
        importable.watch(error.filename)


def _watch_command(name: str, is_module: bool) -> None:
    importable = sys.modules["cycloneish.autoreload"]
    if not is_module:
        importable.watch(name)
        return
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    if spec is not None and spec.origin is not None:
        importable.watch(spec.origin)


if __name__ == "__main__":
    main()
