"""Pages: templates, UI modules, links to static files.

Part of `RequestHandler`. The template language is in `cycloneish.template`, the modules in
`cycloneish.web.uimodules`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.internet.defer import Deferred

from cycloneish import template
from cycloneish.escape import to_unicode, utf8, xhtml_escape
from cycloneish.util import ObjectDict
from cycloneish.web.uimodules import UIModule, UIModuleNamespace
from cycloneish.web.xsrf import XsrfMixin

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler

__all__ = ["RenderingMixin", "is_absolute"]

_PACKAGE = os.path.dirname(__file__)


def is_absolute(path: str) -> bool:
    """Whether *path* is a URL or begins at the root, and so is no path of a static file."""
    return path.startswith(("/", "http:", "https:"))


class RenderingMixin(XsrfMixin):
    """`render`, `render_string`, `static_url`, `reverse_url` and what they are made of."""

    # Loaders keep compiled templates, so they outlive the handlers. The key says what a loader was made from.
    _template_loaders: ClassVar[dict[Any, template.BaseLoader]] = {}
    _template_loader_lock = threading.Lock()

    _finished = False
    _ui: ObjectDict | None = None
    _active_modules: dict[str, UIModule] | None = None

    if TYPE_CHECKING:

        def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Deferred[None]: ...

    def render(self, template_name: str, **kwargs: Any) -> Deferred[None]:
        """Render a template as the response and finish it.

        :param kwargs: names for the template, beside those of `get_template_namespace`.
        :returns: what `finish` returns.
        """
        if self._finished:
            raise RuntimeError("Cannot render() after finish()")
        return self.finish(self._with_resources(self.render_string(template_name, **kwargs)))

    def render_string(self, template_name: str, **kwargs: Any) -> bytes:
        """Render a template and return it, in UTF-8."""
        path = self.get_template_path()
        if not path:
            path = _directory_of_caller()
        namespace = self.get_template_namespace()
        namespace.update(kwargs)
        return self._template_loader(path).load(template_name).generate(**namespace)

    def get_template_path(self) -> str | None:
        """Where the templates are: the setting `template_path`; None means beside the calling file."""
        path = self.application.settings.get("template_path")
        return None if path is None else os.fspath(path)

    def get_template_namespace(self) -> dict[str, Any]:
        """The names that every template of this handler knows; override to add some."""
        locale = self.locale
        namespace: dict[str, Any] = {
            "handler": self,
            "request": self.request,
            "current_user": self.current_user,
            "locale": locale,
            "_": locale.translate,
            "pgettext": locale.pgettext,
            "static_url": self.static_url,
            "xsrf_form_html": self.xsrf_form_html,
            "reverse_url": self.reverse_url,
        }
        namespace.update(self.ui)
        return namespace

    def create_template_loader(self, template_path: str) -> template.BaseLoader:
        """Make the loader for the templates in *template_path*; called once per path.

        Settings: `template_loader` (used as it is), `autoescape` (a function's name, or None),
        `template_whitespace` (`all`, `single` or `oneline`).
        """
        settings = self.application.settings
        if "template_loader" in settings:
            return cast("template.BaseLoader", settings["template_loader"])
        kwargs: dict[str, Any] = {}
        if "autoescape" in settings:  # where None means something
            kwargs["autoescape"] = settings["autoescape"]
        if "template_whitespace" in settings:
            kwargs["whitespace"] = settings["template_whitespace"]
        return template.Loader(template_path, **kwargs)

    def _template_loader(self, path: str) -> template.BaseLoader:
        settings = self.application.settings
        # Two applications in one process may have the same path and other settings.
        key = (
            path,
            type(self).create_template_loader,
            settings.get("template_loader"),
            settings.get("autoescape", ""),
            settings.get("template_whitespace"),
        )
        loaders = RenderingMixin._template_loaders
        loader = loaders.get(key)
        if loader is None:
            with RenderingMixin._template_loader_lock:
                loader = loaders.get(key)
                if loader is None:
                    loader = loaders[key] = self.create_template_loader(path)
        return loader

    # -- links -------------------------------------------------------------------------------------

    def static_url(self, path: str, include_host: bool | None = None, **kwargs: Any) -> str:
        """The URL of a static file, with its version, so that browsers may keep it until it changes.

        Needs the setting `static_path`. *path* should come from the program, not from a request: the file is
        read.

        :param include_host: make it absolute; by default what the handler's attribute `include_host` says.
        :param kwargs: for `make_static_url` of the class that serves the files; `include_version=False` for
            no version.
        :raises HTTPError: (403) *path* leads out of the directory.
        """
        self.require_setting("static_path", "static_url")
        if include_host is None:
            include_host = getattr(self, "include_host", False)
        handler_class = self.application.static_handler_class
        url = handler_class.make_static_url(self.application.settings, path, **kwargs)
        return f"{self.request.protocol}://{self.request.host}{url}" if include_host else url

    def reverse_url(self, name: str, *args: Any, **kwargs: Any) -> str:
        """The path of the route called *name*; see `Application.reverse_url`."""
        return self.application.reverse_url(name, *args, **kwargs)

    # -- UI methods and modules --------------------------------------------------------------------

    @property
    def ui(self) -> ObjectDict:
        """The application's UI methods bound to this handler, and `modules`; made when first looked at."""
        ui = self._ui
        if ui is None:
            ui = ObjectDict(
                {name: self._ui_method(method) for name, method in self.application.ui_methods.items()}
            )
            # Templates look in `_tt_modules`: a name of the application may hide `modules`.
            ui["_tt_modules"] = ui["modules"] = UIModuleNamespace(self._bind_ui_module)
            self._ui = ui
        return ui

    @ui.setter
    def ui(self, value: ObjectDict) -> None:
        self._ui = value

    def _ui_method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: method(self, *args, **kwargs)

    def _bind_ui_module(self, name: str) -> Callable[..., str]:
        return self._ui_module(name, self.application.ui_modules[name])

    def _ui_module(self, name: str, module: type[UIModule]) -> Callable[..., str]:
        def render(*args: Any, **kwargs: Any) -> str:
            if self._active_modules is None:
                self._active_modules = {}
            active = self._active_modules.get(name)
            if active is None:
                active = self._active_modules[name] = module(cast("RequestHandler", self))
            return to_unicode(active.render(*args, **kwargs))

        return render

    # -- what modules bring along ------------------------------------------------------------------

    def _with_resources(self, html: bytes) -> bytes:
        """Put the scripts and styles of the modules that were rendered into the page."""
        if not self._active_modules:
            return html
        js_files: list[str] = []
        js_embed: list[bytes] = []
        css_files: list[str] = []
        css_embed: list[bytes] = []
        heads: list[bytes] = []
        bodies: list[bytes] = []
        for module in self._active_modules.values():
            _collect(js_embed, module.embedded_javascript())
            _collect_files(js_files, module.javascript_files())
            _collect(css_embed, module.embedded_css())
            _collect_files(css_files, module.css_files())
            _collect(heads, module.html_head())
            _collect(bodies, module.html_body())
        head: list[bytes] = []
        if css_files:
            head += utf8(self.render_linked_css(css_files)), b"\n"
        if css_embed:
            head += self.render_embed_css(css_embed), b"\n"
        if heads:
            head += *heads, b"\n"
        body: list[bytes] = []
        if js_files:
            body += utf8(self.render_linked_js(js_files)), b"\n"
        if js_embed:
            body += self.render_embed_js(js_embed), b"\n"
        if bodies:
            body += *bodies, b"\n"
        if body:
            html = _inserted(html, html.rfind(b"</body>"), len(html), body)
        if head:
            html = _inserted(html, html.find(b"</head>"), 0, head)
        return html

    def render_linked_js(self, js_files: Iterable[str]) -> str:
        """The HTML for the scripts of the modules; override for other HTML."""
        return "".join(
            [
                f'<script src="{xhtml_escape(url)}" type="text/javascript"></script>'
                for url in self._urls(js_files)
            ]
        )

    def render_embed_js(self, js_embed: Iterable[bytes]) -> bytes:
        """The HTML for the JavaScript of the modules; override for other HTML."""
        return (
            b'<script type="text/javascript">\n//<![CDATA[\n' + b"\n".join(js_embed) + b"\n//]]>\n</script>"
        )

    def render_linked_css(self, css_files: Iterable[str]) -> str:
        """The HTML for the style sheets of the modules; override for other HTML."""
        return "".join(
            [
                f'<link href="{xhtml_escape(url)}" type="text/css" rel="stylesheet"/>'
                for url in self._urls(css_files)
            ]
        )

    def render_embed_css(self, css_embed: Iterable[bytes]) -> bytes:
        """The HTML for the CSS of the modules; override for other HTML."""
        return b'<style type="text/css">\n' + b"\n".join(css_embed) + b"\n</style>"

    def _urls(self, files: Iterable[str]) -> list[str]:
        # A dictionary keeps the order and drops repetitions.
        return list(dict.fromkeys([file if is_absolute(file) else self.static_url(file) for file in files]))


def _directory_of_caller() -> str:
    """The directory of the file that called into this package."""
    frame = sys._getframe(1)
    while (directory := os.path.dirname(frame.f_code.co_filename)) == _PACKAGE and frame.f_back is not None:
        frame = frame.f_back
    return directory


def _collect(parts: list[bytes], part: str | bytes | None) -> None:
    if part:
        parts.append(utf8(part))


def _collect_files(files: list[str], found: str | bytes | Iterable[str] | None) -> None:
    if not found:
        return
    if isinstance(found, str | bytes):
        files.append(to_unicode(found))
    else:
        files.extend(found)


def _inserted(html: bytes, at: int, otherwise: int, parts: list[bytes]) -> bytes:
    """Put *parts* before the position *at*, or at *otherwise* in a page that has no such tag (at is -1)."""
    if at < 0:
        at = otherwise
    return b"".join((html[:at], *parts, html[at:]))
