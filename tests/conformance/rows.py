"""Which of Tornado's test modules are run, and which names in them are ours.

What a row does not name stays Tornado's own: its IOLoop, its streams, and its HTTP client where the
client is not under test.

A new row is one line below, in ``ROWS`` or in ``SECOND_TIER``; ``python -m tests.conformance --update ROW``
then writes down what does not pass, and the reasons in ``expected.json`` want to be put into words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One module of Tornado's suite."""

    name: str
    #: Tests in it with Tornado 6.6.1, so that none can vanish.
    tests: int
    #: Modules that are ours when the test module imports them.
    ours: tuple[str, ...]
    #: Whether the test cases serve with our HTTPServer.
    serves: bool = False
    #: Modules that are also ours where a test looks them up by a string.
    by_name: tuple[str, ...] = ()
    #: Modules of the suite that the test module imports, to be redirected as well.
    helpers: tuple[str, ...] = ()
    #: An option of our server that is not its default: such a row is counted beside the others.
    option: str = ""

    @property
    def key(self) -> str:
        """What the row is called on the command line and in ``expected.json``."""
        return f"{self.name}:{self.option}" if self.option else self.name


def _row(name: str, tests: int, ours: str, serves: bool = False, by_name: str = "", helpers: str = "") -> Row:
    return Row(name, tests, tuple(ours.split()), serves, tuple(by_name.split()), tuple(helpers.split()))


ROWS = (
    _row("web_test", 276, "web httpserver escape httputil locale log template util", serves=True),
    _row("routing_test", 6, "routing web httpserver httputil wsgi", serves=True),
    _row("template_test", 43, "template escape util"),
    _row("escape_test", 15, "escape util"),
    _row("httputil_test", 66, "httputil escape log"),
    _row("httpserver_test", 78, "httpserver web escape httputil log", serves=True),
    _row("locale_test", 8, "locale escape util"),
    _row("options_test", 24, "options util"),
    _row("util_test", 31, "util escape", by_name="escape"),
    _row("log_test", 15, "log options escape util"),
    _row("wsgi_test", 6, "wsgi routing httpserver", serves=True),
    _row(
        "websocket_test",
        70,
        "websocket web httpclient httpserver escape httputil log template util",
        serves=True,
    ),
    _row("httpclient_test", 65, "httpclient httputil escape log"),
    _row(
        "simple_httpclient_test",
        139,
        "httpclient simple_httpclient httputil escape log iostream",
        helpers="httpclient_test",
    ),
    _row("auth_test", 19, "auth web httpserver httpclient escape httputil log", serves=True),
)

#: Of these, what is no part of the server: clients, and protocols beside HTTP.
BESIDE_THE_SERVER = frozenset({"websocket_test", "auth_test", "httpclient_test", "simple_httpclient_test"})

#: The rows that a server option changes, run once more with it.
WITH_OPTION = (
    Row(
        "httpserver_test",
        78,
        ("httpserver", "web", "escape", "httputil", "log"),
        serves=True,
        option="tornado_statuses",
    ),
)

#: Tornado's names for scheduling, which are thin adapters over Twisted here.
SECOND_TIER: tuple[Row, ...] = (
    _row("gen_test", 82, "gen concurrent log web", serves=True),
    _row("locks_test", 40, "locks gen"),
    _row("queues_test", 42, "queues gen"),
    _row("concurrent_test", 13, "concurrent gen escape"),
)

ALL_ROWS = (*ROWS, *WITH_OPTION, *SECOND_TIER)
