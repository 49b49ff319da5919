"""Checks of pages in a headless Chromium: on a phone and on a wide screen, light and dark."""

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

WIDTHS = (400, 1000, 1600)
SCHEMES = ("light", "dark")

_LAYOUT = """() => {
  const faults = [], root = document.documentElement;
  const inner = text => {  // without the room above and below its letters
    const { left, right, top, bottom } = text.getBoundingClientRect(), rest = (bottom - top) / 8;
    return { left: left + 1, right: right - 1, top: top + rest, bottom: bottom - rest };
  };
  document.querySelectorAll('details').forEach(part => part.open = true);
  if (root.scrollWidth > window.innerWidth) faults.push(`the page is ${root.scrollWidth} pixels wide`);
  for (const part of document.querySelectorAll('body *:not(svg *)')) {
    const scrolls = part.parentElement.closest('.wide, pre');
    const place = part.getBoundingClientRect();
    if (!scrolls && (place.left < 0 || place.right > window.innerWidth + 0.5))
      faults.push(`leaves the page: ${part.textContent.slice(0, 60)}`);
    const hidden = ['hidden', 'clip'].includes(getComputedStyle(part).overflowX);
    if (hidden && part.scrollWidth > part.clientWidth && part.tagName !== 'svg')
      faults.push(`cut: ${part.textContent.slice(0, 60)}`);
  }
  const links = [...document.querySelectorAll('nav a')].map(link => link.hash.slice(1));
  for (const link of links) if (!document.getElementById(link)) faults.push(`a link to nothing: ${link}`);
  for (const heading of document.querySelectorAll('h2, h3'))
    if (!links.includes(heading.id)) faults.push(`not in the contents: ${heading.textContent}`);
  if (window.innerWidth >= 1000) {
    for (const row of document.querySelectorAll('.figures')) {
      const frame = row.getBoundingClientRect(), parts = [...row.querySelectorAll('figure')];
      const filled = parts.reduce((sum, part) => sum + part.offsetWidth * part.offsetHeight, 0);
      if (filled < frame.width * frame.height / 2) faults.push(`half empty: ${row.textContent.slice(0, 60)}`);
    }
    for (const table of document.querySelectorAll('.wide'))
      if (table.scrollWidth > table.clientWidth + 1 && table.clientWidth < document.body.clientWidth * 0.9)
        faults.push(`room for a table that is cut: ${table.textContent.slice(0, 60)}`);
  }
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 200 || frame.height < 60) faults.push(`a figure of ${frame.width} x ${frame.height} pixels`);
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text, inner(text)]);
    for (const [content, text, place] of texts) {
      if (place.left < frame.left - 1 || place.right > frame.right + 1 ||
          place.top < frame.top - 1 || place.bottom > frame.bottom + 1)
        faults.push(`text leaves its figure: ${content}`);
      const size = parseFloat(getComputedStyle(text).fontSize) * frame.width / svg.viewBox.baseVal.width;
      if (size < 8.5) faults.push(`text of ${size} pixels: ${content}`);
    }
    texts.forEach(([content, , one], n) => texts.slice(n + 1).forEach(([others, , other]) => {
      if (one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom)
        faults.push(`texts over each other: ${content} and ${others}`);
    }));
  }
  return faults;
}"""
"""Of a page what is cut, too wide, too small, half empty or not in its contents; what is folded is unfolded first."""

_CONTRAST = """() => {
  const parts = colour => {
    const [red, green, blue, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = (upper, lower, opacity) => [0, 1, 2].map(i => opacity * upper[i] + (1 - opacity) * lower[i]);
  const luminance = colour => [0, 1, 2].map(i => colour[i] / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const paper = dark ? [18, 18, 18] : [255, 255, 255];  // Chromium's own, which the page does not change
  const painted = part => {
    const style = getComputedStyle(part), drawn = part instanceof SVGGeometryElement;
    if (part instanceof SVGSVGElement || part instanceof HTMLElement) return parts(style.backgroundColor);
    if (!drawn || style.fill === 'none') return [0, 0, 0, 0];
    const colour = parts(style.fill);
    return [...colour.slice(0, 3), colour[3] * style.fillOpacity * style.opacity];
  };
  const pale = [];
  for (const part of document.querySelectorAll('p, td, th, h1, h2, h3, a, figcaption, summary, pre, svg text')) {
    if (!part.textContent.trim() || part.closest('#over')) continue;
    const style = getComputedStyle(part), drawn = part.closest('svg');
    const place = part.getBoundingClientRect();
    const below = document.elementsFromPoint(place.left + place.width / 2, place.top + place.height / 2);
    const ground = below.filter(other => !(other instanceof SVGTextContentElement)).reverse()
      .reduce((sum, other) => over(painted(other), sum, painted(other)[3]), paper);
    const ink = parts(drawn ? style.fill : style.color);
    const opacity = ink[3] * (drawn ? style.fillOpacity * style.opacity : 1);
    const [one, other] = [luminance(over(ink, ground, opacity)), luminance(ground)].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) pale.push(`contrast ${contrast.toFixed(1)}: ${part.textContent.slice(0, 60)}`);
  }
  return pale;
}"""
"""Texts with too little contrast to what is painted below them, by the measure of the W3C (WCAG 2, level AA)."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; without one, the test is skipped (see HPCDD_TEST_REQUIRE_MPI in CONTRIBUTING.md)."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on PATH")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        started["chromium"] += 1
        yield browser
        browser.close()


def faults(browser: Browser, page: Path) -> list[str]:
    """The faults of a page at all widths, light and dark: errors, requests to other hosts, text that can't be read."""
    problems = []
    for width in WIDTHS:
        for scheme in SCHEMES:
            opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            messages: list[str] = []
            opened.on("console", lambda message, messages=messages: messages.append(message.text))
            opened.on("pageerror", lambda error, messages=messages: messages.append(str(error)))
            opened.on("request", lambda request, messages=messages: messages.append(request.url))
            opened.goto(page.as_uri())
            messages.remove(page.as_uri())
            layout = opened.evaluate(_LAYOUT)
            tall = opened.evaluate("document.documentElement.scrollHeight")
            opened.set_viewport_size({"width": width, "height": tall})  # what is out of sight has nothing below it
            problems += [f"{width}, {scheme}: {text}" for text in [*messages, *layout, *opened.evaluate(_CONTRAST)]]
            opened.close()
    return problems
