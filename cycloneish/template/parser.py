"""The template language: from text to nodes.

:class:`~cycloneish.template.Template` calls :func:`parse` once for each template. The Python in the tags
is parsed here as well, one tag at a time, so that a mistake is reported where it stands.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from typing import NoReturn

from cycloneish.template.nodes import (
    Apply,
    Block,
    Control,
    Expression,
    Extends,
    File,
    Include,
    Intermediate,
    Node,
    ParseError,
    Position,
    Statement,
    TemplateSyntaxError,
    Text,
)

__all__ = ["filter_whitespace", "parse"]

# Of three or more braces in a row the innermost two open a tag, so that LaTeX and the like can be written.
_TAG = re.compile(r"\{\{(?!\{)|\{%|\{#")
_CLOSING = {"{{": ("}}", "expression"), "{%": ("%}", "block"), "{#": ("#}", "comment")}
_BLANKS = re.compile(r"[\t ]+")
_LINE_ENDS = re.compile(r"\s*\n\s*")
_SPACES = re.compile(r"\s+")

_PARENTS = {
    "else": frozenset({"if", "for", "while", "try"}),
    "elif": frozenset({"if"}),
    "except": frozenset({"try"}),
    "finally": frozenset({"try"}),
}
# Where an expression may run over several lines, as the compiler puts it in brackets.
_BRACKETABLE = frozenset({"eval", "if", "elif", "while"})
_LOOPS = frozenset({"for", "while"})
_COMPOUND = frozenset({"apply", "block", "for", "if", "try", "while"})
# What an operator needs after it, for the message when it is not there.
_NEEDS = {
    "apply": "a function name",
    "block": "a name",
    "extends": "a file path",
    "from": "a statement",
    "import": "a statement",
    "include": "a file path",
    "module": "an expression",
    "raw": "an expression",
    "set": "a statement",
}


def filter_whitespace(mode: str, text: str) -> str:
    """Reduce the white space of literal template text.

    :param mode: ``"all"`` keeps it, ``"single"`` makes every run one space, or one line end if there was one,
        ``"oneline"`` makes every run one space.
    :raises ValueError: for another mode.

    Tornado: ``tornado.template.filter_whitespace``.
    """
    if mode == "all":
        return text
    if mode == "single":
        return _LINE_ENDS.sub("\n", _BLANKS.sub(" ", text))
    if mode == "oneline":
        return _SPACES.sub(" ", text)
    raise ValueError(f"invalid whitespace mode {mode!r}: use 'all', 'single' or 'oneline'")


class _Open:
    """A compound tag that waits for its ``{% end %}``."""

    __slots__ = ("body", "in_loop", "operator", "position", "source", "suffix")

    def __init__(self, operator: str, source: str, suffix: str, position: Position, in_loop: bool) -> None:
        self.operator = operator
        self.source = source
        self.suffix = suffix
        self.position = position
        self.in_loop = in_loop
        self.body: list[Node] = []


class _Parser:
    def __init__(self, file: File, whitespace: str) -> None:
        self._file = file
        self._text = file.text
        self._whitespace = whitespace
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", file.text))]
        self._open: list[_Open] = []
        self._body = file.body

    def run(self) -> None:
        text = self._text
        at = 0
        while (tag := _TAG.search(text, at)) is not None:
            self._add_text(text[at : tag.start()])
            brace = tag.group()
            start = tag.end()
            if text.startswith("!", start):
                self._body.append(Text(brace))
                at = start + 1
                continue
            closing, what = _CLOSING[brace]
            end = text.find(closing, start)
            if end < 0:
                self._fail(f"Missing end {what} {closing}", self._position(tag.start(), start))
            at = end + 2
            if brace == "{#":
                continue
            contents = text[start:end].strip()
            position = self._position(tag.start(), at)
            if not contents:
                self._fail("Empty expression" if brace == "{{" else "Empty block tag ({% %})", position)
            start += len(text[start:end]) - len(text[start:end].lstrip())
            if brace == "{{":
                self._check(contents, "eval", start, position)
                self._body.append(Expression(contents, position))
            else:
                self._tag(contents, start, position)
        self._add_text(text[at:])
        if self._open:
            unended = self._open[-1]
            self._fail(f"Missing {{% end %}} block for {unended.operator}", unended.position)

    def _tag(self, contents: str, start: int, position: Position) -> None:
        """Handle one ``{% %}`` whose stripped text begins at index ``start``."""
        operator, _, suffix = contents.partition(" ")
        if operator.split(maxsplit=1)[0] != operator:  # another white space than " " after the operator
            operator, suffix = contents.split(maxsplit=1)
        suffix = suffix.strip()
        suffix_start = start + len(contents) - len(suffix)
        if not suffix and operator in _NEEDS:
            self._fail(f"{operator} needs {_NEEDS[operator]}", position)

        if operator in _PARENTS:
            self._intermediate(operator, contents, start, position)
        elif operator == "end":
            self._end(position)
        elif operator in _COMPOUND:
            if operator not in ("apply", "block"):
                self._check(contents, operator, start, position)
            elif operator == "apply":
                self._check(suffix, "eval", suffix_start, position)
            in_loop = operator in _LOOPS or (operator != "apply" and self._in_loop())
            self._open.append(_Open(operator, contents, suffix, position, in_loop))
            self._body = self._open[-1].body
        elif operator in ("break", "continue"):
            if not self._in_loop():
                self._fail(f"{operator} outside of a for or while block", position)
            self._body.append(Statement(operator, position))
        elif operator == "set":
            self._check(suffix, "exec", suffix_start, position)
            self._body.append(Statement(suffix, position))
        elif operator in ("import", "from"):
            self._check(contents, "exec", start, position)
            self._body.append(Statement(contents, position))
        elif operator == "raw":
            self._check(suffix, "eval", suffix_start, position)
            self._body.append(Expression(suffix, position, raw=True))
        elif operator == "module":
            self._check(suffix, "eval", suffix_start, position)
            self._body.append(Expression(f"_tt_modules.{suffix}", position, raw=True))
        elif operator == "include":
            self._body.append(Include(_unquote(suffix), position))
        elif operator == "extends":
            self._extends(_unquote(suffix), position)
        elif operator == "autoescape":
            self._file.autoescape = None if suffix == "None" else suffix
            if suffix != "None":
                self._check(suffix, "eval", suffix_start, position)
        elif operator == "whitespace":
            try:
                filter_whitespace(suffix, "")
            except ValueError as error:
                self._fail(str(error), position)
            self._whitespace = suffix
        elif operator != "comment":
            self._fail(f"unknown operator: {operator!r}", position)

    def _intermediate(self, operator: str, contents: str, start: int, position: Position) -> None:
        parents = _PARENTS[operator]
        names = " or ".join(sorted(parents))
        if not self._open:
            self._fail(f"{operator} outside of a {names} block", position)
        parent = self._open[-1].operator
        if parent not in parents:
            self._fail(f"{operator} belongs in a {names} block, not in {parent}", position)
        self._check(contents, operator, start, position)
        self._body.append(Intermediate(contents, position))

    def _end(self, position: Position) -> None:
        if not self._open:
            self._fail("Extra {% end %} block", position)
        done = self._open.pop()
        self._body = self._open[-1].body if self._open else self._file.body
        if done.operator == "apply":
            self._body.append(Apply(done.suffix, done.position, done.body))
        elif done.operator == "block":
            self._body.append(Block(done.suffix, done.position, done.body, self._file))
        else:
            self._body.append(Control(done.operator, done.source, done.position, done.body))

    def _extends(self, name: str, position: Position) -> None:
        if self._open:
            self._fail(f"extends cannot stand inside a {self._open[-1].operator} block", position)
        if self._file.extends is not None:
            self._fail(f"a second extends; the first is in line {self._file.extends.position.line}", position)
        self._file.extends = Extends(name, position)

    def _in_loop(self) -> bool:
        return bool(self._open) and self._open[-1].in_loop

    def _add_text(self, value: str) -> None:
        if "<pre>" not in value:  # what is preformatted stays so; the test is as crude as Tornado's
            value = filter_whitespace(self._whitespace, value)
        if value:
            self._body.append(Text(value))

    def _position(self, start: int, end: int) -> Position:
        line = bisect_right(self._line_starts, start)
        line_start = self._line_starts[line - 1]
        line_end = self._text.find("\n", start)
        if line_end < 0:
            line_end = len(self._text)
        return Position(line, start - line_start, min(end, line_end) - line_start)

    def _check(self, source: str, kind: str, start: int, position: Position) -> None:
        """Let Python parse one tag's text, and put its complaint in terms of the template."""
        before, after, mode = _FRAMES.get(kind, ("", ":\n pass", "exec"))
        added_lines = before.count("\n")
        try:
            ast.parse(f"{before}{source}{after}", mode=mode)
        except (SyntaxError, ValueError) as error:
            condition = source if kind == "eval" else source[len(kind) :]
            if kind in _BRACKETABLE and "\n" in source and _parses_in_brackets(condition):
                return
            line, column = position.line, position.start + 1
            if isinstance(error, SyntaxError) and error.lineno and error.lineno > added_lines:
                where = self._position(start, start)
                line = where.line + error.lineno - 1 - added_lines
                if error.offset and error.lineno == 1 + added_lines:
                    column = where.start + error.offset - (0 if added_lines else len(before))
            message = error.msg if isinstance(error, SyntaxError) else str(error)
            lines = self._text.split("\n")
            line = min(line, len(lines))
            raise TemplateSyntaxError(message, self._file.name, line, column, lines[line - 1]) from None

    def _fail(self, message: str, position: Position) -> NoReturn:
        raise ParseError(message, self._file.name, position.line)


# How the text of a tag is completed so that Python can parse it alone: before, after, mode.
_FRAMES = {
    "eval": ("", "", "eval"),
    "exec": ("", "", "exec"),
    "elif": ("if 1:\n pass\n", ":\n pass", "exec"),
    "else": ("if 1:\n pass\n", ":\n pass", "exec"),
    "except": ("try:\n pass\n", ":\n pass", "exec"),
    "finally": ("try:\n pass\n", ":\n pass", "exec"),
    "try": ("", ":\n pass\nfinally:\n pass", "exec"),
}


def _parses_in_brackets(source: str) -> bool:
    try:
        ast.parse(f"({source}\n)", mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _unquote(path: str) -> str:
    return path.strip('"').strip("'")


def parse(file: File, whitespace: str) -> None:
    """Fill ``file.body``, ``file.extends`` and ``file.autoescape`` from ``file.text``.

    :param whitespace: the mode that holds until a ``{% whitespace %}`` tag, see :func:`filter_whitespace`.
    :raises ParseError: with the template's name and line.
    """
    _Parser(file, whitespace).run()
