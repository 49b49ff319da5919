"""``bench headline``: test accuracy against seconds of training, of hpcdd and of the global CNN in PyTorch's DDP.

All in one job, on the same ranks and threads, one after the other. The clock counts training and all that belongs to
it on the slowest rank: building networks, optimizers and DDP, messages, waiting, the outputs that the DNN is trained
on, their gather, and assembling the coherent model. It stops while the test split is evaluated and while samples are
read.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from ..artifacts import headline_file
from ..artifacts.documents import write_document
from ..artifacts.headline_file import Headline
from ..config.schema import Config
from ..core import environment
from ..core.errors import UserError
from ..core.files import writing
from ..data import sample_storage
from ..data.problem import Problem, build_problem, check_shards
from ..data.reading import BoxReader
from ..mpi.communicator import Comm
from ..mpi.runtime import mpi_library
from ..parallel.team import Team
from ..phases.coherent import coherent_parameters
from .contenders import Distributed, decomposed, warm_up
from .gloo import torch_group
from .rank_ladder import working_team

_SECTIONS = ("local", "aggregation", "coherent", "baseline")


def run(comm: Comm, config: Config, output: Path) -> None:
    """Called by all ranks; root prints what is compared, and writes ``headline.json``.

    Args:
        comm: all ranks.
        config: of the job; the global CNN is trained by its ``baseline`` section, enabled or not.
        output: folder for the file.

    Raises:
        UserError: on all ranks, if the configuration does not go with it, or ``output`` holds a result already.
        WriteError: on all ranks, if the folder or the file can't be written.
    """
    baseline = config.baseline.model_copy(update={"enabled": True})
    config = config.model_copy(update={"output": None, "baseline": baseline})
    problem = comm.on_root(lambda: _begin(config, output))
    team = working_team(comm, config, problem)
    comm.on_root(lambda: check_shards(team.config, problem, team.layout))
    comm.on_root(lambda: _check_batch(team.config, problem, comm.size))
    streams = sample_storage.decide(comm, team.config, problem, team.layout).stream
    message = "bench headline does not stream samples; use data.storage memory, or a smaller data.subset"
    comm.refuse(UserError(message) if streams else None)
    comm.on_root(lambda: _make(output))
    headline = _measure(team, problem)
    if comm.is_root:
        _print(headline)
    comm.on_root(lambda: write_document(output / headline_file.NAME, headline))
    if comm.is_root:
        print(f"results: {output / headline_file.NAME}", flush=True)


def _begin(config: Config, output: Path) -> Problem:
    """On root: the problem with the test split in the place of a validation split."""
    if (output / headline_file.NAME).exists():
        raise UserError(
            f"bench headline: {output} already holds {headline_file.NAME}, which is not overwritten; name another "
            "folder"
        )
    if early := [name for name in _SECTIONS if getattr(config, name).early_stopping is not None]:
        raise UserError(
            f"bench headline: {early[0]}.early_stopping would use the test split, which this benchmark only watches; "
            "leave it out"
        )
    if "transfer" not in config.coherent.starts:
        raise UserError(
            f"bench headline: coherent.starts is {list(config.coherent.starts)}, but this benchmark measures the start "
            "by transfer; use [transfer]"
        )
    if config.aggregation.placement != "root":
        raise UserError(
            "bench headline: aggregation.placement is 'distributed', but in this benchmark root trains the DNN; use "
            "root"
        )
    problem = build_problem(config)
    return dataclasses.replace(problem, rows={"train": problem.rows["train"], "validation": problem.rows["test"]})


def _check_batch(config: Config, problem: Problem, ranks: int) -> None:
    if (size := config.baseline.batch_of(problem.samples["train"])) < 2 * ranks:  # batch norm needs two
        raise UserError(f"baseline.batch_size is {size}, but {ranks} ranks share it; use {2 * ranks} or more")


def _make(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _measure(team: Team, problem: Problem) -> Headline:
    """Collective."""
    comm, device, reader = team.workers, team.placement.device, BoxReader(problem.info.path)
    samples = comm.on_all(lambda: problem.read(reader, team.placement.subdomains, device))
    images = comm.on_all(lambda: problem.read_whole(reader, device))
    with torch_group(comm) as network:
        warm_up(team, problem, images, samples)
        of_global = Distributed(team, problem, images).train()
    dnn, coherent = decomposed(team, problem, samples)
    counts = problem.samples
    return Headline(
        name=team.config.name,
        dataset=problem.info.name,
        samples={"train": counts["train"], "test": counts["validation"]},
        parameters={
            "global": problem.widths.global_parameters,
            "coherent": coherent_parameters(problem, team.config),
        },
        places=[(p.host, p.device, p.threads, len(p.subdomains)) for p in team.layout.placements],
        network=str(network),
        curves={"global": of_global, "dnn": dnn, "coherent_transfer": coherent},
        machine={**environment.facts(), "processor": environment.processor(), "mpi_library": mpi_library()},
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        config=team.config.model_dump(mode="json", exclude={"output"}),
    )


def _print(headline: Headline) -> None:
    ranks, threads = len(headline.places), headline.places[0][2]
    precision = {name: headline.config[name]["precision"] for name in ("local", "coherent", "baseline")}
    print(
        f"{headline.name}: {headline.dataset}, {headline.samples['train']:,} training and "
        f"{headline.samples['test']:,} test samples; {ranks} rank{'s' * (ranks > 1)}, "
        f"{threads} thread{'s' * (threads > 1)} each; parameters: global CNN {headline.parameters['global']:,}, "
        f"coherent model {headline.parameters['coherent']:,}; gloo over {headline.network}\n"
        f"precision: local CNNs {precision['local']}, coherent model {precision['coherent']}, global CNN "
        f"{precision['baseline']}\n"
        "seconds of training on the slowest rank, including building the networks and DDP, messages, waiting, and\n"
        "the computation and gather of the outputs that the DNN is trained on; excluding start-up, reading and\n"
        "evaluations on the test split\n"
    )
