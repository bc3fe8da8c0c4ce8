"""Every public name, member and parameter of Tornado's and Cyclone's modules exists here, or has its reason.

The lists are in `tests/data`; what differs on purpose is below and on the pages in `docs/migration`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.data.api_lists import Parameters, class_parameters, member_parameters, parameters
from tests.programs import ROOT

DATA = Path(__file__).parent / "data"

#: Cyclone's names that are not here or differ, each with its reason; a module stands for all of its names.
CYCLONE_DIFFERS = {
    "app": "the project generator wrote Python 2",
    "auth": "Deferreds in place of callbacks; some of its services are closed",
    "websocket.FrameDecodeError": "of the draft of 2010, as the next one",
    "websocket.Hixie76FrameDecoder": "no browser has spoken it since 2012",
    "websocket.WebSocketProtocol76": "no browser has spoken it since 2012",
    "websocket.WebSocketProtocol17": "is WebSocketProtocol13, as in Tornado",
    "websocket.WebSocketProtocol.acceptConnection": "is accept_connection, as in Tornado",
    "websocket.WebSocketProtocol.rawDataReceived": "is dataReceived, as in every protocol",
    "websocket.WebSocketProtocol.request": "is an attribute of the handler",
    "websocket.WebSocketProtocol.sendMessage": "is write_message, as in Tornado",
    "httpclient.HTTPClient": "is Tornado's client of this name, which blocks; fetch() takes what it took",
    "httpclient.Receiver": "fetch() collects the body itself",
    "httpclient.StringProducer": "a body is bytes, or comes from a body_producer",
    "httpclient.agent": "there is AsyncHTTPClient().agent()",
    "httpclient.proxy_agent": "fetch() takes proxyConfig, a request proxy_host",
    "httpserver.HTTPConnection": "was the protocol; the protocol is the engine's own",
    "httputil.HTTPHeaders.get": "the parameter is called key, as in every mapping",
    "httputil.HTTPHeaders.update": "the mapping is positional only, as in every mapping",
    "locale.Locale": "the translations are the subclasses', as in Tornado 6",
    "locale.Locale.translations": "the translations are the subclasses', as in Tornado 6",
    "options.curses": "an imported module",
    "web.ChunkedTransferEncoding.transform_chunk": "the parameter is called chunk, as in the others",
    "web.URLSpec": "the second parameter is handler, as in Tornado; handler_class works by name",
}
#: Tornado's names that are not here, each with its reason.
TORNADO_DIFFERS = {
    f"websocket.WebSocketClientConnection.{name}": "belongs to the HTTP client that Tornado's is built on"
    for name in ("data_received", "finish", "headers_received", "run")
}
#: Where a module of Cyclone's is here.
ELSEWHERE = {"__init__": "", "testing.client": "testing.cyclone", "testing.testcase": "testing.cyclone"}


def refusals(wanted: Parameters | None, here: Parameters | None) -> list[str]:
    """The calls that the one takes and the other does not."""
    if wanted is None or here is None:
        return []
    by_name = {name: default for name, kind, default in here if kind in ("any", "keyword")}
    in_order = [name for name, kind, _ in here if kind in ("any", "positional")]
    has = {kind for _, kind, _ in here}
    found = []
    position = 0
    for name, kind, default in wanted:
        if kind in ("args", "kwargs"):
            if kind not in has:
                found.append(f"no {kind}")
            continue
        if kind in ("any", "keyword"):
            if name not in by_name and "kwargs" not in has:
                found.append(f"no parameter {name}")
            elif default and not by_name.get(name, True):
                found.append(f"{name} has no default")
        if kind in ("any", "positional"):
            if position >= len(in_order):
                if "args" not in has:
                    found.append(f"{name} is not positional")
            elif kind == "any" and in_order[position] != name and name in by_name:
                found.append(f"position {position + 1} is {in_order[position]}, not {name}")
            position += 1
    known = {name for name, _, _ in wanted}
    required = [name for name, kind, default in here if kind in ("any", "keyword") and not default]
    found += [f"{name} is required" for name in required if name not in known]
    return found


def instance_attributes(cls: type) -> set[str]:
    """What the methods of a class set on ``self``, and what its body annotates."""
    names: set[str] = set()
    for base in cls.__mro__:
        names |= set(inspect.get_annotations(base))
        try:
            tree = ast.parse(Path(inspect.getsourcefile(base) or "").read_text())
        except (OSError, TypeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == base.__name__:
                names |= {
                    inner.attr
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute)
                    and isinstance(inner.ctx, ast.Store)
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id == "self"
                }
    return names


def problems(listed: dict[str, Any], elsewhere: dict[str, str]) -> dict[str, str]:
    """What of a list is missing or refuses calls, by its dotted name."""
    found: dict[str, str] = {}
    for module_name, names in listed.items():
        place = elsewhere.get(module_name, module_name)
        try:
            module = importlib.import_module(f"cycloneish.{place}" if place else "cycloneish")
        except ModuleNotFoundError:
            found[module_name] = "no module"
            continue
        for name, entry in names.items():
            where = f"{module_name}.{name}"
            here = getattr(module, name, None)
            # A file of the package of that name, which some test has imported, is not what is meant.
            if not hasattr(module, name) or isinstance(here, ModuleType):
                found[where] = "missing"
            elif "call" in entry:
                ways = class_parameters(here) if inspect.isclass(here) else [parameters(here)]
                trouble = min((refusals(entry["call"], way) for way in ways), key=len)
                if trouble:
                    found[where] = "; ".join(trouble)
            elif "class" in entry:
                found.update(class_problems(where, entry, here))
    return found


def class_problems(where: str, entry: dict[str, Any], here: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    ways = class_parameters(here) or [None]
    trouble = min((refusals(entry["class"], way) for way in ways), key=len)
    if trouble:
        found[where] = "; ".join(trouble)
    attributes = instance_attributes(here)
    for member, wanted in entry["members"].items():
        if not hasattr(here, member):
            if member not in attributes:
                found[f"{where}.{member}"] = "missing"
            continue
        trouble = refusals(wanted, member_parameters(here, member))
        if trouble:
            found[f"{where}.{member}"] = "; ".join(trouble)
    return found


class NamesTest(SynchronousTestCase):
    def read(self, name: str) -> dict[str, Any]:
        listed: dict[str, Any] = json.loads((DATA / name).read_text())
        return listed

    def test_every_name_of_tornado_is_here(self) -> None:
        listed = self.read("tornado_names.json")
        self.assertGreater(sum(len(names) for names in listed.values()), 120)
        self.assertEqual(set(problems(listed, {})), set(TORNADO_DIFFERS))

    def test_every_name_of_cyclone_is_here_or_has_its_reason(self) -> None:
        listed = self.read("cyclone_names.json")
        found = problems(listed, ELSEWHERE)
        unexplained = {
            name: trouble
            for name, trouble in found.items()
            if not any(name == known or name.startswith(f"{known}.") for known in CYCLONE_DIFFERS)
        }
        self.assertEqual(unexplained, {})

    def test_no_reason_is_left_over(self) -> None:
        found = problems(self.read("cyclone_names.json"), ELSEWHERE)
        left = {
            known
            for known in CYCLONE_DIFFERS
            if not any(name == known or name.startswith(f"{known}.") for name in found)
        }
        self.assertEqual(left, set())

    def test_the_page_for_those_who_come_from_cyclone_names_every_difference(self) -> None:
        page = (ROOT / "docs" / "migration" / "from-cyclone.md").read_text()
        missing = [name for name in CYCLONE_DIFFERS if f"`{name}`" not in page]
        self.assertEqual(missing, [])

    def test_the_comparison_finds_what_is_missing(self) -> None:
        listed: dict[str, Any] = {
            "web": {"NoSuchName": {}, "RequestHandler": {"class": None, "members": {"no_such_method": None}}},
            "no_such_module": {},
            "escape": {"url_escape": {"call": [["value", "any", False], ["speed", "any", True]]}},
        }
        self.assertEqual(
            problems(listed, {}),
            {
                "web.NoSuchName": "missing",
                "web.RequestHandler.no_such_method": "missing",
                "no_such_module": "no module",
                "escape.url_escape": "no parameter speed",
            },
        )
