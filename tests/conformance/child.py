"""One row in a process of its own: ``python -m tests.conformance.child ROW``.

A line of JSON for each test goes to standard output: its id, how it went, and the error.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import importlib
import importlib.util
import json
import logging
import os
import pkgutil
import signal
import sys
import traceback
import types
import unittest
from typing import Any

from twisted.internet import asyncioreactor

LOOP = asyncio.new_event_loop()
asyncioreactor.install(LOOP)

from twisted.internet import reactor  # noqa: E402
from twisted.internet.error import ConnectionAborted  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

from cycloneish import log  # noqa: E402
from cycloneish.http.reading import Readers  # noqa: E402
from tests.conformance.rows import ALL_ROWS, Row  # noqa: E402

#: Seconds that one test may take.
TEST_TIMEOUT = 60


def start_reactor() -> None:
    """Mark the reactor as running; the loop itself turns when a test runs it."""
    reactor.startRunning(installSignalHandlers=False)
    LOOP.run_until_complete(asyncio.sleep(0))
    if not reactor.running:
        raise SystemExit("the reactor did not start")


def share_loggers() -> None:
    """Let both sides log to the same loggers: a test expects a message wherever it comes from."""
    known = logging.Logger.manager.loggerDict
    for name, logger in [("access", log.access_log), ("application", log.app_log), ("general", log.gen_log)]:
        known[f"tornado.{name}"] = logger
    log.access_log.setLevel(logging.CRITICAL)


def import_tornado() -> None:
    """Import all of Tornado, so that its modules know each other before a test module is redirected."""
    import tornado

    for module in pkgutil.iter_modules(tornado.__path__, "tornado."):
        if module.name not in ("tornado.test", "tornado.curl_httpclient"):
            importlib.import_module(module.name)
    # Lets a Deferred be yielded and awaited in Tornado's coroutines.
    importlib.import_module("tornado.platform.twisted")


class TornadoView(types.ModuleType):
    """What a test module gets for ``import tornado``: ours where the row says so."""

    def __init__(self, ours: dict[str, types.ModuleType]) -> None:
        super().__init__("tornado")
        self.__dict__["_ours"] = ours

    def __getattr__(self, name: str) -> Any:
        if name in self._ours:
            return self._ours[name]
        found = getattr(sys.modules["tornado"], name, None)
        return found if found is not None else importlib.import_module(f"tornado.{name}")


def load_test_module(row: Row) -> types.ModuleType:
    """Import the test module with an ``__import__`` of its own."""
    ours = {name: importlib.import_module(f"cycloneish.{name}") for name in row.ours}
    view = TornadoView(ours)

    def redirected(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if level == 0 and (name == "tornado" or name.startswith("tornado.")):
            module = name.partition(".")[2]
            if not module or not fromlist:
                if module and module not in ours:
                    importlib.import_module(name)
                return view
            if module in ours:
                return ours[module]
        return builtins.__import__(name, globals, locals, fromlist, level)

    for name in row.by_name:
        sys.modules[f"tornado.{name}"] = ours[name]
        setattr(sys.modules["tornado"], name, ours[name])
    # The last one is the row's; the others are modules of the suite that it takes its base classes from.
    for name in (*row.helpers, row.name):
        full_name = f"tornado.test.{name}"
        spec = importlib.util.find_spec(full_name)
        if spec is None or spec.loader is None:
            raise SystemExit(f"no {full_name}: pip install tornado")
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": redirected}
        sys.modules[full_name] = module
        spec.loader.exec_module(module)
        setattr(sys.modules["tornado.test"], name, module)
    return module


def patch_testing(row: Row) -> None:
    """Give each test an IOLoop of its own on the reactor's loop, and our server where the row serves."""
    import tornado.ioloop
    import tornado.platform.asyncio
    import tornado.testing as testing

    registered = tornado.ioloop.IOLoop._ioloop_for_asyncio

    class SharedLoop(tornado.platform.asyncio.AsyncIOLoop):
        def initialize(self, **kwargs: Any) -> None:
            super().initialize(asyncio_loop=LOOP, **kwargs)

        def close(self, all_fds: bool = False) -> None:
            if self.is_current:
                self._clear_current()
            self.closing = True
            for fd in list(self.handlers):
                fileobj, _ = self.handlers[fd]
                self.remove_handler(fd)
                if all_fds:
                    self.close_fd(fileobj)
            registered.pop(LOOP, None)
            for handle in [*LOOP._scheduled, *LOOP._ready]:
                if getattr(handle._callback, "__self__", None) is self:
                    handle.cancel()

    def get_new_ioloop(self: Any) -> Any:
        stale = registered.get(LOOP)
        if stale is not None:
            stale.close(all_fds=True)
        return SharedLoop(make_current=False)

    testing.AsyncTestCase.get_new_ioloop = get_new_ioloop
    if "httpclient" in row.ours:
        testing.AsyncHTTPClient = importlib.import_module("cycloneish.httpclient").AsyncHTTPClient
    if not row.serves:
        return
    server_class = importlib.import_module("cycloneish.httpserver").HTTPServer
    if row.option:

        class WithOption(server_class):  # type: ignore[misc, valid-type]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **{row.option: True}, **kwargs)

        server_class = WithOption
    testing.HTTPServer = server_class
    original = testing.AsyncHTTPTestCase.tearDown

    def tear_down(self: Any) -> None:
        # The original takes stop() for synchronous; ours says when the port is closed.
        self.io_loop.run_sync(self.http_server.stop, timeout=testing.get_async_test_timeout())
        original(self)

    testing.AsyncHTTPTestCase.tearDown = tear_down


class SubprocessImports:
    """Redirects ``python -c "from tornado.x import …"``, which a few tests start."""

    SITE = """
import builtins, importlib
real = builtins.__import__
def redirected(name, globals=None, locals=None, fromlist=(), level=0):
    if globals is not None and globals.get("__name__") == "__main__" and name[8:] in %r and fromlist:
        return importlib.import_module("cycloneish." + name[8:])
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = redirected
"""

    def __init__(self, row: Row, directory: str) -> None:
        with open(os.path.join(directory, "sitecustomize.py"), "w", encoding="utf-8") as file:
            file.write(self.SITE % (row.ours,))
        path = [directory, os.getcwd(), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))


def settle() -> None:
    """After a test: let callbacks run, end what it left."""
    logging.disable(logging.CRITICAL)
    try:
        LOOP.run_until_complete(asyncio.sleep(0.001))
        tasks = [task for task in asyncio.all_tasks(LOOP) if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            LOOP.run_until_complete(asyncio.wait(tasks, timeout=1))
        internal = getattr(reactor, "_internalReaders", ())
        for left in {*reactor.getReaders(), *reactor.getWriters()} - set(internal):
            if isinstance(left, Readers):
                left.connectionLost(Failure(ConnectionAborted()))
            for method in ("stopListening", "abortConnection"):
                if hasattr(left, method):
                    getattr(left, method)()
                    break
        LOOP.run_until_complete(asyncio.sleep(0.001))
        # What asyncio says of a lost task it says of the test that lost it, or of none.
        gc.collect()
    finally:
        logging.disable(logging.NOTSET)


class Reporter(unittest.TestResult):
    """Prints how each test went; the worst of its subtests counts."""

    status = "passed"
    text = ""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.status, self.text = "passed", ""
        signal.setitimer(signal.ITIMER_REAL, TEST_TIMEOUT)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        signal.setitimer(signal.ITIMER_REAL, 0)
        settle()
        self.report(test)

    def report(self, test: unittest.TestCase) -> None:
        line = {"id": test.id().partition("_test.")[2], "status": self.status, "text": self.text}
        os.write(RESULTS, json.dumps(line).encode() + b"\n")

    def took(self, status: str, error: Any) -> None:
        self.status = status
        self.text = error if isinstance(error, str) else "".join(traceback.format_exception(*error))[-4000:]

    def addFailure(self, test: Any, err: Any) -> None:
        self.took("failed", err)

    def addError(self, test: Any, err: Any) -> None:
        self.took("failed", err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.took("failed", err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.took("failed", "unexpected success")

    def addSkip(self, test: Any, reason: str) -> None:
        started = self.status != "passed" or self._previous_started(test)
        self.took("skipped", reason)
        if not started:
            self.report(test)

    def _previous_started(self, test: Any) -> bool:
        # Python 3.12.1 skips a decorated test without starting it; other versions start it.
        return sys.version_info[:3] != (3, 12, 1) or not getattr(
            getattr(test, test._testMethodName), "__unittest_skip__", False
        )


def tests_in(module: types.ModuleType) -> list[unittest.TestCase]:
    """The tests of *module*, without the abstract base classes of Tornado's suite."""
    found: list[unittest.TestCase] = []
    suites: list[Any] = [unittest.defaultTestLoader.loadTestsFromModule(module)]
    while suites:
        for item in suites.pop():
            if isinstance(item, unittest.TestSuite):
                suites.append(item)
            elif type(item).__name__ != "AbstractBaseWrapper":
                found.append(item)
    return sorted(found, key=lambda test: test.id())


def timed_out(signum: int, frame: Any) -> None:
    raise SystemExit(f"no end after {TEST_TIMEOUT} seconds")


#: Where the results go; tests print to standard output themselves.
RESULTS = -1


def main() -> None:
    global RESULTS
    row = next(row for row in ALL_ROWS if row.key == sys.argv[1])
    RESULTS = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, timed_out)
    start_reactor()
    share_loggers()
    import_tornado()
    SubprocessImports(row, sys.argv[2])
    module = load_test_module(row)
    patch_testing(row)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    gc.freeze()
    chosen = [test for test in tests_in(module) if len(sys.argv) < 4 or sys.argv[3] in test.id()]
    unittest.TestSuite(chosen).run(Reporter())
    sys.stdout.flush()
    os._exit(0)  # the reactor's threads need not end


if __name__ == "__main__":
    main()
