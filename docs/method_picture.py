"""Draws docs/images/method.svg: one picture of the method.

python docs/method_picture.py
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

COLOURS = ("#0072B2", "#A86400", "#00785A", "#A8527D")
GREY = "#555555"


def box(axes: plt.Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    """A rounded box with white text."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.08", facecolor=colour, edgecolor="none"
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, color="white", ha="center", va="center", fontsize=10)


def arrow(axes: plt.Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one point to another."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=GREY, linewidth=1.2))


def draw(path: Path) -> None:
    """Writes the picture."""
    mpl.rcParams.update({"svg.hashsalt": "method", "svg.fonttype": "path", "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(figsize=(9, 3.7))
    axes.set(xlim=(0, 11.4), ylim=(-0.75, 4.25), aspect="equal")
    axes.axis("off")
    for number, colour in enumerate(COLOURS):
        left, low = 0.1 + 1.55 * (number % 2), 1.65 - 1.55 * (number // 2)
        axes.add_patch(Rectangle((left, low), 1.5, 1.5, facecolor=colour, alpha=0.85))
        axes.text(left + 0.75, low + 0.75, str(number), color="white", ha="center", va="center", fontsize=13)
        y = 2.6 - 0.8 * number
        arrow(axes, (3.15, y + 0.25), (4.0, y + 0.25))
        box(axes, 4.1, y, 1.6, 0.5, f"CNN {number}", colour)
        arrow(axes, (5.8, y + 0.25), (7.1, 1.77 if number < 2 else 1.53))
    box(axes, 7.2, 1.15, 1.5, 1.0, "DNN", GREY)
    arrow(axes, (8.8, 1.65), (9.9, 1.65))
    axes.add_patch(
        FancyBboxPatch((3.55, 0.0), 5.5, 3.3, boxstyle="round,pad=0.02", fill=False, edgecolor=GREY, linestyle="--")
    )
    axes.text(10, 1.65, "class", ha="left", va="center", fontsize=12, color=GREY)
    for x, y, text in (
        (1.4, -0.15, "1. cut images\ninto subimages"),
        (4.9, -0.15, "2. train one small CNN on each:\nin parallel, no messages"),
        (8.1, -0.15, "3. combine their\noutputs: one gather"),
    ):
        axes.text(x, y, text, ha="center", va="top", fontsize=9, color=GREY)
    text = "4. train all of it as one model: one allreduce of\nbatch x hidden numbers per step, nothing else"
    axes.text(6.3, 3.4, text, ha="center", va="bottom", fontsize=9, color=GREY)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).parent / "images" / "method.svg")
