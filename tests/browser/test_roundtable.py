"""The demo in headless Chromium, started as its user starts it: what he sees, clicks, and finds again.

``SCREENSHOTS=DIR`` keeps pictures of the pages, at desktop and phone width, for somebody to look at.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.browser.webdriver import Browser
from tests.programs import Running, run_command

PASSWORD = "correct horse"
_numbers = itertools.count(1)


def png(width: int, height: int) -> bytes:
    """A picture: a little landscape of two colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + b"".join(_colour(x, y, width, height) for x in range(width)) for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _colour(x: int, y: int, width: int, height: int) -> bytes:
    sky = y < height * (0.55 + 0.1 * ((x / width * 3) % 1))
    return (
        bytes((255 - y * 90 // height, 190 - y * 60 // height, 150 + y * 60 // height))
        if sky
        else b"\x30\x3a\x5e"
    )


class Stage:
    """The demo and the browser, started at the first test and ended with the run: both take seconds."""

    def __init__(self) -> None:
        self.browser = Browser()
        atexit.register(self.browser.close)
        self.folder = Path(tempfile.mkdtemp(prefix="cycloneish-roundtable-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.start("tcp:0:interface=127.0.0.1")
        atexit.register(lambda: self.program.stop())

    def start(self, endpoint: str) -> None:
        self.program = Running(run_command("--listen", endpoint), self.folder)
        self.url = self.program.url()


@functools.cache
def stage() -> Stage:
    return Stage()


class RoundtableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = stage()
        self.browser, self.url, self.folder = self.stage.browser, self.stage.url, self.stage.folder
        self.name = f"Ann-{next(_numbers)}"
        self.browser.open(self.url)
        self.browser.forget()
        self.browser.open(self.url)
        self.browser.messages()

    def screenshot(self, name: str) -> None:
        """Keep pictures of the page for a person, where asked for; the page must fit a phone in any case."""
        folder = os.environ.get("SCREENSHOTS")
        browser = self.browser
        for device, width, height in (("desktop", 1100, 900), ("phone", 360, 740)):
            browser.resize(width, height, phone=device == "phone")
            if device == "phone":
                wide = browser.run("return document.scrollingElement.scrollWidth - window.screen.width")
                self.assertLessEqual(wide, 0, f"{name} is wider than a phone")
            for scheme in ("light", "dark") if folder else ():
                browser.prefer(scheme)
                browser.screenshot(Path(folder or "") / f"{name}-{device}-{scheme}.png")
        browser.resize(1100, 900)

    def sign_up(self, name: str = "", password: str = PASSWORD) -> None:
        browser = self.browser
        browser.open(self.url + "/sign-up")
        browser.find("#name").type(name or self.name)
        browser.find("#password").type(password)
        browser.find("form.account button").click()

    def sign_in(self, password: str = PASSWORD) -> None:
        browser = self.browser
        browser.find("#name").clear()
        browser.find("#name").type(self.name)
        browser.find("#password").type(password)
        browser.find("form.account button").click()

    def post(self, text: str) -> None:
        self.browser.find("#text").type(text)
        self.browser.find("form.composer button").click()
        self.browser.find(".message .text", text.splitlines()[0])

    # -- members ---------------------------------------------------------------------------------

    def test_sign_up_sign_out_and_sign_in_again(self) -> None:
        browser = self.browser
        self.screenshot("empty")
        browser.find(".welcome .primary", "Sign up").click()
        self.screenshot("sign-up")
        self.sign_up()
        browser.find(".me .name", self.name)
        browser.find("#text")
        browser.find(".me button", "Sign out").click()
        browser.find(".me a", "Sign in").click()
        self.sign_in("wrong password")
        self.assertEqual(browser.find(".error").text, "Name and password do not match.")
        self.assertEqual(browser.find("#name").value, self.name)
        self.screenshot("sign-in")
        self.sign_in()
        browser.find(".me .name", self.name)

    def test_what_sign_up_asks_for_is_said_beside_the_form(self) -> None:
        browser = self.browser
        for name, password, field, message in (
            ("x", PASSWORD, "name", "2 to 30"),
            (self.name, "short", "password", "At least 8"),
        ):
            self.sign_up(name, password)
            browser.find(".error", message)
            self.assertEqual(browser.find(f"#{field}").attribute("aria-invalid"), "true")
        self.sign_up()
        browser.find(".me .name", self.name)
        self.sign_up(self.name.upper())
        browser.find(".error", "taken")

    def test_signing_in_never_leads_to_another_site(self) -> None:
        browser = self.browser
        self.sign_up()
        browser.find(".me button", "Sign out").click()
        browser.find(".me a", "Sign in")
        browser.open(self.url + "/sign-in?next=//example.com/")
        self.sign_in()
        browser.find(".me .name", self.name)
        self.assertEqual(browser.url, self.url + "/")

    # -- messages --------------------------------------------------------------------------------

    def test_a_post_is_shown_as_it_was_written_and_never_run(self) -> None:
        browser = self.browser
        self.sign_up()
        browser.find("#text")
        self.post(
            "Hello <b>world</b> & <script>document.title='run'</script>\nsecond line https://example.com/x"
        )
        message = browser.find(".message .text", "Hello")
        self.assertIn("<b>world</b> & <script>", message.text)
        self.assertIn("\nsecond line", message.text)
        self.assertEqual(browser.find(".message .text a").attribute("href"), "https://example.com/x")
        self.assertEqual(browser.run("return document.title"), "Roundtable")
        browser.find(".message .by", self.name)

    def test_an_empty_post_is_refused_with_a_message(self) -> None:
        browser = self.browser
        self.sign_up()
        browser.find("form.composer button").click()
        browser.find(".error", "Write something")

    def test_a_picture_is_uploaded_and_shown(self) -> None:
        browser = self.browser
        file = self.folder / "evening.png"
        file.write_bytes(png(640, 360))
        self.sign_up()
        browser.find("#text").type("Look at that sky")
        browser.find("input[type=file]").type(str(file))
        browser.find(".file .label", "evening.png")
        browser.find("img.preview")
        self.screenshot("composer")
        browser.find("form.composer button").click()
        browser.find(".message .text", "Look at that sky")
        picture = "document.querySelector('.message .picture img')"
        browser.until(f"return {picture}.complete && {picture}.naturalWidth == 640")

    def test_a_file_that_is_no_picture_is_refused_and_the_text_kept(self) -> None:
        browser = self.browser
        file = self.folder / "page.png"
        file.write_bytes(b"<script>alert(1)</script>")
        self.sign_up()
        browser.find("#text").type("my text")
        browser.find("input[type=file]").type(str(file))
        browser.find("form.composer button").click()
        browser.find(".error", "no picture")
        self.assertEqual(browser.find("#text").value, "my text")

    def test_a_message_appears_in_another_window_by_itself(self) -> None:
        browser = self.browser
        self.sign_up()
        browser.find("#text")
        first = browser.window
        browser.new_window()
        self.addCleanup(browser.close_window, first)
        second = browser.window
        browser.open(self.url)
        browser.find("#live.on", "Live")
        browser.run("window.same = true")
        browser.go_to(first)
        self.post("Anybody there?")
        browser.go_to(second)
        browser.find(".message:first-child .text", "Anybody there?", patience=3)
        self.assertTrue(browser.run("return window.same"), "the page was not loaded anew")
        self.assertEqual(
            len(
                browser.run(
                    "return [...document.querySelectorAll('.message')].filter("
                    "m => m.innerText.includes('Anybody there?'))"
                )
            ),
            1,
        )

    def test_older_messages_are_a_click_away(self) -> None:
        browser = self.browser
        self.sign_up()
        browser.find("#text")
        script = """
            const done = arguments[0], form = document.forms[document.forms.length - 1];
            const posts = [];
            for (let n = 0; n < 25; n++) {
                const data = new FormData(document.querySelector("form.composer"));
                data.set("text", "number " + n);
                posts.push(fetch("/", {method: "POST", body: data}));
            }
            window.posted = false;
            Promise.all(posts).then(() => { window.posted = true; });
        """
        browser.run(script)
        browser.until("return window.posted")
        browser.open(self.url)
        self.assertEqual(len(browser.all(".message")), 20)
        first = browser.run("return [...document.querySelectorAll('.message')].map(m => m.id)")
        browser.find(".pages a", "Older").click()
        browser.find(".pages a", "Newest")
        older = browser.run("return [...document.querySelectorAll('.message')].map(m => m.id)")
        self.assertFalse(set(first) & set(older))
        browser.find(".pages a", "Newest").click()
        browser.find("#live")

    # -- the rest --------------------------------------------------------------------------------

    def test_the_language_can_be_switched_and_stays(self) -> None:
        browser = self.browser
        browser.find(".languages button", "DE").click()
        browser.find("h1", "Setz dich an den Tisch")
        self.assertEqual(browser.find("html").attribute("lang"), "de")
        self.screenshot("german")
        self.sign_up()
        self.post("Guten Morgen")
        browser.find(".message time", "jetzt")
        browser.find(".languages button", "EN").click()
        browser.find(".message time", "now")

    def test_a_long_name_and_a_long_word_fit_a_phone(self) -> None:
        self.sign_up("W" * 30)
        self.browser.find(".languages button", "DE").click()
        self.browser.find("#text")
        self.post("W" * 200)
        self.screenshot("long")

    def test_posts_are_there_after_a_restart_and_pages_go_on_living(self) -> None:
        browser = self.browser
        self.sign_up()
        browser.find("#text")
        self.post("Before the restart")
        first = browser.window
        browser.new_window()
        self.addCleanup(browser.close_window, first)
        second = browser.window
        browser.open(self.url)
        browser.find("#live.on")
        self.assertEqual(self.stage.program.stop(), 0)
        browser.find("#live:not(.on)", "Reconnecting")
        self.stage.start("tcp:" + self.url.rpartition(":")[2] + ":interface=127.0.0.1")
        browser.go_to(first)
        browser.open(self.url)
        browser.find(".message .text", "Before the restart")
        browser.find(".me .name", self.name)
        self.post("After the restart")
        browser.go_to(second)
        browser.find(".message .text", "After the restart")
        browser.find("#live.on")
        self.assertEqual((self.folder / "roundtable-data" / "cookie-secret").stat().st_mode & 0o077, 0)

    def test_works_without_javascript(self) -> None:
        browser = self.browser
        browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
        self.addCleanup(browser.devtools, "Emulation.setScriptExecutionDisabled", value=False)
        self.sign_up()
        browser.find("#text").type("no script at all")
        browser.find("form.composer button").click()
        browser.find(".message .text", "no script at all")
        self.assertFalse(browser.find("#live").shown)

    def test_every_field_has_a_name_for_those_who_do_not_see_it(self) -> None:
        browser = self.browser
        nameless = """
            const elements = [...document.querySelectorAll("input, textarea, button, a, img")];
            return elements.filter(e => e.type != "hidden" && !(e.labels && e.labels.length)
                && !e.ariaLabel && !e.innerText && !e.hasAttribute("alt") && !e.querySelector("img[alt]")
            ).map(e => e.outerHTML)
        """
        for path in ("/", "/sign-up", "/sign-in", "/nowhere"):
            browser.open(self.url + path)
            self.assertEqual(browser.run(nameless), [], path)
        self.sign_up()
        browser.find("#text")
        self.assertEqual(browser.run(nameless), [])

    def test_the_board_looks_like_something(self) -> None:
        browser = self.browser
        self.sign_up("Grace")
        browser.find("#text")
        self.post("Has anybody tried the new pool? Ours survived a restart of the server without a scratch.")
        with contextlib.suppress(AssertionError):
            self.sign_up("Ludwig")
        browser.find("#text")
        self.post("Yes. I pulled the plug twice, on purpose: https://www.postgresql.org/docs/current/")
        file = self.folder / "sky.png"
        file.write_bytes(png(900, 420))
        browser.find("#text").type("And this was the view meanwhile.")
        browser.find("input[type=file]").type(str(file))
        browser.find("form.composer button").click()
        browser.find(".message .text", "And this was")
        browser.find("#live.on")
        browser.until("return [...document.images].every(i => i.complete)")
        self.screenshot("board")
        browser.find(".me button", "Sign out").click()
        browser.find("h1", "Take a seat")
        browser.find("#live.on")
        self.screenshot("visitor")
        browser.open(self.url + "/nowhere")
        browser.find("h1", "404")
        self.screenshot("not-found")
        complaints = [text for text in browser.messages() if "status of 404" not in text]
        self.assertEqual(complaints, [])
