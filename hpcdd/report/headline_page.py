"""The page of ``hpcdd bench headline``: test accuracy against seconds of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..artifacts.headline_file import ENDS, LABELS, NAME, TIMES, Headline
from ..core import yaml_text
from ..core.files import read_json
from .drawing import Figures
from .page import Section
from .style import LOOKS, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CAPTION = "Test accuracy at the end of every epoch against seconds of training. Further left and up is better."


def section(source: Path, folder: Path) -> Section:
    """Draws the figure into ``figures/``.

    Args:
        source: folder with the result of ``bench headline``.
        folder: for the figure.

    Raises:
        UserError: the result can't be read, or is damaged.
        OSError: the figure can't be written.
    """
    headline = read_json(source / NAME, Headline)
    figures = Figures(folder)
    with figures.draw("headline", _CAPTION) as axes:
        draw(axes, headline)
    return Section(
        f"{headline.name}: accuracy against time",
        "headline.html",
        headline.show,
        cards=[
            (accuracy, f"{label}: test accuracy after {seconds} s") for label, _, seconds, accuracy in headline.ends()
        ],
        figures=list(figures),
        captions={"headline": _CAPTION},
        ends=headline.ends(),
        concluded=headline.conclusion(),
        ends_head=ENDS,
        times_head=TIMES,
        times=headline.times(),
        facts=_facts(headline),
        settings=yaml_text.dump(headline.config),
    )


def draw(axes: Axes, headline: Headline) -> None:
    """All curves; the coherent model's begins where the DNN's ends, if it starts from the trained DNN."""
    for contender, label in LABELS.items():
        points = headline.full_curve(contender)[-len(headline.curves[contender]) - 1 :]
        colour, marker = LOOKS[contender]
        axes.plot(
            [point.seconds for point in points],
            [point.accuracy for point in points],
            color=colour,
            marker=marker,
            ms=4,
            label=label,
        )
    axes.set_xlim(left=0)
    axes.set(xlabel="seconds of training", ylabel="test accuracy")
    legend(axes)


def _facts(headline: Headline) -> list[str]:
    hosts, ranks, threads = {host for host, *_ in headline.places}, len(headline.places), headline.places[0][2]
    counts = f"{headline.samples['train']:,} training and {headline.samples['test']:,} test samples"
    return [
        f"{headline.dataset}: {counts}",
        f"{ranks} rank{'s' * (ranks > 1)} on {len(hosts)} host{'s' * (len(hosts) > 1)}, {threads} "
        f"thread{'s' * (threads > 1)} each; {headline.machine.get('processor')}, {headline.machine.get('mpi_library')}",
        f"DDP's messages by gloo over {headline.network}",
        f"trainable parameters: global CNN {headline.parameters['global']:,}, coherent model "
        f"{headline.parameters['coherent']:,}",
        f"measured {headline.time}",
    ]
