"""Tests for :mod:`cycloneish.template`: the language, the escaping, the loaders and the tracebacks."""

from __future__ import annotations

import datetime
import os
import random
import threading
import time
import traceback
from typing import Any

import tornado.template
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import cycloneish.template
from cycloneish import escape
from cycloneish.template import (
    BaseLoader,
    DictLoader,
    Loader,
    ParseError,
    Template,
    TemplateSyntaxError,
    filter_whitespace,
)


def render(text: str | bytes, /, **variables: Any) -> bytes:
    return Template(text).generate(**variables)


class LanguageTests(SynchronousTestCase):
    def test_methods_that_import_something_work(self) -> None:
        day = datetime.date(2024, 2, 3)
        self.assertEqual(render("{{ day.strftime('%d.%m.%Y') }}", day=day), b"03.02.2024")

    def test_expressions_take_any_type(self) -> None:
        text = "{{ a }}|{{ b }}|{{ c }}|{{ d }}|{{ e }}"
        self.assertEqual(
            render(text, a="é", b="é".encode(), c=3, d=None, e=[1, "x"]),
            "é|é|3|None|[1, &#x27;x&#x27;]".encode(),
        )

    def test_a_tuple_without_brackets_is_an_expression(self) -> None:
        self.assertEqual(render("{{ 1, 2 }}"), b"(1, 2)")

    def test_an_expression_may_run_over_lines_and_carry_a_comment(self) -> None:
        self.assertEqual(render("{{ 1\n + 2 }}{{ 3 # three }}{{ [\n1] }}"), b"33[1]")

    def test_a_condition_may_run_over_lines(self) -> None:
        text = "{% if a and\n b %}both{% elif a or\n b %}one{% else %}none{% end %}"
        self.assertEqual(render(text, a=1, b=1), b"both")
        self.assertEqual(render(text, a=1, b=0), b"one")
        self.assertEqual(render(text, a=0, b=0), b"none")

    def test_any_white_space_may_follow_the_operator(self) -> None:
        self.assertEqual(render("{% if\nTrue %}{% set\tx = 1 %}{{ x }}{% end %}"), b"1")

    def test_a_number_sign_in_a_condition_is_no_comment(self) -> None:
        self.assertEqual(render("{% if x == '#' %}hash{% end %}", x="#"), b"hash")

    def test_assignment_expression_in_a_condition(self) -> None:
        self.assertEqual(render("{% if y := x + 1 %}{{ y }}{% end %}", x=1), b"2")

    def test_loops_with_break_continue_and_else(self) -> None:
        text = "{% for i in r %}{% if i == 1 %}{% continue %}{% end %}{{ i }}{% else %}!{% end %}"
        self.assertEqual(render(text, r=range(3)), b"02!")
        text = (
            "{% set i = 0 %}{% while True %}{% set i += 1 %}"
            "{% if i > 3 %}{% break %}{% end %}{{ i }}{% end %}"
        )
        self.assertEqual(render(text), b"123")

    def test_output_before_a_failure_in_try_is_kept(self) -> None:
        text = (
            "{% try %}a{{ 'b' }}{{ 1/x }}c{% except ZeroDivisionError as e %}-{{ e }}"
            "{% else %}+{% finally %}.{% end %}"
        )
        self.assertEqual(render(text, x=0), b"ab-division by zero.")
        self.assertEqual(render(text, x=2), b"ab0.5c+.")

    def test_output_of_an_apply_that_fails_in_try_is_dropped(self) -> None:
        text = "{% try %}x{% apply f %}a{{ 1/0 }}{% end %}{% except %}-{% end %}"
        self.assertEqual(render(text, f=lambda value: value), b"x-")

    def test_imports(self) -> None:
        self.assertEqual(
            render("{% import math %}{% from os import path as p %}{{ math.floor(2.5) }}{{ p.sep }}"), b"2/"
        )

    def test_the_function_of_apply_is_given_bytes_and_its_result_is_not_escaped(self) -> None:
        seen: list[bytes] = []

        def tag(value: bytes) -> str:
            seen.append(value)
            return "<b>" + value.decode() + "</b>"

        self.assertEqual(render("{% apply tag %}é{{ x }}{% end %}", tag=tag, x="<"), "<b>é&lt;</b>".encode())
        self.assertEqual(seen, ["é&lt;".encode()])

    def test_applies_nest_and_see_loop_variables(self) -> None:
        text = "{% for i in range(2) %}{% apply f %}{{ i }}{% apply g %}{{ i }}{% end %}{% end %}{% end %}"
        out = render(text, f=lambda value: b"(" + value + b")", g=lambda value: b"[" + value + b"]")
        self.assertEqual(out, b"(0[0])(1[1])")

    def test_comments_are_left_out(self) -> None:
        self.assertEqual(render("a{# {{ b }} #}c{% comment {{ d %}e"), b"ace")

    def test_escaped_braces(self) -> None:
        self.assertEqual(render("{{!a}} {%!b%} {#!c#} {"), b"{{a}} {%b%} {#c#} {")

    def test_of_three_braces_the_inner_two_count(self) -> None:
        self.assertEqual(render("\\textbf{{{ 1 }}}{{{{ 2 }}}}"), b"\\textbf{1}{{2}}")

    def test_modules_are_not_escaped(self) -> None:
        class Modules:
            def Hi(self, name: str) -> bytes:
                return f"<b>{name}</b>".encode()

        self.assertEqual(render("{% module Hi('x') %}", _tt_modules=Modules()), b"<b>x</b>")

    def test_variables_may_have_the_names_of_what_the_code_uses_itself(self) -> None:
        text = "{{ type }}{{ str }}{{ self }}{{ list }}"
        self.assertEqual(render(text, type="a", str="b", self="c", list=4), b"abc4")

    def test_variables_go_before_the_loaders_and_those_before_the_built_in_ones(self) -> None:
        loader = DictLoader({"t": "{{ a }}{{ squeeze }}"}, namespace={"a": 1, "squeeze": 2})
        self.assertEqual(loader.load("t").generate(), b"12")
        self.assertEqual(loader.load("t").generate(a=3), b"32")

    def test_a_template_without_tags(self) -> None:
        self.assertEqual(render("just é"), "just é".encode())
        self.assertEqual(render(""), b"")

    def test_a_run_longer_than_one_tuple(self) -> None:
        self.assertEqual(render("{{ 1 }}-" * 1000), b"1-" * 1000)

    def test_evaluation_is_in_order_and_converts_at_once(self) -> None:
        text = "{{ items }}{{ items.append(1) or '' }}{{ items }}"
        self.assertEqual(render(text, items=[]), b"[][1]")

    def test_deep_nesting(self) -> None:
        depth = 15
        self.assertEqual(render("{% if True %}" * depth + "x" + "{% end %}" * depth), b"x")


class EscapeTests(SynchronousTestCase):
    def test_escaped_by_default_and_raw_when_asked(self) -> None:
        self.assertEqual(render("{{ x }}{% raw x %}", x="<&>\"'"), b"&lt;&amp;&gt;&quot;&#x27;<&>\"'")

    def test_a_nul_in_a_value_hides_nothing_from_escaping(self) -> None:
        for values in (["\0", "<"], ["<\0>", "\0\0"], ["a\0<", "<"], ["", "\0<"]):
            out = render("{% for v in values %}[{{ v }}]{% end %}", values=values)
            expected = "".join(f"[{escape.xhtml_escape(value)}]" for value in values)
            self.assertEqual(out, expected.encode())

    def test_a_string_subclass_is_escaped_with_its_characters(self) -> None:
        class Sly(str):
            def __str__(self) -> str:
                return "<script>"

            def replace(self, *args: Any) -> str:  # type: ignore[override]
                return self

        self.assertEqual(render("{{ x }}{% raw x %}", x=Sly("<i>")), b"&lt;i&gt;<i>")

    def test_what_str_makes_of_an_object_is_escaped(self) -> None:
        class Sly:
            def __str__(self) -> str:
                return "<i>"

        self.assertEqual(render("{{ x }}", x=Sly()), b"&lt;i&gt;")

    def test_bytes_that_are_not_utf8_go_through_raw_and_fail_escaped(self) -> None:
        self.assertEqual(render("é{% raw x %}{{ y }}", x=b"\xff\xfe", y="<"), "é".encode() + b"\xff\xfe&lt;")
        with self.assertRaises(UnicodeDecodeError):
            render("{{ x }}", x=b"\xff")

    def test_a_lone_surrogate_is_not_written(self) -> None:
        for text in ("{{ x }}", "{% raw x %}", "{% raw y %}{% raw x %}"):
            with self.assertRaises(UnicodeEncodeError):
                render(text, x="\udcff", y=b"\xff")

    def test_a_custom_function_is_given_bytes(self) -> None:
        seen = []

        def custom(value: bytes) -> str:
            seen.append(value)
            return f"<{value.decode()}>"

        text = "{% autoescape custom %}{{ a }}{{ b }}{{ c }}{% raw a %}"
        self.assertEqual(render(text, custom=custom, a="x", b=b"y", c=1), b"<x><y><1>x")
        self.assertEqual(seen, [b"x", b"y", b"1"])

    def test_the_built_in_name_may_be_given_another_meaning(self) -> None:
        template = Template("a{{ x }}")
        self.assertEqual(template.generate(x="<"), b"a&lt;")
        self.assertEqual(template.generate(x="<", xhtml_escape=lambda value: value + b"!"), b"a<!")
        self.assertEqual(template.generate(x="<"), b"a&lt;")
        loader = DictLoader({"t": "{{ x }}"}, namespace={"xhtml_escape": lambda value: "L"})
        self.assertEqual(loader.load("t").generate(x=1), b"L")

    def test_a_template_may_bind_the_escaping_name_itself(self) -> None:
        self.assertEqual(render("{% set xhtml_escape = len %}{{ 'abc' }}"), b"3")
        self.assertEqual(
            render("{% apply f %}{% set xhtml_escape = len %}{{ 'abc' }}{% end %}", f=bytes.upper), b"3"
        )

    def test_autoescape_holds_for_its_file_only(self) -> None:
        loader = DictLoader(
            {
                "a": "{{ x }}{% include b %}{{ x }}{% block c %}{{ x }}{% end %}",
                "b": "{% autoescape None %}{{ x }}",
                "d": "{% extends a %}{% autoescape None %}{% block c %}[{{ x }}]{% end %}",
            }
        )
        self.assertEqual(loader.load("a").generate(x="<"), b"&lt;<&lt;&lt;")
        self.assertEqual(loader.load("d").generate(x="<"), b"&lt;<&lt;[<]")

    def test_off_for_a_template_or_a_loader(self) -> None:
        self.assertEqual(Template("{{ x }}", autoescape=None).generate(x="<"), b"<")
        self.assertEqual(DictLoader({"t": "{{ x }}"}, autoescape=None).load("t").generate(x="<"), b"<")
        self.assertIsNone(Template("{% autoescape None %}").autoescape)


class WhitespaceTests(SynchronousTestCase):
    def test_modes(self) -> None:
        text = " \t a  \n\n  b\t"
        self.assertEqual(filter_whitespace("all", text), text)
        self.assertEqual(filter_whitespace("single", text), " a\nb ")
        self.assertEqual(filter_whitespace("oneline", text), " a b ")
        self.assertRaises(ValueError, filter_whitespace, "none", text)

    def test_default_by_name(self) -> None:
        for name, expected in (
            ("a.html", b"\nx "),
            ("a.js", b"\nx "),
            ("a.txt", b" \n x  "),
            ("a", b" \n x  "),
        ):
            self.assertEqual(Template(" \n x  ", name=name).generate(), expected, name)

    def test_preformatted_text_is_kept(self) -> None:
        self.assertEqual(
            Template("<pre>a  b</pre>  c{{ 1 }}  d", name="a.html").generate(), b"<pre>a  b</pre>  c1 d"
        )

    def test_compress_whitespace_is_cyclones_name_for_it(self) -> None:
        self.assertEqual(Template("a  b", compress_whitespace=True).generate(), b"a b")
        self.assertEqual(Template("a  b", name="a.html", compress_whitespace=False).generate(), b"a  b")
        with self.assertRaises(ValueError):
            Template("", compress_whitespace=True, whitespace="all")

    def test_a_loaders_mode_and_a_tag(self) -> None:
        loader = DictLoader({"a.html": "a  b{% whitespace oneline %} \n c"}, whitespace="all")
        self.assertEqual(loader.load("a.html").generate(), b"a  b c")


class InheritanceTests(SynchronousTestCase):
    def test_three_levels_and_nested_blocks(self) -> None:
        loader = DictLoader(
            {
                "base": "<{% block a %}A{% block b %}B{% end %}{% end %}>",
                "middle": "{% extends 'base' %}ignored{% block b %}M{% end %}",
                "leaf": '{% extends "middle" %}{% block a %}L{% block b %}x{% end %}{% end %}',
            }
        )
        self.assertEqual(loader.load("base").generate(), b"<AB>")
        self.assertEqual(loader.load("middle").generate(), b"<AM>")
        self.assertEqual(loader.load("leaf").generate(), b"<Lx>")

    def test_blocks_of_included_files_can_be_replaced(self) -> None:
        loader = DictLoader(
            {
                "base": "{% if x %}{% include part %}{% end %}",
                "part": "({% block p %}default{% end %})",
                "leaf": "{% extends base %}{% block p %}mine{% end %}",
            }
        )
        self.assertEqual(loader.load("base").generate(x=1), b"(default)")
        self.assertEqual(loader.load("leaf").generate(x=1), b"(mine)")

    def test_includes_see_local_variables(self) -> None:
        loader = DictLoader({"a": "{% for i in [1, 2] %}{% include b %}{% end %}", "b": "<{{ i }}>"})
        self.assertEqual(loader.load("a").generate(), b"<1><2>")

    def test_a_template_that_includes_itself_is_an_error(self) -> None:
        loader = DictLoader({"a": "{% include b %}", "b": "\n{% include a %}", "c": "{% extends c %}"})
        error = self.assertRaises(ParseError, loader.load, "a")
        self.assertEqual(str(error), "'a' includes or extends itself at b:2")
        self.assertRaises(ParseError, loader.load, "c")

    def test_of_two_blocks_of_one_name_the_later_counts(self) -> None:
        self.assertEqual(
            render("{% block a %}1{% block a %}2{% end %}{% end %}{% block a %}3{% end %}"), b"33"
        )


class ParseErrorTests(SynchronousTestCase):
    def fails(self, text: str, line: int, *words: str) -> ParseError:
        with self.assertRaises(ParseError) as caught:
            DictLoader({"f.html": text}).load("f.html")
        error = caught.exception
        self.assertEqual((error.filename, error.lineno), ("f.html", line))
        for word in words:
            self.assertIn(word, str(error))
        return error

    def test_unended_tags(self) -> None:
        self.fails("\n{{ x", 2, "Missing end expression }} at f.html:2")
        self.fails("\n{% x", 2, "Missing end block %}")
        self.fails("\n{# x", 2, "Missing end comment #}")

    def test_empty_tags(self) -> None:
        self.fails("\n{{ }}", 2, "Empty expression")
        self.fails("\n{% %}", 2, "Empty block tag")

    def test_a_missing_end_names_the_line_it_was_opened_in(self) -> None:
        self.fails("\n{% if x %}\n\n\n", 2, "{% end %}", "if")
        self.fails("{% end %}", 1, "Extra {% end %}")

    def test_intermediate_tags_in_the_wrong_place(self) -> None:
        self.fails("{% else %}", 1, "else outside of a for or if or try or while block")
        self.fails("{% for x in y %}\n{% elif x %}{% end %}", 2, "elif belongs in a if block, not in for")

    def test_break_outside_of_a_loop_or_inside_apply(self) -> None:
        self.fails("{% break %}", 1, "break")
        self.fails("{% for x in y %}{% apply f %}{% continue %}{% end %}{% end %}", 1, "continue")

    def test_what_an_operator_needs(self) -> None:
        for operator in ("apply", "block", "extends", "from", "import", "include", "module", "raw", "set"):
            self.fails(f"{{% {operator} %}}", 1, f"{operator} needs")

    def test_unknown_operators_and_modes(self) -> None:
        self.fails("a\n{% iff x %}", 2, "unknown operator: 'iff'")
        self.fails("a\n{% whitespace none %}", 2, "whitespace mode")

    def test_extends_twice_or_inside_of_something(self) -> None:
        self.fails("{% extends a %}\n{% extends b %}", 2, "second extends", "line 1")
        self.fails("{% if x %}{% extends a %}{% end %}", 1, "extends cannot stand inside a if block")

    def test_python_mistakes_are_both_kinds_of_error_and_point_at_the_template(self) -> None:
        for text, line in (
            ("a\n  {{ 1 + }}", 2),
            ("{{ foo(\n  ] }}", 2),
            ("\n{% if x = 3 %}{% end %}", 2),
            ("{% if x %}\n{% elif 1+ %}{% end %}", 2),
            ("{% try %}\n{% except 1 1 %}{% end %}", 2),
            ("{% set a b %}", 1),
            ("{% import %%} %}", 1),
            ("{% raw ) ( %}", 1),
            ("{% module X( %}", 1),
            ("{% apply ) ( %}{% end %}", 1),
            ("{% autoescape a b %}", 1),
            ("{% for x %}{% end %}", 1),
            ("{{ a) + (b }}", 1),
            ("\n{{ await x }}", 2),
            ("\n{% try %}a{% else %}b{% end %}", 2),
            ("{{ '\0' }}", 1),
        ):
            error = self.fails(text, line)
            self.assertIsInstance(error, TemplateSyntaxError)
            self.assertIsInstance(error, SyntaxError)
            shown = "".join(traceback.format_exception_only(error))
            self.assertIn(f'File "f.html", line {line}', shown)
            if "\0" not in text:
                self.assertIn(text.split("\n")[line - 1].strip(), shown)

    def test_the_column_of_a_python_mistake(self) -> None:
        error = self.fails("é {{ ok }} {{ a b }} ", 1)
        assert isinstance(error, TemplateSyntaxError)
        self.assertEqual(error.offset, "é {{ ok }} {{ a b }} ".index("b }} ") + 1)

    def test_include_without_a_loader(self) -> None:
        with self.assertRaises(ParseError) as caught:
            Template("\n{% include x %}")
        self.assertIn("without a template loader at <string>:2", str(caught.exception))

    def test_a_missing_file_says_who_wanted_it(self) -> None:
        error = self.assertRaises(KeyError, DictLoader({"a": "\n{% include b %}"}).load, "a")
        self.assertEqual(error.__notes__, ["'b' is named at a:2"])

    def test_position_is_optional(self) -> None:
        self.assertEqual(str(ParseError("x")), "x at None:0")


class TracebackTests(SynchronousTestCase):
    def trace(self, template: Template, **variables: Any) -> tuple[str, list[traceback.FrameSummary]]:
        try:
            template.generate(**variables)
        except Exception as error:
            self.error = error
            frames = traceback.extract_tb(error.__traceback__)
            # The first are the test's and generate()'s.
            return traceback.format_exc(), [frame for frame in frames if not frame.filename.endswith(".py")]
        raise AssertionError("nothing was raised")

    def test_every_step_is_a_frame_with_the_templates_text(self) -> None:
        loader = DictLoader(
            {
                "base.html": "<p>\n{% block body %}{% end %}",
                "sub.html": "{% extends 'base.html' %}\n{% block body %}\n"
                " é {% include 'inc.html' %}\n{% end %}",
                "inc.html": "x\n <b>{{ 1/x }}</b>\n",
            }
        )
        text, frames = self.trace(loader.load("sub.html"), x=0)
        self.assertEqual(
            [(frame.filename, frame.lineno, frame.name, frame.line) for frame in frames],
            [
                ("base.html", 2, "template  # base.html:2", "{% block body %}{% end %}"),
                ("sub.html", 3, "block body  # sub.html:3 (via base.html:2)", "é {% include 'inc.html' %}"),
                ("inc.html", 2, "template  # inc.html:2 (via sub.html:3, base.html:2)", "<b>{{ 1/x }}</b>"),
            ],
        )
        self.assertIn("<b>{{ 1/x }}</b>\n       ^^^^^^^^^\n", text)
        self.assertIn("é {% include 'inc.html' %}\n      ^^^^^^^^^^^^^^^^^^^^^^^^\n", text)
        self.assertNotIn("generated", text)

    def test_a_file_on_disk_is_named_with_its_path(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        path = os.path.abspath(os.path.join(directory, "t.html"))
        with open(path, "w") as file:
            file.write("one\ntwo {{ f(1,\n  nope) }}\n")
        _, frames = self.trace(Loader(directory).load("t.html"), f=None)
        self.assertEqual(
            [(frame.filename, frame.lineno, frame.line) for frame in frames], [(path, 3, "nope) }}")]
        )

    def test_apply_shows_the_tag_and_what_is_inside(self) -> None:
        _, frames = self.trace(Template("{% apply f %}\n{{ nope }}{% end %}", name="a.html"), f=None)
        self.assertEqual([(frame.filename, frame.lineno) for frame in frames], [("a.html", 1), ("a.html", 2)])

    def test_frames_have_the_templates_variables(self) -> None:
        self.trace(Template("{% set x = 5 %}{{ nope }}"))
        traceback_ = self.error.__traceback__
        while traceback_ is not None and traceback_.tb_next is not None:
            traceback_ = traceback_.tb_next
        assert traceback_ is not None
        self.assertEqual(traceback_.tb_frame.f_locals, {"x": 5})

    def test_functions_that_a_template_calls_stay_in_the_traceback(self) -> None:
        def broken() -> None:
            raise RuntimeError("inner")

        text, _ = self.trace(Template("a\n{{ broken() }}", name="t.html"), broken=broken)
        self.assertLess(text.index('File "t.html", line 2'), text.index("in broken"))

    def test_a_template_rendered_inside_another(self) -> None:
        inner = Template("\n{{ 1/0 }}", name="inner.html")
        _, frames = self.trace(Template("{{ inner.generate() }}", name="outer.html"), inner=inner)
        self.assertEqual(
            [(frame.filename, frame.lineno) for frame in frames], [("outer.html", 1), ("inner.html", 2)]
        )

    def test_a_failure_shows_it_too(self) -> None:
        try:
            Template("\n{{ 1/0 }}", name="t.html").generate()
        except ZeroDivisionError:
            self.assertIn("# t.html:2", Failure().getTraceback())

    def test_a_template_from_a_string(self) -> None:
        text, _ = self.trace(Template("a\nb{{ 1/0 }}"))
        self.assertIn('File "<template string>", line 2', text)
        self.assertIn("b{{ 1/0 }}", text)

    def test_conditions_and_custom_escaping(self) -> None:
        for source, line in (("\n{% if 1/0 %}{% end %}", 2), ("\n\n{% autoescape bad %}{{ 1 }}", 3)):
            _, frames = self.trace(Template(source, name="t.html"), bad=lambda value: 1 / 0)
            self.assertEqual(frames[0].lineno, line)

    def test_the_exception_itself_is_unchanged(self) -> None:
        class Mine(Exception):
            pass

        mine = Mine()

        def fail() -> None:
            raise mine

        with self.assertRaises(Mine) as caught:
            Template("{{ fail() }}").generate(fail=fail)
        self.assertIs(caught.exception, mine)
        self.assertIsNone(mine.__context__)

    def test_the_code_says_where_its_lines_come_from(self) -> None:
        template = Template("\n{{ 1 }}", name="t.html")
        self.assertIn("# t.html:2", template.code)
        self.assertEqual(template.compiled.co_filename, "t.html.generated.py")

    def test_a_stack_taken_while_a_template_runs_shows_the_generated_code(self) -> None:
        stack = "".join(
            Template("\n{{ stack() }}", name="t.html", autoescape=None)
            .generate(stack=lambda: "".join(traceback.format_stack()))
            .decode()
        )
        self.assertIn("# t.html:2", stack)


class LoaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(os.path.join(self.directory, "sub"))
        self.write("a.html", "A{% include sub/b.html %}")
        self.write("sub/b.html", "B{% include c.html %}{% include ../d.html %}")
        self.write("sub/c.html", "C")
        self.write("d.html", "Dé")

    def write(self, name: str, text: str) -> None:
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)

    def test_names_are_relative_to_the_template_they_stand_in(self) -> None:
        self.assertEqual(Loader(self.directory).load("a.html").generate(), "ABCDé".encode())

    def test_absolute_names(self) -> None:
        path = os.path.abspath(os.path.join(self.directory, "d.html"))
        self.assertEqual(Loader(self.directory).load(path).generate(), "Dé".encode())

    def test_what_leaves_the_directory_is_left_as_it_is(self) -> None:
        loader = Loader(self.directory)
        self.assertEqual(loader.resolve_path("../../x.html", "sub/b.html"), "../../x.html")
        sibling = f"../{os.path.basename(self.directory)}-2/x.html"
        self.assertEqual(loader.resolve_path(sibling, "a.html"), sibling)
        self.assertEqual(Loader("/").resolve_path("b", "a/c"), "a/b")

    def test_templates_are_kept_until_reset(self) -> None:
        loader = Loader(self.directory)
        first = loader.load("d.html")
        self.write("d.html", "new")
        self.assertIs(loader.load("d.html"), first)
        loader.reset()
        self.assertEqual(loader.load("d.html").generate(), b"new")

    def test_a_missing_file(self) -> None:
        self.assertRaises(FileNotFoundError, Loader(self.directory).load, "nope.html")

    def test_threads_make_one_template(self) -> None:
        made = []

        class Slow(DictLoader):
            def _create_template(self, name: str) -> Template:
                made.append(name)
                time.sleep(0.01)
                return super()._create_template(name)

        loader = Slow({"a": "{% include b %}", "b": "x"})
        threads = [threading.Thread(target=loader.load, args=("a",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(made), ["a", "b"])

    def test_a_subclass_must_find_templates(self) -> None:
        self.assertRaises(NotImplementedError, BaseLoader().load, "x")
        self.assertRaises(NotImplementedError, BaseLoader()._create_template, "x")

    def test_dictionary_names_are_relative_too(self) -> None:
        loader = DictLoader(
            {"a/1": "{% include 2 %}", "a/2": "{% include ../b %}{% include /c %}", "b": "B", "/c": "C"}
        )
        self.assertEqual(loader.load("a/1").generate(), b"BC")


class SameAsTornadoTests(SynchronousTestCase):
    """What Tornado makes of a template, byte for byte."""

    PIECES = (
        " ", "\n", "text  <b>\t\n x", "é€😀", "<pre>  keep\n  this </pre>", "{{ name }}", "{{ number }}",
        "{{ data }}", "{{ items }}", "{% raw name %}", "{{!", "{%!", "{", "}", "{{{ number }}}",
        "{# c #}",        "{% comment x %}",
        "{% set number = number + 1 %}", "{{ f'{name}' }}", "{{ number, name }}", "{% include part %}",
        "{% module Mod(name) %}", "{{ escape(name) }}", "{{ url_escape(name) }}", "{{ json_encode(items) }}",
        "{% whitespace oneline %}", "{% whitespace all %}", "{{ squeeze(' a  b ') }}", "{{ None }}",
    )  # fmt: skip
    OPENERS = (
        "{% if number % 2 %}", "{% for i in items %}", "{% for name in items %}", "{% apply upper %}",
        "{% block b0 %}", "{% block b1 %}", "{% try %}", "{% if name %}x{% else %}", "{% while False %}",
    )  # fmt: skip

    def text(self, chance: random.Random, depth: int = 0) -> str:
        parts = []
        for _ in range(chance.randrange(1, 7)):
            if depth < 3 and chance.random() < 0.35:
                opener = chance.choice(self.OPENERS)
                body = self.text(chance, depth + 1)
                if opener.startswith("{% block"):
                    opener = f"{{% block b{chance.randrange(10**9)} %}}"
                middle = "{{ 1/0 }}{% except ZeroDivisionError %}caught" if opener == "{% try %}" else ""
                parts.append(f"{opener}{body}{middle}{{% end %}}")
            else:
                parts.append(chance.choice(self.PIECES))
        return "".join(parts)

    def result(self, library: Any, texts: dict[str, str], autoescape: str | None) -> bytes | str:
        class Modules:
            def Mod(self, name: Any) -> str:
                return f"<{name!s}>"

        variables = {
            "name": '<Ben & "Jerry\'s">',
            "number": 4,
            "data": "bytes é <".encode(),
            "items": ["a<", "b", 3],
            "upper": lambda value: value.upper(),
            "_tt_modules": Modules(),
        }
        try:
            output: bytes = (
                library.DictLoader(texts, autoescape=autoescape).load("main.html").generate(**variables)
            )
        except (SyntaxError, library.ParseError):
            return "no template"
        except (NameError, AssertionError, TypeError) as error:
            return type(error).__name__
        return output

    def test_generated_templates(self) -> None:
        chance = random.Random(20)
        rendered = 0
        for _ in range(250):
            texts = {"main.html": self.text(chance), "part": "[{{ name }}  {% raw data %}]"}
            autoescape = chance.choice(("xhtml_escape", None, "url_escape"))
            ours = self.result(cycloneish.template, texts, autoescape)
            self.assertEqual(ours, self.result(tornado.template, texts, autoescape), texts["main.html"])
            rendered += isinstance(ours, bytes)
        self.assertGreater(rendered, 100)
