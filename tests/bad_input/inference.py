"""Models, images and files to make that predict and export can't do anything with."""

from __future__ import annotations

from .row import LONG, Row, folder, text

INFERENCE = [
    Row(
        "predict without anything",
        ("predict",),
        "command line: the following arguments are required: RUN, PATH; see `hpcdd predict --help`",
    ),
    Row(
        "predict without images",
        ("predict", "run"),
        "command line: the following arguments are required: PATH; see `hpcdd predict --help`",
    ),
    Row(
        "unknown option of predict",
        ("predict", "run", "a.png", "--strateg", "dnn"),
        "command line: --strateg is unknown; did you mean --strategy?",
    ),
    Row(
        "unknown format of predictions",
        ("predict", "run", "a.png", "--format", "xml"),
        "command line: --format: invalid choice: 'xml' (choose from 'table', 'csv', 'json'); see `hpcdd predict "
        "--help`",
    ),
    Row(
        "run missing",
        ("predict", "run", "good.h5"),
        "run is not there; name a model file (model.h5 of a run)",
        mpirun=True,
    ),
    Row("too long a name of a run", ("predict", LONG, "good.h5"), f"{LONG} can't be a run: File name too long"),
    Row(
        "a folder that is no run",
        ("predict", "run", "good.h5"),
        "run is a folder without model.h5; name a run directory",
        folder("run/notes"),
    ),
    Row(
        "an empty folder for a run",
        ("predict", "run", "good.h5"),
        "run is a folder without model.h5; name a run directory",
        folder("run"),
    ),
    Row(
        "a run that has only begun",
        ("predict", "run", "good.h5"),
        "run is an unfinished run; resume it with `hpcdd train --resume --output run`",
        folder("run/logs"),
    ),
    Row(
        "a data set for a run",
        ("predict", "good.h5", "good.h5"),
        "good.h5 is not a model file of format 1 (no attribute hpcdd_model_format); name model.h5 of a run",
    ),
    Row(
        "a model that is no HDF5",
        ("export", "m.h5", "m.pt2"),
        "m.h5 is not an HDF5 file; name model.h5 of a run",
        text("no model", "m.h5"),
    ),
    Row(
        "export without anything",
        ("export",),
        "command line: the following arguments are required: RUN, OUT; see `hpcdd export --help`",
    ),
    Row(
        "export of another kind",
        ("export", "run", "m.pt"),
        "m.pt is neither ONNX nor an exported program of PyTorch; name a file .onnx or .pt2",
    ),
    Row(
        "export into a folder that is not there",
        ("export", "run", "nowhere/m.pt2"),
        "nowhere/m.pt2 is a folder, or its folder does not exist; name a file in a folder that exists",
    ),
]
