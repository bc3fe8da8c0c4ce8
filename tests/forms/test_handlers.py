"""A page with a form: shown, refused, taken; by browsers and by programs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.escape import json_decode
from cycloneish.forms import DataRequired, Form, FormMixin, StringField, ValidationError
from cycloneish.forms.data import wants_json
from cycloneish.testing import Client
from cycloneish.web import Application, RequestHandler
from tests.forms.support import application


class Named(Form):
    name = StringField("Name", [DataRequired()])

    async def validate_name(self, field: Any) -> None:
        await succeed(None)
        if field.data == "root":
            raise ValidationError("This name is taken.")

    def clean(self) -> None:
        if self.name.data == "x/~y":
            raise ValidationError("odd")


class Pages(SynchronousTestCase):
    def test_shown_and_taken(self) -> None:
        taken: list[str] = []

        async def done(handler: Any, form: Any) -> None:
            await succeed(None)
            taken.append(form.name.data)
            handler.redirect("/thanks", status=303)

        client = Client(application(Named, done))
        self.assertIn(b'name="name"', self.successResultOf(client.get("/")).body)
        answer = self.successResultOf(client.post("/", form={"name": "root"}))
        self.assertEqual(answer.code, 422)
        self.assertEqual(answer.headers["Content-Type"], "text/html; charset=UTF-8")
        self.assertIn(b"This name is taken.", answer.body)
        self.assertIn(b'value="root"', answer.body)
        answer = self.successResultOf(client.post("/", form={"name": "ada"}))
        self.assertEqual((answer.code, answer.headers["Location"], taken), (303, "/thanks", ["ada"]))

    def test_problem_details(self) -> None:
        client = Client(application(Named))
        for options in (
            {"json": {"name": "root"}},
            {"form": {"name": "root"}, "headers": {"Accept": "application/problem+json, text/html;q=0.5"}},
        ):
            answer = self.successResultOf(client.post("/", **options))
            self.assertEqual(answer.code, 422)
            self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
            document = json_decode(answer.body)
            self.assertEqual((document["type"], document["status"]), ("about:blank", 422))
            self.assertEqual(document["detail"], "1 value cannot be accepted.")
            self.assertEqual(
                document["errors"], [{"pointer": "#/name", "detail": "This name is taken.", "field": "name"}]
            )
        answer = self.successResultOf(client.post("/", json={"name": "x/~y"}))
        self.assertEqual(json_decode(answer.body)["errors"], [{"pointer": "#", "detail": "odd"}])

    def test_the_token_is_that_of_the_handler(self) -> None:
        client = Client(application(Named, xsrf_cookies=True, cookie_secret="x"))
        self.assertEqual(self.successResultOf(client.post("/", form={"name": "a"})).code, 403)
        self.assertEqual(self.successResultOf(client.post("/", form={"name": "a"}, xsrf=True)).code, 200)

    def test_what_is_missing_is_named(self) -> None:
        class Handler(FormMixin, RequestHandler):
            form_class = Named

        app = Application([("/", Handler)], log_function=lambda handler: None)
        for method, options in (("GET", {}), ("POST", {"form": {"name": "a"}})):
            client = Client(app, raise_errors=True)
            failure = self.failureResultOf(client.request(method, "/", **options), TypeError)
            self.assertIn("Handler needs a", failure.getErrorMessage())

    def test_who_wants_json(self) -> None:
        wanted: dict[str, bool] = {}

        class Handler(RequestHandler):
            def get(self) -> None:
                accept = self.request.headers.get("Accept", "")
                wanted[accept] = wants_json(self)

        app = Application([("/", Handler)])
        expected = {
            "": False,
            "*/*": False,
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": False,
            "application/json": True,
            "Application/Problem+JSON": True,
            "application/json;q=0.4, text/html;q=0.5": False,
            "application/json, text/html;q=0.9": True,
            "application/json;q=x": False,
            "application/json;q=0": False,
        }
        for accept in expected:
            self.successResultOf(Client(app).get("/", headers={"Accept": accept}))
        self.assertEqual(wanted, expected)
