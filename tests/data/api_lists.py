"""Writes `tornado_names.json`, the public names of the modules that mean here what they mean in Tornado.

Names and parameters are facts of the installed tornado wheel; nothing else is taken from it. Run after a new
version of it: ``python -m tests.data.api_lists``. `cyclone_names.json` has the same form; it was written from
the public names of Cyclone 1.3, which does not change any more.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODULES = [
    "auth",
    "autoreload",
    "escape",
    "httpclient",
    "httpserver",
    "httputil",
    "locale",
    "log",
    "options",
    "routing",
    "simple_httpclient",
    "template",
    "testing",
    "util",
    "web",
    "websocket",
    "wsgi",
]
KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "any",
    inspect.Parameter.VAR_POSITIONAL: "args",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "kwargs",
}
Parameters = list[list[Any]]


def parameters(function: Any, *, bound: bool = False) -> Parameters | None:
    """Name, kind and whether there is a default, of each parameter; None where Python does not know."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if (
        bound
        and found
        and found[0].kind
        in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
    ):
        del found[0]
    return [[one.name, KINDS[one.kind], one.default is not one.empty] for one in found]


def member_parameters(cls: type, name: str) -> Parameters | None:
    """The same of a method, without its first parameter."""
    member = inspect.getattr_static(cls, name)
    if isinstance(member, staticmethod):
        return parameters(member.__func__)
    if isinstance(member, classmethod):
        return parameters(member.__func__, bound=True)
    return parameters(member, bound=True) if inspect.isfunction(member) else None


def class_parameters(cls: type) -> list[Parameters]:
    """The ways in which a class can be called: its constructor's, and those of the class as a whole."""
    ways = [parameters(cls.__init__, bound=True), parameters(cls)]
    return [way for way in ways if way is not None]


def describe_class(cls: type, package: str) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith(package):
            continue
        for name in [*vars(base), *inspect.get_annotations(base)]:
            if not name.startswith("_"):
                members[name] = member_parameters(cls, name) if hasattr(cls, name) else None
    call = (class_parameters(cls) or [None])[0]
    if call is not None and [kind for _, kind, _ in call] == ["args", "kwargs"]:
        # A Configurable takes what `initialize` takes; otherwise this says nothing.
        call = parameters(cls.initialize, bound=True) if hasattr(cls, "initialize") else None
    return {"class": call, "members": dict(sorted(members.items()))}


def describe(package: str, module_name: str) -> dict[str, Any]:
    module = importlib.import_module(f"{package}.{module_name}")
    names: dict[str, Any] = {}
    for name, value in sorted(vars(module).items()):
        home = getattr(value, "__module__", module.__name__)
        if name.startswith("_") or inspect.ismodule(value) or home != module.__name__:
            continue
        if inspect.isclass(value):
            names[name] = describe_class(value, package)
        elif inspect.isfunction(value):
            names[name] = {"call": parameters(value)}
    return names


def main() -> None:
    lists = {module: describe("tornado", module) for module in MODULES}
    text = json.dumps(lists, separators=(",", ":"), sort_keys=True)
    (HERE / "tornado_names.json").write_text(text.replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
