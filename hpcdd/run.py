"""A run: the order of its phases."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from . import environment, results
from .comm import Comm
from .config import Config
from .data.samples import Subimages
from .errors import StopRequest
from .model_file import write_model
from .models.dnn import DNN, features_of
from .models.storage import State
from .parallel.coherent import PartOfCoherent, PartOfDNN, collect_dnn, spread_dnn
from .parallel.team import Team
from .phases.aggregate import train_dnn, train_dnn_together
from .phases.baseline import global_accuracies, train_global_cnn
from .phases.coherent import coherent_parameters, evaluate_coherent, feature_widths, train_coherent
from .phases.evaluate import dnn_accuracy, rule_accuracies
from .phases.gather import gather_logits, gather_parameters
from .phases.local import LocalResult, create_local_cnn, train_local_cnns
from .seeding import WHOLE
from .session import Session

_WHOLE = range(WHOLE, WHOLE + 1)


def train(comm: Comm, config: Config) -> None:
    """The whole way of the data, from the dataset file to results.json; called by all ranks.

    Raises:
        UserError: on all ranks, before any training.
        DivergedError: on the rank that met it.
        StopRequest: on all ranks.
    """
    with Session(comm, config) as session:
        run = Run(session)
        run.read()
        session.open_directory()
        run.local_phase()
        run.aggregation()
        for start in config.coherent.starts:
            run.coherent(start)
        if config.baseline.enabled:
            run.baseline()
        run.record()


class Run:
    """One run on one rank; every method is called by all ranks, in the order of :func:`train`.

    A spare rank takes part in the agreements at the end of each phase and in nothing else.

    Attributes:
        samples: by subdomain of this rank and split, the subimages on this rank's device.
        local: by subdomain of this rank, the trained CNN.
        dnn: this rank's part of the trained DNN, on the CPU.
        models: by start, this rank's part of the coherently trained model.
        accuracy: by split, for results.json.
        steps: training steps by phase, of the phases whose messages are counted by step.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.comm, self.config = session.comm, session.config
        self.problem, self.team = session.problem, session.team
        self.samples: dict[int, dict[str, Subimages]] = {}
        self.local: dict[int, LocalResult] = {}
        self.dnn: PartOfDNN | None = None
        self.models: dict[str, PartOfCoherent] = {}
        self.global_cnn: nn.Module | None = None
        self.steps: dict[str, int] = {}
        self.accuracy: dict[str, dict[str, Any]] = {split: {} for split in self.problem.samples}

    def read(self) -> None:
        """Each rank reads its own subdomains."""
        with self.session.phase("read"):
            self.samples = self.comm.on_all(lambda: self._read(self.session.place.subdomains))

    def local_phase(self) -> None:
        """Each rank trains the CNNs of its own subdomains. Not one message; telemetry is counted apart."""
        session, problem = self.session, self.problem
        session.begin("local", range(len(problem.decomposition)))
        with session.phase("local"):
            with contextlib.suppress(StopRequest):  # root waits for everyone's last status
                if self.team is not None:
                    share = self.team.share_of_replicas()
                    self.local = train_local_cnns(
                        self.config,
                        session.place,
                        self.samples,
                        problem.info.num_classes,
                        problem.widths.local_width,
                        session.hooks(alone=share.comm is None, heard=session.place.replica == 0),
                        share,
                    )
            session.telemetry.finish(session.stop.poll)

    def aggregation(self) -> None:
        """The rules and the DNN combine the local decisions."""
        session, team, config, problem = self.session, self.team, self.config, self.problem
        session.begin("dnn", _WHOLE)
        labels = {split: problem.labels(split) for split in problem.samples}
        own = {s: result.logits for s, result in self.local.items()}
        num_classes, dnn = problem.info.num_classes, None
        if config.aggregation.placement == "distributed":
            with session.phase("dnn"):
                if team is not None:
                    hooks = session.hooks(alone=False, heard=self.comm.is_root)
                    self.dnn = train_dnn_together(config, team, own, labels, num_classes, hooks)
        else:
            with session.phase("gather"):
                logits = gather_logits(self.comm, session.mesh, list(own.values()), problem.samples, num_classes)
            with session.phase("dnn"):
                if logits is not None:
                    dnn = train_dnn(config, logits, labels, session.hooks(alone=True))
            del logits
        with session.phase("evaluation"):
            if team is None:
                return
            if self.dnn is None:
                self.dnn = spread_dnn(team, dnn, self._dnn_template("logits"), team.reduction())
            for split, values in labels.items():
                decisions = {s: logits[split] for s, logits in own.items()}
                seen = [features_of(logits, config.aggregation.features) for logits in decisions.values()]
                self.accuracy[split] |= rule_accuracies(team, decisions, values)
                self.accuracy[split]["dnn"] = dnn_accuracy(self.dnn, seen, values)

    def coherent(self, start: str) -> None:
        """All local CNNs and the DNN are trained on as one model."""
        session, phase = self.session, f"coherent_{start}"
        session.begin(phase, _WHOLE)
        hooks = session.hooks(alone=False, heard=self.comm.is_root)
        with session.phase(phase):
            if self.team is not None and self.dnn is not None:
                networks = {s: result.network for s, result in self.local.items()}
                self.models[start], self.steps[phase] = train_coherent(
                    self.team, self.problem, start, networks, self.dnn, self.samples, self._read, hooks
                )
        with session.phase("evaluation"):
            if self.team is not None:
                found = evaluate_coherent(self.team, self.problem, self.models[start], self.samples, hooks.step)
                for split, (accuracy, parts) in found.items():
                    self.accuracy[split][phase] = accuracy
                    if parts is not None:
                        self.accuracy[split][f"{phase}_parts"] = parts

    def baseline(self) -> None:
        """The global CNN on whole images, to compare with."""
        session, team = self.session, self.team
        session.begin("global", _WHOLE)
        hooks = session.hooks(alone=False, heard=self.comm.is_root)
        with session.phase("read"):
            images = self.comm.on_all(
                lambda: (
                    {}
                    if team is None
                    else self.problem.read_whole(session.reader, session.place.device, session.storage)
                )
            )
        with session.phase("global"):
            if team is not None:
                self.global_cnn, self.steps["global"] = train_global_cnn(team, self.problem, images, hooks)
        with session.phase("evaluation"):
            if team is not None and self.global_cnn is not None:
                for split, accuracy in global_accuracies(team, self.problem, self.global_cnn, images).items():
                    self.accuracy[split]["global"] = accuracy

    def record(self) -> None:
        """The parameters come to root, which writes model.h5 and results.json and prints the table."""
        session, comm, problem = self.session, self.comm, self.problem
        with session.phase("record"):
            if comm.is_root:
                width = problem.widths.local_width
                write_model(
                    session.directory.model, self.config, problem.info, problem.decomposition, width, self._states()
                )
            else:
                for _ in self._states():  # this rank's part of the collectives
                    pass
            seconds = [result.seconds for result in self.local.values()] if session.place.replica == 0 else []
            everyone = comm.gather_object((seconds, session.core_seconds, comm.traffic, session.reader.bytes_read))
        session.log.info("complete")
        if everyone is None:
            return
        times, worked, traffic, bytes_read = zip(*everyone, strict=True)
        session.seconds["local"] = [seconds for of_rank in times for seconds in of_rank]
        session.seconds["total"] = environment.seconds_since_launch()
        content = results.assemble(
            self.config,
            problem,
            session.mesh,
            parameters=self._parameters(),
            accuracy=self.accuracy,
            seconds=session.seconds,
            core_seconds=results.summed(worked),
            communication=results.traffic_of(traffic, self.steps),
            bytes_read=bytes_read,
        )
        results.write_json(session.directory.results, content)
        session.close_display()
        results.print_results(content, session.directory.path, sys.stdout)

    def _read(self, subdomains: Iterable[int]) -> dict[int, dict[str, Subimages]]:
        return self.problem.read(self.session.reader, subdomains, self.session.place.device, self.session.storage)

    def _dnn_template(self, features: str) -> DNN:
        """A DNN without memory for its parameters."""
        settings = self.config.aggregation
        with torch.device("meta"):
            widths = feature_widths(self.problem, features)
            return DNN(widths, settings.hidden, self.problem.info.num_classes, settings.dropout)

    def _states(self) -> Iterator[tuple[str, State]]:
        """Collective: place in model.h5 and ``state_dict`` of all trained networks, one after the other; on root."""
        team = self.team
        if team is None or self.dnn is None:
            return
        yield from self._cnn_states(team, "local", {s: result.network for s, result in self.local.items()})
        yield "dnn", _state(collect_dnn(team, self.dnn, self._dnn_template("logits")))
        for start, model in self.models.items():
            yield from self._cnn_states(team, f"coherent_{start}/local", model.local_cnns())
            yield (
                f"coherent_{start}/dnn",
                _state(collect_dnn(team, model.dnn, self._dnn_template(self.config.coherent_features))),
            )
        if self.global_cnn is not None:
            yield "global", self.global_cnn.state_dict()

    def _cnn_states(self, team: Team, folder: str, own: Mapping[int, nn.Module]) -> Iterator[tuple[str, State]]:
        problem, num_classes = self.problem, self.problem.info.num_classes
        templates = (
            create_local_cnn(self.config, s, problem.subimage_shape(s), num_classes, problem.widths.local_width)
            for s in range(len(problem.decomposition))
        )
        for s, state in enumerate(gather_parameters(team.workers, team.mesh, own, templates)):
            yield f"{folder}/{s:04d}", state

    def _parameters(self) -> dict[str, Any]:
        """Trainable parameters, for results.json."""
        widths = self.problem.widths
        found: dict[str, Any] = {"global": widths.global_parameters, "local": list(widths.local_parameters)}
        found["dnn"] = sum(p.numel() for p in self._dnn_template("logits").parameters())
        if self.models:
            found["coherent"] = coherent_parameters(self.problem, self.config)
        return found


def _state(network: nn.Module | None) -> State:
    return {} if network is None else network.state_dict()
