"""From a name to an application: what is found, and what is said when it is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import HTTPServerConnectionDelegate
from cycloneish.service import AppNotFound, load_object
from cycloneish.service.loading import NotAnApp, import_problem, is_app, make_app


class LoadingTest(SynchronousTestCase):
    def module(self, source: str, name: str = "loaded_by_a_test") -> str:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / f"{name}.py").write_text(source)
        self.patch(sys, "path", [str(folder), *sys.path])
        self.addCleanup(sys.modules.pop, name, None)
        return name

    def test_a_name_may_have_dots_after_the_colon(self) -> None:
        name = self.module("class Site:\n    app = 'found'\n")
        self.assertEqual(load_object(f"{name}:Site.app"), "found")

    def test_a_missing_name_is_told_with_those_that_are_there(self) -> None:
        name = self.module("def make_app(): pass\n_private = 1\n")
        error = self.assertRaises(AppNotFound, load_object, f"{name}:app")
        self.assertEqual(str(error), f"{name}:app: there is no 'app' in {name}; it has make_app")

    def test_the_current_directory_is_searched(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "in_current_folder.py").write_text("app = 7\n")
        self.addCleanup(sys.modules.pop, "in_current_folder", None)
        self.patch(sys, "path", [place for place in sys.path if place])
        here = str(folder.absolute())
        self.patch(os, "getcwd", lambda: here)
        self.assertEqual(load_object("in_current_folder:app"), 7)

    def test_a_failed_import_shows_the_users_lines_only(self) -> None:
        name = self.module("import nothing_of_this_name\n")
        error = self.assertRaises(ImportError, load_object, f"{name}:app")
        problem = import_problem(error)
        self.assertIn("import nothing_of_this_name", problem)
        self.assertNotIn("importlib", problem)
        self.assertNotIn("loading.py", problem)

    def test_a_module_that_is_not_there_is_one_line(self) -> None:
        error = self.assertRaises(ImportError, load_object, "nothing_of_this_name:app")
        frames = [line for line in import_problem(error).splitlines() if line.startswith("  File")]
        self.assertEqual([frame for frame in frames if "tests" not in frame and "twisted" not in frame], [])

    def test_delegates_and_factories_are_apps(self) -> None:
        class Delegate(HTTPServerConnectionDelegate):
            def start_request(self, server_conn: object, request_conn: Any) -> Any:
                raise NotImplementedError

        self.assertTrue(is_app(Delegate()))
        self.assertTrue(is_app(Factory()))
        self.assertFalse(is_app(Delegate))
        self.assertFalse(is_app("app"))

    def test_an_app_is_taken_as_it_is_and_a_function_is_called(self) -> None:
        factory = Factory()
        self.assertIs(self.successResultOf(make_app(factory, "name", {})), factory)
        self.assertIs(self.successResultOf(make_app(lambda: factory, "name", {})), factory)

    def test_neither_app_nor_function_is_told(self) -> None:
        failure = self.failureResultOf(make_app(7, "here:seven", {}), NotAnApp)
        self.assertIn("here:seven is 7", str(failure.value))

    def test_a_function_that_forgot_its_return_is_told(self) -> None:
        failure = self.failureResultOf(make_app(lambda: None, "here:make_app", {}), NotAnApp)
        self.assertEqual(str(failure.value), "here:make_app gave None: does it return the application?")

    def test_what_wants_other_arguments_is_told_apart_from_what_fails_inside(self) -> None:
        def wants(settings: object) -> None:
            raise AssertionError("never called")

        def fails() -> None:
            raise TypeError("from inside")

        failure = self.failureResultOf(make_app(wants, "here:wants", {}), NotAnApp)
        self.assertIn("here:wants cannot be called the way --app does it: missing a", str(failure.value))
        self.assertIn("'settings'", str(failure.value))
        self.assertEqual(str(self.failureResultOf(make_app(fails, "here", {})).value), "from inside")
