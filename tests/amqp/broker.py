"""A real RabbitMQ for tests: one private server for the whole run, stopped at its end, however that comes.

:func:`shared_url` starts it at the first call; :class:`RabbitMQ` is a server of one's own, to be killed.
"""

from __future__ import annotations

import atexit
import ctypes
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.testing.certificates import self_signed_certificate

_PARENT_DIED = 1  # PR_SET_PDEATHSIG
_shared: RabbitMQ | None = None


def program() -> str | None:
    """The server's own script; Debian's wrapper in the path insists on another user."""
    found = sorted(glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    return found[-1] if found else shutil.which("rabbitmq-server")


MISSING = None if program() else "RabbitMQ is not installed (on Debian: apt-get install rabbitmq-server)"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _dies_with_parent() -> None:
    try:
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
    except (OSError, AttributeError):
        pass  # not Linux: atexit has to do


class RabbitMQ:
    """A server with its data in a temporary directory; it can be killed and started again."""

    def __init__(self, tls: bool = False) -> None:
        self.directory = tempfile.mkdtemp(prefix="cycloneish-rabbitmq-")
        self.port = free_port()
        self.tls_port = free_port() if tls else 0
        self.process: subprocess.Popen[bytes] | None = None
        path = self.path("rabbitmq.conf")
        with open(path, "w") as file:
            file.write("disk_free_limit.absolute = 1MB\n")
            if tls:
                certificate, key = self_signed_certificate()
                file.write(f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n")
                file.write(f"ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n")
                file.write("ssl_options.verify = verify_none\n")
        epmd = str(free_port())
        name = f"cycloneish{os.getpid()}x{self.port}@localhost"
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": self.directory,
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": epmd,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": self.path("mnesia"),
            "RABBITMQ_LOG_BASE": self.path("log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": path,
            "RABBITMQ_CONF_ENV_FILE": self.path("none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.path("plugins"),
            # The script becomes the server instead of staying its parent.
            "RABBITMQ_ALLOW_INPUT": "1",
        }
        self._epmd = subprocess.Popen(
            [shutil.which("epmd") or "epmd", "-port", epmd, "-address", "127.0.0.1"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_dies_with_parent,
        )
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        """How to reach it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def path(self, name: str) -> str:
        """A file of the server."""
        return os.path.join(self.directory, name)

    def start(self) -> None:
        """Start the server without waiting for it."""
        command = program()
        assert command is not None
        with open(self.path("output"), "ab") as output:
            self.process = subprocess.Popen(
                [command, "-noinput"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_dies_with_parent,
            )

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def wait(self, seconds: float = 120.0) -> None:
        """Wait until it takes connections."""
        end = time.monotonic() + seconds
        while not self.answers():
            died = self.process is None or self.process.poll() is not None
            if died or time.monotonic() > end:
                with open(self.path("output"), errors="replace") as output:
                    raise AssertionError(f"RabbitMQ did not start:\n{output.read()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As a power cut does."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        """The end of it and of its data."""
        atexit.unregister(self.remove)
        self.kill()
        self._epmd.kill()
        self._epmd.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def shared() -> RabbitMQ:
    """The run's server; started at the first call."""
    global _shared
    if _shared is None:
        _shared = RabbitMQ(tls=True)
        _shared.start()
        _shared.wait()
    return _shared


def shared_url() -> str:
    """The URL of the run's server."""
    return shared().url


def sleep(seconds: float) -> Deferred[None]:
    """Fires after *seconds*."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, seconds, lambda: None)


async def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until *condition* is true; fail after *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"did not come true within {seconds} s")
        await sleep(0.01)
