"""Reusable pieces of a page that bring their own scripts and styles.

Templates call them as `{% module Name(...) %}`; `cycloneish.web.rendering` makes them, one object per handler
and class, and puts what they bring into the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cycloneish import httputil
from cycloneish.escape import linkify, to_unicode
from cycloneish.locale import Locale

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler

__all__ = ["TemplateModule", "UIModule", "UIModuleNamespace"]


class UIModule:
    """Base of the modules; override `render`, and the other methods for what the page needs once.

    Named in the setting `ui_modules`: a dictionary, a Python module, or a list of these.

    Counterpart: `tornado.web.UIModule`.
    """

    handler: RequestHandler
    request: httputil.HTTPServerRequest
    ui: Mapping[str, Any]
    locale: Locale

    def __init__(self, handler: RequestHandler) -> None:
        self.handler = handler
        self.request = handler.request
        self.ui = handler.ui
        self.locale = handler.locale

    @property
    def current_user(self) -> Any:
        """The handler's `current_user`."""
        return self.handler.current_user

    def render(self, *args: Any, **kwargs: Any) -> str | bytes:
        """Return the HTML for one use of the module."""
        raise NotImplementedError

    def embedded_javascript(self) -> str | bytes | None:
        """JavaScript for the end of the page."""
        return None

    def javascript_files(self) -> str | Iterable[str] | None:
        """Scripts for the end of the page: URLs, or paths of static files."""
        return None

    def embedded_css(self) -> str | bytes | None:
        """CSS for the head of the page."""
        return None

    def css_files(self) -> str | Iterable[str] | None:
        """Style sheets for the head of the page: URLs, or paths of static files."""
        return None

    def html_head(self) -> str | bytes | None:
        """HTML for the end of the head."""
        return None

    def html_body(self) -> str | bytes | None:
        """HTML for the end of the body."""
        return None

    def render_string(self, path: str, **kwargs: Any) -> bytes:
        """Render a template, as `RequestHandler.render_string` does."""
        return self.handler.render_string(path, **kwargs)


class LinkifyModule(UIModule):
    """`{% module linkify(text) %}`: makes links of the URLs in a text."""

    def render(self, text: str, **kwargs: Any) -> str:
        """Return the HTML; the arguments are those of `escape.linkify`."""
        return linkify(text, **kwargs)


class XsrfFormModule(UIModule):
    """`{% module xsrf_form_html() %}`: the hidden field with the XSRF token."""

    def render(self) -> str:
        """Return the HTML."""
        return self.handler.xsrf_form_html()


class TemplateModule(UIModule):
    """`{% module Template("entry.html", entry=entry) %}`: a template with a namespace of its own, as a
    module.

    In the template, `{{ set_resources(css_files="entry.css") }}` stands for the methods of `UIModule`. It
    counts once per template, so its arguments may not depend on those of the template.

    Counterpart: `tornado.web.TemplateModule`.
    """

    def __init__(self, handler: RequestHandler) -> None:
        super().__init__(handler)
        self._resources: dict[str, dict[str, Any]] = {}

    def render(self, path: str, **kwargs: Any) -> bytes:
        """Render the template at *path*.

        :raises ValueError: it calls `set_resources` with other arguments than before.
        """

        def set_resources(**resources: Any) -> str:
            if self._resources.setdefault(path, resources) != resources:
                raise ValueError(
                    f"{path} calls set_resources() with different resources than before in the same page"
                )
            return ""

        return self.render_string(path, set_resources=set_resources, **kwargs)

    def _get(self, kind: str) -> list[Any]:
        return [resources[kind] for resources in self._resources.values() if kind in resources]

    def _get_files(self, kind: str) -> list[str]:
        files: list[str] = []
        for found in self._get(kind):
            if isinstance(found, str | bytes):
                files.append(to_unicode(found))
            else:
                files.extend(found)
        return files

    def embedded_javascript(self) -> str:
        """See `UIModule`; so for the others."""
        return "\n".join(self._get("embedded_javascript"))

    def javascript_files(self) -> list[str]:
        """See `UIModule`."""
        return self._get_files("javascript_files")

    def embedded_css(self) -> str:
        """See `UIModule`."""
        return "\n".join(self._get("embedded_css"))

    def css_files(self) -> list[str]:
        """See `UIModule`."""
        return self._get_files("css_files")

    def html_head(self) -> str:
        """See `UIModule`."""
        return "".join(self._get("html_head"))

    def html_body(self) -> str:
        """See `UIModule`."""
        return "".join(self._get("html_body"))


class UIModuleNamespace:
    """What `modules` is in a template: `modules.Name(...)` renders the module of that name."""

    def __init__(self, bind: Callable[[str], Callable[..., str]]) -> None:
        self._bind = bind

    def __getitem__(self, name: str) -> Callable[..., str]:
        return self._bind(name)

    def __getattr__(self, name: str) -> Callable[..., str]:
        try:
            return self._bind(name)
        except KeyError:
            raise AttributeError(
                f"no UI module is called {name!r}; the setting ui_modules names them"
            ) from None
