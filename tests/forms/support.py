"""An application with one form, asked without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cycloneish.escape import json_decode
from cycloneish.forms import Form, FormMixin, uimodules
from cycloneish.template import DictLoader
from cycloneish.testing import Client
from cycloneish.web import Application, RequestHandler

PAGE = "<html><head></head><body>{% module Form(form) %}</body></html>"


def application(form: type[Form], done: Callable[..., Any] | None = None, **settings: Any) -> Application:
    """One page with *form*; what came in good is given to *done* or answered as JSON."""

    class Handler(FormMixin, RequestHandler):
        form_class = form
        template_name = "page.html"

        def form_valid(self, form: Form) -> Any:
            if done is not None:
                return done(self, form)
            return self.finish({"data": {name: repr(value) for name, value in form.data.items()}})

    loader = DictLoader({"page.html": settings.pop("page", PAGE)})
    settings.setdefault("log_function", lambda handler: None)
    return Application([("/", Handler)], ui_modules=uimodules, template_loader=loader, **settings)


class FormTestCase(TestCase):
    """Sends a form and looks at the answer."""

    def sent(self, form: type[Form], body: Any = None, **options: Any) -> Deferred[Any]:
        """Post *body* (a dictionary of fields); *json* and *files* as the client takes them."""
        client = Client(application(form))
        if body is not None:
            options["form"] = body
        return client.post("/", **options)

    def data(self, form: type[Form], body: Any = None, **options: Any) -> dict[str, str]:
        """What a good form had in it, as ``repr`` of each value."""
        answer = self.successResultOf(self.sent(form, body, **options))
        self.assertEqual(answer.code, 200, answer.body)
        found: dict[str, str] = json_decode(answer.body)["data"]
        return found

    def problems(self, form: type[Form], body: Any = None, **options: Any) -> dict[str, str]:
        """What was wrong, by JSON pointer."""
        headers = {"Accept": "application/json"}
        answer = self.successResultOf(self.sent(form, body, headers=headers, **options))
        self.assertEqual(answer.code, 422, answer.body)
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        return {one["pointer"]: one["detail"] for one in json_decode(answer.body)["errors"]}
