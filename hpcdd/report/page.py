"""An HTML page of several sections, which needs no network and no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..core.files import write_bytes
from .drawing import columns


class Section:
    """A part of a page.

    Args:
        title: its heading.
        template: file next to this one, e.g. ``study.html``.
        show: prints its tables.
        context: variables of the template.
    """

    def __init__(
        self, title: str, template: str, show: Callable[[TextIO], None] = lambda _: None, **context: Any
    ) -> None:
        self.title = title
        self.template = template
        self.show = show
        self.context = context


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes a page; the heading of a single section is omitted, because it is the page's.

    Raises:
        OSError: it can't be written.
    """
    # Texts come from files that others may have written: they are escaped.
    templates = Environment(
        loader=PackageLoader("hpcdd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["columns"] = columns
    parts = [
        (
            section.title if len(sections) > 1 else None,
            Markup(templates.get_template(section.template).render({"number": number, **section.context})),
        )
        for number, section in enumerate(sections, start=1)
    ]
    write_bytes(path, templates.get_template("base.html").render(title=title, parts=parts).encode())
