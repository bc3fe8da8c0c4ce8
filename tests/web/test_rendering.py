"""Templates, UI methods and modules, links to static files, locale and user."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.template import DictLoader
from cycloneish.web import (
    Application,
    RequestHandler,
    StaticFileHandler,
    TemplateModule,
    UIModule,
    is_absolute,
)
from tests.web.fake import Logs, fetch

PAGE = "<html><head></head><body>%s</body></html>"


class Box(UIModule):
    def render(self, text: str, **kwargs: Any) -> str:
        return f"[{text}|{self.current_user}|{self.locale.code}|{self.ui.shout('x')}]"

    def embedded_javascript(self) -> str:
        return "js()"

    def javascript_files(self) -> list[str]:
        return ["/box.js", "http://cdn.example/a.js", "/box.js"]

    def embedded_css(self) -> str:
        return "p {}"

    def css_files(self) -> str:
        return "/box.css?a=1&b=2"

    def html_head(self) -> str:
        return "<meta>"

    def html_body(self) -> str:
        return "<hr>"


class Page(RequestHandler):
    def get_current_user(self) -> str:
        return "ada"

    def get(self) -> None:
        self.render(self.get_argument("t", "page.html"), value="<b>")


def app(templates: dict[str, str], **settings: Any) -> Application:
    RequestHandler._template_loaders.clear()
    return Application(
        [("/", Page), ("/named/(.*)", Page, {}, "named")],
        template_loader=DictLoader(templates),
        ui_methods={"shout": lambda handler, text: text.upper()},
        ui_modules={"Box": Box},
        **settings,
    )


class TemplateTests(SynchronousTestCase):
    def page(self, template: str, **kwargs: Any) -> str:
        templates = {"page.html": template, **kwargs.pop("more", {})}
        return fetch(app(templates, **kwargs)).body.decode()

    def test_namespace(self) -> None:
        self.assertEqual(
            self.page(
                "{{ value }} {{ current_user }} {{ handler.__class__.__name__ }} {{ request.path }} "
                "{{ _('x') }} {{ locale.code }} {{ reverse_url('named', 'a b') }} {{ shout('a') }}"
            ),
            "&lt;b&gt; ada Page / x en_US /named/a%20b A",
        )

    def test_modules_bring_their_resources(self) -> None:
        self.assertEqual(
            self.page(PAGE % "{% module Box('a') %}{% module Box('b') %}"),
            "<html><head>"
            '<link href="/box.css?a=1&amp;b=2" type="text/css" rel="stylesheet"/>\n'
            '<style type="text/css">\np {}\n</style>\n<meta>\n'
            "</head><body>[a|ada|en_US|X][b|ada|en_US|X]"
            '<script src="/box.js" type="text/javascript"></script>'
            '<script src="http://cdn.example/a.js" type="text/javascript"></script>\n'
            '<script type="text/javascript">\n//<![CDATA[\njs()\n//]]>\n</script>\n'
            "<hr>\n</body></html>",
        )

    def test_page_without_head_and_body(self) -> None:
        page = self.page("x {% module Box('a') %}")
        self.assertTrue(page.startswith("<link"))
        self.assertTrue(page.endswith("<hr>\n"))

    def test_built_in_modules(self) -> None:
        self.assertEqual(
            self.page("{% module linkify('http://a.example') %}"),
            '<a href="http://a.example">http://a.example</a>',
        )
        self.assertIn('name="_xsrf"', self.page("{% module xsrf_form_html() %}"))

    def test_template_module(self) -> None:
        page = self.page(
            PAGE % "{% module Template('entry.html', n=1) %}{% module Template('entry.html', n=2) %}",
            more={
                "entry.html": "{{ n }}{{ set_resources(embedded_css='i {}', css_files='/e.css', "
                "javascript_files=['/e.js'], embedded_javascript='e()', html_head='<h>', html_body='<b>') }}"
            },
        )
        for part in ("12", "i {}", "/e.css", "/e.js", "e()", "<h>", "<b>"):
            self.assertEqual(page.count(part), 1, part)

    def test_template_module_with_changing_resources(self) -> None:
        templates = {
            "page.html": "{% module Template('entry.html', n=1) %}{% module Template('entry.html', n=2) %}",
            "entry.html": "{{ set_resources(embedded_css=str(n)) }}",
        }
        with Logs() as logs:
            self.assertEqual(fetch(app(templates)).code, 500)
        self.assertIn("Uncaught exception", logs.text)

    def test_unknown_module(self) -> None:
        with Logs():
            self.assertEqual(fetch(app({"page.html": "{% module Nothing() %}"})).code, 500)
            self.assertEqual(fetch(app({"page.html": "{{ modules.Nothing() }}"})).code, 500)
        self.assertEqual(self.page("{{ modules.linkify('x') }}"), "x")

    def test_module_without_render(self) -> None:
        application = app({"page.html": "{% module Plain() %}"})
        application.ui_modules["Plain"] = UIModule
        with Logs():
            self.assertEqual(fetch(application).code, 500)
        module = UIModule(_handler(application))
        for name in (
            "embedded_javascript", "javascript_files", "embedded_css", "css_files", "html_head", "html_body",
        ):  # fmt: skip
            self.assertIsNone(getattr(module, name)())
        self.assertEqual(list(TemplateModule(module.handler).css_files()), [])

    def test_loaders(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        with open(os.path.join(directory, "page.html"), "w") as file:
            file.write("{{ value }}  x")
        RequestHandler._template_loaders.clear()
        self.assertEqual(fetch(Page, template_path=directory).body, b"&lt;b&gt; x")
        self.assertEqual(fetch(Page, template_path=directory).body, b"&lt;b&gt; x")
        self.assertEqual(len(RequestHandler._template_loaders), 1)
        # Another application with the same directory has its own rules.
        connection = fetch(Page, template_path=directory, autoescape=None, template_whitespace="all")
        self.assertEqual(connection.body, b"<b>  x")

    def test_templates_beside_the_handler(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.render_string("missing.html")

        with Logs("cycloneish.application") as logs:
            self.assertEqual(fetch(Handler).code, 500)
        error = logs.records[0].exc_info[1]  # type: ignore[index]
        self.assertIn(os.path.join(os.path.dirname(__file__), "missing.html"), str(error))

    def test_templates_are_read_anew_in_debug_mode(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        for text in ("one", "two"):
            with open(os.path.join(directory, "page.html"), "w") as file:
                file.write(text)
            connection = fetch(Page, template_path=directory, compiled_template_cache=False)
            self.assertEqual(connection.body, text.encode())


def _handler(application: Application) -> RequestHandler:
    from cycloneish.httputil import HTTPServerRequest

    return RequestHandler(application, HTTPServerRequest("GET", "/"))


class LinkTests(SynchronousTestCase):
    def test_static_url(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        with open(os.path.join(directory, "a.css"), "w") as file:
            file.write("p {}")
        handler = _handler(Application(static_path=directory))
        self.assertRegex(handler.static_url("a.css"), r"^/static/a\.css\?v=[0-9a-f]+$")
        self.assertEqual(handler.static_url("a.css", include_version=False), "/static/a.css")
        absolute = handler.static_url("a.css", include_host=True)
        self.assertTrue(absolute.startswith("http://127.0.0.1/static/"))
        handler.include_host = True  # type: ignore[attr-defined]
        self.assertEqual(handler.static_url("a.css"), absolute)

    def test_versions_are_forgotten_in_debug_mode(self) -> None:
        class Own(StaticFileHandler):
            resets = 0

            @classmethod
            def reset(cls) -> None:
                cls.resets += 1

        for cached in (True, False):
            application = app({"page.html": "x"}, static_handler_class=Own, static_hash_cache=cached)
            self.assertEqual(fetch(application).code, 200)
            self.assertEqual(Own.resets, 0 if cached else 1)

    def test_static_url_needs_the_setting(self) -> None:
        error = self.assertRaises(LookupError, _handler(Application()).static_url, "a.css")
        self.assertIn("static_path", str(error))

    def test_is_absolute(self) -> None:
        self.assertTrue(all(map(is_absolute, ("/a", "http://a", "https://a"))))
        self.assertFalse(is_absolute("a/b"))


class VisitorTests(SynchronousTestCase):
    def locale(self, header: str) -> str:
        handler = _handler(Application())
        handler.request.headers["Accept-Language"] = header
        return handler.locale.code

    def test_browser_locale(self) -> None:
        from cycloneish import locale

        before = locale._supported_locales
        self.addCleanup(setattr, locale, "_supported_locales", before)
        locale._supported_locales = frozenset(["en_US", "de_DE", "fr_FR"])
        for header, expected in (
            ("de-DE,de;q=0.9", "de_DE"),
            ("xx, fr-FR;q=0.5, de-DE;q=0.7", "de_DE"),
            ("de-DE;q=0, fr-FR;q=0.1", "fr_FR"),
            ("de-DE;q=x, fr-FR;q=0.1", "fr_FR"),
            ("de-DE;q=-1, fr-FR", "fr_FR"),
            ("de-DE;level=1", "de_DE"),
            (";;,", "en_US"),
            ("*", "en_US"),
        ):
            self.assertEqual(self.locale(header), expected, header)

    def test_chosen_locale(self) -> None:
        from cycloneish.locale import get

        chosen = get("en_US")

        class Handler(RequestHandler):
            def get_user_locale(self) -> Any:
                return chosen

        from cycloneish.httputil import HTTPServerRequest

        handler = Handler(Application(), HTTPServerRequest("GET", "/"))
        self.assertIs(handler.locale, chosen)
        other = _handler(Application())
        other.locale = chosen
        self.assertIs(other.locale, chosen)

    def test_user_is_looked_up_once(self) -> None:
        calls: list[str] = []

        class Handler(RequestHandler):
            def get_current_user(self) -> Any:
                calls.append("x")

            def get(self) -> None:
                self.write(f"{self.current_user} {self.current_user}")
                self.current_user = "ada"
                self.write(self.current_user)

        self.assertEqual(fetch(Handler).body, b"None Noneada")
        self.assertEqual(calls, ["x"])
