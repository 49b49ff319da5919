"""A run: the order of its phases, and who hears of them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import torch

from . import environment, launch, mesh, results, run_directory
from .comm import Comm, mpi_library
from .config import Config
from .configuration import to_yaml
from .data.format import EMBEDDED_NAME
from .data.reading import BoxReader
from .data.samples import Samples
from .errors import StopRequest
from .model_file import write_model
from .models.dnn import DNN
from .phases.aggregate import accuracies, train_dnn
from .phases.gather import gather_logits, gather_parameters
from .phases.local import LocalResult, create_local_cnn, train_local_cnns
from .phases.training import Hooks, Status, check_precision
from .problem import pose
from .progress.display import Display, NoDisplay, make_display
from .progress.telemetry import Telemetry
from .results import Metrics
from .seeding import WHOLE
from .stop import Stop


def train(comm: Comm, config: Config) -> None:
    """The whole way of the data, from the dataset file to results.json; called by all ranks.

    Raises:
        UserError: on all ranks, before any training.
        DivergedError: on the rank that met it.
        StopRequest: on all ranks.
    """
    with Run(comm, config) as run:
        samples = run.read()
        run.open_directory()
        local = run.local_phase(samples)
        logits = run.gather(local)
        dnn = run.aggregate(logits)
        run.record(local, logits, dnn)


class Run:
    """One run on one rank; every method is called by all ranks, in the order of :func:`train`.

    Args:
        comm: all ranks.
        config: the same on every rank.

    Raises:
        UserError: on all ranks, if anything does not fit; nothing has been written then.
    """

    def __init__(self, comm: Comm, config: Config) -> None:
        self.comm, self.config = comm, config
        self.seconds: dict[str, Any] = {"start": environment.seconds_since_launch()}
        self.problem = comm.on_root(lambda: pose(config))
        self.mesh = mesh.build(comm, len(self.problem.decomposition), config.device)
        self.place = self.mesh.places[comm.rank]
        torch.set_num_threads(self.place.threads)
        comm.on_all(lambda: check_precision(config.local.precision, self.place.device))
        self._reader = BoxReader(self.problem.info.path)
        self._display: Display = NoDisplay()
        self._metrics: Metrics | None = None
        interval = comm.on_root(self._open_display)
        channel = comm.side_channel()
        self._stop = Stop(comm, channel)
        self._telemetry = Telemetry(comm, channel, self._sink, interval)
        if comm.is_root:
            results.print_plan(self.mesh, self.problem, sys.stdout)

    def __enter__(self) -> Self:
        self._stop.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.__exit__(kind, error, trace)
        self._display.close()
        if self._metrics is not None:
            self._metrics.close()

    def read(self) -> dict[int, dict[str, Samples]]:
        """Each rank reads the boxes of its own subdomains.

        Returns:
            By subdomain of this rank and split, the subimages on this rank's device.
        """
        with self._timed("read"):
            return self.comm.on_all(lambda: self.problem.read(self._reader, self.place.subdomains, self.place.device))

    def open_directory(self) -> None:
        """Root makes the run directory; each rank opens its log there."""
        config = self.config
        self._stop.agree()
        self._directory = self.comm.on_root(lambda: run_directory.create(config.output, config.name))
        self._log = self.comm.on_all(lambda: run_directory.start_log(self._directory.log(self.comm.rank)))
        self._log.info("rank %d of %d: %s", self.comm.rank, self.comm.size, self.place)
        if self.comm.is_root:
            # It runs again from any folder.
            file = config.data.file if config.data.file == EMBEDDED_NAME else str(self.problem.info.path)
            resolved = config.model_copy(update={"data": config.data.model_copy(update={"file": file})})
            self._directory.config.write_text(to_yaml(resolved), encoding="utf-8")
            facts = {
                **environment.facts(),
                "mpi_library": mpi_library(),
                "ranks": self.comm.size,
                "hosts": self.mesh.hosts,
                "places": self.mesh.as_list(),
            }
            results.write_json(self._directory.environment, facts)
            self._metrics = Metrics(self._directory.metrics)

    def local_phase(self, samples: dict[int, dict[str, Samples]]) -> dict[int, LocalResult]:
        """Each rank trains the CNNs of its own subdomains. Not one message; telemetry is counted apart."""
        local: dict[int, LocalResult] = {}
        self._display.begin("local", range(len(self.problem.decomposition)))
        with self.comm.phase("local"):
            with contextlib.suppress(StopRequest):  # the others hear of it, and all agree before the gather
                width, num_classes = self.problem.widths.local_width, self.problem.info.num_classes
                local = train_local_cnns(self.config, self.place, samples, num_classes, width, self._hooks())
            self._telemetry.finish(self._stop.poll)
        return local

    def gather(self, local: dict[int, LocalResult]) -> dict[str, torch.Tensor] | None:
        """The local decisions come to root.

        Returns:
            On root float32 (n, S, K) by split; None elsewhere.
        """
        with self.comm.phase("gather"):
            self._stop.agree()
            with self._timed("gather"):
                logits = [result.logits for result in local.values()]
                return gather_logits(self.comm, self.mesh, logits, self.problem.samples, self.problem.info.num_classes)

    def aggregate(self, logits: dict[str, torch.Tensor] | None) -> DNN | None:
        """Root trains the DNN; the others sleep until all agree that it is done.

        Returns:
            On root the DNN; None elsewhere.
        """
        dnn = None
        self._display.begin("dnn", [WHOLE])
        with self.comm.phase("dnn"), self._timed("dnn"):
            if logits is not None:
                labels = {split: self.problem.labels(split) for split in logits}
                with contextlib.suppress(StopRequest):
                    dnn = train_dnn(self.config, logits, labels, self._hooks())
            self._stop.agree()
        return dnn

    def record(self, local: dict[int, LocalResult], logits: dict[str, torch.Tensor] | None, dnn: DNN | None) -> None:
        """The parameters come to root, which writes model.h5 and results.json and prints the table."""
        comm, problem, config = self.comm, self.problem, self.config
        width, num_classes = problem.widths.local_width, problem.info.num_classes
        with comm.phase("record"):
            templates = (
                create_local_cnn(config, s, problem.subimage_shape(s), num_classes, width)
                for s in range(len(problem.decomposition))
            )
            networks = {s: result.network for s, result in local.items()}
            states = gather_parameters(comm, self.mesh, networks, templates)
            if dnn is not None:
                write_model(self._directory.model, config, problem.info, problem.decomposition, width, states, dnn)
            else:
                for _ in states:  # this rank's part of the collective
                    pass
            seconds = {s: result.seconds for s, result in local.items()}
            everyone = comm.gather_object((seconds, comm.traffic, self._reader.bytes_read))
        self._log.info("complete")
        if everyone is None or logits is None or dnn is None:
            return
        times, traffic, bytes_read = zip(*everyone, strict=True)
        self.seconds["local"] = [seconds for of_rank in times for seconds in of_rank.values()]
        self.seconds["total"] = environment.seconds_since_launch()
        content = results.assemble(
            config,
            problem,
            self.mesh,
            dnn_parameters=sum(p.numel() for p in dnn.parameters()),
            accuracy={split: accuracies(config, dnn, logits[split], problem.labels(split)) for split in logits},
            seconds=self.seconds,
            communication=results.traffic_of(traffic),
            bytes_read=bytes_read,
        )
        results.write_json(self._directory.results, content)
        self._display.close()
        results.print_results(content, self._directory.path, sys.stdout)

    # -- who hears of it ---------------------------------------------------------------------------------------------

    def _open_display(self) -> float:
        self._display = make_display(self.config.progress, launch.from_environment(), sys.stdout)
        return self._display.interval

    def _sink(self, status: Status, end_of_epoch: bool) -> None:
        """On root, of all ranks."""
        self._display.show(status, end_of_epoch)
        if end_of_epoch and self._metrics is not None:
            self._metrics.add(status)

    def _hooks(self) -> Hooks:
        def step() -> None:
            self._stop.check()
            self._telemetry.poll()

        def epoch(status: Status) -> None:
            self._log.info("%s", status)
            self._telemetry.epoch(status)

        return Hooks(step=step, due=self._telemetry.due, status=self._telemetry.status, epoch=epoch)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
