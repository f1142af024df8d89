"""A headless Chromium, driven through chromedriver's WebDriver endpoint by the standard library.

Debian: `apt-get install chromium chromium-driver`. A machine without them skips the tests of pages
and says so; where MU_REF_BROWSER is "required", as in `.ci/run`, that is a failure.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
             "--no-proxy-server", "--window-size=1400,1300",
             "--force-color-profile=srgb")  # fmt: skip
HERE = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the machine uses
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of the standard
PATIENCE_S = 120.0  # kernels may have to be compiled


@contextmanager
def browser() -> Iterator["Browser"]:
    """Start one, or skip (fail where one is required)."""
    driver = shutil.which("chromedriver")
    chrome = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if driver is None or chrome is None:
        reason = "no chromium and chromedriver: the page was NOT tested in a browser"
        if os.environ.get("MU_REF_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        found = Browser(f"http://127.0.0.1:{_port(process)}", chrome)
        try:
            yield found
        finally:
            found.close()
    finally:
        process.terminate()
        process.communicate()


def _port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "successfully on port " in line:
            return int(line.rstrip(". \n").rpartition(" ")[2])
    raise AssertionError("chromedriver did not start")


class Browser:
    """One window."""

    def __init__(self, driver: str, chrome: str) -> None:
        options = {"binary": chrome, "args": list(ARGUMENTS)}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL"}}  # fmt: skip
        self.driver, self.session = driver, ""
        started = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{started['sessionId']}"

    def _ask(self, method: str, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        kind = {"Content-Type": "application/json"}
        asked = urllib.request.Request(self.driver + self.session + path, body, kind, method=method)
        with HERE.open(asked) as answer:
            return json.loads(answer.read())["value"]

    def close(self) -> None:
        self._ask("DELETE", "")

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: Any) -> Any:
        """Run a script until it returns something true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if found := self.run(script, *arguments):
                return found
            time.sleep(0.05)
        raise AssertionError(f"the page never said yes to: {script}")

    def _element(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[ELEMENT]}"

    def click(self, selector: str) -> None:
        self._ask("POST", f"{self._element(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type in place of what stands there, key by key; in a list, the beginning of a choice."""
        element = self._element(selector)
        if self.run("return document.querySelector(arguments[0]).type === 'text'", selector):
            text = f"\ue009a\ue000{text}" if text else "\ue009a\ue000\ue017"  # Ctrl-A, Delete
        self._ask("POST", f"{element}/value", {"text": text})

    def size(self, width: int, height: int) -> None:
        self._ask("POST", "/window/rect", {"width": width, "height": height})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the page wrote on its console since the last time, but refused questions."""
        found = self._ask("POST", "/se/log", {"type": "browser"})
        return [one["message"] for one in found if "422" not in one["message"]]
