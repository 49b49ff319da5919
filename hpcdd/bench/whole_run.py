"""``bench train``: a whole run of hpcdd compared with a plain script that does the same work
(:mod:`hpcdd.bench.plain_script`).

Both run in one job on the same ranks and threads, interleaved; who begins changes from round to round. hpcdd's side is
:func:`hpcdd.runs.pipeline.train` as for a user, with checkpoints, model and records, in a run directory that is removed
behind it; only its report is left out. What is timed is the slowest rank.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..artifacts.results import Results
from ..config.schema import Config
from ..core.devices import use_processor
from ..core.errors import RunError, UserError
from ..core.files import writing
from ..core.interleaved_timing import quartiles, rotated, spread
from ..core.names import PhaseName
from ..data import sample_storage
from ..data.problem import Problem, build_problem
from ..decomposition import rank_layout
from ..decomposition.rank_layout import RankLayout
from ..mpi.communicator import Comm
from ..runs.pipeline import train
from ..runs.resume import Job
from ..training.step_timing import marked
from . import plain_script
from .time_account import CATEGORIES, Account

ROWS: dict[str, tuple[PhaseName, ...]] = {
    "reading": ("read",),
    "local": ("local",),
    "aggregation": ("gather", "dnn"),
    "coherent by transfer": ("coherent_transfer",),
}
"""Of the table: the phases that each is the sum of."""
_SIDES = ("hpcdd", "plain")
_SECTIONS = ("local", "aggregation", "coherent")


@dataclass(frozen=True)
class TimedRun:
    """One run of one side; the same on every rank.

    Attributes:
        whole: seconds.
        phases: seconds by phase.
        accuracy: on the test split by strategy.
        categories: of hpcdd, seconds of all ranks by category.
        over_steps: of hpcdd, the run without its start-up over the sum of its steps.
    """

    whole: float
    phases: dict[str, float]
    accuracy: dict[str, float]
    categories: dict[str, float] = field(default_factory=dict)
    over_steps: float = 0.0

    def row(self, name: str) -> float:
        """Seconds of one of :data:`ROWS`, of the ``whole``, or of ``all else``."""
        rows = {row: sum(self.phases[phase] for phase in phases) for row, phases in ROWS.items()}
        return {**rows, "whole": self.whole, "all else": self.whole - sum(rows.values())}[name]


def run(comm: Comm, config: Config, rounds: int) -> None:
    """Called by all ranks; root prints.

    Raises:
        UserError: on all ranks: the configuration asks for what the plain script can't do, or a run has failed.
        WriteError: on all ranks, if no run directory can be made in the current folder.
    """
    problem = comm.on_root(lambda: _begin(config, comm.size))
    layout = rank_layout.build(comm, len(problem.decomposition), config.device)
    comm.on_root(lambda: _refuse(_of_machine(layout)))
    streams = sample_storage.decide(comm, config, problem, layout).stream
    message = "bench train keeps all samples in memory, but these samples would be streamed; use a smaller data.subset"
    comm.refuse(UserError(message) if streams else None)
    use_processor(layout.placements[comm.rank].threads, layout.neighbours(comm.rank))
    runs: dict[str, list[TimedRun]] = {side: [] for side in _SIDES}
    for number in range(-1, rounds):  # the first one warms up
        settings = _shortened(config) if number < 0 else config
        for side in rotated(_SIDES, number):
            timed = _hpcdd(comm, settings) if side == "hpcdd" else _plain(comm, settings, problem, layout)
            gc.collect()
            if number >= 0:
                runs[side].append(timed)
    if comm.is_root:
        _print(problem, layout, runs, oversubscribed=comm.oversubscribed)


# -- what can be compared ----------------------------------------------------------------------------------------------


def _begin(config: Config, ranks: int) -> Problem:
    """On root."""
    _refuse(_of_config(config))
    problem = build_problem(config)
    if ranks > len(problem.decomposition):
        raise UserError(
            f"bench train supports neither replicas nor idle ranks; use at most {len(problem.decomposition)}"
        )
    return problem


def _refuse(reasons: Sequence[str]) -> None:
    if reasons:
        raise UserError("\n".join(f"bench train: {text}" for text in reasons))


def _of_config(config: Config) -> list[str]:
    """What the plain script can't do, and what has no effect."""
    lacking = {
        "augmentation": bool(config.augmentation.flip or config.augmentation.cutout)
        or bool(torch.tensor(config.augmentation.translate).any()),
        "decomposition.coarse": config.decomposition.coarse,
        "aggregation.placement distributed": config.aggregation.placement != "root",
        "aggregation.dropout": config.aggregation.dropout > 0,
        "coherent.parallelism data": config.coherent.parallelism != "model",
        "aggregation.features penultimate": config.aggregation.features == "penultimate",
        "coherent.features penultimate": config.coherent_features == "penultimate",
        f"coherent.dnn_start {config.coherent.dnn_start}": config.coherent.dnn_start != "trained",
        "whitening": config.model.name.startswith("fast"),
        "baseline.enabled": config.baseline.enabled,
        "run.survive": config.run.survive,
        **{f"{name}.precision bf16": getattr(config, name).precision != "fp32" for name in ("local", "coherent")},
        **{f"{name}.early_stopping": getattr(config, name).early_stopping is not None for name in _SECTIONS},
        **{f"{name}.label_smoothing": getattr(config, name).label_smoothing > 0 for name in _SECTIONS},
        **{f"{name}.ema": getattr(config, name).ema > 0 for name in _SECTIONS},
    }
    reasons = [f"the plain script does not support {what}; leave it out" for what, wanted in lacking.items() if wanted]
    if config.coherent.starts != ("transfer",):
        reasons.append(f"coherent.starts is {list(config.coherent.starts)}; the plain script supports only [transfer]")
    if config.output is not None:
        reasons.append("--output has no effect: the run directories are removed")
    return reasons


def _of_machine(layout: RankLayout) -> list[str]:
    gpus = sorted({placement.device for placement in layout.placements} - {"cpu"})
    return [f"this benchmark measures the CPU, but ranks would use {', '.join(gpus)}; use --device cpu"] if gpus else []


def _shortened(config: Config) -> Config:
    """One epoch of each phase."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update={"epochs": 1}) for name in _SECTIONS}
    )


# -- the two sides -----------------------------------------------------------------------------------------------------


def _hpcdd(comm: Comm, config: Config) -> TimedRun:
    """Collective: one run, with an account of its time."""
    with _folder(comm) as folder:
        output = folder / "run"
        settings = config.model_copy(update={"output": str(output)})
        account = Account(comm.rank)
        run_comm = comm.duplicate(account)
        comm.maximum(0)
        account.begin()
        failed = None
        try:
            with marked(account.part):
                train(run_comm, Job(settings, print_only=False, study=True))
        except RunError as error:
            failed = UserError(f"a run of bench train has failed: {error}")
        comm.refuse(failed)
        whole = account.end()
        run_comm.free()
        results = comm.on_root(lambda: Results.read(output / "results.json"))
    steps = _slowest(comm, account.steps_by_phase())
    # All ranks end a phase together, so that what the slowest has to do in each is what the run has to do.
    started = account.ends["read"]
    return TimedRun(
        whole=_slowest(comm, {"whole": whole})["whole"],
        phases=_slowest(comm, account.by_phase()),
        accuracy={name: results.strategy(name) or 0.0 for name in ("dnn", "coherent_transfer")},
        categories=_added(comm.allgather_object(account.by_category())),
        over_steps=_slowest(comm, {"run": whole - started})["run"] / sum(steps.values()),
    )


@contextlib.contextmanager
def _folder(comm: Comm) -> Iterator[Path]:
    """Collective: a folder that all ranks see as they see a run's, in the current one; it is gone behind the block."""

    def make() -> Path:
        with writing(Path.cwd()):
            made = tempfile.TemporaryDirectory(prefix="hpcdd-bench-", dir=Path.cwd(), ignore_cleanup_errors=True)
            return Path(stack.enter_context(made))

    with contextlib.ExitStack() as stack:
        yield comm.on_root(make)
        comm.maximum(0)  # all have closed their files there


def _plain(comm: Comm, config: Config, problem: Problem, layout: RankLayout) -> TimedRun:
    """Collective: the plain script."""
    comm.maximum(0)
    start = time.perf_counter()
    outcome = plain_script.train(comm.mpi, config, problem, layout.owned)
    whole = time.perf_counter() - start
    return TimedRun(
        _slowest(comm, {"whole": whole})["whole"],
        _slowest(comm, outcome.seconds),
        comm.broadcast_object(outcome.accuracy),
    )


def _slowest(comm: Comm, seconds: Mapping[str, float]) -> dict[str, float]:
    """Collective: by name the most of any rank."""
    everyone = comm.allgather_object(dict(seconds))
    return {name: max(of_rank.get(name, 0.0) for of_rank in everyone) for of in everyone for name in of}


def _added(everyone: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(of_rank[name] for of_rank in everyone) for name in CATEGORIES}


# -- printing ----------------------------------------------------------------------------------------------------------


def _print(
    problem: Problem, layout: RankLayout, runs: Mapping[str, Sequence[TimedRun]], *, oversubscribed: bool
) -> None:
    ours, plain = (runs[side] for side in _SIDES)
    ranks, threads = len(layout.placements), layout.placements[0].threads
    print(
        f"{problem.model.name} on {problem.info.name}, {problem.samples['train']:,} training samples, "
        f"{len(problem.decomposition)} subdomains, {ranks} rank{'s' * (ranks > 1)}, {threads} "
        f"thread{'s' * (threads > 1)} each; rounds: {len(ours)}\n"
        "hpcdd without its report; beyond the plain script it writes checkpoints, model and records, evaluates all\n"
        "splits at the end of each phase, and computes the attribution\n"
        + ("more threads than cores: while waiting, the plain script's ranks spin and hpcdd's sleep\n" * oversubscribed)
        + "seconds on the slowest rank, and their ratio within each round: median (quartiles)\n\n"
        f"{'':<22}{'hpcdd':>26}{'plain':>26}{'plain / hpcdd':>28}"
    )
    for name in ("whole", *ROWS, "all else"):
        both = [[timed.row(name) for timed in side] for side in (ours, plain)]
        ratios = [b / a for a, b in zip(*both, strict=True)]
        cells = [spread(quartiles(seconds), 1.0, 2) for seconds in both]
        print(f"{name:<22}{cells[0]:>26}{cells[1]:>26}{spread(quartiles(ratios), 1.0, 3):>28}")
    total = sum(sum(timed.categories.values()) for timed in ours)
    fractions = {name: sum(timed.categories[name] for timed in ours) / total for name in CATEGORIES}
    print("\nhpcdd's time on all ranks: " + ", ".join(f"{name} {fraction:.1%}" for name, fraction in fractions.items()))
    print(
        f"run / sum of its steps {spread(quartiles([timed.over_steps for timed in ours]), 1.0, 3)}: the time after "
        "reading, divided by that of training steps and evaluation batches"
    )
    for name, label in (("dnn", "DNN"), ("coherent_transfer", "coherent model")):
        accuracies = [statistics.median(timed.accuracy[name] for timed in side) for side in (ours, plain)]
        print(f"test accuracy of the {label}: hpcdd {accuracies[0]:.4f}, plain {accuracies[1]:.4f}", flush=True)
