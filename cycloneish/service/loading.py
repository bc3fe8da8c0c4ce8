"""From ``package.module:name`` to something that answers requests; used by the two commands.

Importing (:func:`load_object`) happens before the reactor runs, so that a mistake shows on the terminal;
calling a factory (:func:`make_app`) happens when the service starts, as it may need the reactor.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IProtocolFactory

from cycloneish.coroutines import as_deferred
from cycloneish.httputil import HTTPServerConnectionDelegate

__all__ = ["AppNotFound", "NotAnApp", "import_problem", "is_app", "load_object", "make_app"]

_THIS_FILE = Path(__file__)


class AppNotFound(Exception):
    """The module was imported, and the name is not in it."""


class NotAnApp(TypeError):
    """What a name or a factory gave cannot answer requests."""


def load_object(name: str) -> Any:
    """Import what *name* stands for, with the current directory in the module search path.

    :param name: ``package.module:name``; the part after the colon may have dots.
    :raises AppNotFound: when the module has no such name.
    :raises Exception: whatever importing the module raises.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    module_name, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module_name)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise AppNotFound(
                f"{name}: there is no {attribute!r} in {module_name}; it has {_public_names(found)}"
            ) from None
    return found


def _public_names(module: object) -> str:
    names = [name for name in vars(module) if not name.startswith("_")] if hasattr(module, "__dict__") else []
    return ", ".join(names[:20]) or "no public names"


def is_app(found: object) -> bool:
    """Whether *found* can be served as it is: a delegate, as an ``Application`` is, or a protocol factory."""
    return isinstance(found, HTTPServerConnectionDelegate) or IProtocolFactory.providedBy(found)


@inlineCallbacks
def make_app(
    found: object, name: str, factory_options: dict[str, Any]
) -> Generator[Deferred[Any], Any, HTTPServerConnectionDelegate | Any]:
    """The application itself, where *found* is one or a function that makes one.

    :param found: what :func:`load_object` gave.
    :param name: how the user wrote it, for messages.
    :param factory_options: keyword arguments for the function.
    :returns: a Deferred with the application; the function may return an awaitable.
    :raises NotAnApp: (through the Deferred) when it is neither.
    """
    if is_app(found):
        return found
    if not callable(found):
        raise NotAnApp(f"{name} is {found!r}, neither an Application nor a function that makes one")
    _check_arguments(found, name, factory_options)
    app = yield as_deferred(found(**factory_options))
    if app is None:
        raise NotAnApp(f"{name} gave None: does it return the application?")
    if not is_app(app):
        raise NotAnApp(f"{name} gave {app!r}, which is no Application")
    return app


def _check_arguments(factory: Callable[..., Any], name: str, factory_options: dict[str, Any]) -> None:
    """Tell a factory that wants arguments, or a class that is none, from one that fails inside."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # written in C, and does not say
    try:
        signature.bind(**factory_options)
    except TypeError as error:
        raise NotAnApp(f"{name} cannot be called the way --app does it: {error}") from None


def import_problem(error: BaseException) -> str:
    """The traceback of a failed import from the user's first line on, without our frames and importlib's."""
    frames = error.__traceback__
    while frames is not None and Path(frames.tb_frame.f_code.co_filename) != _THIS_FILE:
        frames = frames.tb_next
    while frames is not None and _is_machinery(frames):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _is_machinery(frame: TracebackType) -> bool:
    file = Path(frame.tb_frame.f_code.co_filename)
    return file == _THIS_FILE or "importlib" in file.parts or file.name.startswith("<frozen importlib")


#: A function that makes an application, or an application.
AppSource = Callable[..., Any] | HTTPServerConnectionDelegate
