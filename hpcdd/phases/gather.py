"""Gather: the local outputs of all splits come to root, and at the end the parameters of the local CNNs.

arXiv 2408.14442: the DNN is trained on the local CNNs' outputs, so root needs K numbers per subdomain and sample.
They come in chunks of bounded size, so that neither a message nor root's buffers grow with the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..data.problem import GATHER_BYTES
from ..decomposition.rank_layout import RankLayout
from ..models.serialization import pack, unpack
from ..mpi.communicator import Comm


def gather_logits(
    comm: Comm,
    layout: RankLayout,
    local_logits: Sequence[Mapping[str, torch.Tensor]],
    splits: Mapping[str, int],
    num_classes: int,
) -> dict[str, torch.Tensor] | None:
    """Collective: brings the logits of all splits to root.

    Args:
        comm: all ranks.
        layout: who owns which subdomain.
        local_logits: for each of this rank's subdomains, ascending, its logits by split, float32 (n, K); empty on an
            idle rank.
        splits: number n of samples of each split, the same on every rank.
        num_classes: K.

    Returns:
        On root float32 (n, S, K) by split; None elsewhere.
    """
    owned = [len(subdomains) for subdomains in layout.owned]
    local_logits = local_logits[: owned[comm.rank]]  # of several replicas the first sends
    rows = max(1, GATHER_BYTES // (4 * layout.num_subdomains * num_classes))
    gathered = {}
    for split, n in splits.items():
        whole = torch.empty(n, layout.num_subdomains, num_classes) if comm.is_root else None
        for start in range(0, n, rows):
            count = min(rows, n - start)
            part = np.empty((len(local_logits), count, num_classes), np.float32)
            for index, logits in enumerate(local_logits):
                part[index] = logits[split][start : start + count].numpy()
            chunk = comm.gather(part, [subdomains * count * num_classes for subdomains in owned])
            if chunk is not None and whole is not None:
                # Blocks of subdomains lie in rank order, so that the chunk is (S, count, K).
                blocks = torch.from_numpy(chunk).view(layout.num_subdomains, count, num_classes)
                whole[start : start + count] = blocks.transpose(0, 1)
        if whole is not None:
            gathered[split] = whole
    return gathered if comm.is_root else None


def gather_parameters(
    comm: Comm, layout: RankLayout, cnns: Mapping[int, nn.Module], templates: Iterator[nn.Module]
) -> Iterator[dict[str, torch.Tensor]]:
    """Collective: the ``state_dict`` of CNN_0, CNN_1, ... one after the other on root, which never holds two.

    Every rank iterates to the end; ranks other than root get empty ones.

    Args:
        comm: all ranks.
        layout: who owns which subdomain.
        cnns: this rank's CNNs by subdomain.
        templates: on root, CNNs of the same shapes in the order of the subdomains; not read elsewhere.
    """
    for subdomain in range(layout.num_subdomains):
        owner = layout.owner(subdomain)
        buffer = pack(cnns[subdomain].state_dict()) if comm.rank == owner else np.empty(0, np.uint8)
        state: dict[str, torch.Tensor] = {}
        if comm.is_root:
            shapes = next(templates).state_dict()
            if owner != comm.rank:
                buffer = np.empty(sum(t.numel() * t.element_size() for t in shapes.values()), np.uint8)
            comm.to_root(buffer, owner)
            state = unpack(buffer, shapes)
        else:
            comm.to_root(buffer, owner)
        yield state
