"""Which files may be served: the checks between a path from a URL and an open file.

`cycloneish.web.static` is the only caller. All paths are checked twice: as written, before anything is
looked up on disk, and after symbolic links are resolved.

Resolving costs one system call per directory level, so a result is remembered together with the
identity of the file it led to. The next request looks that identity up with a single `stat`; the same
file needs no second check, and a path that leads somewhere else by now is resolved again.
"""

from __future__ import annotations

import functools
import os
import stat as stat_module
import threading

from cycloneish.web.errors import HTTPError

__all__ = ["directory_of", "is_directory", "open_regular", "require_regular_file", "resolve"]

_MAX_REMEMBERED = 4096

# (path as written, allowed directories) to (device, inode, time of last change, resolved path).
_resolved: dict[tuple[str, tuple[str, ...]], tuple[int, int, int, str]] = {}
_resolved_lock = threading.Lock()

# O_NONBLOCK: a FIFO that took the file's place after the check must not hold the process up.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def directory_of(root: str, absolute_path: str, shown: str) -> str:
    """Return *root* in normal form, with a separator at its end.

    Raises `HTTPError` (403) when *absolute_path*, as written, is not inside; *shown* is the path for
    the message.
    """
    # A relative root means another directory once the process has moved, so only others are remembered.
    root = _with_separator(root) if os.path.isabs(root) else _with_separator(os.path.abspath(root))
    # With the separator, /static1 is not taken for a part of /static, and the directory itself is inside.
    if not (absolute_path + os.path.sep).startswith(root):
        raise HTTPError(403, "%s is not in root static directory", shown)
    if os.name == "nt" and ":" in absolute_path[len(root) :]:
        # On NTFS, "name:stream" and "name::$DATA" are other contents of the file, never a file name.
        raise HTTPError(403, "%s is not a file", shown)
    return root


@functools.lru_cache(maxsize=256)
def _with_separator(root: str) -> str:
    root = os.path.abspath(root)
    return root if root.endswith(os.path.sep) else root + os.path.sep  # only "/" itself does


def resolve(path: str, allowed: tuple[str, ...], shown: str) -> tuple[str, os.stat_result | None]:
    """Follow the symbolic links of *path*.

    Returns where it leads, and the `stat` of that, or None if there is nothing or nothing that may be read.

    Raises `HTTPError` (403) when it leads out of the *allowed* directories, whether or not something is
    there.
    """
    try:
        stat = os.stat(path)
    except ValueError:  # NUL or a lone surrogate: no file can have such a name
        return path, None
    except OSError:
        stat = None
    key = (path, allowed)
    if stat is not None:
        known = _resolved.get(key)
        if known is not None and known[:3] == (stat.st_dev, stat.st_ino, stat.st_ctime_ns):
            return known[3], stat
    target = os.path.realpath(path)
    if not any((target + os.path.sep).startswith(_real_directory(directory)) for directory in allowed):
        raise HTTPError(403, "%s is not in root static directory", shown)
    if stat is None:
        return target, None
    try:
        # Not the stat from above: the link may have been turned between the two looks.
        stat = os.stat(target)
    except OSError:
        return target, None
    if not os.access(target, os.R_OK):
        # Told apart from a missing file, it could be probed for.
        return target, None
    with _resolved_lock:
        _resolved.pop(key, None)
        while len(_resolved) >= _MAX_REMEMBERED:
            del _resolved[next(iter(_resolved))]
        _resolved[key] = (stat.st_dev, stat.st_ino, stat.st_ctime_ns, target)
    return target, stat


def _real_directory(directory: str) -> str:
    resolved = os.path.realpath(directory)
    return resolved if resolved.endswith(os.path.sep) else resolved + os.path.sep


def is_directory(stat: os.stat_result) -> bool:
    """Whether *stat* is that of a directory."""
    return stat_module.S_ISDIR(stat.st_mode)


def require_regular_file(stat: os.stat_result | None, shown: str) -> os.stat_result:
    """Return *stat*; raise `HTTPError` (404) for None and (403) for anything but a regular file."""
    if stat is None:
        raise HTTPError(404)
    if not stat_module.S_ISREG(stat.st_mode):
        raise HTTPError(403, "%s is not a file", shown)
    return stat


def open_regular(path: str) -> int:
    """Open the regular file at *path* for reading and return its descriptor.

    Raises `HTTPError`: 404 if it is missing or may not be read, 403 if it is no regular file; such a
    thing is not opened.
    """
    try:
        require_regular_file(os.stat(path), path)
        file = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError):
        raise HTTPError(404) from None
    try:
        require_regular_file(os.fstat(file), path)
    except BaseException:
        os.close(file)
        raise
    return file
