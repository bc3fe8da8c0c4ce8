"""What a template consists of once it is parsed.

:mod:`cycloneish.template.parser` makes these, :mod:`cycloneish.template.compiler` turns them into Python.
They hold no behaviour, so that both can be read without the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

__all__ = [
    "Apply",
    "Block",
    "Control",
    "Expression",
    "Extends",
    "File",
    "Include",
    "Intermediate",
    "Node",
    "ParseError",
    "Position",
    "Statement",
    "TemplateError",
    "TemplateSyntaxError",
    "Text",
]


class TemplateError(Exception):
    """What this package raises about a template (Cyclone's name)."""


class ParseError(TemplateError):
    """A template does not follow the language.

    :ivar message: what is wrong.
    :ivar filename: the template's name, or None.
    :ivar lineno: its line, counted from 1; 0 when not known.

    Tornado: ``tornado.template.ParseError``.
    """

    def __init__(self, message: str, filename: str | None = None, lineno: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.filename = filename
        self.lineno = lineno

    def __str__(self) -> str:
        return f"{self.message} at {self.filename}:{self.lineno}"


class TemplateSyntaxError(ParseError, SyntaxError):  # type: ignore[misc]  # lineno is never None here
    """The Python inside a tag does not compile.

    It is a :exc:`SyntaxError` too, which is what Tornado raises, but file, line and text are those of the
    template.
    """

    def __init__(self, message: str, filename: str, lineno: int, offset: int, text: str) -> None:
        super().__init__(message, filename, lineno)
        self.msg = message
        self.offset = offset
        self.text = text


class Position(NamedTuple):
    """Where a tag stands: its line from 1, and its first and one-past-last column on that line, from 0."""

    line: int
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Text:
    """Literal output, whitespace already filtered."""

    value: str


@dataclass(slots=True, eq=False)
class Expression:
    """``{{ ... }}``, ``{% raw ... %}`` and ``{% module ... %}``. ``raw`` is never escaped."""

    source: str
    position: Position
    raw: bool = False


@dataclass(slots=True, eq=False)
class Statement:
    """A whole Python statement: set, import, from, break, continue."""

    source: str
    position: Position


@dataclass(slots=True, eq=False)
class Intermediate:
    """else, elif, except or finally: ends one suite of its parent and begins the next."""

    source: str
    position: Position


@dataclass(slots=True, eq=False)
class Control:
    """A compound statement, its suites divided by :class:`Intermediate` nodes."""

    operator: str
    source: str
    position: Position
    body: list[Node]


@dataclass(slots=True, eq=False)
class Apply:
    """The output of ``body`` goes through the function that ``method`` evaluates to."""

    method: str
    position: Position
    body: list[Node]


@dataclass(slots=True, eq=False)
class Block:
    """A named part that templates further down the line of ``extends`` may replace."""

    name: str
    position: Position
    body: list[Node]
    file: File


@dataclass(slots=True, eq=False)
class Include:
    """Another template's text in this place, seeing this place's variables."""

    name: str
    position: Position


@dataclass(slots=True, eq=False)
class Extends:
    """The template whose blocks this one replaces."""

    name: str
    position: Position


Node: TypeAlias = Text | Expression | Statement | Intermediate | Control | Apply | Block | Include


@dataclass(slots=True, eq=False)
class File:
    """One parsed template.

    :ivar path: what tracebacks name: the file on disk, or an invented name for a template that has none.
    :ivar on_disk: whether ``path`` can be opened, so that tracebacks read the text from there.
    :ivar autoescape: name of the escaping function that holds for the whole file, or None.
    """

    name: str
    path: str
    text: str
    autoescape: str | None
    on_disk: bool = False
    extends: Extends | None = None
    body: list[Node] = field(default_factory=list)
