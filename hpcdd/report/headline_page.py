"""The page of ``hpcdd bench headline``: test accuracy against seconds of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..artifacts import headline_file
from ..artifacts.headline_file import ENDS, TIMES, WORDS, Headline
from ..core import yaml_text
from .drawing import Figures
from .page import Section
from .style import LOOKS, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CAPTION = "Test accuracy at the end of every epoch against seconds of training. Further left and up is better."


def section(source: Path, folder: Path) -> Section:
    """Draws the figure into ``figures/``.

    Args:
        source: folder in which ``bench headline`` has left its result.
        folder: for the figure.

    Raises:
        UserError: the result can't be read, or is damaged.
        OSError: the figure can't be written.
    """
    found = headline_file.read(source)
    figures = Figures(folder)
    with figures.draw("headline", _CAPTION) as axes:
        draw(axes, found)
    return Section(
        f"{found.name}: accuracy against time",
        "headline.html",
        found.show,
        cards=[(accuracy, f"{words}: test accuracy after {seconds} s") for words, _, seconds, accuracy in found.ends()],
        figures=list(figures),
        captions={"headline": _CAPTION},
        ends=found.ends(),
        concluded=found.conclusion(),
        ends_head=ENDS,
        times_head=TIMES,
        times=found.times(),
        facts=_facts(found),
        settings=yaml_text.dump(found.config),
    )


def draw(axes: Axes, found: Headline) -> None:
    """All curves; the coherent model's begins where the DNN's ends, if it starts from the trained DNN."""
    for contender, words in WORDS.items():
        points = found.way(contender)[-len(found.curves[contender]) - 1 :]
        colour, marker = LOOKS[contender]
        axes.plot(
            [point.seconds for point in points],
            [point.accuracy for point in points],
            color=colour,
            marker=marker,
            ms=4,
            label=words,
        )
    axes.set_xlim(left=0)
    axes.set(xlabel="seconds of training", ylabel="test accuracy")
    legend(axes)


def _facts(found: Headline) -> list[str]:
    hosts, ranks, threads = {place[0] for place in found.places}, len(found.places), found.places[0][2]
    counts = f"{found.samples['train']:,} training and {found.samples['test']:,} test samples"
    return [
        f"{found.dataset}: {counts}",
        f"{ranks} rank{'s' * (ranks > 1)} on {len(hosts)} host{'s' * (len(hosts) > 1)}, {threads} "
        f"thread{'s' * (threads > 1)} each; {found.machine.get('processor')}, {found.machine.get('mpi_library')}",
        f"DDP's messages by gloo over {found.network}",
        f"trainable parameters: global CNN {found.parameters['global']:,}, coherent model "
        f"{found.parameters['coherent']:,}",
        f"measured {found.time}",
    ]
