"""Gather: the local outputs of all splits come to root, and at the end the parameters of the local CNNs.

arXiv 2408.14442: the DNN is trained on the local CNNs' outputs, so root needs K numbers per subdomain and sample (or
F, of penultimate features).
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


def gather_features(
    comm: Comm,
    layout: RankLayout,
    features: Sequence[Mapping[str, torch.Tensor]],
    splits: Mapping[str, int],
    widths: Sequence[int],
) -> dict[str, torch.Tensor] | None:
    """Collective: brings what the DNN sees of all splits to root.

    Args:
        comm: all ranks.
        layout: who owns which subdomain.
        features: for each of this rank's subdomains, ascending, its features by split, float32 (n, F); empty on an
            idle rank.
        splits: number n of samples of each split, the same on every rank.
        widths: F of every subdomain, S numbers.

    Returns:
        On root float32 (n, sum of widths) by split; None elsewhere.
    """
    numbers = [sum(widths[s] for s in subdomains) for subdomains in layout.owned]
    features = features[: len(layout.owned[comm.rank])]  # of several replicas the first sends
    total = sum(widths)
    rows = max(1, GATHER_BYTES // (4 * total))
    gathered = {}
    for split, n in splits.items():
        whole = torch.empty(n, total) if comm.is_root else None
        for start in range(0, n, rows):
            count = min(rows, n - start)
            blocks = [of_split[split][start : start + count].flatten() for of_split in features]
            part = torch.cat(blocks).numpy() if blocks else np.empty(0, np.float32)
            chunk = comm.gather(part, [count * of_rank for of_rank in numbers])
            if chunk is not None and whole is not None:
                # Blocks (count, F) of the subdomains lie in rank order.
                of_subdomains = torch.split(torch.from_numpy(chunk).view(-1), [count * width for width in widths])
                columns = torch.split(whole[start : start + count], list(widths), dim=1)
                for block, column in zip(of_subdomains, columns, strict=True):
                    column.copy_(block.view(count, -1))
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
