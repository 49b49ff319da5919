"""A run: the order of its phases."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from ..artifacts.evaluation_cache import Arrays
from ..core.names import Start, TrainingName, coherent_phase
from ..core.seeding import WHOLE
from ..data.samples import Subimages
from ..models.serialization import on_host
from ..mpi import fault_tolerance
from ..mpi.communicator import Comm
from ..mpi.runtime import is_loss
from ..mpi.stop import Stop
from ..parallel.batch_shards import broadcast_state
from ..parallel.sharded_coherent import spread_dnn
from ..phases.aggregation import fresh_dnn, train_distributed_dnn, train_dnn
from ..phases.attribution import ATTRIBUTION_SPLIT, Attribution
from ..phases.coherent import evaluate_coherent, train_coherent
from ..phases.evaluation import dnn_accuracy, rule_accuracies
from ..phases.gather import gather_features
from ..phases.global_cnn import global_accuracies, train_global_cnn
from ..phases.local import train_local_cnns
from ..training.status import Status
from ..training.training_state import finished
from . import resume
from .context import prepare
from .finalize import Accuracies, Trained, dnn_template, finalize
from .resume import Job
from .session import RunSession, open_session

_WHOLE = range(WHOLE, WHOLE + 1)


def train(comm: Comm, job: Job, above: Stop | None = None) -> Path:
    """All phases of a run, from the dataset file to results.json; called by all ranks.

    Args:
        comm: all ranks of the run.
        job: the same on every rank.
        above: of the whole job, where the run's ranks are a group of it.

    Returns:
        The run directory.

    Raises:
        UserError: on all ranks, before any training.
        DivergedError: on the rank that noticed it.
        RunError: in a study, on all ranks, instead of that and of any exception of a rank for which no other waited.
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
    """The job of the surviving ranks; arguments as for :func:`_train`."""
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
    return comm.on_root(lambda: resume.reload(job, paths[0] if paths else None))


def _train(comm: Comm, job: Job, where: list[Path] | None = None, above: Stop | None = None) -> Path:
    """As :func:`train`, without surviving; the run directory is appended to ``where`` once it is open."""
    with open_session(prepare(comm, job, above)) as session:
        run = Run(session)
        if where is not None:
            where[:] = [session.directory.path]
        with session.stoppable():
            with session.discarding():
                run.read()
            run.restore_dnn()
            run.local_phase()
            run.aggregation()
            for start in job.config.coherent.starts:
                run.coherent(start)
            if job.config.baseline.enabled:
                run.baseline()
            finalize(session, run.trained)
        return session.directory.path


class Run:
    """One run on one rank; every method is called by all ranks, in the order of :func:`train`.

    An idle rank takes part in the agreements at the end of each phase and in nothing else. What an earlier job has
    trained comes from its checkpoints.

    Attributes:
        samples: by subdomain of this rank and split, the subimages on this rank's device.
        trained: what is trained and found so far.
        dnn_restored: whether an earlier job has trained and evaluated the DNN; local outputs are not needed then.
    """

    def __init__(self, session: RunSession) -> None:
        context = session.context
        self.session, self.context = session, context
        self.comm, self.config = context.comm, context.config
        self.problem, self.team = context.problem, context.team
        self.samples: dict[int, dict[str, Subimages]] = {}
        self.trained = Trained({split: {} for split in context.problem.samples})
        self.dnn_restored = False
        self._history: list[Status] = []

    def read(self) -> None:
        """Each rank reads its own subdomains."""
        with self.session.phase("read"):
            self.samples = self.comm.on_all(lambda: self._read(self.context.placement.subdomains))
        self.comm.startup.mark("read")

    def restore_dnn(self) -> None:
        """Reads the DNN from its checkpoints, if an earlier job has trained and evaluated it."""
        session, team, config = self.session, self.team, self.config
        if "dnn" not in session.storage.evaluated:
            return
        history: list[Status] | None = None
        with self.session.phase("restore"):
            if config.aggregation.placement == "distributed":
                if team is not None:
                    widths = self.problem.feature_widths(config.aggregation.features)
                    self.trained.dnn = fresh_dnn(team, config.aggregation, widths, self.problem.info.num_classes)
                    history = finished(
                        self.trained.dnn, config.aggregation, session.checkpoints.of_parts("dnn", team, team.across)
                    )
                self.dnn_restored = self.comm.maximum(int(team is not None and history is None)) == 0
            else:
                template = dnn_template(config, self.problem)
                whole = None
                if self.comm.is_root:
                    whole = on_host(template).eval()
                    history = finished(whole, config.aggregation, session.checkpoints.of_dnn())
                self.dnn_restored = self.comm.broadcast_object(history is not None)
                if self.dnn_restored and team is not None:
                    self.trained.dnn = spread_dnn(team, whole, template, team.reduction())
        self._history = history or []

    def local_phase(self, *, logits_only: bool = False) -> None:
        """Each rank trains the CNNs of its own subdomains, without messages; telemetry is counted separately.

        Args:
            logits_only: whether they are trained and reported already, and only their logits are missing.
        """
        session, context, problem, team = self.session, self.context, self.problem, self.team
        session.begin("local", range(len(problem.decomposition)))
        independent = context.layout.replicas == 1
        with session.phase("local", independent=independent):
            with session.failures.kept(independent=independent):  # root waits for everyone's last status
                if team is not None:
                    sharing = team.sharing(team.replicas)
                    self.trained.local = train_local_cnns(
                        self.config,
                        context.placement,
                        self.samples,
                        problem.info.num_classes,
                        problem.widths.local_width,
                        session.hooks.make(
                            independent=sharing.comm is None,
                            reports=context.placement.replica == 0 and not logits_only,
                        ),
                        sharing,
                        managers=lambda subdomain: session.checkpoints.of_local(team, subdomain),
                        evaluate=not self.dnn_restored,
                    )
            session.telemetry.finish(context.stop.poll)
        steps = max((result.steps for result in self.trained.local.values()), default=0)
        if self.dnn_restored and self.comm.maximum(steps):
            # The checkpoint of a trained CNN was damaged: the evaluated CNN may differ from that of now.
            self.dnn_restored = False
            self.local_phase(logits_only=True)

    def aggregation(self) -> None:
        """The rules and the DNN combine the local outputs."""
        session, team, config, problem = self.session, self.team, self.config, self.problem
        if self.dnn_restored and self._recall("dnn", 0):
            if self.comm.is_root:
                session.telemetry.epochs(self._history, earlier=True)
            return
        session.begin("dnn", _WHOLE)
        labels = {split: problem.labels(split) for split in problem.samples}
        local_logits = {s: result.logits for s, result in self.trained.local.items()}
        features = {s: result.features for s, result in self.trained.local.items()}
        num_classes, widths, dnn = problem.info.num_classes, problem.feature_widths(config.aggregation.features), None
        if config.aggregation.placement == "distributed":
            with session.phase("dnn"):
                if team is not None:
                    hooks = session.hooks.make(independent=False, reports=self.comm.is_root)
                    manager = session.checkpoints.of_parts("dnn", team, team.across)
                    self.trained.dnn = train_distributed_dnn(
                        config, team, features, labels, widths, num_classes, hooks, manager
                    )
        else:
            with session.phase("gather"):
                on_root = gather_features(
                    self.comm, self.context.layout, list(features.values()), problem.samples, widths
                )
            with session.phase("dnn", independent=True):
                if on_root is not None:
                    hooks = session.hooks.make(independent=True)
                    manager = session.checkpoints.of_dnn()
                    dnn = train_dnn(config, on_root, labels, widths, num_classes, hooks, manager)
            del on_root
        accuracies: Accuracies = {}
        with session.phase("evaluation"):
            if team is not None:
                if self.trained.dnn is None:
                    template = dnn_template(config, self.problem)
                    self.trained.dnn = spread_dnn(team, dnn, template, team.reduction())
                elif team.replicas.size > 1:
                    # They have trained it by themselves, to the same bits only on processors that compute identically.
                    broadcast_state(team.replicas, self.trained.dnn)
                for split, values in labels.items():
                    of_split = {s: logits[split] for s, logits in local_logits.items()}
                    accuracies[split] = rule_accuracies(team, of_split, values)
                    seen = [of_cnn[split] for of_cnn in features.values()]
                    accuracies[split]["dnn"] = dnn_accuracy(self.trained.dnn, seen, values)

        def attribute(attribution: Attribution) -> Arrays:
            assert self.trained.dnn is not None
            of_split = {s: logits[ATTRIBUTION_SPLIT] for s, logits in local_logits.items()}
            seen = [of_cnn[ATTRIBUTION_SPLIT] for of_cnn in features.values()]
            return attribution.rules(of_split) | attribution.dnn("dnn", self.trained.dnn, seen)

        self._record("dnn", accuracies, attribute)

    def coherent(self, start: Start) -> None:
        """All local CNNs and the DNN are trained further as one model."""
        session, team, phase = self.session, self.team, coherent_phase(start)
        session.begin(phase, _WHOLE)
        hooks = session.hooks.make(independent=False, reports=self.comm.is_root)
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
        if self._recall(phase, self.trained.steps.get(phase, 0)):
            return
        accuracies: Accuracies = {}
        seen: list[torch.Tensor] = []
        with session.phase("evaluation"):
            if team is not None:
                model = self.trained.models[start]
                evaluated, seen = evaluate_coherent(
                    team, self.problem, model, self.samples, hooks.step, ATTRIBUTION_SPLIT
                )
                for split, (accuracy, parts) in evaluated.items():
                    accuracies[split] = {phase: accuracy} | ({} if parts is None else {f"{phase}_parts": parts})
        self._record(phase, accuracies, lambda it: it.dnn(phase, self.trained.models[start].dnn, seen))

    def baseline(self) -> None:
        """The global CNN on whole images, to compare with."""
        session, context, team = self.session, self.context, self.team
        session.begin("global", _WHOLE)
        hooks = session.hooks.make(independent=False, reports=self.comm.is_root)
        with session.phase("read"):
            images = self.comm.on_all(
                lambda: (
                    {}
                    if team is None
                    else self.problem.read_whole(context.reader, context.placement.device, context.storage)
                )
            )
        with session.phase("global"):
            if team is not None:
                manager = session.checkpoints.of_copies("global", team)
                self.trained.global_cnn, self.trained.steps["global"] = train_global_cnn(
                    team, self.problem, images, hooks, manager
                )
        if self._recall("global", self.trained.steps.get("global", 0)):
            return
        accuracies: Accuracies = {}
        logits = torch.empty(0)
        with session.phase("evaluation"):
            if team is not None and self.trained.global_cnn is not None:
                by_split, logits = global_accuracies(
                    team, self.problem, self.trained.global_cnn, images, hooks.step, ATTRIBUTION_SPLIT
                )
                accuracies = {split: {"global": accuracy} for split, accuracy in by_split.items()}
        self._record("global", accuracies, lambda it: it.whole("global", logits))

    def _read(self, subdomains: Iterable[int]) -> dict[int, dict[str, Subimages]]:
        return self.problem.read(self.context.reader, subdomains, self.context.placement.device, self.context.storage)

    def _record(self, phase: TrainingName, accuracies: Accuracies, attribute: Callable[[Attribution], Arrays]) -> None:
        """Records the accuracies of an evaluation, and attributes the predictions behind them.

        Root stores both for a job that resumes the run, with what the gather cost.

        Args:
            phase: that was evaluated.
            accuracies: of the evaluation; empty on an idle rank.
            attribute: gives root its arrays of decisions.h5; collective over the workers.
        """
        session, arrays = self.session, Arrays()
        with session.phase("examination"):
            if self.team is not None:
                arrays = attribute(Attribution(self.team, self.context.attribution_rows))
        for split, of_split in accuracies.items():
            self.trained.accuracy[split] |= of_split
        if self.comm.is_root:
            costs = {}
            if phase == "dnn" and "gather" in session.timer.seconds:
                seconds = session.timer.seconds["gather"]
                costs["gather"] = {"seconds": seconds, **asdict(self.comm.traffic["gather"])}
            session.storage.add_evaluation(phase, {"accuracy": accuracies, "costs": costs}, arrays)

    def _recall(self, phase: TrainingName, steps: int) -> bool:
        """Reads the accuracies that an earlier job has recorded, unless this one has trained the network further.

        Args:
            phase: that may have been evaluated.
            steps: that the network was trained in this job; root's count.

        Returns:
            Whether there was anything.
        """
        evaluated = self.session.storage.evaluated
        if not self.comm.broadcast_object(phase in evaluated and not steps):
            return False
        for split, accuracies in evaluated[phase]["accuracy"].items():
            self.trained.accuracy[split] |= accuracies
        return True
