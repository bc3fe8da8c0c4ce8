"""Forms as HTML: what a screen reader is told, what is escaped, other class names."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.forms import (
    BOOTSTRAP,
    BooleanField,
    DataRequired,
    FieldList,
    FileExtension,
    FileField,
    Form,
    FormField,
    HiddenField,
    InputRequired,
    IntegerField,
    Length,
    NumberRange,
    PasswordField,
    RadioField,
    SelectField,
    StringField,
    SubmitField,
    TextAreaField,
    ValidationError,
)
from cycloneish.forms.rendering import render_field, render_form
from cycloneish.forms.uimodules import STYLE
from cycloneish.testing import Client
from tests.forms.support import application

EVIL = "<script>alert('x')</script>\""


class Inner(Form):
    street = StringField("Street", description="Where?")


class Everything(Form):
    name = StringField("Name <b>", [DataRequired(), Length(max=20)], description="Help & more")
    secret = PasswordField("Secret")
    many = IntegerField("How many", [NumberRange(1, 5)])
    text = TextAreaField("Text")
    one = SelectField("One", choices={"a": "A<", "b": "B"})
    radio = RadioField("Radio", [InputRequired()], choices={"a": "A", "b": "B"})
    rules = BooleanField("Rules", description="Read them")
    picture = FileField("Picture", [FileExtension("png")])
    token = HiddenField()
    address = FormField(Inner, "Address")
    tags = FieldList(StringField("Tag"), "Tags", min_entries=2)

    def clean(self) -> None:
        raise ValidationError("All of it is <wrong>")


class Page(HTMLParser):
    """The elements of a page by their ids, and all of them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)
        self.by_id = {attributes["id"]: attributes for _, attributes in self.elements if "id" in attributes}

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("input", "br", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


class Rendering(SynchronousTestCase):
    def form(self, **data: Any) -> Everything:
        form = Everything(data=data)
        self.successResultOf(form.validate())
        return form

    def test_whole(self) -> None:
        form = self.form(name=EVIL, text=EVIL, many=9)
        form.name.errors = ["too <long>", "and ugly"]
        html = str(render_form(form))
        page = Page(html)
        self.assertEqual((page.open, page.unbalanced), ([], []))
        self.assertNotIn("<script>", html)
        self.assertNotIn("<b>", html)
        self.assertNotIn("<wrong>", html)
        self.assertNotIn("<long>", html)
        name = page.by_id["name"]
        self.assertEqual(name["aria-describedby"], "name-error name-help")
        self.assertEqual(
            (name["aria-invalid"], name["maxlength"], name["class"]), ("true", "20", "form-input is-invalid")
        )
        self.assertIn("required", name)
        self.assertEqual(page.by_id["name-error"]["role"], "alert")
        self.assertIn(("label", {"for": "name", "class": "form-label"}), page.elements)
        self.assertEqual((page.by_id["many"]["min"], page.by_id["many"]["max"]), ("1", "5"))
        self.assertEqual(page.by_id["picture"]["accept"], ".png")
        # Every reference leads somewhere, and no id is there twice.
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        self.assertEqual(len(ids), len(set(ids)))
        for tag, attributes in page.elements:
            for target in (attributes.get("aria-describedby", "") + " " + attributes.get("for", "")).split():
                self.assertIn(target, page.by_id, tag)
        labelled = {attributes["for"] for tag, attributes in page.elements if tag == "label"}
        for tag, attributes in page.elements:
            if tag in ("input", "select", "textarea") and attributes.get("type") != "hidden":
                self.assertIn(attributes["id"], labelled)
        first = next(attributes for tag, attributes in page.elements if tag == "form")
        self.assertEqual(first["enctype"], "multipart/form-data")
        self.assertIn("novalidate", first)
        self.assertEqual([tag for tag, _ in page.elements].count("fieldset"), 3)
        self.assertEqual([tag for tag, _ in page.elements].count("button"), 1)

    def test_groups(self) -> None:
        form = self.form()
        page = Page(str(render_field(form.radio)))
        self.assertEqual(page.elements[0][0], "fieldset")
        self.assertEqual(page.elements[0][1]["aria-describedby"], "radio-error")
        self.assertEqual([a.get("aria-invalid") for t, a in page.elements if t == "input"], ["true", "true"])
        form.form_errors = ["whole"]
        form.token.errors = ["forged"]
        html = str(render_form(form))
        self.assertIn('role="alert"><p>whole</p><p>Token: forged</p>', html)

    def test_errors_of_lists(self) -> None:
        form = self.form(name="x", many=2, radio="a")
        form.tags.errors = [["bad tag"], []]
        form.tags.entries[0].errors = ["bad tag"]
        html = str(render_field(form.tags))
        self.assertEqual(html.count("bad tag"), 1)
        self.assertIn('id="tags-0-error"', html)

    def test_other_class_names(self) -> None:
        html = str(render_form(self.form(), classes=BOOTSTRAP))
        for expected in (
            'class="form-control is-invalid"',
            'class="btn btn-primary"',
            'class="form-check-input"',
        ):
            self.assertIn(expected, html)
        self.assertNotIn('class=""', html)

    def test_a_button_of_its_own(self) -> None:
        class Small(Form):
            go = SubmitField("Go")

        html = str(render_form(Small()))
        self.assertEqual(html.count("submit"), 1)


class Modules(SynchronousTestCase):
    def page(self, template: str, **settings: Any) -> str:
        app = application(Everything, page=f"<html><head></head><body>{template}</body></html>", **settings)
        answer = self.successResultOf(Client(app).get("/"))
        self.assertEqual(answer.code, 200)
        return str(answer.body.decode())

    def test_form_with_token_and_style(self) -> None:
        html = self.page(
            "{% module Form(form, submit='Go', action='/there?a=1&b=2', id='f', data_x='\"') %}",
            xsrf_cookies=True,
            cookie_secret="x",
        )
        self.assertIn('name="_xsrf"', html)
        self.assertIn(STYLE.splitlines()[0], html)
        self.assertIn('action="/there?a=1&amp;b=2"', html)
        self.assertIn('id="f" data-x="&#34;"', html)
        self.assertIn(">Go</button>", html)

    def test_without(self) -> None:
        html = self.page(
            "{% module Form(form, method='get') %}", form_style=False, xsrf_cookies=True, cookie_secret="x"
        )
        self.assertNotIn("_xsrf", html)
        self.assertNotIn("<style", html)
        html = self.page("{% module Form(form) %}", form_style="/forms.css")
        self.assertIn('href="/forms.css"', html)
        self.assertNotIn(STYLE.splitlines()[0], html)

    def test_parts(self) -> None:
        html = self.page(
            "{% module FormErrors(form) %}{% module Field(form.name, placeholder='<x>') %}",
            form_classes={"input": "mine"},
        )
        self.assertIn('class="mine"', html)
        self.assertIn('placeholder="&lt;x&gt;"', html)
