"""A run: the order of its phases."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ..artifacts.evaluation_cache import Pieces
from ..core.seeding import WHOLE
from ..data.samples import Subimages
from ..models.dnn import features_of
from ..models.serialization import on_host
from ..mpi import fault_tolerance
from ..mpi.communicator import Comm
from ..mpi.library import is_loss
from ..mpi.stop import Stop
from ..parallel.sharded_coherent import spread_dnn
from ..phases.aggregation import broadcast_dnn, fresh_dnn, train_dnn, train_dnn_together
from ..phases.attribution import EXAMINED, Attribution
from ..phases.coherent import evaluate_coherent, feature_widths, train_coherent
from ..phases.evaluation import dnn_accuracy, rule_accuracies
from ..phases.gather import gather_logits
from ..phases.global_cnn import global_accuracies, train_global_cnn
from ..phases.local import train_local_cnns
from ..training.status import Status
from ..training.training_state import finished
from . import resume
from .context import prepare
from .finalize import Trained, dnn_template, record
from .recorded_evaluations import Evaluations, Found
from .resume import Job
from .session import RunSession, open_session

_WHOLE = range(WHOLE, WHOLE + 1)


def train(comm: Comm, job: Job, above: Stop | None = None) -> Path:
    """The whole way of the data, from the dataset file to results.json; called by all ranks.

    Args:
        comm: all ranks of the run.
        job: the same on every rank.
        above: of the whole job, where the run's ranks are a group of it.

    Returns:
        The run directory.

    Raises:
        UserError: on all ranks, before any training.
        DivergedError: on the rank that met it.
        RunError: in a study, on all ranks, instead of that and of what else a rank has met while none waited for it.
        StopRequest: on all ranks.
        WriteError: on all ranks, if the results can't be written.
    """
    if not job.config.run.survive:
        return _train(comm, job, above=above)
    comm.on_root(fault_tolerance.check)
    where: list[Path] = []
    whole = True
    while True:
        try:
            if not whole:
                job = _regroup(comm, job, where)
            return _train(comm, job, where)
        except Exception as error:
            if not is_loss(error):
                raise
        whole = False


def _regroup(comm: Comm, job: Job, where: list[Path]) -> Job:
    """The job of those who live; arguments as for :func:`_train`."""
    size = comm.size
    lost = fault_tolerance.regroup(comm)
    paths = [path for of_rank in comm.allgather_object(where) for path in of_rank]
    if comm.is_root:
        ranks = ", ".join(map(str, lost))
        print(
            f"hpcdd: warning: rank {ranks} of {size} is lost; the other {comm.size} continue",
            file=sys.stderr,
            flush=True,
        )
    return comm.on_root(lambda: resume.again(job, paths[0] if paths else None))


def _train(comm: Comm, job: Job, where: list[Path] | None = None, above: Stop | None = None) -> Path:
    """As :func:`train`, without surviving; the run directory is appended to ``where`` once it is open."""
    with open_session(prepare(comm, job, above)) as session:
        run = Run(session)
        if where is not None:
            where[:] = [session.directory.path]
        with session.stoppable():
            with session.discarding():
                run.read()
            run.restore_decision()
            run.local_phase()
            run.aggregation()
            for start in job.config.coherent.starts:
                run.coherent(start)
            if job.config.baseline.enabled:
                run.baseline()
            record(session, run.trained)
        return session.directory.path


class Run:
    """One run on one rank; every method is called by all ranks, in the order of :func:`train`.

    An idle rank takes part in the agreements at the end of each phase and in nothing else. What an earlier job has
    trained comes from its checkpoints.

    Attributes:
        samples: by subdomain of this rank and split, the subimages on this rank's device.
        evaluations: what is found of it.
        trained: what is trained and found so far.
        decided: whether an earlier job has trained and evaluated the DNN; local outputs are not wanted then.
    """

    def __init__(self, session: RunSession) -> None:
        context = session.context
        self.session, self.context = session, context
        self.comm, self.config = context.comm, context.config
        self.problem, self.team = context.problem, context.team
        self.samples: dict[int, dict[str, Subimages]] = {}
        self.evaluations = Evaluations(session)
        self.trained = Trained(self.evaluations.accuracy)
        self.decided = False
        self._history: list[Status] = []

    def read(self) -> None:
        """Each rank reads its own subdomains."""
        with self.session.phase("read"):
            self.samples = self.comm.on_all(lambda: self._read(self.context.place.subdomains))
        self.comm.startup.mark("read")

    def restore_decision(self) -> None:
        """Takes the DNN from its checkpoints, if an earlier job has trained and evaluated it."""
        session, team, config = self.session, self.team, self.config
        if "dnn" not in session.storage.evaluated:
            return
        history: list[Status] | None = None
        with self.session.phase("restore"):
            if config.aggregation.placement == "distributed":
                if team is not None:
                    widths = feature_widths(self.problem, "logits")
                    self.trained.dnn = fresh_dnn(config, team, widths, self.problem.info.num_classes)
                    history = finished(
                        self.trained.dnn, config.aggregation, session.checkpoints.of_parts("dnn", team, team.across)
                    )
                self.decided = self.comm.maximum(int(team is not None and history is None)) == 0
            else:
                template = dnn_template(config, self.problem)
                whole = None
                if self.comm.is_root:
                    whole = on_host(template).eval()
                    history = finished(whole, config.aggregation, session.checkpoints.of_dnn())
                self.decided = self.comm.broadcast_object(history is not None)
                if self.decided and team is not None:
                    self.trained.dnn = spread_dnn(team, whole, template, team.reduction())
        self._history = history or []

    def local_phase(self, *, again: bool = False) -> None:
        """Each rank trains the CNNs of its own subdomains. Not one message; telemetry is counted apart.

        Args:
            again: whether they are trained, told of, and only their decisions are wanted.
        """
        session, context, problem, team = self.session, self.context, self.problem, self.team
        session.begin("local", range(len(problem.decomposition)))
        apart = context.layout.replicas == 1
        with session.phase("local", apart=apart):
            with session.failures.kept(apart=apart):  # root waits for everyone's last status
                if team is not None:
                    share = team.share_of_replicas()
                    self.trained.local = train_local_cnns(
                        self.config,
                        context.place,
                        self.samples,
                        problem.info.num_classes,
                        problem.widths.local_width,
                        session.hooks.make(alone=share.comm is None, heard=context.place.replica == 0 and not again),
                        share,
                        managers=lambda subdomain: session.checkpoints.of_local(team, subdomain),
                        decide=not self.decided,
                    )
            session.telemetry.finish(context.stop.poll)
        steps = max((result.steps for result in self.trained.local.values()), default=0)
        if self.decided and self.comm.maximum(steps):
            # The checkpoint of a trained CNN was damaged: what was evaluated need not be what is there now.
            self.decided = False
            self.local_phase(again=True)

    def aggregation(self) -> None:
        """The rules and the DNN combine the local outputs."""
        session, team, config, problem = self.session, self.team, self.config, self.problem
        if self.decided and self.evaluations.recall("dnn", 0):
            if self.comm.is_root:
                session.telemetry.history(self._history)
            return
        session.begin("dnn", _WHOLE)
        labels = {split: problem.labels(split) for split in problem.samples}
        own = {s: result.logits for s, result in self.trained.local.items()}
        num_classes, dnn = problem.info.num_classes, None
        if config.aggregation.placement == "distributed":
            with session.phase("dnn"):
                if team is not None:
                    hooks = session.hooks.make(alone=False, heard=self.comm.is_root)
                    manager = session.checkpoints.of_parts("dnn", team, team.across)
                    self.trained.dnn = train_dnn_together(config, team, own, labels, num_classes, hooks, manager)
        else:
            with session.phase("gather"):
                logits = gather_logits(self.comm, self.context.layout, list(own.values()), problem.samples, num_classes)
            with session.phase("dnn", apart=True):
                if logits is not None:
                    dnn = train_dnn(
                        config, logits, labels, session.hooks.make(alone=True), session.checkpoints.of_dnn()
                    )
            del logits
        found: Found = {}
        with session.phase("evaluation"):
            if team is not None:
                if self.trained.dnn is None:
                    template = dnn_template(config, self.problem)
                    self.trained.dnn = spread_dnn(team, dnn, template, team.reduction())
                else:
                    broadcast_dnn(team, self.trained.dnn)
                for split, values in labels.items():
                    decisions = {s: logits[split] for s, logits in own.items()}
                    found[split] = rule_accuracies(team, decisions, values)
                    found[split]["dnn"] = dnn_accuracy(self.trained.dnn, self._seen(decisions), values)

        def examine(examination: Attribution) -> Pieces:
            assert self.trained.dnn is not None
            decisions = {s: logits[EXAMINED] for s, logits in own.items()}
            by_rules = examination.rules(decisions)
            return by_rules | examination.dnn("dnn", self.trained.dnn, self._seen(decisions))

        self.evaluations.take("dnn", found, examine)

    def coherent(self, start: str) -> None:
        """All local CNNs and the DNN are trained on as one model."""
        session, team, phase = self.session, self.team, f"coherent_{start}"
        session.begin(phase, _WHOLE)
        hooks = session.hooks.make(alone=False, heard=self.comm.is_root)
        with session.phase(phase):
            if team is not None and self.trained.dnn is not None:
                by_data = self.config.coherent.parallelism == "data"
                networks = {s: result.network for s, result in self.trained.local.items()}
                self.trained.models[start], self.trained.steps[phase] = train_coherent(
                    team,
                    self.problem,
                    start,
                    networks,
                    self.trained.dnn,
                    self.samples,
                    self._read,
                    hooks,
                    session.checkpoints.of_copies(phase, team)
                    if by_data
                    else session.checkpoints.of_parts(phase, team, team.workers),
                )
        if self.evaluations.recall(phase, self.trained.steps.get(phase, 0)):
            return
        found: Found = {}
        seen: list[torch.Tensor] = []
        with session.phase("evaluation"):
            if team is not None:
                model = self.trained.models[start]
                evaluated, seen = evaluate_coherent(team, self.problem, model, self.samples, hooks.step, EXAMINED)
                for split, (accuracy, parts) in evaluated.items():
                    found[split] = {phase: accuracy} | ({} if parts is None else {f"{phase}_parts": parts})
        self.evaluations.take(phase, found, lambda it: it.dnn(phase, self.trained.models[start].dnn, seen))

    def baseline(self) -> None:
        """The global CNN on whole images, to compare with."""
        session, context, team = self.session, self.context, self.team
        session.begin("global", _WHOLE)
        hooks = session.hooks.make(alone=False, heard=self.comm.is_root)
        with session.phase("read"):
            images = self.comm.on_all(
                lambda: (
                    {}
                    if team is None
                    else self.problem.read_whole(context.reader, context.place.device, context.storage)
                )
            )
        with session.phase("global"):
            if team is not None:
                manager = session.checkpoints.of_copies("global", team)
                self.trained.global_cnn, self.trained.steps["global"] = train_global_cnn(
                    team, self.problem, images, hooks, manager
                )
        if self.evaluations.recall("global", self.trained.steps.get("global", 0)):
            return
        found: Found = {}
        logits = torch.empty(0)
        with session.phase("evaluation"):
            if team is not None and self.trained.global_cnn is not None:
                accuracies, logits = global_accuracies(
                    team, self.problem, self.trained.global_cnn, images, hooks.step, EXAMINED
                )
                found = {split: {"global": accuracy} for split, accuracy in accuracies.items()}
        self.evaluations.take("global", found, lambda it: it.whole("global", logits))

    def _seen(self, decisions: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        """What the DNN sees of this rank's local outputs."""
        return [features_of(logits, self.config.aggregation.features) for logits in decisions.values()]

    def _read(self, subdomains: Iterable[int]) -> dict[int, dict[str, Subimages]]:
        return self.problem.read(self.context.reader, subdomains, self.context.place.device, self.context.storage)
