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
    figure, axes = plt.subplots(figsize=(9, 3.4))
    axes.set(xlim=(0, 10.6), ylim=(-0.6, 3.7), aspect="equal")
    axes.axis("off")
    for number, colour in enumerate(COLOURS):
        column, row = number % 2, number // 2
        axes.add_patch(Rectangle((0.2 + 1.05 * column, 1.65 - 1.05 * row), 1, 1, facecolor=colour, alpha=0.85))
        axes.text(
            0.7 + 1.05 * column, 2.15 - 1.05 * row, str(number), color="white", ha="center", va="center", fontsize=13
        )
        y = 2.75 - 0.85 * number
        arrow(axes, (2.4, y + 0.25), (3.0, y + 0.25))
        box(axes, 3.1, y, 1.6, 0.5, f"CNN {number}", colour)
        arrow(axes, (4.8, y + 0.25), (6.1, 1.72 if number < 2 else 1.48))
    box(axes, 6.2, 1.1, 1.5, 1.0, "DNN", GREY)
    arrow(axes, (7.8, 1.6), (8.5, 1.6))
    axes.text(8.6, 1.6, "class", ha="left", va="center", fontsize=12, color=GREY)
    axes.text(1.2, -0.15, "1. cut images\ninto subimages", ha="center", va="top", fontsize=9, color=GREY)
    axes.text(
        3.9,
        -0.15,
        "2. train one small CNN on each:\nin parallel, no messages",
        ha="center",
        va="top",
        fontsize=9,
        color=GREY,
    )
    axes.text(6.95, 0.85, "3. combine their outputs:\none gather", ha="center", va="top", fontsize=9, color=GREY)
    axes.text(
        8.4,
        3.4,
        "4. train all of it as one model:\none allreduce of batch x hidden\nnumbers per step, nothing else",
        ha="center",
        va="top",
        fontsize=9,
        color=GREY,
    )
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).parent / "images" / "method.svg")
