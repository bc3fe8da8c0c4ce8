"""The sign-up form of the guide in headless Chromium: errors beside the fields, a taken name; and as JSON.

``SCREENSHOTS=DIR`` keeps pictures of the page for somebody to look at.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from urllib.request import Request, build_opener

from twisted.trial.unittest import SynchronousTestCase

from tests.browser.webdriver import Browser
from tests.programs import EXAMPLES, Running, Visitor, run_command


class SignUpTest(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="cycloneish-forms-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        for file in (EXAMPLES / "sign_up").glob("sign_up.*"):
            shutil.copy(file, folder)
        command = run_command("--app", "sign_up:make_app", "--listen", "tcp:0:interface=127.0.0.1")
        self.program = Running(command, folder)
        self.addCleanup(self.program.stop)
        self.url = self.program.url()

    def picture(self, browser: Browser, name: str) -> None:
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            browser.screenshot(Path(folder) / f"{name}.png")

    def fill(self, browser: Browser, name: str, password: str, again: str) -> None:
        for field, text in (("name", name), ("password", password), ("again", again)):
            found = browser.find(f"#{field}")
            found.clear()
            found.type(text)

    def errors(self, browser: Browser) -> dict[str, str]:
        return {
            str(element.attribute("id")).removesuffix("-error"): element.text
            for element in browser.all("[role=alert]")
        }

    def test_signing_up(self) -> None:
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(self.url + "/")
        # The browser itself would stop an incomplete form; what the server says is to be seen.
        browser.run("document.querySelector('form').noValidate = true")
        self.fill(browser, "Not A Name", "short", "different")
        browser.find("button").click()
        browser.until("return document.querySelectorAll('[role=alert]').length > 0")
        self.picture(browser, "sign-up-errors")
        found = self.errors(browser)
        self.assertEqual(found["name"], "Only a to z, digits and dashes.")
        self.assertEqual(found["again"], "The two differ.")
        self.assertEqual(set(found), {"name", "password", "again", "rules"})
        self.assertEqual(browser.find("#name").attribute("aria-invalid"), "true")
        self.assertEqual(browser.find("#name").attribute("aria-describedby"), "name-error name-help")
        self.assertEqual(browser.find("#name").value, "Not A Name")
        self.assertEqual(browser.find("#password").value, "")
        self.sign_up(browser, "ada")
        browser.find("h1", containing="Welcome")
        browser.open(self.url + "/")
        self.sign_up(browser, "ada")
        browser.until("return document.querySelectorAll('[role=alert]').length > 0")
        self.assertEqual(self.errors(browser), {"name": "This name is taken."})
        browser.resize(390, 844, phone=True)
        self.picture(browser, "sign-up-taken-phone")
        self.assertLessEqual(browser.run("return document.documentElement.scrollWidth"), 390)
        self.assertEqual(
            [line for line in browser.messages() if "422" not in line and "favicon" not in line], []
        )

    def sign_up(self, browser: Browser, name: str) -> None:
        self.fill(browser, name, "long enough a password", "long enough a password")
        if not browser.run("return document.getElementById('rules').checked"):
            browser.find("#rules").click()
        browser.find("button").click()

    def test_the_same_as_json(self) -> None:
        visitor = Visitor(self.url)
        page = visitor.get("/")[2]
        token = page.partition('name="_xsrf" value="')[2].partition('"')[0]
        opener = build_opener()
        opener.addheaders = []

        def send(document: object) -> tuple[int, str, object]:
            headers = {
                "Content-Type": "application/json",
                "X-XSRFToken": token,
                "Cookie": f"_xsrf={token}",
            }
            request = Request(self.url + "/", json.dumps(document).encode(), headers, method="POST")
            try:
                with opener.open(request, timeout=30) as answer:
                    return answer.status, answer.url, None
            except OSError as error:  # an HTTPError is one, and an answer
                return error.code, error.headers["Content-Type"], json.load(error)  # type: ignore[attr-defined]

        good = {"name": "bob", "password": "x" * 10, "again": "x" * 10, "plan": "paid", "rules": True}
        status, url, _ = send(good)
        self.assertEqual((status, url), (200, self.url + "/welcome"))
        status, kind, problem = send({**good, "plan": "gold", "rules": False})
        self.assertEqual((status, kind), (422, "application/problem+json"))
        self.assertEqual({one["pointer"] for one in problem["errors"]}, {"#/name", "#/plan", "#/rules"})  # type: ignore[index]
        self.assertIn(
            {"pointer": "#/name", "detail": "This name is taken.", "field": "name"},
            problem["errors"],  # type: ignore[index]
        )
