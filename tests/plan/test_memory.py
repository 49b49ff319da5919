"""What is in memory at each moment, against counting by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcdd.config.schema import Config, ModelSettings, TrainingSettings
from hpcdd.data.problem import Problem, build_problem
from hpcdd.models.registry import create
from hpcdd.plan import fake_networks
from hpcdd.plan.memory import Memories, Memory
from hpcdd.plan.simulate import evaluation, images, training_step
from hpcdd.plan.workload import Workload

LIBRARIES = 1000


def memories(tiny: Path, ranks: int, **more: Any) -> tuple[Memories, Problem]:
    local = {"batch_size": 2, **more.pop("local", {})}
    config = Config(
        data={"file": str(tiny), "validation_fraction": 0.1},
        decomposition={"grid": [2, 2]},
        model={"name": "vgg2", "local_width": 16},
        local=local,
        coherent={"batch_size": 8, **more.pop("coherent", {"starts": []})},
        **more,
    )
    problem = build_problem(config)
    return Memories(Workload(config, problem), ranks, LIBRARIES), problem


@pytest.mark.parametrize(
    ("settings", "states"),
    [({"optimizer": "adamw"}, 2), ({"optimizer": "sgd"}, 1), ({"optimizer": "sgd", "momentum": 0.0}, 0)],
)
def test_one_cnn_that_is_trained_after_the_other(tiny: Path, settings: dict[str, Any], states: int) -> None:
    made, problem = memories(tiny, 2, local=settings)
    memory = made.of([2, 3], "memory", is_root=False)
    parameters = 4 * problem.widths.local_parameters[2]
    state = sum(tensor.nbytes for tensor in fake_networks.local_cnn(problem, 2).state_dict().values())
    assert memory.moment == "local"
    assert memory.runtime == LIBRARIES
    assert memory.samples == 2 * 6 * 6 * (300 + 90)
    assert memory.weights == 2 * state
    assert (memory.gradients, memory.optimizer) == (parameters, states * parameters)
    assert memory.outputs == 2 * 4 * 3 * (300 + 90)
    assert memory.activations > 0
    assert memory.total == LIBRARIES + memory.samples + memory.weights + (1 + states) * parameters + (
        memory.outputs + memory.activations
    )


def test_batched_cnns_have_gradients_and_moments_at_the_same_time(tiny: Path) -> None:
    one, two = (memories(tiny, 2, batched=batched)[0].of([2, 3], "memory", is_root=False) for batched in (False, True))
    assert two.moment == "local"
    assert (two.gradients, two.optimizer) == (2 * one.gradients, 2 * one.optimizer)
    assert two.activations > one.activations
    assert two.weights == one.weights


def test_cnns_that_are_batched_in_the_coherent_phase_go_backward_at_once(tiny: Path) -> None:
    def coherent(batched: bool) -> Memory:
        workload = memories(tiny, 1, batched=batched, local={"batch_size": 4}, coherent={"batch_size": 200})
        return workload[0].of([0, 1, 2, 3], "memory", is_root=True)

    separate, batched = coherent(False), coherent(True)
    assert separate.moment == batched.moment == "coherent"
    assert batched.activations > separate.activations


def test_early_stopping_keeps_one_more(tiny: Path) -> None:
    one, two = (
        memories(tiny, 4, local={"early_stopping": patience})[0].of([1], "memory", is_root=False).weights
        for patience in (None, 3)
    )
    assert two == 2 * one


def test_the_coherent_step_has_all_cnns_of_a_rank_at_once_and_data_parallel_those_of_all(tiny: Path) -> None:
    def coherent(ranks: int, block: list[int], form: str) -> Memory:
        made, _ = memories(tiny, ranks, coherent={"starts": ["transfer"], "parallelism": form, "batch_size": 256})
        memory = made.of(block, "memory", is_root=False)
        assert memory.moment == "coherent"
        return memory

    one, two, data = coherent(4, [1], "model"), coherent(2, [2, 3], "model"), coherent(4, [1], "data")
    # What a backward pass needs beyond what was saved is there once.
    assert 1.2 * one.activations < two.activations < 2 * one.activations
    assert 1.5 * one.gradients < two.gradients < 2 * one.gradients  # the DNN behind its first layer is there once
    assert 2.2 * one.gradients < data.gradients < 4 * one.gradients


def test_root_gathers_and_an_idle_rank_has_only_the_libraries(tiny: Path) -> None:
    made, problem = memories(tiny, 5, aggregation={"hidden": [512, 512]})
    root = made.of([0], "memory", is_root=True)
    assert root.moment == "dnn"
    assert root.outputs == 4 * 3 * (300 + 90) + problem.root_bytes
    assert made.of([], "memory", is_root=False).total == LIBRARIES


def test_on_a_gpu() -> None:
    memory = Memory("local", 1, 20, 300, 4000, 50_000, 600_000, 7_000_000)
    assert memory.on_gpu("device") == 654_320
    assert memory.on_gpu("memory") == 654_300


@pytest.mark.parametrize("batch_size", [2, 16, 1000])
@pytest.mark.parametrize(
    ("name", "shape", "width"), [("vgg1", (1, 64, 64, 64), 15), ("vgg3", (3, 16, 16), 4), ("resnet8", (4, 8, 8, 8), 16)]
)
def test_an_evaluation_needs_no_more_than_a_training_step(
    name: str, shape: tuple[int, ...], width: int, batch_size: int
) -> None:
    """Nothing but the batch's size matters: 512 volumes at a time took fifty times a training step of 4."""
    settings = TrainingSettings(batch_size=batch_size)
    with fake_networks.fake():
        network = create(ModelSettings(name=name), shape, 10, width)
    step = training_step(network, images(shape, batch_size, "uint8"), batch_size)
    evaluated = evaluation(network, images(shape, settings.evaluation_batch, "uint8"))
    assert evaluated.peak_bytes <= step.peak_bytes
