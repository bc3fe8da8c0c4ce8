"""Two processes of the demo on one database and one broker: what is posted on one appears on the other."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.amqp import broker
from tests.browser.webdriver import Browser
from tests.db.support import fresh_url
from tests.programs import Running, run_command

#: Seconds from the click on one page to the message on the other; 0.2 is wanted on a quiet machine.
PATIENCE = 5.0


class TwoProcessesTest(SynchronousTestCase):
    skip = broker.MISSING

    def test_a_post_on_one_appears_on_the_other(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="cycloneish-two-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        shared = ["--data", str(folder), "--database", fresh_url(), "--amqp", broker.shared_url()]
        programs = []
        for _ in range(2):
            command = run_command("--listen", "tcp:0:interface=127.0.0.1", *shared, program="twistd")
            programs.append(Running(command, folder))
            self.addCleanup(programs[-1].stop)
        first, second = (program.url() for program in programs)
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(first + "/sign-up")
        browser.find("#name").type("Ann")
        browser.find("#password").type("correct horse")
        browser.find("form.account button").click()
        browser.find("#text").type("Anybody on the other side?")
        writer = browser.window
        browser.new_window()
        browser.open(second)
        browser.find("#live.on")
        browser.run(
            "new MutationObserver(() => { window.arrived ??= Date.now(); })"
            ".observe(document.getElementById('messages'), {childList: true})"
        )
        reader = browser.window
        browser.go_to(writer)
        sent = browser.run(
            "const now = Date.now(); document.querySelector('form.composer').requestSubmit(); return now"
        )
        browser.go_to(reader)
        browser.find(".message .text", "Anybody on the other side?")
        seconds = (browser.run("return window.arrived") - sent) / 1000
        print(f"a post was on the other page after {seconds * 1000:.0f} ms")
        self.assertLess(seconds, PATIENCE)
