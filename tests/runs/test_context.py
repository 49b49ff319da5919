"""What a job knows before it takes the run directory, and that it refuses there what can't work."""

from __future__ import annotations

import signal
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.problem import build_problem
from hpcdd.mpi import launcher
from hpcdd.mpi.communicator import Comm
from hpcdd.mpi.stop import Stop
from hpcdd.runs import context as module
from hpcdd.runs.context import prepare
from hpcdd.runs.resume import Job, record_of


def with_settings(config: Config, **sections: Any) -> Config:
    return Config.model_validate({**config.model_dump(exclude_unset=True), **sections})


def record(config: Config, **facts: Any) -> dict[str, Any]:
    of_run = {"dataset": "abc", "blocks": 0, "device": "cpu", "replicas": 1, "workers": 1, "bf16": False, "reused": {}}
    return record_of(config, "this run", **{**of_run, **facts})


def test_one_rank_owns_everything_and_nothing_is_written(one_rank: Comm, config: Config, tmp_path: Path) -> None:
    context = prepare(one_rank, Job(config, print_only=False))
    assert context.placement.subdomains == (0, 1)
    assert context.team is not None
    assert context.facts == {
        "dataset": build_problem(config).info.fingerprint,
        "blocks": build_problem(config).blocks,
        "device": "cpu",
        "replicas": 1,
        "workers": 1,
        "bf16": context.bf16,
    }
    assert context.attribution_rows.tolist() == list(range(90))
    assert list(one_rank.startup.seconds) == ["problem"]
    assert list(tmp_path.iterdir()) == []


def test_a_context_does_not_change(one_rank: Comm, config: Config) -> None:
    context = prepare(one_rank, Job(config, print_only=False))
    with pytest.raises(FrozenInstanceError):
        context.bf16 = True  # type: ignore[misc]


@pytest.mark.parametrize("bf16", [False, True])
def test_a_resumed_run_keeps_its_precision_and_its_order_of_samples(
    one_rank: Comm, config: Config, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    """Whatever this machine would choose for a new run."""
    monkeypatch.setattr(module, "agreed_bf16", lambda *_: not bf16)
    monkeypatch.setattr(module, "check_precisions", lambda *_: None)  # this machine need not compute in bf16
    config = with_settings(config, local={"precision": "auto"})
    context = prepare(one_rank, Job(config, print_only=False, record=record(config, bf16=bf16, blocks=48)))
    assert context.config.local.precision == ("bf16" if bf16 else "fp32")
    assert context.problem.blocks == 48
    assert (context.facts["bf16"], context.facts["blocks"]) == (bf16, 48)


def test_a_record_without_a_precision_is_that_of_this_machine(
    one_rank: Comm, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier revision has written it."""
    monkeypatch.setattr(module, "agreed_bf16", lambda *_: True)
    monkeypatch.setattr(module, "check_precisions", lambda *_: None)
    earlier = record(config)
    del earlier["bf16"]
    assert prepare(one_rank, Job(config, print_only=False, record=earlier)).bf16


def test_a_precision_that_is_named_is_checked_on_the_device(
    one_rank: Comm, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcdd.training.precision._stores_bf16", lambda: False)
    config = with_settings(config, coherent={"precision": "bf16"})
    with pytest.raises(
        UserError, match=r"coherent\.precision is 'bf16', but cpu does not compute in bfloat16"
    ) as error:
        prepare(one_rank, Job(config, print_only=False))
    assert error.value.agreed == one_rank.size


def test_a_mistake_is_agreed_on_before_anything_is_written(one_rank: Comm, config: Config, tmp_path: Path) -> None:
    config = with_settings(config, decomposition={"grid": [1, 13]})
    with pytest.raises(UserError, match="12 pixels") as error:
        prepare(one_rank, Job(config, print_only=False))
    assert error.value.agreed == one_rank.size
    assert list(tmp_path.iterdir()) == []


def test_curves_that_nothing_can_write_are_refused_first(
    one_rank: Comm, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a data set is read, which may take minutes."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(module, "build_problem", lambda _: pytest.fail("the data set was read"))
    with pytest.raises(UserError, match="tensorboard"):
        prepare(one_rank, Job(with_settings(config, run={"tensorboard": True}), print_only=False))


@pytest.mark.parametrize("study", [False, True])
def test_the_plan_is_printed_unless_the_run_is_one_of_a_study(
    one_rank: Comm, config: Config, capsys: pytest.CaptureFixture[str], study: bool
) -> None:
    prepare(one_rank, Job(config, print_only=False, study=study))
    printed = capsys.readouterr().out
    assert ("rank 0 on " in printed) == ("decomposition: 1 x 2" in printed) == (not study)
    assert study == (printed == "")


def test_a_group_of_ranks_follows_the_signals_of_the_whole_job(one_rank: Comm, config: Config) -> None:
    job = Stop(one_rank, one_rank.side_channel())
    job.listen()
    handlers = [signal.getsignal(signum) for signum in launcher.SIGNALS]
    context = prepare(one_rank, Job(config, print_only=False, study=True), job)
    context.stop.listen()
    assert [signal.getsignal(signum) for signum in launcher.SIGNALS] == handlers
    signal.raise_signal(signal.SIGTERM)
    assert not context.stop.wanted()
    context.stop.poll()
    assert context.stop.wanted()
    assert context.team is not None
    assert context.team.flag._wanted(), "trainings piggyback the same request"
