"""The coherent model spread over ranks: each has its CNNs and their columns of the DNN's first layer.

Every rank computes the layers after the first identically. See :mod:`hpcdd.parallel.subdomain_sum` for the message.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..decomposition.rank_layout import RankLayout
from ..models.batched_networks import BatchedNetworks
from ..models.coherent_model import output_of
from ..models.dnn import DNN, features_of
from ..models.penultimate import Penultimate
from ..models.serialization import on_host, pack, unpack
from .subdomain_sum import SubdomainSum, SumOverSubdomains
from .team import Team


class ShardedDNN(nn.Module):
    """One rank's part of the DNN.

    Attributes:
        blocks: by subdomain of this rank (as text) its columns of the first layer's weight, (hidden, features).
        bias: (hidden,) of the first layer; identical on all ranks.
        rest: the layers after it; identical on all ranks.

    Args:
        blocks: by subdomain.
        bias, rest: see above.
        reduction: adds the summands of all ranks.
    """

    def __init__(
        self, blocks: Mapping[int, torch.Tensor], bias: torch.Tensor, rest: nn.Sequential, reduction: SubdomainSum
    ) -> None:
        super().__init__()
        # Pairs, because of a dictionary it sorts the keys: "10" before "2".
        self.blocks = nn.ParameterDict([(str(s), nn.Parameter(block)) for s, block in blocks.items()])
        self.bias = nn.Parameter(bias)
        self.rest = rest
        self.reduction = reduction

    def forward(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The outputs (n, F) of this rank's CNNs, in the order of the subdomains -> logits (n, K) on every rank."""
        with torch.autocast(outputs[0].device.type, enabled=False):
            logits: torch.Tensor = self.rest(self.hidden(outputs))
        return logits

    def hidden(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The first layer, (n, hidden) on every rank, without the activation that follows; one message."""
        summands = [
            functional.linear(output.to(block.dtype), block)
            for output, block in zip(outputs, self.blocks.values(), strict=True)
        ]
        total: torch.Tensor = SumOverSubdomains.apply(self.reduction, *summands)  # type: ignore[no-untyped-call]
        return total + self.bias

    def copy(self) -> ShardedDNN:
        """The same part with parameters of its own."""
        blocks = {int(s): block.detach().clone() for s, block in self.blocks.items()}
        return ShardedDNN(blocks, self.bias.detach().clone(), copy.deepcopy(self.rest), self.reduction)

    def replicated(self) -> list[nn.Parameter]:
        """The parameters of which every rank has a copy."""
        return [self.bias, *self.rest.parameters()]


class ShardedCoherentModel(nn.Module):
    """One rank's part of the coherent model.

    Args:
        cnns: this rank's CNNs by subdomain, ascending.
        dnn: this rank's part of the DNN.
        features: what the DNN sees of each CNN.

    Attributes:
        stacks: of CNNs that compute together while they are trained, see :meth:`stack`.
    """

    def __init__(self, cnns: Mapping[int, nn.Module], dnn: ShardedDNN, features: str) -> None:
        super().__init__()
        self.stacks: tuple[BatchedNetworks, ...] = ()
        self.cnns = nn.ModuleDict({str(s): cnn for s, cnn in cnns.items()})
        self.dnn = dnn
        self.features = features

    def forward(self, subimages: Sequence[torch.Tensor]) -> torch.Tensor:
        """This rank's subimages, float (n, C, *shape of subdomain s) for each s -> logits (n, K) on every rank."""
        return self.combined(self.outputs(subimages))

    def outputs(self, subimages: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What the DNN sees of each of this rank's CNNs, (n, F)."""
        seen = {int(s): images for s, images in zip(self.cnns, subimages, strict=True)}
        outputs: dict[int, torch.Tensor] = {}
        for stack in self.stacks if self.training else ():
            stacked = stack(torch.stack([seen[s] for s in stack.cnns]))
            outputs |= {s: features_of(output, self.features) for s, output in zip(stack.cnns, stacked, strict=True)}
        for s, images in seen.items():
            if s not in outputs:
                outputs[s] = output_of(self.cnns[str(s)], images, self.features)
        return [outputs[s] for s in seen]

    def combined(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The DNN's logits (n, K) on every rank from :meth:`outputs`; one message."""
        logits: torch.Tensor = self.dnn(outputs)
        return logits

    def stack(self, groups: Iterable[Sequence[int]]) -> None:
        """From now on the CNNs of each group (of one shape, on the device of the training) are trained as one stack."""
        self.stacks = tuple(
            BatchedNetworks({s: self.cnns[str(s)] for s in group}).train() for group in groups if len(group) > 1
        )

    def unstacked(self) -> dict[int, nn.Module]:
        """The CNNs that are in no stack, by subdomain."""
        stacked = {s for stack in self.stacks for s in stack.cnns}
        return {int(s): cnn for s, cnn in self.cnns.items() if int(s) not in stacked}

    def local_cnns(self) -> dict[int, nn.Module]:
        """This rank's CNNs by subdomain, with their last layers."""
        return {int(s): cnn.cnn if isinstance(cnn, Penultimate) else cnn for s, cnn in self.cnns.items()}


# -- from root's DNN to the parts, and back ---------------------------------------------------------------------------


def spread_dnn(team: Team, dnn: DNN | None, template: DNN, reduction: SubdomainSum) -> ShardedDNN:
    """Collective over the workers: root's DNN goes out by scatter (its columns) and broadcast (the rest).

    Args:
        team: of this rank.
        dnn: the DNN on root; not read elsewhere.
        template: a DNN of the same shape, whose parameters are not read (on device ``meta`` it takes no memory).
        reduction: for the parts.
    """
    comm, layout, placement = team.workers, team.layout, team.placement
    whole = pack(_blocks(dnn, range(layout.num_subdomains))) if dnn is not None else None
    columns = _blocks(template, placement.subdomains)
    packed = np.empty(_bytes(columns), np.uint8)
    comm.scatter(whole, packed if placement.replica == 0 else packed[:0], _block_bytes(template, layout, comm.size))
    if team.replicas.size > 1:
        team.replicas.broadcast(packed)
    common = _common(template.first.bias, template.rest)
    buffer = np.empty(_bytes(common), np.uint8)
    if dnn is not None:
        buffer = pack(_common(dnn.first.bias, dnn.rest))
    comm.broadcast(buffer)
    state = unpack(buffer, common)
    bias = state.pop("bias")
    rest = on_host(template.rest)
    rest.load_state_dict(state)
    return ShardedDNN({int(s): block for s, block in unpack(packed, columns).items()}, bias, rest, reduction)


def collect_dnn(team: Team, part: ShardedDNN, template: DNN) -> DNN | None:
    """Collective over the workers, the reverse of :func:`spread_dnn`: the whole DNN on root's CPU, None elsewhere."""
    comm, layout = team.workers, team.layout
    sizes = _block_bytes(template, layout, comm.size)
    packed = pack(dict(part.blocks)) if sizes[comm.rank] else np.empty(0, np.uint8)
    gathered = comm.gather(packed, sizes)
    if gathered is None:
        return None
    dnn = on_host(template)
    columns = _blocks(dnn, range(layout.num_subdomains))
    with torch.no_grad():
        for s, block in unpack(gathered, columns).items():
            columns[s].copy_(block)
        dnn.first.bias.copy_(part.bias)
    dnn.rest.load_state_dict(part.rest.state_dict())
    return dnn.eval()


def take_part(dnn: DNN, subdomains: Iterable[int], reduction: SubdomainSum) -> ShardedDNN:
    """A rank's part of a DNN that it has as a whole; no message."""
    blocks = {s: dnn.block(s).detach().clone() for s in subdomains}
    return ShardedDNN(blocks, dnn.first.bias.detach().clone(), copy.deepcopy(dnn.rest), reduction)


def _blocks(dnn: DNN, subdomains: Iterable[int]) -> dict[str, torch.Tensor]:
    return {str(s): dnn.block(s) for s in subdomains}


def _common(bias: torch.Tensor, rest: nn.Sequential) -> dict[str, torch.Tensor]:
    return {"bias": bias, **rest.state_dict()}


def _bytes(state: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _block_bytes(template: DNN, layout: RankLayout, ranks: int) -> list[int]:
    """By rank the bytes of the columns for which it speaks."""
    return [_bytes(_blocks(template, owned)) for owned in layout.owned[:ranks]]


def pool(subdomains: Iterable[int], size: int, num_classes: int, reduction: SubdomainSum) -> ShardedDNN:
    """A linear DNN on logits that gives their mean, the log-opinion pool; no message.

    Args:
        subdomains: of this rank.
        size: S.
        num_classes: K.
        reduction: for the part.
    """
    blocks = {s: torch.eye(num_classes) / size for s in subdomains}
    return ShardedDNN(blocks, torch.zeros(num_classes), nn.Sequential(), reduction)


def onto_penultimate(part: ShardedDNN, cnns: Mapping[int, Penultimate], reduction: SubdomainSum) -> ShardedDNN:
    """A DNN on logits as one on penultimate features: the same function, since logits z = C p + c are linear in p.

    W1_s z_s = (W1_s C_s) p_s + W1_s c_s: the columns are multiplied, and the constants, summed over all subdomains,
    go into the bias. Collective over the ranks of ``reduction``.
    """
    blocks, constants = {}, []
    with torch.no_grad():
        for s, cnn in cnns.items():
            last, block = cnn.classifier, part.blocks[str(s)]
            blocks[s] = block @ last.weight * getattr(last, "scale", 1.0)
            constants.append(block @ (last.weight.new_zeros(len(last.weight)) if last.bias is None else last.bias))
        bias = part.bias + reduction(constants)
    return ShardedDNN(blocks, bias, copy.deepcopy(part.rest), reduction)


def checksum(tensors: Sequence[torch.Tensor]) -> int:
    """CRC-32 of the bytes of some tensors: equal for copies that have not drifted apart."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes(), value)
    return value
