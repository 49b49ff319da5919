"""What the page of a run shows, read from its run directory: no data set, no checkpoint, no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..artifacts import metrics_log, predictions
from ..artifacts.metrics_log import EpochRecord
from ..artifacts.predictions import SplitPredictions
from ..artifacts.results import Results
from ..config.loading import from_yaml
from ..config.schema import Config
from ..core.errors import UserError
from ..core.names import TRAININGS, TrainingName
from ..decomposition.boxes import Decomposition
from ..runs.run_directory import RunDirectory


@dataclass(frozen=True)
class RunData:
    """A complete run.

    Attributes:
        folder: its directory.
        config: its configuration.
        results: content of results.json.
        lines: content of metrics.jsonl.
        predictions: content of decisions.h5.
        decomposition: of the images.
    """

    folder: Path
    config: Config
    results: Results
    lines: tuple[EpochRecord, ...]
    predictions: SplitPredictions
    decomposition: Decomposition

    @property
    def phases(self) -> list[TrainingName]:
        """The phases that trained something, in their order."""
        present = {line.phase for line in self.lines}
        return [phase for phase in TRAININGS if phase in present]

    def curves(self, phase: TrainingName) -> Iterator[tuple[int | None, list[EpochRecord]]]:
        """The lines of a phase by subdomain (None for a network of all subdomains), ascending by epoch."""
        of_phase = [line for line in self.lines if line.phase == phase]
        for subdomain in sorted({line.subdomain for line in of_phase}, key=lambda s: -1 if s is None else s):
            yield subdomain, sorted((x for x in of_phase if x.subdomain == subdomain), key=lambda x: x.epoch)


def read(folder: Path) -> RunData:
    """Reads a run directory.

    Raises:
        UserError: the folder is not a run directory, its run is not complete, or a file in it is damaged.
    """
    directory = RunDirectory(folder)
    if not directory.results.exists():
        if folder.is_dir() and directory.config.exists():
            raise UserError(f"{folder} holds an unfinished run; resume it: `hpcdd train --resume`")
        raise UserError(
            f"{folder} holds neither a run nor a study; name a folder written by `hpcdd train` or `hpcdd study`"
        )
    results = Results.read(directory.results)
    try:
        config = from_yaml(directory.config.read_text("utf-8"), str(directory.config))
        decomposition = Decomposition.from_settings(config.decomposition, results.dataset.image_shape[1:])
    except (OSError, ValueError) as error:
        raise UserError(f"{directory.config} can't be read: {error}") from error
    split_predictions = predictions.read(directory.decisions)
    image_shape = tuple(results.dataset.image_shape)
    if split_predictions.local.shape[1] != len(decomposition) or split_predictions.images.shape[1:] != image_shape:
        raise UserError(f"{directory.decisions} is of another run than {directory.config}; copy the whole folder again")
    lines = tuple(line for line in metrics_log.read(directory.metrics) if line.phase in TRAININGS)
    return RunData(folder, config, results, lines, split_predictions, decomposition)
