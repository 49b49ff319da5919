"""Every kind of exception on one rank, in every place of a run: the job ends, with that rank's words and exit code.

What an exception does is decided by its type and by whether all ranks have agreed on it:

===================  =========  ======================================================================================
raised by one rank   exit code  what is printed
===================  =========  ======================================================================================
UserError            2          one line with the rank and its host; where the ranks agree on mistakes of the user
                                (``Comm.on_root``, ``Comm.on_all``) it is all ranks' error, printed once
WriteError           74         likewise
DivergedError        3          one line with the rank and its host; in a study it ends its run only, for by its type
                                all ranks that train together raise it at the same step
KeyboardInterrupt    130        one line with the rank and its host: interrupted
StopRequest          1          the rank's traceback, for nobody has asked to stop: a request to stop is a signal that
                                this rank knows of, or comes from the flag of a training, on all of its ranks
RunError             1          the rank's traceback: a run's error is one that its ranks have agreed on
anything else        1          the rank's traceback, also of SystemExit whatever its code
===================  =========  ======================================================================================

Case n has the place ``n % 19`` and the kind ``n % 12``, so that n = 0 to 227 are all pairs: 19 and 12 have no common
factor. The first 24 have every place once and every kind twice; the others are ``exhaustive``.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ..launchers import Launcher, find
from ..waiting import PROMPTLY, since_fault
from .test_failures import FAULTY, short

EXIT_CODES = {
    "RuntimeError": 1,
    "UserError": 2,
    "KeyError": 1,
    "WriteError": 74,
    "StopRequest": 1,
    "MemoryError": 1,
    "KeyboardInterrupt": 130,
    "StopIteration": 1,
    "DivergedError": 3,
    "SystemExit": 1,
    "RunError": 1,
    "GeneratorExit": 1,
}


@dataclass(frozen=True)
class Place:
    """Where a fault is.

    Attributes:
        fault: PHASE of ``faulty.py``.
        rank, ranks: which has it, and of how many.
        phase: in the message.
        options: of the command.
        agreed: what root reports of a mistake of the user there, behind its text; None where the ranks do not agree.
        step: of the training at which it happens.
    """

    fault: str
    rank: int
    phase: str
    options: tuple[str, ...] = ()
    ranks: int = 2
    agreed: str | None = None
    step: int | None = None


PLACES = {
    "start": Place("start", 1, "start"),
    "problem": Place("problem", 0, "start", agreed=""),
    "read": Place("read", 2, "read", ranks=3, agreed=" (rank 2)"),
    "pixels": Place("pixels", 1, "read", agreed=" (rank 1)"),
    "restore": Place("restore", 1, "restore", ("--resume", "--output", "run")),
    "local": Place("local", 1, "local", ("--local.epochs", "100000")),  # the others would train for ever
    "checkpoint": Place("checkpoint", 1, "local"),
    "gather": Place("gather", 2, "gather", ranks=3),
    "dnn": Place("dnn", 0, "dnn", ranks=3),
    "distributed dnn": Place("dnn", 1, "dnn", ("--aggregation.placement", "distributed")),
    "evaluation": Place("evaluation", 1, "evaluation"),
    "examination": Place("examination", 1, "examination"),
    "coherent by transfer": Place("coherent", 1, "coherent_transfer"),
    "coherent from scratch": Place("coherent", 1, "coherent_scratch", ("--coherent.starts", "scratch")),
    "baseline": Place("baseline", 1, "global", ("--baseline.enabled", "true", "--baseline.epochs", "1"), step=2),
    "agreement": Place("agreement", 1, "agreement"),
    "record": Place("record", 0, "record"),
    "collect": Place("collect", 1, "record"),
    "report": Place("report", 0, "start", ("--run.report", "true"), agreed=""),
}
_SAMPLED = 24


def _cases() -> list[object]:
    places, kinds = list(PLACES), list(EXIT_CODES)
    pairs = [(places[n % len(places)], kinds[n % len(kinds)]) for n in range(len(places) * len(kinds))]
    assert len(set(pairs)) == len(pairs)
    marks = [pytest.mark.slow] * _SAMPLED + [pytest.mark.exhaustive] * (len(pairs) - _SAMPLED)
    return [pytest.param(*pair, marks=mark, id=": ".join(pair)) for pair, mark in zip(pairs, marks, strict=True)]


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    content = short(tiny) | {
        "coherent": {"epochs": 1, "batch_size": 16},
        "run": {"stall_timeout": None},  # nobody watches for ranks that hang
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def unfinished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped behind the DNN's evaluation."""
    folder = tmp_path_factory.mktemp("unfinished")
    done = next(iter(find().values())).run(
        2, [FAULTY, "coherent", "0", "SIGTERM@2", "train", config, "--output", "run"], folder
    )
    assert done.returncode == 75, done.stderr
    return folder / "run"


@pytest.mark.parametrize(("where", "kind"), _cases())
def test_any_exception_on_one_rank_ends_the_job_in_its_words(
    mpi: Launcher, config: Path, tmp_path: Path, request: pytest.FixtureRequest, where: str, kind: str
) -> None:
    place = PLACES[where]
    if where == "restore":
        shutil.copytree(request.getfixturevalue("unfinished"), tmp_path / "run")
    what = kind if place.step is None else f"{kind}@{place.step}"
    arguments = [FAULTY, place.fault, str(place.rank), what, "train", config, "--progress", "off", *place.options]
    done = mpi.run(place.ranks, arguments, tmp_path)
    assert since_fault(tmp_path) < PROMPTLY
    check_words(done, place, kind)
    assert bool([*tmp_path.rglob("results.json")]) == (where == "report")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "study", "scale", "bench"])
def test_so_it_does_in_the_other_commands(mpi: Launcher, config: Path, tmp_path: Path, command: str) -> None:
    if command == "evaluate":
        assert mpi.hpcdd(2, ["train", config, "--output", "run"], tmp_path).returncode == 0
    of_config = {"config": yaml.safe_load(config.read_text())}
    study, point = tmp_path / "study.yaml", tmp_path / "point.yaml"
    study.write_text(yaml.safe_dump({**of_config, "matrix": {"seed": [0]}}))
    point.write_text(yaml.safe_dump({**of_config, "kind": "strong", "steps": 2, "repeats": 1, "phases": ["local"]}))
    arguments: dict[str, list[str | Path]] = {
        "evaluate": ["evaluate", "run"],
        "study": ["study", study, "--output", "study"],
        "scale": ["scale", point, "--output", "scale.jsonl"],
        "bench": ["bench", "collectives", config],
    }
    place = Place("coherent" if command == "study" else command, 1, "")
    done = mpi.run(2, [FAULTY, place.fault, "1", "UserError", *arguments[command]], tmp_path)
    check_words(done, place, "UserError")


def check_words(done: subprocess.CompletedProcess[str], place: Place, kind: str) -> None:
    """What was planted on one rank is reported once, as that rank's or, where they agree on it, as that of all."""
    code, text = EXIT_CODES[kind], f"planted in phase {place.fault}"
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hpcdd: ")]
    if place.agreed is not None and kind in ("UserError", "WriteError"):
        assert line == f"hpcdd: {text}{place.agreed}"
    elif code == 1:
        assert line.startswith(f"hpcdd: rank {place.rank} of {place.ranks} on ")
        assert line.endswith(f" failed in phase {place.phase}")
        assert f"{kind}: " in done.stderr
        assert text in done.stderr
    else:
        assert line.startswith(f"hpcdd: rank {place.rank} of {place.ranks} on ")
        assert line.endswith(": interrupted" if kind == "KeyboardInterrupt" else f": {text}")
    # A generator turns StopIteration into a RuntimeError with that cause; and a request to stop ends in a checkpoint,
    # which asks again. Either is one report of two tracebacks.
    chained = done.stderr.count("The above exception was the direct cause of the following exception:")
    chained += done.stderr.count("During handling of the above exception, another exception occurred:")
    assert chained <= (kind == "StopIteration" or (place.fault, kind) == ("checkpoint", "StopRequest"))
    assert done.stderr.count("Traceback (most recent call last):") == (code == 1) + chained
