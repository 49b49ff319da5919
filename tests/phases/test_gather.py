"""What root gets of all ranks: columns in the order of the subdomains, whoever owns them and however it is cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement, assign
from hpcdd.phases import gather
from hpcdd.phases.gather import gather_features, gather_parameters

from ..thread_ranks import ThreadComm, on_ranks

WIDTHS = (3, 1, 4, 2)
"""F of each subdomain: all different, so that no block can be taken for another."""
SPLITS = {"train": 11, "test": 5}


def layout_of(size: int) -> RankLayout:
    placements = (
        RankPlacement(rank, "host", "cpu", "cpu", 1, tuple(subdomains), replica)
        for rank, (subdomains, replica) in enumerate(assign(len(WIDTHS), size))
    )
    return RankLayout(len(WIDTHS), tuple(placements))


def features(subdomain: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(subdomain)
    return {split: torch.randn(n, WIDTHS[subdomain], generator=generator) for split, n in SPLITS.items()}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9], ids="{} ranks".format)
@pytest.mark.parametrize("rows", [1, 4, 11, 1000], ids="{} rows at a time".format)
def test_features_come_in_the_order_of_the_subdomains(monkeypatch: pytest.MonkeyPatch, size: int, rows: int) -> None:
    """Several subdomains on a rank, replicas (9 ranks have two of each subdomain) and idle ranks."""
    monkeypatch.setattr(gather, "GATHER_BYTES", rows * 4 * sum(WIDTHS))
    layout = layout_of(size)

    def work(comm: ThreadComm) -> dict[str, torch.Tensor] | None:
        mine = [features(s) for s in layout.placements[comm.rank].subdomains]
        if layout.placements[comm.rank].replica:  # only the first of several is asked
            mine = [{split: torch.full_like(values, torch.nan) for split, values in of.items()} for of in mine]
        return gather_features(comm, layout, mine, SPLITS, WIDTHS)

    on_root, *others = on_ranks(size, work)
    assert others == [None] * (size - 1)
    assert on_root is not None
    for split in SPLITS:
        assert torch.equal(on_root[split], torch.cat([features(s)[split] for s in range(len(WIDTHS))], dim=1))


def test_no_message_is_larger_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 4 * sum(WIDTHS) * 3
    monkeypatch.setattr(gather, "GATHER_BYTES", limit)
    layout = layout_of(2)

    def work(comm: ThreadComm) -> tuple[int, int]:
        gather_features(comm, layout, [features(s) for s in layout.owned[comm.rank]], SPLITS, WIDTHS)
        return comm.calls, comm.ledger.traffic["start"].bytes

    calls, size = on_ranks(2, work)[0]
    assert calls == 4 + 2  # 11 and 5 samples, three at a time
    assert size == sum(SPLITS.values()) * 4 * sum(WIDTHS)


@pytest.mark.parametrize("size", [1, 3, 9], ids="{} ranks".format)
def test_parameters_come_from_the_owner_of_each_cnn(size: int) -> None:
    layout = layout_of(size)

    def cnn(subdomain: int, value: float) -> nn.Module:
        network = nn.Sequential(nn.Linear(WIDTHS[subdomain], 2), nn.BatchNorm1d(2))
        for tensor in network.state_dict().values():
            tensor.fill_(value)
        return network

    def work(comm: ThreadComm) -> list[dict[str, torch.Tensor]]:
        placement = layout.placements[comm.rank]
        mine = {s: cnn(s, -1.0 if placement.replica else 10.0 + s) for s in placement.subdomains}
        templates = (cnn(s, 0.0) for s in range(len(WIDTHS)))
        return list(gather_parameters(comm, layout, mine, templates))

    on_root, *others = on_ranks(size, work)
    assert others == [[{}] * len(WIDTHS)] * (size - 1)
    for s, state in enumerate(on_root):
        expected = cnn(s, 10.0 + s).state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
