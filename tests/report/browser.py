"""Pages in a headless Chromium, as people see them: on a phone and on a wide screen, light and dark."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..launchers import started

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTHS = (400, 1600)
SCHEMES = ("light", "dark")

_FINDINGS = """() => {
  const found = [], root = document.documentElement;
  document.querySelectorAll('details').forEach(part => part.open = true);
  if (root.scrollWidth > window.innerWidth) found.push(`the page is ${root.scrollWidth} pixels wide`);
  for (const part of document.querySelectorAll('body *:not(svg *)')) {
    const hidden = ['hidden', 'clip'].includes(getComputedStyle(part).overflowX);
    if (hidden && part.scrollWidth > part.clientWidth && part.tagName !== 'svg')
      found.push(`cut: ${part.textContent.slice(0, 60)}`);
  }
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 200 || frame.height < 60) found.push(`a figure of ${frame.width} x ${frame.height} pixels`);
    for (const text of svg.querySelectorAll('text')) {
      const place = text.getBoundingClientRect();
      if (place.left < frame.left - 1 || place.right > frame.right + 1 ||
          place.top < frame.top - 1 || place.bottom > frame.bottom + 1)
        found.push(`text leaves its figure: ${text.textContent}`);
      const size = parseFloat(getComputedStyle(text).fontSize) * frame.width / svg.viewBox.baseVal.width;
      if (size < 8.5) found.push(`text of ${size} pixels: ${text.textContent}`);
    }
  }
  return found;
}"""
"""Of a page what is cut, too wide or too small; what is folded is unfolded first."""

_CONTRAST = """() => {
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).map(Number);
    return (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]) / 255;
  };
  const ground = matchMedia('(prefers-color-scheme: dark)').matches ? 0 : 1;
  return [...document.querySelectorAll('p, td, th, h1, svg text')]
    .filter(part => part.textContent.trim() && !part.closest('#over'))
    .filter(part => Math.abs(ground - light(getComputedStyle(part)[part.closest('svg') ? 'fill' : 'color'])) < 0.4)
    .map(part => part.textContent.slice(0, 60));
}"""
"""Texts that are hardly to be told from the ground."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; where there is none, the test is skipped (see HPCDD_TEST_REQUIRE_MPI in the README)."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on PATH")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        started["chromium"] += 1
        yield browser
        browser.close()


def findings(browser: Browser, page: Path) -> list[str]:
    """What is wrong with a page, at all widths, light and dark: errors, requests to elsewhere, what can't be read."""
    found = []
    for width in WIDTHS:
        for scheme in SCHEMES:
            opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            said: list[str] = []
            opened.on("console", lambda message, said=said: said.append(message.text))
            opened.on("pageerror", lambda error, said=said: said.append(str(error)))
            opened.on("request", lambda request, said=said: said.append(request.url))
            opened.goto(page.as_uri())
            said.remove(page.as_uri())
            pale = [f"pale: {text}" for text in opened.evaluate(_CONTRAST)]
            found += [f"{width}, {scheme}: {text}" for text in [*said, *opened.evaluate(_FINDINGS), *pale]]
            opened.close()
    return found
