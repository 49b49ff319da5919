"""The checks of pages find each fault that they look for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import browser

HEAD = """<!DOCTYPE html><html><head><meta name="viewport" content="width=device-width"><style>
:root { color-scheme: light dark } svg text { font: 12px sans-serif; fill: currentColor }
</style></head><body>"""
SVG = '<svg viewBox="0 0 300 150" width="300">%s</svg>'
GOOD = "<p>some text</p>" + SVG % '<text x="9" y="50">one</text><text x="9" y="66">two</text>'
FAULTS = {
    "nothing is not defined": "<script>nothing()</script>",
    "127.0.0.1": '<link rel="stylesheet" href="http://127.0.0.1:9/x.css">',
    "the page is": '<div style="width: 1700px">wide</div>',
    "leaves the page: outside": '<p style="position: absolute; left: -30px">outside</p>',
    "cut: cut off": '<p style="width: 9px; overflow: hidden; white-space: nowrap">cut off</p>',
    "a figure of 90 x 90 pixels": '<svg viewBox="0 0 90 90" width="90"></svg>',
    "text leaves its figure: left": SVG % '<text x="-20" y="50">left</text>',
    "text of 7 pixels: tiny": SVG % '<text x="9" y="50" style="font-size: 7px">tiny</text>',
    "texts over each other: three and four": SVG % '<text x="9" y="50">three</text><text x="15" y="58">four</text>',
    "a link to nothing: none": '<nav><a href="#none">none</a></nav>',
    "not in the contents: unlisted": '<h3 id="unlisted">unlisted</h3>',
    "half empty: one": '<div class="figures"><figure style="margin: 0; width: 200px; height: 99px">one</figure></div>',
    "room for a table": '<div class="wide" style="width: 9em; overflow-x: auto"><p style="width: 99em">a</p></div>',
    "contrast 1.7: pale": '<p style="color: #777; background: #555">pale</p>',
    "contrast 3.9: grey": SVG % '<text x="9" y="50" style="fill: #808080">grey</text>',
    "contrast 3.9: patch": SVG % '<rect width="300" height="150" fill="#808080"/><text x="9" y="50">patch</text>',
}


def test_every_fault_of_a_page_is_found(opened: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(HEAD + GOOD)
    assert browser.faults(opened, page) == []
    page.write_text(HEAD + GOOD + "".join(FAULTS.values()))
    faults = "; ".join(browser.faults(opened, page))
    assert [fault for fault in FAULTS if fault not in faults] == []
