"""Small tools under every other module: late imports, class configuration, bounded gunzip, argument surgery.

Called by the HTTP engine and the client (``GzipDecompressor``), by websocket (the frame mask), by
routing and the plugin (``import_object``, ``re_unescape``) and by whatever is configurable at run time.
The names are those of Tornado's ``tornado.util``.
"""

from __future__ import annotations

import datetime
import inspect
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, TracebackType
from typing import Any, NoReturn, TypeVar

__all__ = [
    "ArgReplacer",
    "Configurable",
    "GzipDecompressor",
    "ObjectDict",
    "TimeoutError",
    "basestring_type",
    "bytes_type",
    "doctests",
    "errno_from_exception",
    "exec_in",
    "import_object",
    "is_finalizing",
    "raise_exc_info",
    "re_unescape",
    "timedelta_to_seconds",
    "unicode_type",
]

bytes_type = bytes
unicode_type = str
basestring_type = str

#: The builtin one, under the name by which Tornado programs import it.
TimeoutError = TimeoutError  # noqa: A001

#: True while the interpreter shuts down (Tornado 4.2 offered it before Python did).
is_finalizing = sys.is_finalizing

_T = TypeVar("_T")


class ObjectDict(dict[str, Any]):
    """A dict whose string keys are attributes too: ``d.name`` is ``d["name"]``.

    A missing key read as an attribute raises `AttributeError`, so ``hasattr`` and ``getattr`` with a
    default work. Counterpart: ``tornado.util.ObjectDict``.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class GzipDecompressor:
    """Gunzips a stream piece by piece, never giving more than asked for (RFC 1952).

    All members of a stream are read one after the other. Bytes after the last member that begin no
    further one, and a stream that stops inside a member, are errors. Counterpart:
    ``tornado.util.GzipDecompressor``.

    Example::

        gunzip = GzipDecompressor()
        for chunk in chunks:
            while chunk:
                consume(gunzip.decompress(chunk, max_length=65536))
                chunk = gunzip.unconsumed_tail
        gunzip.flush()
    """

    # zlib copies the input behind the end of a member. A stream of thousands of tiny members would make
    # it copy the whole chunk for each of them; small portions keep that copy small.
    _PORTION = 4096
    _MAGIC = b"\x1f\x8b"

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._tail = b""

    def decompress(self, value: bytes, max_length: int = 0) -> bytes:
        """Return what ``value`` inflates to, ``max_length`` bytes of it at most.

        :param value: the next compressed bytes, beginning with what `unconsumed_tail` held.
        :param max_length: most bytes to return. 0, which is deprecated, means no limit.
        :raises zlib.error: if this is no gzip stream, or a damaged one.

        When `unconsumed_tail` is not empty afterwards, it has to be passed in again. The result may be
        empty even then.
        """
        if not max_length:
            warnings.warn(
                "decompress() without max_length lets a small input fill the memory",
                DeprecationWarning,
                stacklevel=2,
            )
        view = memoryview(value)
        size = len(view)
        position = 0
        room = max_length
        pieces: list[bytes] = []
        while position < size:
            portion = view[position : position + self._PORTION]
            member = self._member
            if member is None:
                start = bytes(portion[:2])
                if not self._MAGIC.startswith(start):
                    raise zlib.error(f"a gzip member starts with 1f 8b, this one with {start.hex(' ')}")
                member = self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            piece = member.decompress(portion, room)
            if member.eof:
                # unconsumed_tail is not reliable once the member has ended; unused_data is.
                left = len(member.unused_data)
                self._member = None
            else:
                left = len(member.unconsumed_tail)
            position += len(portion) - left
            if piece:
                pieces.append(piece)
                if max_length:
                    room -= len(piece)
                    if not room:
                        break
        self._tail = bytes(view[position:])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def unconsumed_tail(self) -> bytes:
        """Input that ``max_length`` held back; pass it to the next `decompress`."""
        return self._tail

    def flush(self) -> bytes:
        """Check that the stream ended where a gzip stream may end; always returns ``b""``.

        :raises zlib.error: if the last member is not complete.
        :raises ValueError: if `unconsumed_tail` still waits to be read.
        """
        if self._tail:
            raise ValueError("flush() before unconsumed_tail was passed back to decompress()")
        if self._member is not None:
            raise zlib.error("the gzip stream ends inside a member")
        return b""


def import_object(name: str) -> Any:
    """Import by dotted name: a module, or something inside one.

    :param name: ``"package.module"`` or ``"package.module.Thing"``.
    :raises ImportError: when there is no such module, or no such name in it.
    """
    module_name, dot, attribute = name.rpartition(".")
    if not dot:
        return __import__(name)
    module = __import__(module_name, fromlist=[attribute])
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ImportError(f"{module_name!r} has no module or name {attribute!r}") from None


def exec_in(code: str | CodeType, glob: dict[str, Any], loc: Mapping[str, Any] | None = None) -> None:
    """Run ``code`` with the namespaces given, untouched by this module's ``__future__`` imports."""
    if isinstance(code, str):
        code = compile(code, "<string>", "exec", dont_inherit=True)
    exec(code, glob, loc)  # noqa: S102


def raise_exc_info(
    exc_info: tuple[type[BaseException] | None, BaseException | None, TracebackType | None],
) -> NoReturn:
    """Raise what ``sys.exc_info()`` had returned, with its traceback.

    :raises TypeError: when the triple holds no exception.
    """
    try:
        _, error, traceback = exc_info
        if error is None:
            raise TypeError("raise_exc_info() got no exception to raise")
        raise error.with_traceback(traceback)
    finally:
        # The traceback refers to this frame; without this the frame would refer to the traceback.
        del exc_info, error, traceback


def errno_from_exception(e: BaseException) -> int | None:
    """The errno of an `OSError`-like exception: its attribute, else its first argument, else None."""
    try:
        return e.errno  # type: ignore[attr-defined, no-any-return]
    except AttributeError:
        return e.args[0] if e.args else None


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _unescaped(match: re.Match[str]) -> str:
    char = match[1]
    if char.isascii() and char.isalnum():
        raise ValueError(f"\\{char} has a meaning of its own in a regular expression and cannot be unescaped")
    return char


def re_unescape(s: str) -> str:
    r"""Undo `re.escape`.

    :raises ValueError: for an escape that `re.escape` never writes, such as ``\d``.
    """
    return _ESCAPED.sub(_unescaped, s)


class Configurable:
    """Base of classes whose constructor makes an object of a subclass chosen at run time.

    A hierarchy defines `configurable_base` and `configurable_default` and takes its arguments in
    ``initialize`` rather than ``__init__``. ``Base.configure(Implementation, **defaults)`` chooses;
    a subclass called by its own name is made as it is. Counterpart: ``tornado.util.Configurable``.
    """

    _configured_impl: type[Configurable] | None = None
    _configured_kwargs: dict[str, Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        base = cls.configurable_base()
        impl = cls
        if cls is base:
            impl = cls.configured_class()
            kwargs = {**(vars(base).get("_configured_kwargs") or {}), **kwargs}
        if impl.configurable_base() is not base:
            # The chosen class heads a hierarchy of its own, and chooses in turn.
            return impl(*args, **kwargs)
        instance = super().__new__(impl)
        instance.initialize(*args, **kwargs)
        return instance

    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        """The class at the head of the hierarchy; to be overridden by that class."""
        raise NotImplementedError

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        """The implementation used when none was configured; to be overridden."""
        raise NotImplementedError

    def _initialize(self) -> None:
        pass

    #: Takes the constructor's arguments. An attribute rather than a method, so that subclasses may
    #: declare whatever parameters they have.
    initialize: Callable[..., None] = _initialize

    @classmethod
    def configure(cls, impl: str | type[Configurable] | None, **kwargs: Any) -> None:
        """Choose the implementation behind this class.

        :param impl: a subclass, its dotted name, or None for the default one.
        :param kwargs: defaults for its ``initialize``; what the caller passes goes before them.
        :raises ValueError: if ``impl`` is no subclass of this class.
        """
        base = cls.configurable_base()
        if isinstance(impl, str):
            impl = import_object(impl)
        if impl is not None and not (isinstance(impl, type) and issubclass(impl, cls)):
            raise ValueError(f"{impl!r} is not a subclass of {cls!r}")
        base._configured_impl = impl
        base._configured_kwargs = kwargs

    @classmethod
    def configured_class(cls) -> type[Configurable]:
        """The implementation in force."""
        base = cls.configurable_base()
        # vars(), not getattr: a hierarchy nested in another must not inherit the outer choice.
        impl: type[Configurable] | None = vars(base).get("_configured_impl")
        if impl is None:
            impl = base._configured_impl = cls.configurable_default()
        return impl

    @classmethod
    def _save_configuration(cls) -> tuple[type[Configurable] | None, dict[str, Any] | None]:
        own = vars(cls.configurable_base())
        return own.get("_configured_impl"), own.get("_configured_kwargs")

    @classmethod
    def _restore_configuration(cls, saved: tuple[type[Configurable] | None, dict[str, Any] | None]) -> None:
        base = cls.configurable_base()
        base._configured_impl, base._configured_kwargs = saved


class ArgReplacer:
    """Reads and replaces one argument of a call held as ``args, kwargs``, however it was passed.

    :param func: the function to be called; its signature says where the argument may stand.
    :param name: the argument's name.

    For decorators that wrap a callback argument. Counterpart: ``tornado.util.ArgReplacer``.
    """

    def __init__(self, func: Callable[..., Any], name: str) -> None:
        self.name = name
        names = inspect.getfullargspec(func).args
        self.arg_pos: int | None = names.index(name) if name in names else None

    def _is_positional(self, args: Sequence[Any]) -> bool:
        return self.arg_pos is not None and self.arg_pos < len(args)

    def get_old_value(self, args: Sequence[Any], kwargs: dict[str, Any], default: Any = None) -> Any:
        """The argument's value in this call, ``default`` if it is not given."""
        if self._is_positional(args):
            return args[self.arg_pos]  # type: ignore[index]
        return kwargs.get(self.name, default)

    def replace(
        self, new_value: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Any, Sequence[Any], dict[str, Any]]:
        """Put ``new_value`` in its place.

        Returns ``(old_value, args, kwargs)``. ``kwargs`` is changed in place; ``args`` is copied into a
        list where it has to change. An argument that was not given is added to ``kwargs``, and its old
        value is None.
        """
        if self._is_positional(args):
            changed = list(args)
            old_value, changed[self.arg_pos] = changed[self.arg_pos], new_value  # type: ignore[index]
            return old_value, changed, kwargs
        old_value = kwargs.get(self.name)
        kwargs[self.name] = new_value
        return old_value, args, kwargs


def timedelta_to_seconds(td: datetime.timedelta) -> float:
    """``td.total_seconds()``."""
    return td.total_seconds()


def _websocket_mask_python(mask: bytes, data: bytes) -> bytes:
    """XOR ``data`` with the 4 bytes of ``mask``, over and over (RFC 6455, section 5.3).

    One addition-free operation on two long integers is two orders of magnitude faster than a loop over
    the bytes, and as fast as most C extensions for messages of the usual sizes.

    :raises ValueError: if the mask is not 4 bytes long.
    """
    if len(mask) != 4:
        raise ValueError(f"a WebSocket mask has 4 bytes, not {len(mask)}")
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


_websocket_mask = _websocket_mask_python


def doctests(module: str = __name__) -> Any:
    """The examples in the docstrings of a module as a suite for ``unittest``; Tornado has this for its own.

    :param module: its dotted name.
    """
    # Only tests need it, and it brings much with it.
    import doctest

    return doctest.DocTestSuite(sys.modules[module])
