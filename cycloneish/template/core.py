"""Templates and the loaders that find them.

``RequestHandler.render`` (:mod:`cycloneish.web`) is the usual caller: it keeps one :class:`Loader` for each
template directory and calls :meth:`Template.generate`.
"""

from __future__ import annotations

import builtins
import datetime
import os
import posixpath
import threading
from types import CodeType, FunctionType
from typing import Any, Final

from cycloneish import escape
from cycloneish.template import runtime
from cycloneish.template.compiler import generate as generate_code
from cycloneish.template.nodes import File, ParseError, Position, TemplateSyntaxError
from cycloneish.template.parser import filter_whitespace, parse

__all__ = ["BaseLoader", "DictLoader", "Loader", "Template"]

_DEFAULT_AUTOESCAPE = "xhtml_escape"

#: What every template sees, unless the application gives the name another meaning.
_BUILTINS: dict[str, Any] = {
    "escape": escape.xhtml_escape,
    "xhtml_escape": escape.xhtml_escape,
    "url_escape": escape.url_escape,
    "json_encode": escape.json_encode,
    "squeeze": escape.squeeze,
    "linkify": escape.linkify,
    "datetime": datetime,
}
_XHTML_ESCAPE_NAMES = frozenset({"escape", "xhtml_escape"})


class _Unset:
    pass


_UNSET: Final = _Unset()


class _Program:
    """Generated code, compiled: what it takes to run a template with one meaning of the escaping names."""

    __slots__ = ("code", "escapes", "function", "module", "source")

    def __init__(self, template: Template, ancestors: list[File], builtin_escapes: frozenset[str]) -> None:
        self.code = generate_code(ancestors, builtin_escapes, template._load_file)
        self.escapes = self.code.escapes
        filename = f"{template.name}.generated.py"
        self.source = runtime.Source(filename, self.code)
        try:
            self.module = compile(self.code.source, filename, "exec", dont_inherit=True)
        except SyntaxError as error:
            # The parser has checked each tag, so this is about tags in combination, as a lone "except".
            sites = self.source.sites(error.lineno or 0)
            if not sites:
                raise
            file, position, _ = sites[-1]
            text = file.text.split("\n")[position.line - 1]
            raise TemplateSyntaxError(error.msg, file.name, position.line, position.start + 1, text) from None
        self.function = next(const for const in self.module.co_consts if isinstance(const, CodeType))


class Template:
    """A compiled template.

    :param template_string: its text; bytes are UTF-8.
    :param name: its name in errors, and what relative names in it are relative to.
    :param loader: finds what it includes and extends, and gives defaults for the rest.
    :param compress_whitespace: Cyclone's way to say ``whitespace="single"`` (true) or ``"all"`` (false).
    :param autoescape: name of the function that escapes ``{{ }}``, or None for none.
    :param whitespace: ``"all"``, ``"single"`` or ``"oneline"``, see :func:`filter_whitespace`. The default is
        the loader's, else ``"single"`` for names that end in .html and .js, and ``"all"`` for others.
    :param path: the file it was read from, for tracebacks.
    :raises ParseError: when it, or what it includes or extends, is no template; mistakes in its Python are
        the subclass that is a :exc:`SyntaxError` as well.

    Tornado: ``tornado.template.Template``.
    """

    def __init__(
        self,
        template_string: str | bytes,
        name: str = "<string>",
        loader: BaseLoader | None = None,
        compress_whitespace: bool | _Unset = _UNSET,
        autoescape: str | _Unset | None = _UNSET,
        whitespace: str | None = None,
        *,
        path: str | None = None,
    ) -> None:
        self.name = escape.native_str(name)
        self.loader = loader
        self.namespace: dict[str, Any] = loader.namespace if loader else {}
        if not isinstance(compress_whitespace, _Unset):
            if whitespace is not None:
                raise ValueError("give whitespace or compress_whitespace, not both")
            whitespace = "single" if compress_whitespace else "all"
        if whitespace is None:
            whitespace = loader.whitespace if loader else None
        if whitespace is None:
            whitespace = "single" if self.name.endswith((".html", ".js")) else "all"
        filter_whitespace(whitespace, "")
        if isinstance(autoescape, _Unset):
            autoescape = loader.autoescape if loader else _DEFAULT_AUTOESCAPE
        self.file = File(
            name=self.name,
            path=path or (f"<template {self.name.strip('<>')}>" if self.name.startswith("<") else self.name),
            text=escape.native_str(template_string),
            autoescape=autoescape,
            on_disk=path is not None,
        )
        parse(self.file, whitespace)
        self.autoescape = self.file.autoescape
        self._ancestors = self._get_ancestors()
        self._program = _Program(self, self._ancestors, _XHTML_ESCAPE_NAMES)
        # Used when an escaping name has another meaning than the built-in one; made when first needed.
        self._plain_program: _Program | None = None
        if self._program.escapes & _assigned_names(self._program.function):
            self._program = self._plain()
        self._base_namespace = {
            **_BUILTINS,
            # C code that imports (strftime does) looks for it in the globals of its caller.
            "__builtins__": builtins,
            "__name__": self.name.replace(".", "_"),
            "__loader__": self._program.source,
        }

    @property
    def code(self) -> str:
        """The generated Python, for the curious; its form is no promise."""
        return self._program.code.source

    @property
    def compiled(self) -> CodeType:
        """The generated Python as a module's code object."""
        return self._program.module

    def generate(self, /, **kwargs: Any) -> bytes:
        """Render the template.

        :param kwargs: its variables; they go before those of the loader's namespace and the built-in ones.
        :returns: the output as UTF-8.

        An exception from the template's own code shows the template's file and line in its traceback.
        """
        namespace = self._base_namespace.copy()
        if self.namespace:
            namespace.update(self.namespace)
        namespace.update(kwargs)
        program = self._program
        for name in program.escapes:
            if namespace[name] is not escape.xhtml_escape:
                program = self._plain()
                namespace["__loader__"] = program.source
                break
        execute = FunctionType(program.function, namespace)
        try:
            output: bytes = execute([], *_ARGUMENTS)
        except Exception as error:
            inner = error.__traceback__
            error.__traceback__ = runtime.template_traceback(
                error, inner.tb_next if inner is not None else None
            )
            raise
        return output

    def _plain(self) -> _Program:
        if self._plain_program is None:
            self._plain_program = _Program(self, self._ancestors, frozenset())
        return self._plain_program

    def _get_ancestors(self) -> list[File]:
        extends = self.file.extends
        if extends is None:
            return [self.file]
        parent = self._load(extends.name, self.name, extends.position)
        return [self.file, *parent._ancestors]

    def _load_file(self, name: str, parent: str, position: Position) -> File:
        return self._load(name, parent, position).file

    def _load(self, name: str, parent: str, position: Position) -> Template:
        if self.loader is None:
            raise ParseError(f"{name!r} cannot be found without a template loader", parent, position.line)
        try:
            return self.loader.load(name, parent_path=parent)
        except _CircularError as error:
            raise ParseError(f"{error.args[0]!r} includes or extends itself", parent, position.line) from None
        except (OSError, KeyError) as error:
            error.add_note(f"{name!r} is named at {parent}:{position.line}")
            raise


_ARGUMENTS = (
    type,
    str,
    runtime.as_text,
    runtime.as_raw,
    runtime.as_bytes,
    runtime.join,
    runtime.join_escaped,
)


def _assigned_names(code: CodeType) -> set[str]:
    """Every name that generated code binds itself, in nested functions too."""
    names = {*code.co_varnames, *code.co_cellvars}
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= _assigned_names(const)
    return names


class _CircularError(Exception):
    pass


class BaseLoader:
    """Finds templates by name and keeps them compiled.

    :param autoescape: name of the function that escapes ``{{ }}`` where a template does not say, or None.
    :param namespace: variables for all its templates.
    :param whitespace: as of :class:`Template`.

    A subclass gives :meth:`resolve_path` and :meth:`_create_template`. ``lock`` guards ``templates``; threads
    may share a loader.

    Tornado: ``tornado.template.BaseLoader``.
    """

    def __init__(
        self,
        autoescape: str | None = _DEFAULT_AUTOESCAPE,
        namespace: dict[str, Any] | None = None,
        whitespace: str | None = None,
    ) -> None:
        self.autoescape = autoescape
        self.namespace = namespace or {}
        self.whitespace = whitespace
        self.templates: dict[str, Template] = {}
        # Reentrant: a template loads those it includes while it is made.
        self.lock = threading.RLock()
        self._loading: list[str] = []

    def reset(self) -> None:
        """Forget all compiled templates; the next load reads them anew."""
        with self.lock:
            self.templates = {}

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """The full name of template ``name`` when template ``parent_path`` refers to it."""
        raise NotImplementedError

    def load(self, name: str, parent_path: str | None = None) -> Template:
        """The compiled template ``name``.

        :param parent_path: the name of the template that refers to it.
        :raises OSError: from :class:`Loader` when it cannot be read.
        :raises KeyError: from :class:`DictLoader` when there is none.
        :raises ParseError: when it is no template.
        """
        name = self.resolve_path(name, parent_path=parent_path)
        template = self.templates.get(name)
        if template is not None:
            return template
        with self.lock:
            template = self.templates.get(name)
            if template is None:
                if name in self._loading:
                    raise _CircularError(name)
                self._loading.append(name)
                try:
                    template = self._create_template(name)
                finally:
                    self._loading.pop()
                self.templates[name] = template
            return template

    def _create_template(self, name: str) -> Template:
        raise NotImplementedError


class Loader(BaseLoader):
    """Loads templates from a directory.

    :param root_directory: what names are relative to. A name in a template is relative to that template's
        own directory.

    Tornado: ``tornado.template.Loader``.
    """

    def __init__(self, root_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = os.path.abspath(root_directory)

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        if _is_relative(name, parent_path):
            directory = os.path.dirname(os.path.join(self.root, parent_path or ""))
            path = os.path.normpath(os.path.join(directory, name))
            prefix = self.root.rstrip(os.sep) + os.sep
            if path.startswith(prefix):
                return path[len(prefix) :]
        return name

    def _create_template(self, name: str) -> Template:
        path = os.path.join(self.root, name)
        with open(path, "rb") as file:
            return Template(file.read(), name=name, loader=self, path=path)


class DictLoader(BaseLoader):
    """Loads templates from a dictionary of names and texts.

    Tornado: ``tornado.template.DictLoader``.
    """

    def __init__(self, dict: dict[str, str] | dict[str, bytes], **kwargs: Any) -> None:  # noqa: A002 - Tornado's
        super().__init__(**kwargs)
        self.dict = dict

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        if _is_relative(name, parent_path):
            return posixpath.normpath(posixpath.join(posixpath.dirname(parent_path or ""), name))
        return name

    def _create_template(self, name: str) -> Template:
        return Template(self.dict[name], name=name, loader=self)


def _is_relative(name: str, parent_path: str | None) -> bool:
    return bool(parent_path) and not str(parent_path).startswith(("<", "/")) and not name.startswith("/")
