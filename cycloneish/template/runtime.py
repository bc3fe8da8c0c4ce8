"""What generated template code calls while it runs, and what makes its tracebacks readable.

The functions here are handed to the generated function by :class:`~cycloneish.template.Template`.
"""

from __future__ import annotations

import ast
import linecache
from types import FrameType, TracebackType
from typing import Any

from cycloneish.escape import xhtml_escape
from cycloneish.template.compiler import Code, Site, describe

__all__ = ["Source", "as_bytes", "as_raw", "as_text", "join", "join_escaped", "template_traceback"]


class _Undecodable(str):
    """Bytes that are not UTF-8, kept as text with surrogates until everything is joined."""

    __slots__ = ()


def as_text(value: object) -> str:
    """Make text of an expression's value that is no plain ``str``.

    :raises UnicodeDecodeError: for bytes that are not UTF-8, since they cannot be escaped.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        # A subclass counts with its characters, whatever its __str__ says.
        return str.__str__(value)
    return str(value)


def as_raw(value: object) -> str:
    """As :func:`as_text`, for output that is not escaped: bytes of any kind go through unchanged."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return _Undecodable(value, "utf-8", "surrogateescape")
    if isinstance(value, str):
        return str.__str__(value)
    return str(value)


def as_bytes(value: object) -> bytes:
    """What an ``{% autoescape %}`` function of the application is given."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else str(value).encode()


def join(pieces: list[str]) -> bytes:
    """Join the output."""
    try:
        return "".join(pieces).encode()
    except UnicodeEncodeError:
        return b"".join(
            piece.encode("utf-8", "surrogateescape" if type(piece) is _Undecodable else "strict")
            for piece in pieces
        )


def join_escaped(pieces: list[str]) -> bytes:
    """Join the output, pieces at odd places escaped.

    They are escaped in one string, divided by NUL, which escaping leaves alone: that costs five searches for
    all of them instead of five for each.
    """
    values = pieces[1::2]
    together = "\0".join(values)
    escaped = xhtml_escape(together)
    if escaped != together:
        parts = escaped.split("\0")
        if len(parts) != len(values):  # a value has a NUL in it
            parts = [xhtml_escape(value) for value in values]
        pieces[1::2] = parts
    return join(pieces)


class Source:
    """Where the lines of a template's generated code come from.

    It stands as ``__loader__`` in the namespace of that code, by which :mod:`linecache` finds the generated
    text, and :func:`template_traceback` the template's.
    """

    def __init__(self, filename: str, code: Code) -> None:
        self.filename = filename
        self._code = code

    def get_source(self, _name: str) -> str:
        """The generated code (PEP 302)."""
        return self._code.source

    def sites(self, line: int) -> tuple[Site, ...]:
        """The places in templates that line ``line`` of the code comes from, the outermost first."""
        sites = self._code.sites
        return sites[line - 1] if 0 < line <= len(sites) else ()


def template_traceback(error: BaseException, traceback: TracebackType | None) -> TracebackType | None:
    """Rewrite a traceback so that frames of generated code become frames of the templates.

    Each place passed on the way (a base template, the include, the block) is a frame of its own with the
    template's file, line, text and variables.

    :param error: the exception under way; its ``__traceback__`` is left changed, set it to the result.
    :param traceback: its traceback from the generated code on.
    """
    entries: list[TracebackType] = []
    while traceback is not None:
        frame = traceback.tb_frame
        source = frame.f_globals.get("__loader__")
        sites: tuple[Site, ...] = ()
        if isinstance(source, Source) and frame.f_code.co_filename == source.filename:
            sites = source.sites(traceback.tb_lineno)
        if sites:
            variables = _variables(frame)
            for depth in range(1, len(sites) + 1):
                entries.append(_entry_at(error, sites[:depth], variables))
        else:
            entries.append(traceback)
        traceback = traceback.tb_next
    result: TracebackType | None = None
    for entry in reversed(entries):
        result = TracebackType(result, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return result


def _variables(frame: FrameType) -> dict[str, Any]:
    return {name: value for name, value in frame.f_locals.items() if not name.startswith("_tt_")}


def _entry_at(error: BaseException, chain: tuple[Site, ...], variables: dict[str, Any]) -> TracebackType:
    """A traceback entry whose frame stands in a template: raise there what was raised."""
    file, position, label = chain[-1]
    lines = file.text.split("\n")
    text = lines[position.line - 1]
    if not file.on_disk:
        linecache.cache[file.path] = (len(file.text), None, [f"{line}\n" for line in lines], file.path)
    place = {
        "lineno": position.line,
        "end_lineno": position.line,
        # The compiler counts bytes. The columns put the carets of the traceback under the tag.
        "col_offset": len(text[: position.start].encode()),
        "end_col_offset": len(text[: position.end].encode()),
    }
    raising = ast.Raise(exc=ast.Name("_tt_error", ast.Load(), **place), cause=None, **place)
    code = compile(ast.Module([raising], []), file.path, "exec")
    name = f"{label}  # {describe(chain)}"
    code = code.replace(co_name=name, co_qualname=name)
    try:
        exec(code, {"__name__": file.name, "_tt_error": error}, dict(variables))  # noqa: S102 - made above
    except BaseException as raised:
        entry = raised.__traceback__
        # The first entry is this function's, the second the template's.
        if raised is error and entry is not None and entry.tb_next is not None:
            return entry.tb_next
        raise
    raise AssertionError("the raise statement did not raise")
