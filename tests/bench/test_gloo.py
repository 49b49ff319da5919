"""The network of PyTorch's group, as far as one host shows it; tests/hosts/ has several."""

from __future__ import annotations

import os
import socket

import pytest
import torch

from hpcdd.bench import gloo
from hpcdd.bench.gloo import VARIABLE, Network, find_network, torch_group
from hpcdd.core.errors import UserError
from hpcdd.mpi import communicator


def test_on_one_host_it_is_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find_network(communicator.world()) == Network("127.0.0.1", ("lo",))


def test_what_is_asked_for_is_taken_and_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nowhere, lo")
    assert find_network(communicator.world()) == Network("127.0.0.1", ("lo",))
    monkeypatch.setenv(VARIABLE, "nowhere")
    message = f"IPv4 address of host {socket.gethostname()}, but there is none on nowhere, which {VARIABLE} names; "
    with pytest.raises(UserError, match=message + "its interfaces are .*lo"):
        find_network(communicator.world())


def test_only_root_answers_with_its_token() -> None:
    with gloo._answering(b"one", 1) as one, gloo._answering(b"two", 1) as two:
        assert gloo._reached(["127.0.0.1"], one, b"one") == {"127.0.0.1": "lo"}
        assert gloo._reached(["127.0.0.1"], two, b"one") == {}
    assert gloo._reached(["127.0.0.1"], one, b"one") == {}, "nobody listens any more"


@pytest.mark.parametrize("before", [None, "lo"])
def test_the_group_and_its_variable_are_gone_behind_it(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, before)
    with torch_group(communicator.world()) as network:
        assert str(network) == "lo (root: 127.0.0.1)"
        values = torch.ones(3)
        torch.distributed.all_reduce(values)
        assert values.tolist() == [1.0] * 3
    assert not torch.distributed.is_initialized()
    assert os.environ.get(VARIABLE) == before
