"""Results of `bench headline` whose curves are known."""

from __future__ import annotations

from hpcdd.artifacts.headline_file import CurvePoint, Headline


def made(**accuracies: list[float]) -> Headline:
    """A result with an epoch every ten seconds; the coherent model continues where the DNN ends."""
    curves: dict[str, list[CurvePoint]] = {}
    for contender, values in accuracies.items():
        before = 10 * len(accuracies["dnn"]) if contender == "coherent_transfer" else 0
        curves[contender] = [CurvePoint(epoch=n, seconds=before + 10 * n, accuracy=a) for n, a in enumerate(values, 1)]
    return Headline.model_validate(
        {
            "name": "made",
            "dataset": "artificial",
            "samples": {"train": 100, "test": 20},
            "parameters": {"global": 1000, "coherent": 900},
            "places": [("host", "cpu", 1, 2), ("host", "cpu", 1, 1)],
            "network": "lo",
            "curves": curves,
            "machine": {"processor": "P", "mpi_library": "M"},
            "time": "2026-01-01T00:00:00+0000",
            "config": {"name": "made"},
        }
    )
