"""The floors of the house: imports run downhill, in no circle, and nobody takes the reactor early.

Which floor a module stands on is written here, and why in the design notes. A new module gets its line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import cycloneish

PACKAGE = Path(cycloneish.__file__).parent
LONGEST_FILE = 700

FLOORS = {
    # Ground: no web in sight. Tornado's names for scheduling are thin adapters over Twisted.
    1: "escape util log coroutines awaiting path_patterns _locale_data db amqp "
    "ioloop iostream gen locks queues concurrent process autoreload platform tcpclient tcpserver netutil "
    "redis sqlite mail",
    # Values and formats; messages over the ground floor's connections.
    2: "httputil template locale options signing tasks bus",
    # Wire engines, matching, the client.
    3: "http routing httpclient simple_httpclient curl_httpclient",
    # The protocol factory.
    4: "httpserver",
    # Handlers, applications, static files; and how they are tested.
    5: "web testing",
    # What an application adds to web.
    6: "forms websocket sse rpc jsonrpc xmlrpc bottle resource wsgi auth service",
    # What people start.
    7: "demo admin cli migration __main__",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}


class Module:
    """One file of the package and the modules of the package that it imports."""

    def __init__(self, path: Path, source: str, names: set[str]) -> None:
        self.path = path
        self.name = module_name(path)
        self.length = source.count("\n")
        self.imports: set[str] = set()
        self.takes_reactor = False
        self._known = names
        self._walk(ast.parse(source), in_function=False)

    @property
    def floor(self) -> int | None:
        parts = self.name.split(".")
        return FLOOR_OF.get(parts[1]) if len(parts) > 1 else 0

    def _walk(self, node: ast.AST, in_function: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue  # never imported in a running program
            if isinstance(child, ast.Import | ast.ImportFrom):
                found = set(self._imported(child))
                self.imports |= {resolved for name in found if (resolved := self._resolve(name))}
                self.takes_reactor |= not in_function and "twisted.internet.reactor" in found
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            self._walk(child, in_function or function)

    def _imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        origin = node.module or ""
        if node.level:
            package = self.name.split(".")
            if self.path.name != "__init__.py":
                package = package[:-1]
            package = package[: len(package) - node.level + 1]
            origin = ".".join([*package, *filter(None, [node.module])])
        yield from (f"{origin}.{alias.name}" for alias in node.names)

    def _resolve(self, name: str) -> str | None:
        while name:
            if name in self._known:
                return name if name != self.name else None
            name = name.rpartition(".")[0]
        return None


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = ["cycloneish", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def all_modules() -> dict[str, Module]:
    """The files of the package by their dotted names."""
    files = sorted(PACKAGE.rglob("*.py"))
    names = {module_name(path) for path in files}
    return {module_name(path): Module(path, path.read_text(), names) for path in files}


def circle_through(name: str, modules: dict[str, Module]) -> list[str] | None:
    """A way over imports from *name* back to it."""
    ways = [[name]]
    seen = {name}
    while ways:
        way = ways.pop()
        for target in sorted(modules[way[-1]].imports):
            if target == name:
                return [*way, name]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


class FloorsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = all_modules()

    def test_every_module_has_its_floor(self) -> None:
        homeless = {name.split(".")[1] for name, module in self.modules.items() if module.floor is None}
        self.assertEqual(homeless, set(), "give them a line in FLOORS")

    def test_imports_run_downhill(self) -> None:
        uphill = [
            f"{name} imports {target}"
            for name, module in self.modules.items()
            for target in module.imports
            if (module.floor or 0) < (self.modules[target].floor or 0)
        ]
        self.assertEqual(uphill, [])

    def test_no_module_imports_itself_by_way_of_others(self) -> None:
        circles = {
            " > ".join(circle) for name in self.modules if (circle := circle_through(name, self.modules))
        }
        self.assertEqual(circles, set())

    def test_importing_takes_no_reactor(self) -> None:
        takers = [name for name, module in self.modules.items() if module.takes_reactor]
        self.assertEqual(takers, [], "the reactor is passed, or imported where the program starts")

    def test_no_file_is_too_long_to_be_read(self) -> None:
        long = {name: m.length for name, m in self.modules.items() if m.length > LONGEST_FILE}
        self.assertEqual(long, {})


class CheckerTest(SynchronousTestCase):
    """The checks themselves: they see what they are for."""

    def module(self, source: str, name: str = "web/probe.py") -> Module:
        names = {"", ".web", ".web.probe", ".web.handler", ".cli"}
        return Module(PACKAGE / name, source, {f"cycloneish{known}" for known in names})

    def test_every_form_of_import_is_seen(self) -> None:
        for source in (
            "import cycloneish.cli",
            "from cycloneish import cli",
            "from cycloneish.cli import main",
            "from .. import cli",
            "from ..cli import main",
            "def f():\n    from cycloneish.cli import main",
            "if True:\n    import cycloneish.cli as other",
        ):
            self.assertEqual(self.module(source).imports, {"cycloneish.cli"}, source)
        self.assertEqual(self.module("from .handler import X").imports, {"cycloneish.web.handler"})
        self.assertEqual(
            self.module("from .handler import X", "web/__init__.py").imports, {"cycloneish.web.handler"}
        )
        self.assertEqual(self.module("if TYPE_CHECKING:\n    import cycloneish.cli").imports, set())

    def test_the_reactor_may_be_taken_in_functions_only(self) -> None:
        self.assertTrue(self.module("from twisted.internet import reactor").takes_reactor)
        self.assertTrue(self.module("class A:\n    import twisted.internet.reactor").takes_reactor)
        self.assertFalse(self.module("def f():\n    from twisted.internet import reactor").takes_reactor)
        self.assertFalse(self.module("from twisted.internet import asyncioreactor").takes_reactor)

    def test_a_circle_is_found(self) -> None:
        one = self.module("import cycloneish.cli")
        other = self.module("import cycloneish.web.probe", "cli.py")
        modules = {module.name: module for module in (one, other)}
        self.assertEqual(circle_through(one.name, modules), [one.name, other.name, one.name])
        one.imports.clear()
        self.assertIsNone(circle_through(other.name, modules))
