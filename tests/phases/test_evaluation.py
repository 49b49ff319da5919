"""Accuracies from logits that stay on their ranks, against direct computation on all of them."""

from __future__ import annotations

import pytest
import torch

from hpcdd.config.schema import AggregationSettings
from hpcdd.models.aggregators import RULES, scores
from hpcdd.models.dnn import DNN, create_dnn
from hpcdd.parallel.sharded_coherent import take_part
from hpcdd.phases import evaluation
from hpcdd.phases.evaluation import dnn_accuracy, rule_accuracies

from ..training.toy import by_subdomain, one_knows, team_of_one


def dnn_accuracy_of(dnn: DNN, logits: torch.Tensor, labels: torch.Tensor) -> float:
    part = take_part(dnn, range(logits.shape[1]), team_of_one(logits.shape[1]).reduction())
    return dnn_accuracy(part, list(logits.unbind(1)), labels)


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
    dnn = create_dnn(AggregationSettings(hidden=()), [2, 2], 2, seed=0)
    torch.nn.init.zeros_(dnn.first.bias)
    with torch.no_grad():  # follows the second CNN
        dnn.first.weight.copy_(torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    team = team_of_one(2)

    labels = torch.tensor([0, 1, 1, 0])
    assert rule_accuracies(team, by_subdomain(logits), labels) == {
        "local": [0.5, 0.5],
        "average": 0.5,
        "majority": 0.5,
        "log_pool": 0.5,
    }
    assert dnn_accuracy_of(dnn, logits, labels) == 0.5
    labels = torch.tensor([0, 0, 1, 1])
    assert rule_accuracies(team, by_subdomain(logits), labels) == {
        "local": [1.0, 0.5],
        "average": 1.0,
        "majority": 1.0,
        "log_pool": 1.0,
    }
    assert dnn_accuracy_of(dnn, logits, labels) == 0.5
    assert dnn_accuracy_of(dnn, logits, torch.tensor([0, 1, 0, 1])) == 1.0


@pytest.mark.parametrize("rows", [evaluation.ROWS, 1000, 2001, 7])
def test_accuracies_in_chunks_are_those_of_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ROWS", rows)
    logits, labels = one_knows(2001)
    dnn = create_dnn(AggregationSettings(hidden=(16,)), [4, 4, 4], 4, seed=0).eval()
    with torch.no_grad():
        expected = dnn(logits.flatten(1)).argmax(1)
    assert dnn_accuracy_of(dnn, logits, labels) == int((expected == labels).sum()) / 2001

    team = team_of_one(3)
    with team.workers.phase("rules"):
        accuracies = rule_accuracies(team, by_subdomain(logits), labels)
    assert list(accuracies) == ["local", *RULES]
    for name, rule in RULES.items():
        assert accuracies[name] == int((scores(rule, logits).argmax(1) == labels).sum()) / 2001
    assert accuracies["local"] == [int((logits[:, s].argmax(1) == labels).sum()) / 2001 for s in range(3)]
    with team.workers.phase("metadata"):
        team.across.allgather_object({0: 0.5})
    traffic = team.workers.traffic
    assert traffic["rules"].calls == traffic["metadata"].calls + -(-2001 // rows), "one sum for each chunk"


def test_the_dnn_predicts_in_evaluation_mode() -> None:
    logits, labels = one_knows(500)
    dnn = create_dnn(AggregationSettings(hidden=(16,), dropout=0.9), [4, 4, 4], 4, seed=0)
    assert dnn.training
    assert dnn_accuracy_of(dnn, logits, labels) == dnn_accuracy_of(dnn, logits, labels)
    with torch.no_grad():
        expected = dnn.eval()(logits.flatten(1)).argmax(1)
    assert dnn_accuracy_of(dnn, logits, labels) == int((expected == labels).sum()) / 500


def test_many_subdomains_come_in_their_order() -> None:
    """With more than ten, "10" does not come before "2"."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    logits = torch.randn(400, 12, 4, generator=generator)
    for s in range(12):  # the last ones know most
        logits[torch.arange(400), s, labels] += s / 4
    accuracies = rule_accuracies(team_of_one(12), by_subdomain(logits), labels)
    assert accuracies["local"] == [int((logits[:, s].argmax(1) == labels).sum()) / 400 for s in range(12)]
    dnn = create_dnn(AggregationSettings(), [4] * 12, 4, seed=0).eval()
    with torch.no_grad():
        predictions = dnn(logits.flatten(1)).argmax(1)
    assert dnn_accuracy_of(dnn, logits, labels) == int((predictions == labels).sum()) / 400
