"""One headless Chromium for the tests of pages; every page is a tab of its own, with its own storage.

``unavailable`` says why there is none; tests skip with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.server import PATIENCE_SECONDS


def unavailable() -> str:
    missing = [command for command in ("chromium", "chromedriver") if shutil.which(command) is None]
    if missing:
        return f"without {' and '.join(missing)} (Debian: apt-get install chromium chromium-driver)"
    if importlib.util.find_spec("selenium") is None:
        return "without selenium (pip install 'actord[browser]')"
    return ""


class Page:
    """A tab on one address. It has to be in front to be used, which every method sees to."""

    def __init__(self, driver: Any, handle: str) -> None:
        self._driver = driver
        self._handle = handle
        self.closed = False

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a piece of JavaScript that returns one."""
        self._front()
        return self._driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        found: str = self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)
        return found.strip()

    def wait(self, script: str, *arguments: Any) -> Any:
        """Until the expression is true."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        self._front()
        wait = WebDriverWait(self._driver, PATIENCE_SECONDS, poll_frequency=0.02)
        try:
            return wait.until(lambda driver: driver.execute_script(f"return {script}", *arguments))
        except TimeoutException:
            state = self.run("return document.body.innerText")
            raise AssertionError(f"waited in vain for {script} {arguments}; the page shows: {state!r}") from None

    def wait_text(self, selector: str, wanted: str) -> None:
        self.wait("document.querySelector(arguments[0])?.textContent.includes(arguments[1])", selector, wanted)

    def click(self, selector: str) -> None:
        self._front()
        self._driver.find_element("css selector", selector).click()

    def type(self, selector: str, text: str) -> None:
        """Press keys; a line end is Enter."""
        self._front()
        self._driver.find_element("css selector", selector).send_keys(text)

    def go(self, url: str) -> None:
        self._front()
        self._driver.get(url)

    def reload(self) -> None:
        self._front()
        self._driver.refresh()

    def resize(self, width: int, height: int) -> None:
        self._front()
        self._driver.set_window_size(width, height)

    def screenshot(self, path: Path) -> None:
        self._front()
        self._driver.save_screenshot(str(path))

    def errors(self) -> list[str]:
        """What the page's own code has complained about; lost connections are none of its faults."""
        if self.closed:
            return []
        self._front()
        lines = [entry["message"] for entry in self._driver.get_log("browser")]
        return [line for line in lines if "net::ERR_" not in line and "WebSocket connection" not in line]

    def close(self) -> None:
        self._front()
        self._driver.close()
        self.closed = True

    def _front(self) -> None:
        self._driver.switch_to.window(self._handle)


class Browser:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._pages: list[Page] = []

    def open(self, url: str) -> Page:
        """A new tab with this address, loaded; a window costs twice as much."""
        self._driver.switch_to.window(self._driver.window_handles[0])
        self._driver.switch_to.new_window("window")
        page = Page(self._driver, self._driver.current_window_handle)
        self._pages.append(page)
        page.go(url)
        return page

    def close_pages(self) -> None:
        for page in self._pages:
            if not page.closed:
                page.close()
        self._pages.clear()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"):
        options.add_argument(argument)
    options.add_argument("--window-size=900,720")
    options.add_argument("--disable-background-timer-throttling")  # several tabs at once: none is to fall asleep
    options.add_argument("--disable-backgrounding-occluded-windows")
    options.add_argument("--disable-renderer-backgrounding")
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


Open = Callable[[str], Page]
