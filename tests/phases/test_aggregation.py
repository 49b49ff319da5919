"""Aggregation: the DNN learns whom to trust, on root or distributed."""

from __future__ import annotations

import pytest
import torch

from hpcdd.config.schema import AggregationSettings, Config
from hpcdd.models.dnn import create_dnn, features_of
from hpcdd.parallel.sharded_coherent import take_part
from hpcdd.phases.aggregation import fresh_dnn, train_distributed_dnn, train_dnn
from hpcdd.phases.evaluation import dnn_accuracy, rule_accuracies
from hpcdd.training.status import Hooks, Status

from ..training.toy import by_subdomain, one_knows, team_of_one

QUICK = AggregationSettings(hidden=(16,), epochs=6, batch_size=64, learning_rate=0.01)


def seen_by_dnn(logits: torch.Tensor, features: str) -> torch.Tensor:
    """What the DNN on root sees for logits (n, S, K)."""
    return features_of(logits, features).flatten(1)


@pytest.mark.parametrize("placement", ["root", "distributed"])
@pytest.mark.parametrize("features", ["logits", "probabilities"])
def test_the_dnn_learns_whom_to_trust(features: str, placement: str) -> None:
    config = Config(aggregation=QUICK.model_copy(update={"features": features}))
    (logits, labels), (test_logits, test_labels) = one_knows(2000), one_knows(1000, seed=1)
    team = team_of_one(3, config)
    if placement == "root":
        dnn = train_dnn(config, {"train": seen_by_dnn(logits, features)}, {"train": labels}, [4] * 3, 4, Hooks())
        part = take_part(dnn, range(3), team.reduction())
        assert not dnn.training
    else:
        seen = {s: {"train": features_of(values, features)} for s, values in by_subdomain(logits).items()}
        part = train_distributed_dnn(config, team, seen, {"train": labels}, [4] * 3, 4, Hooks())
        assert not part.training
    rules = rule_accuracies(team, by_subdomain(test_logits), test_labels)
    assert rules["local"][1] > 0.9
    assert max(rules["local"][0], rules["local"][2]) < 0.35
    assert max(rules["average"], rules["majority"], rules["log_pool"]) < 0.75
    seen = [features_of(values, features) for values in by_subdomain(test_logits).values()]
    assert dnn_accuracy(part, seen, test_labels) > 0.9


@pytest.mark.parametrize("features", ["logits", "probabilities"])
def test_trained_distributed_it_is_the_same_dnn_as_on_root(features: str) -> None:
    """The same initial parameters, batches and dropout; what is left is the rounding of the first layer's sum."""
    settings = {"features": features, "dropout": 0.3, "optimizer": "sgd", "epochs": 2, "learning_rate": 0.1}
    config = Config(aggregation={**QUICK.model_dump(), **settings})
    (logits, labels), (other, other_labels) = one_knows(300), one_knows(100, seed=1)
    labels_of = {"train": labels, "validation": other_labels}
    ends: dict[str, list[Status]] = {"root": [], "distributed": []}
    on_root = {"train": seen_by_dnn(logits, features), "validation": seen_by_dnn(other, features)}
    whole = train_dnn(config, on_root, labels_of, [4] * 3, 4, Hooks(epoch=ends["root"].append))
    team = team_of_one(3, config)
    seen = {
        s: {"train": features_of(logits[:, s], features), "validation": features_of(other[:, s], features)}
        for s in range(3)
    }
    part = train_distributed_dnn(config, team, seen, labels_of, [4] * 3, 4, Hooks(epoch=ends["distributed"].append))
    expected = take_part(whole, range(3), team.reduction())
    for parameter, wanted in zip(part.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(part.blocks["0"], fresh_dnn(team, config.aggregation, [4] * 3, 4).blocks["0"], atol=1e-3)
    for one, both in zip(ends["root"], ends["distributed"], strict=True):
        assert (one.phase, one.subdomain, one.epoch) == (both.phase, both.subdomain, both.epoch)
        assert one.loss == pytest.approx(both.loss, rel=1e-4)
        assert one.validation_loss == pytest.approx(both.validation_loss, rel=1e-4)


def test_a_fresh_part_is_that_of_the_whole_dnn_and_needs_no_message() -> None:
    config = Config(seed=3, aggregation=QUICK)
    team = team_of_one(3, config)
    calls = {phase: traffic.calls for phase, traffic in team.workers.traffic.items()}
    part = fresh_dnn(team, config.aggregation, [4, 2, 5], 4)
    assert {phase: traffic.calls for phase, traffic in team.workers.traffic.items()} == calls
    expected = take_part(create_dnn(config.aggregation, [4, 2, 5], 4, seed=3), range(3), team.reduction())
    assert part.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(part.state_dict()[name], tensor) for name, tensor in expected.state_dict().items())


def test_the_dnn_depends_on_the_seed_only() -> None:
    logits, labels = one_knows(200)

    def weights(seed: int, drawn_before: int) -> torch.Tensor:
        torch.manual_seed(drawn_before)
        config = Config(seed=seed, aggregation=QUICK.model_copy(update={"dropout": 0.3}))
        dnn = train_dnn(config, {"train": logits.flatten(1)}, {"train": labels}, [4] * 3, 4, Hooks())
        return torch.cat([p.detach().flatten() for p in dnn.parameters()])

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


@pytest.mark.parametrize("placement", ["root", "distributed"])
def test_the_validation_split_is_watched_and_test_is_not_touched(placement: str) -> None:
    statuses: list[Status] = []
    (logits, labels), (other, other_labels) = one_knows(300), one_knows(100, seed=1)
    config, hooks = Config(aggregation=QUICK), Hooks(epoch=statuses.append)
    splits = {"train": logits, "validation": other, "test": torch.full_like(other, float("nan"))}
    labels_of = {"train": labels, "validation": other_labels, "test": other_labels}
    if placement == "root":
        on_root = {split: values.flatten(1) for split, values in splits.items()}
        train_dnn(config, on_root, labels_of, [4] * 3, 4, hooks)
    else:
        local_logits = {s: {split: values[:, s] for split, values in splits.items()} for s in range(3)}
        train_distributed_dnn(config, team_of_one(3, config), local_logits, labels_of, [4] * 3, 4, hooks)
    assert len(statuses) == 6
    assert {(status.phase, status.subdomain) for status in statuses} == {("dnn", -1)}
    assert statuses[-1].validation_accuracy > statuses[0].validation_accuracy
    assert statuses[-1].validation_loss < statuses[0].validation_loss
