"""A small client of the W3C WebDriver protocol: drives headless Chromium through ``chromedriver``.

Plain HTTP and JSON, so the tests need the browser and nothing else.  Everything here blocks.
Source: https://www.w3.org/TR/webdriver2/
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE = 15.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MISSING = (
    "the browser tests need Chromium and its chromedriver in the PATH: "
    "apt-get install chromium chromium-driver (Debian), brew install --cask chromium chromedriver (macOS)"
)


class WebDriverError(AssertionError):
    """The browser could not do what it was asked."""


class Element:
    """An element of the page."""

    def __init__(self, browser: Browser, reference: str) -> None:
        self._browser = browser
        self._path = f"/element/{reference}"
        self.reference = {_ELEMENT: reference}

    def click(self) -> None:
        self._browser.call("POST", self._path + "/click", {})

    def clear(self) -> None:
        self._browser.call("POST", self._path + "/clear", {})

    def type(self, text: str) -> None:
        """Type *text*; into a file input, choose the file of that path."""
        self._browser.call("POST", self._path + "/value", {"text": text})

    @property
    def text(self) -> str:
        return str(self._browser.call("GET", self._path + "/text"))

    @property
    def shown(self) -> bool:
        return bool(self._browser.call("GET", self._path + "/displayed"))

    @property
    def value(self) -> str:
        """What stands in a field."""
        return str(self._browser.call("GET", self._path + "/property/value"))

    def attribute(self, name: str) -> str | None:
        return self._browser.call("GET", self._path + f"/attribute/{name}")  # type: ignore[no-any-return]


class Browser:
    """A headless Chromium with a profile of its own.

    :param language: what it tells servers that its reader speaks.
    """

    def __init__(self, language: str = "en-US", width: int = 1100, height: int = 900) -> None:
        driver = shutil.which("chromedriver")
        program = next(filter(None, map(shutil.which, _BROWSERS)), None)
        if driver is None or program is None:
            raise WebDriverError(_MISSING)
        self._profile = tempfile.mkdtemp(prefix="cycloneish-browser-")
        self._driver = subprocess.Popen(
            [driver, "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._base = ""
        try:
            self._base = f"http://127.0.0.1:{self._port()}"
            arguments = [
                "--headless=new",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--no-first-run",
                f"--user-data-dir={self._profile}",
                f"--window-size={width},{height}",
                f"--lang={language}",
                f"--accept-lang={language}",
            ]
            if os.geteuid() == 0:
                arguments.append("--no-sandbox")
            options = {
                "binary": program,
                "args": arguments,
                "prefs": {"intl.accept_languages": language, "credentials_enable_service": False},
            }
            capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._request("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            self._base += f"/session/{session['sessionId']}"
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def _port(self) -> int:
        assert self._driver.stdout is not None
        seen = ""
        for line in self._driver.stdout:
            seen += line
            found = re.search(r"successfully on port (\d+)", line)
            if found is not None:
                return int(found[1])
        raise WebDriverError(f"chromedriver did not start:\n{seen}")

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self._base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json; charset=utf-8"},
        )
        # Never through a proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            with error:
                value = json.load(error)["value"]
            raise WebDriverError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One command of the session."""
        return self._request(method, path, body)

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            if "/session/" in self._base:
                self.call("DELETE", "")
        except (WebDriverError, OSError):
            pass
        self._driver.terminate()
        self._driver.communicate(timeout=10)
        shutil.rmtree(self._profile, ignore_errors=True)

    # -- pages -----------------------------------------------------------------------------------

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        return str(self.call("GET", "/url"))

    def find(self, selector: str, containing: str = "", patience: float = PATIENCE) -> Element:
        """The first element of a CSS *selector* with *containing* in its text; waits for it."""
        until = time.monotonic() + patience
        while True:
            for element in self.all(selector):
                try:
                    if not containing or containing in element.text:
                        return element
                except WebDriverError:
                    continue  # the page changed between two questions
            if time.monotonic() > until:
                page = self.run("return document.body ? document.body.innerText : ''")
                raise WebDriverError(f"no {selector} {containing!r} on {self.url}:\n{page}")
            time.sleep(0.05)

    def all(self, selector: str) -> list[Element]:
        found = self.call("POST", "/elements", {"using": "css selector", "value": selector})
        return [Element(self, element[_ELEMENT]) for element in found]

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; ``return`` gives its value."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str, *arguments: Any, patience: float = PATIENCE) -> None:
        """Wait until the JavaScript gives something true."""
        end = time.monotonic() + patience
        while not self.run(script, *arguments):
            if time.monotonic() > end:
                raise WebDriverError(f"did not come true on {self.url}: {script}")
            time.sleep(0.05)

    def messages(self) -> list[str]:
        """What the browser complained about since the last call."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    # -- windows ---------------------------------------------------------------------------------

    @property
    def window(self) -> str:
        return str(self.call("GET", "/window"))

    def new_window(self) -> str:
        """Open another window and go there."""
        handle = self.call("POST", "/window/new", {"type": "window"})["handle"]
        self.go_to(handle)
        return str(handle)

    def go_to(self, handle: str) -> None:
        self.call("POST", "/window", {"handle": handle})

    def close_window(self, back_to: str) -> None:
        self.call("DELETE", "/window")
        self.go_to(back_to)

    def forget(self) -> None:
        """Delete all cookies of the page's site."""
        self.call("DELETE", "/cookie")

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Make the page exactly so large, which a window cannot be for a phone."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def prefer(self, scheme: str) -> None:
        """Ask for ``light`` or ``dark``."""
        self.devtools(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_bytes(base64.b64decode(self.call("GET", "/screenshot")))
