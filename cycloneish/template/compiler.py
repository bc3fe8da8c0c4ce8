"""From nodes to Python source.

:class:`~cycloneish.template.Template` calls :func:`generate`. What comes out is one function that
collects its output in a list and joins it at the end::

    def _tt_execute(_tt_out, _tt_type, _tt_str, _tt_text, _tt_raw, _tt_bytes, _tt_join, _tt_join_escaped):
        for row in rows:  # page.html:3
            _tt_out += (
                '<tr><td>',
                _tt_v if _tt_type(_tt_v := (row.name)) is _tt_str else _tt_text(_tt_v),  # page.html:4
                '</td></tr>',
                '',
            )
        return _tt_join_escaped(_tt_out)

Two things make it fast. A run of text and expressions is one tuple added to the list, without a call for
each piece. And nothing is escaped on the way: pieces at even places are output as they are, those at odd
places are to be escaped, so that ``_tt_join_escaped`` can escape all of them in one go (see
:mod:`cycloneish.template.runtime`).

Every line carries the place it comes from, as a comment for people and in :attr:`Code.sites` for tracebacks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cycloneish.template.nodes import (
    Apply,
    Block,
    Control,
    Expression,
    File,
    Include,
    Intermediate,
    Node,
    Position,
    Statement,
    Text,
)

__all__ = ["PARAMETERS", "Code", "Site", "generate"]

#: Arguments of the generated function, in this order.
PARAMETERS = (
    "_tt_out",
    "_tt_type",
    "_tt_str",
    "_tt_text",
    "_tt_raw",
    "_tt_bytes",
    "_tt_join",
    "_tt_join_escaped",
)
# A function of its own has its own list and takes the rest from the function around it.
_NESTED_PARAMETERS = ", ".join(f"{name}={name}" for name in PARAMETERS[1:])
# A tuple display of this many pieces is written at most; more would only make the stack deep.
_LONGEST_RUN = 200


class Site(NamedTuple):
    """One place in one template; ``label`` says what it is in ("template" or "block title")."""

    file: File
    position: Position
    label: str


@dataclass(slots=True)
class Code:
    """What :func:`generate` makes.

    :ivar sites: for each line of ``source`` the places it comes from: the outermost template first, then one
        for each include or block passed on the way; empty for a line that comes from none.
    :ivar escapes: the names of built-in escaping functions the code counts on.
    """

    source: str
    sites: list[tuple[Site, ...]]
    escapes: frozenset[str]


class _Loads(Protocol):
    def __call__(self, name: str, parent: str, position: Position) -> File: ...


class _Compiler:
    def __init__(self, builtin_escapes: Collection[str], alternate: bool, load: _Loads) -> None:
        self._builtin_escapes = builtin_escapes
        self._alternate = alternate
        self._load = load
        self._lines: list[str] = []
        self._sites: list[tuple[Site, ...]] = []
        self._indent = 0
        # The include and block tags passed to come here; the current file and label are those they led to.
        self._via: list[Site] = []
        self._file: File
        self._label = "template"
        self._blocks: dict[str, Block] = {}
        self._applies = 0
        self._in_try = False
        self.escapes: set[str] = set()
        # Pieces that wait for the next flush: text, or (source, site chain, to be escaped).
        self._run: list[str | tuple[str, tuple[Site, ...], bool]] = []

    def compile(self, base: File, blocks: dict[str, Block]) -> Code:
        self._file = base
        self._blocks = blocks
        self._line(f"def _tt_execute({', '.join(PARAMETERS)}):")
        self._indent = 1
        self._nodes(base.body)
        self._return()
        return Code("\n".join(self._lines) + "\n", self._sites, frozenset(self.escapes))

    # -- nodes

    def _nodes(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            handler: Callable[..., None] = _HANDLERS[type(node)]
            handler(self, node)

    def _text(self, node: Text) -> None:
        if self._run and isinstance(self._run[-1], str):
            self._run[-1] += node.value
        else:
            self._run.append(node.value)
        if self._in_try:
            self._flush()

    def _expression(self, node: Expression) -> None:
        source = _bracketed(node.source)
        escape = None if node.raw else self._file.autoescape
        if escape is None:
            self._piece(_converted(source, "_tt_raw"), node.position)
        elif escape in self._builtin_escapes:
            self.escapes.add(escape)
            self._piece(_converted(source, "_tt_text"), node.position, escaped=True)
        else:
            self._piece(_converted(f"({escape}(_tt_bytes({source})))", "_tt_raw"), node.position)

    def _statement(self, node: Statement) -> None:
        self._flush()
        self._line(node.source, node.position)

    def _control(self, node: Control) -> None:
        self._flush()
        source = _condition(node.source) if node.operator in ("if", "while") else node.source
        self._line(f"{source}:", node.position)
        was_in_try = self._in_try
        self._in_try = self._in_try or node.operator == "try"
        self._indent += 1
        self._nodes(node.body)
        self._flush()
        # An empty suite, also the last of several, needs something in it.
        self._line("pass")
        self._indent -= 1
        self._in_try = was_in_try

    def _intermediate(self, node: Intermediate) -> None:
        self._flush()
        self._line("pass")
        self._indent -= 1
        source = _condition(node.source) if node.source.startswith("elif") else node.source
        self._line(f"{source}:", node.position)
        self._indent += 1

    def _apply(self, node: Apply) -> None:
        self._flush()
        name = f"_tt_apply{self._applies}"
        self._applies += 1
        self._line(f"def {name}({_NESTED_PARAMETERS}):", node.position)
        was_in_try, self._in_try = self._in_try, False
        self._indent += 1
        self._line("_tt_out = []")
        self._nodes(node.body)
        self._return()
        self._indent -= 1
        self._in_try = was_in_try
        self._piece(_converted(f"({node.method}({name}()))", "_tt_raw"), node.position)

    def _block(self, node: Block) -> None:
        used = self._blocks[node.name]
        self._elsewhere(used.file, f"block {node.name}", node.position, used.body)

    def _include(self, node: Include) -> None:
        included = self._load(node.name, self._file.name, node.position)
        self._elsewhere(included, "template", node.position, included.body)

    def _elsewhere(self, file: File, label: str, position: Position, body: list[Node]) -> None:
        came_from = Site(self._file, position, self._label)
        self._via.append(came_from)
        self._file, self._label = file, label
        self._nodes(body)
        self._via.pop()
        self._file, self._label = came_from.file, came_from.label

    # -- writing

    def _piece(self, source: str, position: Position, escaped: bool = False) -> None:
        self._run.append((source, self._chain(position), escaped))
        if self._in_try or len(self._run) >= _LONGEST_RUN:
            self._flush()

    def _chain(self, position: Position) -> tuple[Site, ...]:
        return (*self._via, Site(self._file, position, self._label))

    def _flush(self) -> None:
        """Write the run of pieces that waits as one addition to the list."""
        run, self._run = self._run, []
        if not run:
            return
        if not self._alternate:
            places = list(run)
        else:
            places = []
            for piece in run:
                at_odd = len(places) % 2 == 1
                to_odd = not isinstance(piece, str) and piece[2]
                if at_odd is not to_odd:
                    places.append("")
                places.append(piece)
            if len(places) % 2:
                places.append("")
        if all(isinstance(piece, str) for piece in places):
            self._line(f"_tt_out += ({''.join(f'{piece!r}, ' for piece in places)[:-1]})")
            return
        self._line("_tt_out += (")
        self._indent += 1
        for piece in places:
            if isinstance(piece, str):
                self._line(f"{piece!r},")
            else:
                source, chain, _ = piece
                self._line(f"{source},", chain=chain)
        self._indent -= 1
        self._line(")")

    def _return(self) -> None:
        self._flush()
        self._line(f"return {'_tt_join_escaped' if self._alternate else '_tt_join'}(_tt_out)")

    def _line(self, source: str, position: Position | None = None, chain: tuple[Site, ...] = ()) -> None:
        if position is not None:
            chain = self._chain(position)
        comment = ""
        if chain:
            comment = f"  # {describe(chain)}"
        self._lines.append("    " * self._indent + source + comment)
        lines = source.count("\n")
        self._sites.append(chain)
        for extra in range(1, lines + 1):
            self._sites.append(_further_down(chain, extra))


_HANDLERS: dict[type, Callable[..., None]] = {
    Text: _Compiler._text,
    Expression: _Compiler._expression,
    Statement: _Compiler._statement,
    Control: _Compiler._control,
    Intermediate: _Compiler._intermediate,
    Apply: _Compiler._apply,
    Block: _Compiler._block,
    Include: _Compiler._include,
}


def describe(chain: tuple[Site, ...]) -> str:
    """``sub.html:4``, and ``(via base.html:1)`` when other templates led there, the nearest first."""
    *outer, inner = chain
    text = f"{inner.file.name}:{inner.position.line}"
    if outer:
        via = ", ".join(f"{site.file.name}:{site.position.line}" for site in reversed(outer))
        text += f" (via {via})"
    return text


def _further_down(chain: tuple[Site, ...], lines: int) -> tuple[Site, ...]:
    """The chain for a later line of a tag that runs over several; which columns is not known there."""
    *outer, (file, position, label) = chain
    text = file.text.split("\n")
    line = min(position.line + lines, len(text))
    return (*outer, Site(file, Position(line, 0, len(text[line - 1])), label))


def _bracketed(source: str) -> str:
    # The line end keeps a comment in the tag from swallowing the bracket.
    return f"({source}\n)" if "#" in source or "\n" in source else f"({source})"


def _condition(source: str) -> str:
    operator, _, condition = source.partition(" ")
    if "#" in source or "\n" in source:
        operator, condition = source.split(maxsplit=1)
        return f"{operator} ({condition}\n)"
    return f"{operator} {condition}"


def _converted(source: str, function: str) -> str:
    return f"_tt_v if _tt_type(_tt_v := {source}) is _tt_str else {function}(_tt_v)"


def _collect_blocks(nodes: Iterable[Node], parent: File, blocks: dict[str, Block], load: _Loads) -> None:
    for node in nodes:
        if isinstance(node, Block):
            blocks[node.name] = node
        elif isinstance(node, Include):
            included = load(node.name, parent.name, node.position)
            _collect_blocks(included.body, included, blocks, load)
            continue
        if isinstance(node, Block | Control | Apply):
            _collect_blocks(node.body, parent, blocks, load)


def generate(ancestors: list[File], builtin_escapes: Collection[str], load: _Loads) -> Code:
    """Write the Python for a template.

    :param ancestors: the template itself first, what it extends after it, the base last.
    :param builtin_escapes: names that mean :func:`cycloneish.escape.xhtml_escape` and nothing else, so that
        values can be escaped together. Another name is called for each value.
    :param load: finds an included file; called with its name, the name of the template that includes it, and
        where.
    :raises ParseError: when an include cannot be followed.
    """
    blocks: dict[str, Block] = {}
    for file in reversed(ancestors):
        _collect_blocks(file.body, file, blocks, load)
    base = ancestors[-1]
    code = _Compiler(builtin_escapes, True, load).compile(base, blocks)
    if not code.escapes:
        # Nothing is escaped: every piece is output as it is, and needs no place in between.
        code = _Compiler(builtin_escapes, False, load).compile(base, blocks)
    return code
