"""A headless browser for the tests of pages; where none is installed, they are skipped, and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NO_BROWSER = "no browser: install Chromium (Debian: apt-get install chromium)"
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_QUIETLY = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@contextmanager
def open_browser(*arguments: str) -> Iterator[Browser]:
    """Chromium, with these command-line arguments beside those that keep it from asking the network for anything."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_QUIETLY, *arguments])
        yield browser
        browser.close()
