"""What every measured server has in common: the data it answers with and its command line.

Only the standard library is imported here, so that the start-up scenario times the frameworks and not this
file.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import logging
import tempfile
from pathlib import Path

HELLO = b"Hello, world"
SECRET = "a secret for benchmarks only, of a decent length"
COOKIE_VALUE = "user-4711"
STATIC_NAME = "blob.bin"
STATIC_SIZE = 100 * 1024
STREAM_CHUNK = b"x" * 65536
STREAM_CHUNKS = 1024  # 64 MiB

ROWS = [(number, f"Item <{number}> & more", number * 1.25) for number in range(50)]

TORNADO_TEMPLATE = """<!DOCTYPE html>
<html><head><title>{{ title }}</title></head><body><table>
{% for number, name, price in rows %}<tr><td>{{ number }}</td><td>{{ name }}</td><td>{{ price }}</td></tr>
{% end %}</table></body></html>
"""

JINJA_TEMPLATE = TORNADO_TEMPLATE.replace("{% end %}", "{% endfor %}")


def static_directory() -> Path:
    """The directory with the file of the static scenarios; written on first use."""
    directory = Path(tempfile.gettempdir()) / "cycloneish-benchmark-static"
    directory.mkdir(exist_ok=True)
    path = directory / STATIC_NAME
    if not path.exists() or path.stat().st_size != STATIC_SIZE:
        path.write_bytes(bytes(range(256)) * (STATIC_SIZE // 256))
    return directory


def sign(value: str) -> str:
    """A signed cookie for frameworks that bring none: what their users write themselves."""
    return value + "|" + hmac.new(SECRET.encode(), value.encode(), hashlib.sha256).hexdigest()


def unsign(signed: str | None) -> str | None:
    value, _, signature = (signed or "").rpartition("|")
    expected = hmac.new(SECRET.encode(), value.encode(), hashlib.sha256).hexdigest()
    return value if hmac.compare_digest(signature, expected) else None


def arguments() -> argparse.Namespace:
    """Parse ``PORT [--uvloop]`` and silence every logger below ERROR."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--uvloop", action="store_true")
    logging.basicConfig(level=logging.ERROR)
    return parser.parse_args()


def install_twisted_reactor(use_uvloop: bool) -> None:
    """Install epoll's reactor, or asyncio's on a uvloop loop."""
    if use_uvloop:
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())
    else:
        from twisted.internet import epollreactor

        epollreactor.install()
