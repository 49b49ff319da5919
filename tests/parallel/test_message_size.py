"""What a rank sends and receives in a step of the coherent model does not depend on the number of subdomains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.config.schema import CoherentSettings
from hpcdd.data.samples import Samples, SideBySide
from hpcdd.models.coherent_model import CoherentModel
from hpcdd.models.dnn import DNN
from hpcdd.parallel.batch_shards import BatchSharing
from hpcdd.parallel.sharded_coherent import ShardedCoherentModel, take_part
from hpcdd.parallel.subdomain_sum import SubdomainSum
from hpcdd.training.steps import PlainSteps

from ..thread_ranks import ThreadComm, on_ranks

ROWS, PIXELS, CLASSES, HIDDEN, STEPS = 8, 6, 3, 5, 2


@pytest.mark.parametrize(("reduction", "width"), [("ordered", 8), ("fast", 4)])
@pytest.mark.parametrize("subdomains", [4, 16, 64])
def test_with_a_rank_for_each_subdomain(subdomains: int, reduction: str, width: int) -> None:
    """The ranks do train: their parameters are those of the one model after the same steps."""
    torch.manual_seed(0)
    cnns = [nn.Sequential(nn.Linear(PIXELS, 4), nn.Tanh(), nn.Linear(4, CLASSES)) for _ in range(subdomains)]
    whole = CoherentModel(cnns, DNN([CLASSES] * subdomains, (HIDDEN,), CLASSES, 0.0), "logits")
    before = copy.deepcopy(whole)
    images = [torch.randn(ROWS, PIXELS) for _ in range(subdomains)]
    labels, batch = torch.arange(ROWS) % CLASSES, torch.arange(ROWS)
    optimizer = torch.optim.SGD(whole.parameters(), 0.5)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(whole(images), labels).backward()
        optimizer.step()

    def work(comm: ThreadComm) -> tuple[ShardedCoherentModel, int, int]:
        dnn = take_part(before.dnn, [comm.rank], SubdomainSum(comm, reduction))
        part = ShardedCoherentModel({comm.rank: copy.deepcopy(before.cnns[comm.rank])}, dnn, "logits").train()
        samples = SideBySide([Samples(images[comm.rank], labels)])
        with PlainSteps(
            part, torch.optim.SGD(part.parameters(), 0.5), BatchSharing(), CoherentSettings(), dnn.replicated()
        ) as steps:
            for _ in range(STEPS):
                steps.step(samples, batch)
        return part, comm.calls, sum(traffic.bytes for traffic in comm.ledger.traffic.values())

    for rank, (part, calls, size) in enumerate(on_ranks(subdomains, work)):
        assert calls == STEPS
        assert size == STEPS * 2 * width * (ROWS * HIDDEN + 1)  # with the request to stop
        for trained, expected in zip(part.cnns[str(rank)].parameters(), whole.cnns[rank].parameters(), strict=True):
            torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)
        start = next(before.cnns[rank].parameters())
        assert not torch.equal(next(part.cnns[str(rank)].parameters()), start)
