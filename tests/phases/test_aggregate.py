"""Aggregation: the DNN learns whom to trust, and the accuracies are counted right."""

from __future__ import annotations

import pytest
import torch

from hpcdd.config import AggregationSettings, Config
from hpcdd.models.aggregators import average_probability, majority_vote
from hpcdd.models.dnn import create_dnn
from hpcdd.phases.aggregate import accuracies, train_dnn
from hpcdd.phases.status import Hooks, Status

QUICK = AggregationSettings(hidden=(16,), epochs=6, batch_size=64, learning_rate=0.01)


def one_knows(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three CNNs for four classes: CNN 1 hints at the class, the others are loud and know nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    logits = 3 * torch.randn(n, 3, 4, generator=generator)
    logits[:, 1] = 0.3 * torch.randn(n, 4, generator=generator)
    logits[torch.arange(n), 1, labels] += 1.0
    return logits, labels


@pytest.mark.parametrize("features", ["logits", "probabilities"])
def test_the_dnn_learns_whom_to_trust(features: str) -> None:
    config = Config(aggregation=QUICK.model_copy(update={"features": features}))
    logits, labels = one_knows(2000)
    test_logits, test_labels = one_knows(1000, seed=1)
    dnn = train_dnn(config, {"train": logits}, {"train": labels}, Hooks())
    assert not dnn.training
    result = accuracies(config, dnn, test_logits, test_labels)
    assert result["local"][1] > 0.9
    assert max(result["local"][0], result["local"][2]) < 0.35
    assert result["dnn"] > 0.9
    assert max(result["average"], result["majority"], result["log_pool"]) < 0.75


def test_the_dnn_depends_on_the_seed_alone() -> None:
    logits, labels = one_knows(200)

    def weights(seed: int, drawn_before: int) -> torch.Tensor:
        torch.manual_seed(drawn_before)
        config = Config(seed=seed, aggregation=QUICK.model_copy(update={"dropout": 0.3}))
        dnn = train_dnn(config, {"train": logits}, {"train": labels}, Hooks())
        return torch.cat([p.detach().flatten() for p in dnn.parameters()])

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


def test_the_validation_split_is_watched_and_test_is_not_touched() -> None:
    statuses: list[Status] = []
    (logits, labels), (other, other_labels) = one_knows(300), one_knows(100, seed=1)
    nan = torch.full_like(other, float("nan"))
    train_dnn(
        Config(aggregation=QUICK),
        {"train": logits, "validation": other, "test": nan},
        {"train": labels, "validation": other_labels, "test": other_labels},
        Hooks(epoch=statuses.append),
    )
    assert len(statuses) == 6
    assert {(status.phase, status.subdomain) for status in statuses} == {("dnn", -1)}
    assert statuses[-1].validation_accuracy > statuses[0].validation_accuracy
    assert statuses[-1].validation_loss < statuses[0].validation_loss


def test_accuracies_by_hand() -> None:
    # Two CNNs, two classes; the first is surer where they differ.
    logits = torch.tensor(
        [
            [[2.0, 0.0], [1.0, 0.0]],
            [[3.0, 0.0], [0.0, 1.0]],
            [[0.0, 3.0], [1.0, 0.0]],
            [[0.0, 1.0], [0.0, 2.0]],
        ]
    )
    labels = torch.tensor([0, 1, 1, 0])
    config = Config(aggregation=AggregationSettings(hidden=()))
    dnn = create_dnn(config.aggregation, 2, 2).eval()
    torch.nn.init.zeros_(dnn.first.bias)
    with torch.no_grad():  # follows the second CNN
        dnn.first.weight.copy_(torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    assert accuracies(config, dnn, logits, labels) == {
        "local": [0.5, 0.5],
        "average": 0.5,
        "majority": 0.5,
        "log_pool": 0.5,
        "dnn": 0.5,
    }
    labels = torch.tensor([0, 0, 1, 1])
    assert accuracies(config, dnn, logits, labels) == {
        "local": [1.0, 0.5],
        "average": 1.0,
        "majority": 1.0,
        "log_pool": 1.0,
        "dnn": 0.5,
    }


def test_accuracies_of_more_samples_than_are_scored_at_a_time() -> None:
    logits, labels = one_knows(20_001)
    config = Config(aggregation=QUICK)
    dnn = create_dnn(config.aggregation, 3, 4).eval()
    result = accuracies(config, dnn, logits, labels)
    with torch.no_grad():
        expected = {
            "average": average_probability(logits),
            "majority": majority_vote(logits),
            "dnn": dnn(logits.flatten(1)),
        }
    for name, scores in expected.items():
        assert result[name] == pytest.approx(int((scores.argmax(1) == labels).sum()) / 20_001)
    assert result["local"] == [int((logits[:, s].argmax(1) == labels).sum()) / 20_001 for s in range(3)]
