"""Attribution of predictions from logits that stay on their ranks, against brute force on the model of one process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hpcdd.artifacts.evaluation_cache import Arrays
from hpcdd.config.schema import AggregationSettings, BaselineSettings, CoherentSettings, Config
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement, assign
from hpcdd.models.aggregators import RULES, distribution, scores
from hpcdd.models.coherent_model import CoherentModel
from hpcdd.models.dnn import DNN, create_dnn
from hpcdd.parallel.batch_shards import Flag
from hpcdd.parallel.sharded_coherent import take_part
from hpcdd.parallel.team import Team
from hpcdd.phases import attribution
from hpcdd.phases.attribution import Attribution, attribution_rows

from ..thread_ranks import ThreadComm, on_ranks
from ..training.toy import one_knows

N, S, K = 41, 3, 4
ROWS = np.sort(np.random.default_rng(0).permutation(N)[:30])
ALL = np.arange(N)


def model(hidden: tuple[int, ...] = (16, 8), width: int = K) -> DNN:
    """A DNN whose predictions differ from sample to sample."""
    dnn = create_dnn(AggregationSettings(hidden=hidden, dropout=0.5), [width] * S, K, seed=0)
    with torch.no_grad():
        for parameter in dnn.parameters():
            parameter.mul_(3)
    return dnn.eval()


def on(size: int, rows: np.ndarray, work: Callable[[Attribution, Team], Arrays]) -> Arrays:
    """What root gets from an attribution on ``size`` ranks, threads of this process."""
    places = [
        RankPlacement(rank, "host", "cpu", "cpu", 1, tuple(subdomains))
        for rank, (subdomains, _) in enumerate(assign(S, size))
    ]

    def one(comm: ThreadComm) -> Arrays:
        team = Team(Config(), RankLayout(S, tuple(places)), places[comm.rank], comm, comm, comm, Flag())  # type: ignore[arg-type]
        return work(Attribution(team, rows), team)

    arrays, *others = on_ranks(size, one)
    assert others == [{}] * (size - 1), "only root gets arrays"
    return arrays


def of_dnn(size: int, dnn: DNN, outputs: torch.Tensor, rows: np.ndarray) -> Arrays:
    def work(attributor: Attribution, team: Team) -> Arrays:
        subdomains = team.placement.subdomains
        part = take_part(dnn, subdomains, team.reduction())
        part.train()
        return attributor.dnn("dnn", part, [outputs[:, s] for s in subdomains])

    return on(size, rows, work)


def of_rules(size: int, logits: torch.Tensor, rows: np.ndarray) -> Arrays:
    def work(attributor: Attribution, team: Team) -> Arrays:
        return attributor.rules({s: logits[:, s] for s in team.placement.subdomains})

    return on(size, rows, work)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("hidden", [(), (16, 8)], ids=str)
@pytest.mark.parametrize("features", ["logits", "penultimate"])
def test_attribution_is_what_brute_force_on_the_coherent_model_finds(
    size: int, hidden: tuple[int, ...], features: str
) -> None:
    width = K if features == "logits" else 6
    dnn = model(hidden, width)
    outputs = torch.randn(N, S, width, generator=torch.Generator().manual_seed(1))
    arrays = of_dnn(size, dnn, outputs, ROWS)

    # CNNs that give their input: the coherent model is then a function of the outputs only.
    whole = CoherentModel([torch.nn.Identity() for _ in range(S)], dnn, features).eval()
    z = list(outputs[torch.from_numpy(ROWS)].unbind(1))
    for output in z:
        output.requires_grad_()
    logits = whole(z)
    predicted = logits.argmax(1, keepdim=True)
    assert len(predicted.unique()) > 1
    slopes = torch.autograd.grad(logits.gather(1, predicted).sum(), z)
    with torch.no_grad():
        probabilities = logits.softmax(1)
        np.testing.assert_allclose(arrays["strategies/dnn"], probabilities.numpy(), atol=1e-6)
        for s in range(S):
            mean = z[s].mean(0)
            others = [*z[:s], mean.expand(len(ROWS), -1), *z[s + 1 :]]
            expected_ablation = (probabilities - whole(others).softmax(1)).gather(1, predicted).squeeze(1)
            np.testing.assert_allclose(arrays["influence/dnn/ablation"][:, s], expected_ablation.numpy(), atol=1e-5)
            to_first_order = (slopes[s] * (z[s] - mean)).sum(1)
            np.testing.assert_allclose(arrays["influence/dnn/gradient"][:, s], to_first_order.numpy(), atol=1e-5)
    assert arrays["influence/dnn/ablation"].std() > 0.05


def test_rules_and_local_predictions_are_those_of_all_logits() -> None:
    logits, _ = one_knows(N)
    arrays, chosen = of_rules(2, logits, ROWS), logits[torch.from_numpy(ROWS)]
    for name, rule in RULES.items():
        expected = distribution(name, scores(rule, chosen))
        np.testing.assert_allclose(arrays[f"strategies/{name}"], expected.numpy(), atol=1e-6)
    probabilities = chosen.softmax(2)
    assert arrays["local/decisions"].dtype == np.int32
    np.testing.assert_array_equal(arrays["local/decisions"], probabilities.argmax(2).numpy())
    np.testing.assert_allclose(arrays["local/confidence"], probabilities.amax(2).numpy(), rtol=1e-6)
    average = probabilities.mean(1)
    predicted = average.argmax(1, keepdim=True)
    for s in range(S):
        without = average + (probabilities[:, s].mean(0) - probabilities[:, s]) / S
        expected_ablation = (average - without).gather(1, predicted).squeeze(1)
        np.testing.assert_allclose(arrays["influence/average/ablation"][:, s], expected_ablation.numpy(), atol=1e-6)


def test_any_number_of_ranks_and_chunks_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, _ = one_knows(N)

    def everything(size: int) -> Arrays:
        return of_rules(size, logits, ALL) | of_dnn(size, model(), logits, ALL)

    expected = everything(1)
    assert len(expected) == 9
    for size in (2, 3):
        arrays = everything(size)
        assert [name for name in expected if arrays[name].tobytes() != expected[name].tobytes()] == []
    monkeypatch.setattr(attribution, "ROWS", 7)
    for name, values in everything(2).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-6)


def test_attribution_costs_no_message_but_its_gathering() -> None:
    calls = []

    def work(attributor: Attribution, team: Team) -> Arrays:
        subdomains, logits = team.placement.subdomains, one_knows(N)[0]
        arrays = attributor.dnn(
            "dnn", take_part(model(), subdomains, team.reduction()), [logits[:, s] for s in subdomains]
        )
        calls.append(team.workers.calls)  # type: ignore[attr-defined]
        return arrays

    on(3, ROWS, work)
    assert calls == [1 + 2] * 3, "one sum, two gathers"


def test_a_prediction_survives_its_rounding() -> None:
    """Two classes that differ in float64 only, and one whose probability is 1 in float32."""
    near = torch.tensor([[0.25, 0.375, 0.375 + 1e-12], [1e-30, 1.0 - 1e-16, 1e-30]], dtype=torch.float64)
    rounded = attribution._rounded(near, near.argmax(1))
    assert rounded.dtype == np.float32
    assert rounded.argmax(1).tolist() == near.argmax(1).tolist() == [2, 1]
    np.testing.assert_allclose(rounded, near, atol=1e-7)


def test_rows_are_all_or_as_many_as_root_has_room_for() -> None:
    small = Config()
    assert attribution_rows(small, 100, 4, 10).tolist() == list(range(100))
    drawn = attribution_rows(small, 50_000, 4, 10)
    assert len(drawn) == len(np.unique(drawn)) == 10_000
    assert (np.diff(drawn) > 0).all()
    assert drawn[-1] < 50_000
    assert drawn.tolist() == attribution_rows(small, 50_000, 4, 10).tolist()
    assert drawn.tolist() != attribution_rows(Config(seed=1), 50_000, 4, 10).tolist()
    # For each sample 28 bytes of a subdomain and 20 of a class: dnn and transfer.
    assert len(attribution_rows(small, 500, 10, 7, most_bytes=100 * (10 * 28 + 7 * 20))) == 100
    more = Config(coherent=CoherentSettings(starts=("transfer", "scratch")), baseline=BaselineSettings(enabled=True))
    assert len(attribution_rows(more, 500, 10, 7, most_bytes=100 * (10 * 36 + 7 * 28))) == 100
    assert len(attribution_rows(small, 500, 1 << 30, 10)) == 1
