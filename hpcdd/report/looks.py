"""Colours and markers that all figures share."""

from __future__ import annotations

LOOKS = {
    "local": ("#999999", "|"),
    "average": ("#56B4E9", "o"),
    "majority": ("#0072B2", "v"),
    "log_pool": ("#CC79A7", "^"),
    "dnn": ("#E69F00", "s"),
    "coherent_transfer": ("#009E73", "D"),
    "coherent_scratch": ("#D55E00", "P"),
    "global": ("#8C6D1F", "X"),
}
"""By strategy: colours that people with any colour vision tell apart (Okabe and Ito 2008), and a marker for each."""

INK, PAPER = "#010101", "#fefefe"
"""Black and white that stay so on a dark page, for what is drawn over images; true black takes the page's colour."""

OVER = "over"
"""Group id of texts that stand over an image and not on the page's ground."""
