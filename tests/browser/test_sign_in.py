"""Signing in through a provider in headless Chromium, and a picture that goes to its Graph API."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.auth.provider import CLIENT
from tests.browser.test_roundtable import png
from tests.browser.webdriver import Browser
from tests.programs import EXAMPLES, ROOT, Running, Visitor, run_command

FREE_PORT = ("--listen", "tcp:0:interface=127.0.0.1")


class SignInTests(SynchronousTestCase):
    def test_sign_in_at_the_demo_with_github(self) -> None:
        provider = Running(
            run_command("--app", "tests.auth.provider:for_browsers", *FREE_PORT), ROOT, PYTHONPATH=str(ROOT)
        )
        self.addCleanup(provider.stop)
        folder = Path(tempfile.mkdtemp(prefix="cycloneish-github-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        program = Running(
            run_command(*FREE_PORT),
            folder,
            ROUNDTABLE_GITHUB_URL=provider.url(),
            ROUNDTABLE_GITHUB_KEY=CLIENT["key"],
            ROUNDTABLE_GITHUB_SECRET=CLIENT["secret"],
        )
        self.addCleanup(program.stop)
        browser = Browser()
        self.addCleanup(browser.close)
        url = program.url()
        for _ in range(2):  # new, then known
            browser.open(url + "/sign-in")
            browser.find("a[href='/sign-in/github']", "GitHub").click()
            browser.find("#allow").click()
            browser.find(".me .name", "ann")
            self.assertNotIn("code=", browser.url)
            browser.find(".me button", "Sign out").click()
            browser.find("h1", "Take a seat")

    def test_sign_in_and_upload_a_picture(self) -> None:
        provider = Running(
            run_command("--app", "tests.auth.provider:for_browsers", *FREE_PORT), ROOT, PYTHONPATH=str(ROOT)
        )
        self.addCleanup(provider.stop)
        base = provider.url()
        program = Running(
            run_command("--app", "sign_in:make_app", *FREE_PORT),
            EXAMPLES,
            DIALOG_URL=base + "/authorize",
            GRAPH_URL=base + "/graph",
            FACEBOOK_KEY=CLIENT["key"],
            FACEBOOK_SECRET=CLIENT["secret"],
            COOKIE_SECRET="c" * 32,
        )
        self.addCleanup(program.stop)
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(program.url() + "/")
        browser.find("#allow").click()
        self.assertEqual(browser.find("#who").text, "Hello, Ann")
        self.assertNotIn("code=", browser.url)

        folder = tempfile.mkdtemp()
        picture = Path(folder) / "lake.png"
        picture.write_bytes(png(64, 48))
        self.addCleanup(picture.unlink)
        browser.find("#picture").type(str(picture))
        browser.find("#caption").type("the lake")
        browser.find("#upload").click()
        self.assertEqual(browser.find("#photo").text, "Picture 1 is there.")
        uploads = Visitor(base).get("/uploads")[2]
        self.assertIn('"caption": "the lake"', uploads)
        self.assertIn(f'"size": {picture.stat().st_size}', uploads)
        self.assertIn('"name": "lake.png"', uploads)
