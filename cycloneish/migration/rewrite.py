"""Changes one source text: imports, the names they bind, and ``asyncio.run``.

Everything else stays as it is, to the last blank. What the text alone does not tell is for the notes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from cycloneish.migration.names import ADVICE, CALLS, PACKAGES, Place, place_of

__all__ = ["NotPython", "Note", "rewrite"]

_MENTION = re.compile(r"\b(tornado|cyclone)\.[a-z_]+")


class NotPython(Exception):
    """The text is no Python of today; the message says from where on."""


@dataclass(frozen=True, order=True)
class Note:
    """Something that needs a human eye.

    :ivar line: counted from 1, in the text as it was.
    """

    line: int
    text: str


def rewrite(source: str) -> tuple[str, list[Note]]:
    """Rewrite a program's text.

    :returns: the new text, and notes in the order of the lines. The text is the same object when nothing in
        it is Tornado's or Cyclone's.
    :raises NotPython: it cannot be parsed.
    """
    if not any(package in source for package in PACKAGES):
        return source, []
    try:
        wrapper = MetadataWrapper(cst.parse_module(source))
    except cst.ParserSyntaxError as error:
        raise NotPython(f"line {error.raw_line}: {error.message.splitlines()[0]}") from None
    finder = _Finder()
    wrapper.visit(finder)
    if not finder.found:
        return source, sorted(finder.notes)
    rewriter = _Rewriter(finder)
    changed = wrapper.visit(rewriter)
    code = changed.code
    if rewriter.runs:
        code = _with_import(changed, "cycloneish.ioloop").code
    return code, sorted({*finder.notes, *rewriter.notes})


class _Finder(cst.CSTVisitor):
    """Looks at the whole before anything is changed: what is imported, and what is worth a note."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found = False
        self.notes: set[Note] = set()
        #: Names bound to the packages themselves, by ``import tornado.web``.
        self.bound: set[str] = set()
        #: The same for ``from tornado import web`` and ``from tornado.web import url``: what they stand for.
        self.aliases: dict[str, str] = {}

    def visit_Import(self, node: cst.Import) -> None:
        for alias in node.names:
            name = get_full_name_for_node(alias.name) or ""
            package = name.partition(".")[0]
            if package not in PACKAGES:
                continue
            self.found = True
            if alias.asname is None:
                self.bound.add(package)
            else:
                self.aliases[get_full_name_for_node(alias.asname.name) or ""] = name
            self._advise(alias, name)

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        module = (
            get_full_name_for_node(node.module) if node.module is not None and not node.relative else None
        )
        if module is None or module.partition(".")[0] not in PACKAGES:
            return
        self.found = True
        if module not in PACKAGES:
            self._advise(node, module)
        if isinstance(node.names, cst.ImportStar):
            return
        for alias in node.names:
            name = f"{module}.{get_full_name_for_node(alias.name)}"
            bound = alias.asname.name if alias.asname is not None else alias.name
            self.aliases[get_full_name_for_node(bound) or ""] = name
            self._advise(node, name)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        name = get_full_name_for_node(node)
        if name is None:
            return
        for ending, advice in CALLS.items():
            if name.endswith(ending):
                self._note(node, f"{ending} {advice}")
        head, _, rest = name.partition(".")
        full = (
            name if head in self.bound else f"{self.aliases[head]}.{rest}" if head in self.aliases else None
        )
        if full in ADVICE:
            self._note(node, f"{full} {ADVICE[full]}")

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        value = node.evaluated_value
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        found = _MENTION.search(text)
        # A long text is documentation.
        if found and "\n" not in text and len(text) < 100:
            self._note(node, f"the text names {found.group()}: a logger, a handler or a module?")

    def _advise(self, node: cst.CSTNode, name: str) -> None:
        if name in ADVICE:
            self._note(node, f"{name} {ADVICE[name]}")

    def _note(self, node: cst.CSTNode, text: str) -> None:
        self.notes.add(Note(self.get_metadata(PositionProvider, node).start.line, text))


class _Rewriter(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider)

    def __init__(self, finder: _Finder) -> None:
        super().__init__()
        self.bound = finder.bound
        self.notes: set[Note] = set()
        self.runs = False

    # -- import tornado.web ------------------------------------------------------------------------

    def leave_Import(
        self, original_node: cst.Import, updated_node: cst.Import
    ) -> cst.Import | cst.RemovalSentinel:
        names = self._moved(
            [(alias, get_full_name_for_node(alias.name) or "") for alias in original_node.names],
            original_node,
        )
        return updated_node.with_changes(names=_separated(names)) if names else cst.RemoveFromParent()

    def _moved(
        self, imported: Sequence[tuple[cst.ImportAlias, str]], node: cst.CSTNode
    ) -> list[cst.ImportAlias]:
        kept: list[cst.ImportAlias] = []
        for alias, name in imported:
            place = self._place(name, node)
            if place is None:
                kept.append(alias)
            elif place.module is not None:
                kept.append(alias.with_changes(name=_dotted(place.module)))
        return kept

    def _place(self, name: str, node: cst.CSTNode) -> Place | None:
        """Where a module has gone; with a note when a human has to look."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        place = place_of(name)
        if place is None:
            self._note(node, f"{name} is not known here")
            return Place(None, "is not known here")
        if place.advice:
            self._note(node, f"{name} is not here: {place.advice}")
        return place

    # -- from tornado import web, from tornado.web import url --------------------------------------

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.RemovalSentinel:
        if original_node.module is None or original_node.relative:
            return updated_node
        module = get_full_name_for_node(original_node.module) or ""
        if module in PACKAGES and not isinstance(original_node.names, cst.ImportStar):
            return self._from_package(module, original_node, updated_node)
        place = self._place(module, original_node)
        if place is None:
            return updated_node
        if place.module is None:
            return cst.RemoveFromParent()
        return updated_node.with_changes(module=_dotted(place.module))

    def _from_package(
        self, package: str, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.RemovalSentinel:
        names: list[cst.ImportAlias] = []
        for alias in original_node.names if not isinstance(original_node.names, cst.ImportStar) else ():
            name = get_full_name_for_node(alias.name) or ""
            if name in ("version", "version_info"):
                names.append(alias)
                continue
            place = self._place(f"{package}.{name}", original_node)
            if place is not None and place.module is not None:
                names.append(alias.with_changes(name=cst.Name(place.module.partition(".")[2])))
        if not names:
            return cst.RemoveFromParent()
        return updated_node.with_changes(module=cst.Name("cycloneish"), names=_separated(names))

    # -- what is left of a line whose import is gone -----------------------------------------------

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        gone = [
            statement
            for statement in original_node.body
            if isinstance(statement, cst.Import | cst.ImportFrom) and self._is_lost(statement)
        ]
        if not gone:
            return updated_node
        comments = [
            cst.EmptyLine(comment=cst.Comment(f"# not in cycloneish: {_one_line(statement)}"))
            for statement in gone
        ]
        if updated_node.body:
            return updated_node.with_changes(leading_lines=[*updated_node.leading_lines, *comments])
        # A body may not be empty, and a comment needs something to stand on.
        return updated_node.with_changes(
            leading_lines=[*original_node.leading_lines, *comments], body=[cst.Pass()]
        )

    def _is_lost(self, statement: cst.Import | cst.ImportFrom) -> bool:
        if isinstance(statement, cst.Import):
            modules = [get_full_name_for_node(alias.name) or "" for alias in statement.names]
        else:
            module = get_full_name_for_node(statement.module) if statement.module is not None else ""
            if statement.relative or not module:
                return False
            modules = [module]
            if module in PACKAGES and not isinstance(statement.names, cst.ImportStar):
                modules = [f"{module}.{get_full_name_for_node(alias.name)}" for alias in statement.names]
        return any(_is_gone(module) for module in modules)

    # -- tornado.web.RequestHandler ----------------------------------------------------------------

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.BaseExpression:
        name = get_full_name_for_node(original_node)
        if name == "asyncio.run" and self._is_called_with_one(original_node):
            self.runs = True
            self._note(
                original_node,
                "asyncio.run became cycloneish.ioloop.run, which runs the asyncio reactor of Twisted",
            )
            return _dotted("cycloneish.ioloop.run")
        if name is None or name.partition(".")[0] not in self.bound:
            return updated_node
        place = place_of(name)
        if place is not None and place.module is not None:
            return _dotted(place.module)
        if place is not None:
            self._note(original_node, f"{name} is not here: {place.advice}")
        elif name.count(".") == 1 and name.endswith((".version", ".version_info")):
            return updated_node.with_changes(value=cst.Name("cycloneish"))
        return updated_node

    def _is_called_with_one(self, node: cst.Attribute) -> bool:
        call = self.get_metadata(ParentNodeProvider, node)
        return (
            isinstance(call, cst.Call)
            and call.func is node
            and len(call.args) == 1
            and call.args[0].keyword is None
            and not call.args[0].star
        )

    def _note(self, node: cst.CSTNode, text: str) -> None:
        self.notes.add(Note(self.get_metadata(PositionProvider, node).start.line, text))


def _is_gone(module: str) -> bool:
    if module.partition(".")[0] not in PACKAGES or module.endswith((".version", ".version_info")):
        return False
    place = place_of(module)
    return place is None or place.module is None


def _dotted(name: str) -> cst.Name | cst.Attribute:
    head, *rest = name.split(".")
    node: cst.Name | cst.Attribute = cst.Name(head)
    for part in rest:
        node = cst.Attribute(node, cst.Name(part))
    return node


def _separated(names: Sequence[cst.ImportAlias]) -> list[cst.ImportAlias]:
    """With commas between them, and none behind the last."""
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    between = [
        name if isinstance(name.comma, cst.Comma) else name.with_changes(comma=comma) for name in names[:-1]
    ]
    return [*between, names[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)]


def _one_line(statement: cst.CSTNode) -> str:
    return " ".join(cst.Module([]).code_for_node(statement).split())


def _with_import(module: cst.Module, name: str) -> cst.Module:
    """With ``import name``, behind the imports that are there."""
    if any(
        get_full_name_for_node(alias.name) == name
        for line in module.body
        if isinstance(line, cst.SimpleStatementLine)
        for statement in line.body
        if isinstance(statement, cst.Import)
        for alias in statement.names
    ):
        return module
    position = 0
    for number, line in enumerate(module.body):
        if isinstance(line, cst.SimpleStatementLine) and isinstance(
            line.body[0], cst.Import | cst.ImportFrom
        ):
            position = number + 1
    new = cst.SimpleStatementLine([cst.Import([cst.ImportAlias(_dotted(name))])])
    return module.with_changes(body=[*module.body[:position], new, *module.body[position:]])
