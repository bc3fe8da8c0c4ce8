"""Forms: what they read, what they refuse, and validators that wait."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cycloneish import locale
from cycloneish.escape import json_decode
from cycloneish.forms import (
    BooleanField,
    DataRequired,
    DateField,
    DecimalField,
    EmailField,
    FieldList,
    FileExtension,
    FileField,
    FileSize,
    FileType,
    FloatField,
    Form,
    FormField,
    InputRequired,
    IntegerField,
    Length,
    MultipleFileField,
    NumberRange,
    Optional,
    RadioField,
    SelectMultipleField,
    StringField,
    ValidationError,
)
from cycloneish.testing import Client
from cycloneish.web import Application, RequestHandler
from tests.forms.support import FormTestCase, application

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Person(Form):
    name = StringField(validators=[DataRequired(), Length(max=10)])
    age = IntegerField(validators=[Optional(), NumberRange(0, 150)])
    adult = BooleanField()


class Street(Form):
    street = StringField(validators=[DataRequired()])
    number = IntegerField(validators=[Optional()])


class Order(Form):
    address = FormField(Street)
    tags = FieldList(StringField(validators=[Length(max=5)]), max_entries=3)
    items = FieldList(FormField(Street))
    colours = SelectMultipleField(choices={"r": "red", "g": "green"})


class Reading(FormTestCase):
    def test_a_form_and_json_are_read_alike(self) -> None:
        for sent in (
            {"body": {"name": "Ada", "age": "36", "adult": "y"}},
            {"json": {"name": "Ada", "age": 36, "adult": True}},
        ):
            self.assertEqual(self.data(Person, **sent), {"name": "'Ada'", "age": "36", "adult": "True"})

    def test_what_is_not_sent(self) -> None:
        for sent in ({"body": {"name": "Ada"}}, {"json": {"name": "Ada", "adult": False, "age": None}}):
            self.assertEqual(self.data(Person, **sent), {"name": "'Ada'", "age": "None", "adult": "False"})

    def test_what_has_no_field_is_ignored(self) -> None:
        self.assertEqual(set(self.data(Person, {"name": "Ada", "is_admin": "1"})), {"name", "age", "adult"})

    def test_forms_and_lists_inside(self) -> None:
        expected = {
            "address": "{'street': 'Main', 'number': 5}",
            "tags": "['a', 'b']",
            "items": "[{'street': 'x', 'number': None}, {'street': 'y', 'number': 2}]",
            "colours": "['r', 'g']",
        }
        fields = [
            ("address-street", "Main"),
            ("address-number", "5"),
            ("tags-0", "a"),
            ("tags-1", "b"),
            ("items-0-street", "x"),
            ("items-1-street", "y"),
            ("items-1-number", "2"),
            ("colours", "r"),
            ("colours", "g"),
        ]
        self.assertEqual(self.data(Order, fields), expected)
        document = {
            "address": {"street": "Main", "number": 5},
            "tags": ["a", "b"],
            "items": [{"street": "x"}, {"street": "y", "number": 2}],
            "colours": ["r", "g"],
        }
        self.assertEqual(self.data(Order, json=document), expected)

    def test_a_get_shows_an_object_and_a_query_is_read_when_asked(self) -> None:
        class Search(Form):
            q = StringField(default="all")

        seen: list[Any] = []

        class Page(RequestHandler):
            def get(self) -> None:
                seen.append(
                    (Search(self).q.data, Search(self, source="query").q.data, Search(self, q="x").q.data)
                )

        self.successResultOf(Client(Application([("/", Page)])).get("/?q=twisted"))
        self.assertEqual(seen, [("all", "twisted", "x")])

    def test_files(self) -> None:
        class Upload(Form):
            picture = FileField(validators=[InputRequired(), FileSize(max=100), FileType("image/png")])
            more = MultipleFileField(validators=[FileExtension("txt")])

        answer = self.data(
            Upload, {}, files={"picture": ("a.png", PNG), "more": [("a.txt", b"1"), ("B.TXT", b"2")]}
        )
        self.assertIn("a.png", answer["picture"])
        self.assertEqual(answer["more"].count("filename"), 2)
        wrong = self.problems(
            Upload, {}, files={"picture": ("a.png", b"GIF89a" + bytes(200)), "more": ("x.exe", b"")}
        )
        self.assertEqual(set(wrong), {"#/picture", "#/more"})
        # A name in place of the file is no file.
        self.assertEqual(set(self.problems(Upload, {"picture": "a.png"})), {"#/picture"})


class Hostile(FormTestCase):
    def test_bodies_that_are_no_forms(self) -> None:
        for body in (
            b"",
            b"[]",
            b"3",
            b"{",
            b'{"a": NaN}',
            b'{"a":' * 100_000,
            b'"\xff"',
            b"1" * 5000,
            b"null",
        ):
            answer = self.successResultOf(
                self.sent(Person, body=None, headers={"Content-Type": "application/json"})
                if not body
                else Client(application(Person)).post(
                    "/", body=body, headers={"Content-Type": "application/json"}
                )
            )
            self.assertEqual(answer.code, 400, body[:20])

    def test_too_many_and_too_deep(self) -> None:
        deep: Any = "x"
        for _ in range(50):
            deep = {"a": deep}
        for document in ({"tags": ["x"] * 5000}, {"address": deep}):
            answer = self.successResultOf(self.sent(Order, json=document))
            self.assertEqual(answer.code, 400)

    def test_types(self) -> None:
        for name, value in [("name", ["a", "b"]), ("name", {"a": 1}), ("age", [3]), ("adult", {})]:
            wrong = self.problems(Person, json={"name": "Ada", name: value})
            self.assertEqual(wrong[f"#/{name}"], "A single value is expected here.")
        for name, value in [("address", "x"), ("tags", "x"), ("items", {"0": {}}), ("colours", [["r"]])]:
            good = {"address": {"street": "x"}, "tags": [], "items": []}
            wrong = self.problems(Order, json={**good, name: value})
            self.assertTrue(all(pointer.startswith(f"#/{name}") for pointer in wrong), wrong)
        wrong = self.problems(Order, json={"address": {"street": ["x"]}, "items": [{"street": {}}]})
        self.assertEqual(set(wrong), {"#/address/street", "#/items"})
        wrong = self.problems(
            Order,
            json={
                **good,
                "items": [{"street": ["x"]}, {"street": "x", "number": {"a": 1}}],
                "tags": ["x"] * 4,
            },
        )
        self.assertEqual(set(wrong), {"#/items/0/street", "#/items/1/number", "#/tags"})

    def test_numbers(self) -> None:
        class Numbers(Form):
            whole = IntegerField()
            decimal = DecimalField()
            floating = FloatField()

        for text in (
            "\uff11\uff12",
            "1_000",
            "0x10",
            "inf",
            "nan",
            "1e999999",
            "9" * 400,
            "1e400 ",
            "--1",
            "½",
            "1\x002",
        ):
            wrong = self.problems(Numbers, {"whole": text, "decimal": text, "floating": text})
            self.assertIn("#/whole", wrong)
            if text != "1e400 ":
                self.assertEqual(len(wrong), 3, text)
        good = self.data(Numbers, {"whole": " -7 ", "decimal": "1.50", "floating": "1e3"})
        self.assertEqual(good, {"whole": "-7", "decimal": "Decimal('1.50')", "floating": "1000.0"})

    def test_text_that_no_page_and_no_database_can_hold(self) -> None:
        for text in (r"a\ud800b", r"a\u0000b"):
            body = b'{"name": "' + text.encode() + b'"}'
            headers = {"Content-Type": "application/json"}
            answer = self.successResultOf(Client(application(Person)).post("/", body=body, headers=headers))
            self.assertEqual(json_decode(answer.body)["data"]["name"], "'a b'")
        self.assertEqual(self.data(Person, {"name": "a\0b"})["name"], "'a b'")

    def test_dates(self) -> None:
        class Day(Form):
            day = DateField()

        self.assertEqual(set(self.problems(Day, {"day": "\uff12020-01-01"})), {"#/day"})
        self.assertEqual(self.data(Day, {"day": "2020-01-02"})["day"], "datetime.date(2020, 1, 2)")

    def test_names_of_entries(self) -> None:
        fields = [
            ("address-street", "x"),
            ("tags-²", "a"),
            ("tags-" + "9" * 5000, "b"),
            ("tags-\uff11", "c"),
            ("tags-1", "d"),
        ]
        self.assertEqual(self.data(Order, fields)["tags"], "['d']")
        many = [("address-street", "x"), *((f"tags-{n}", "a") for n in range(500))]
        self.assertEqual(self.data(Order, many)["tags"], "['a', 'a', 'a']")

    def test_choices(self) -> None:
        class Choice(Form):
            colour = RadioField(choices={"r": "red"})

        self.assertEqual(list(self.problems(Choice, {"colour": "<script>"})), ["#/colour"])


class Waiting(TestCase):
    def form(self, check: Any, **fields: Any) -> Form:
        class Sign(Form):
            name = StringField(validators=[Length(max=5)])
            mail = EmailField()

            validate_name = check

        return Sign(formdata=None, name=fields.get("name", "ada"))

    def test_all_ways_of_waiting(self) -> None:
        async def coroutine(form: Any, field: Any) -> None:
            await succeed(None)
            raise ValidationError("taken")

        def deferred(form: Any, field: Any) -> Deferred[None]:
            result: Deferred[None] = Deferred()
            result.errback(ValidationError("taken"))
            return result

        @inlineCallbacks
        def generator(form: Any, field: Any) -> Any:
            yield succeed(None)
            raise ValidationError("taken")

        def plain(form: Any, field: Any) -> None:
            raise ValidationError("taken")

        for check in (coroutine, deferred, generator, plain):
            form = self.form(check)
            self.assertIs(self.successResultOf(form.validate()), False)
            self.assertEqual(form.errors, {"name": ["taken"]})

        async def fine(form: Any, field: Any) -> None:
            await succeed(None)

        form = self.form(fine)
        self.assertIs(self.successResultOf(form.validate()), True)
        self.assertEqual(form.errors, {})

    def test_a_field_that_is_wrong_already_is_not_looked_up(self) -> None:
        asked: list[str] = []

        async def check(form: Any, field: Any) -> None:
            asked.append(field.data)

        form = self.form(check, name="far too long")
        self.assertIs(self.successResultOf(form.validate()), False)
        self.assertEqual(asked, [])
        self.assertEqual(len(form.errors["name"]), 1)

    def test_those_that_wait_do_so_side_by_side_and_the_form_last(self) -> None:
        waits: dict[str, Deferred[None]] = {}
        cleaned: list[bool] = []

        def check(form: Any, field: Any) -> Deferred[None]:
            waits[field.name] = Deferred()
            return waits[field.name]

        class Two(Form):
            a = StringField(validators=[check])
            b = StringField(validators=[check])
            inner = FieldList(StringField(validators=[check]), min_entries=1)
            deep = FormField(type("Inner", (Form,), {"c": StringField(validators=[check])}))

            async def clean(self) -> None:
                cleaned.append(True)
                raise ValidationError("a and b do not fit")

        form = Two()
        result = form.validate()
        self.assertEqual(set(waits), {"a", "b", "inner-0", "deep-c"})
        waits["b"].callback(None)
        waits["a"].callback(None)
        waits["deep-c"].callback(None)
        self.assertNoResult(result)
        self.assertEqual(cleaned, [])
        waits["inner-0"].callback(None)
        self.assertIs(self.successResultOf(result), False)
        self.assertEqual(form.form_errors, ["a and b do not fit"])
        result = form.validate()
        for name in ("inner-0", "deep-c"):
            waits[name].errback(ValidationError(f"{name} no"))
        waits["a"].callback(None)
        waits["b"].callback(None)
        self.assertIs(self.successResultOf(result), False)
        self.assertEqual(form.errors, {"inner": [["inner-0 no"]], "deep": {"c": ["deep-c no"]}})

    def test_cancelled(self) -> None:
        ended: list[str] = []

        def check(form: Any, field: Any) -> Deferred[None]:
            return Deferred(lambda _: ended.append(field.name))

        result = self.form(check).validate()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(ended, ["name"])

    @inlineCallbacks
    def test_too_long(self) -> Any:
        ended: list[str] = []

        def check(form: Any, field: Any) -> Deferred[None]:
            return Deferred(lambda _: ended.append(field.name))

        yield self.assertFailure(self.form(check).validate(timeout=0.01), TimeoutError)
        self.assertEqual(ended, ["name"])

    def test_an_error_of_the_program_is_one(self) -> None:
        ended: list[str] = []

        async def check(form: Any, field: Any) -> None:
            await succeed(None)
            raise ZeroDivisionError

        form = self.form(check)
        form["mail"].validators = [lambda form, field: Deferred(lambda _: ended.append("mail"))]
        self.failureResultOf(form.validate(), ZeroDivisionError)
        self.assertEqual(ended, ["mail"])

    @inlineCallbacks
    def test_validated_again(self) -> Any:
        async def check(form: Any, field: Any) -> None:
            from twisted.internet import reactor

            await deferLater(reactor, 0)
            if field.data == "ada":
                raise ValidationError("taken")

        form = self.form(check)
        self.assertIs((yield form.validate()), False)
        form["name"].data = "bob"
        self.assertIs((yield form.validate()), True)


class Languages(FormTestCase):
    def tearDown(self) -> None:
        locale._use({}, False)

    def test_messages_are_those_of_wtforms_or_of_the_site(self) -> None:
        locale._use({"de": {"unknown": {"This name is taken.": "Vergeben."}}, "fr": {}}, False)

        class Day(Form):
            name = StringField(validators=[DataRequired()])
            short = StringField(validators=[Length(max=3)])
            day = DateField()

            def validate_name(self, field: Any) -> None:
                raise ValidationError(field.gettext("This name is taken."))

        def say(language: str, **fields: str) -> dict[str, str]:
            answer = self.successResultOf(
                self.sent(Day, fields, headers={"Accept": "application/json", "Accept-Language": language})
            )
            return {one["pointer"]: one["detail"] for one in json_decode(answer.body)["errors"]}

        self.assertEqual(say("de", name="x", day="x")["#/name"], "Vergeben.")
        self.assertEqual(say("de", name="")["#/name"], "Dieses Feld wird benötigt.")
        self.assertEqual(say("fr", name="")["#/name"], "Ce champ est requis.")
        self.assertEqual(say("en", name="")["#/name"], "This field is required.")
        self.assertIn("3", say("fr", name="x", short="xxxxx")["#/short"])
