"""Attribution: what each strategy predicts for each sample, and how much each subdomain changed the prediction.

The DNN's first layer is h = b + sum_s W1_s z_s. With c the predicted class, and means over the samples of the
attribution, subdomain s changed the prediction by::

    ablation_s = p_c(h) - p_c(h - W1_s (z_s - mean z_s))      its output replaced by its mean
    gradient_s = d logit_c / d h . W1_s (z_s - mean z_s)      the change of the logit to first order

One allreduce gives h to every rank, as in a training step. The layers after it, and with them c and d logit_c / d h,
are the same on every rank, and the owner of subdomain s has W1_s and z_s: both forms cost no further message, but for
the gathering of n numbers per subdomain on root. No CNN is run: their outputs are those of the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..artifacts.evaluation_cache import Arrays
from ..config.schema import Config
from ..core.seeding import seed_of
from ..models.aggregators import RULES, distribution
from ..parallel.sharded_coherent import ShardedDNN
from ..parallel.subdomain_sum import SubdomainSum
from ..parallel.team import Team
from .evaluation import ROWS

ATTRIBUTION_SPLIT = "test"
"""The split whose predictions a run attributes."""

MOST_ROWS = 10_000
"""Samples of the attribution at most."""

MOST_BYTES = 256 << 20
"""Bytes of all that root receives of them, at most."""


def attribution_rows(
    config: Config,
    samples: int,
    num_subdomains: int,
    num_classes: int,
    most_rows: int = MOST_ROWS,
    most_bytes: int = MOST_BYTES,
) -> npt.NDArray[np.int64]:
    """The samples of a split that are attributed: all, or as many as fit, drawn with the seed; the same on any rank.

    Args:
        config: of the run.
        samples: of the split.
        num_subdomains: S.
        num_classes: K.
        most_rows, most_bytes: limits; at least one sample is chosen.

    Returns:
        Ascending int64 (n,).
    """
    coherent = len(config.coherent.starts)
    of_subdomain = 4 + 4 + 4 + 2 * 4 * (1 + coherent)
    of_class = 4 * (len(RULES) + 1 + coherent + config.baseline.enabled)
    count = min(samples, most_rows, max(1, most_bytes // (num_subdomains * of_subdomain + num_classes * of_class)))
    if count == samples:
        return np.arange(samples)
    generator = np.random.default_rng(seed_of(config.seed, "examined samples"))
    return np.sort(generator.choice(samples, count, replace=False).astype(np.int64))


class Attribution:
    """Collective over the workers. Root gets arrays of decisions.h5, the other ranks none.

    Args:
        team: of this rank.
        rows: of the split, int64 (n,), from :func:`attribution_rows`.
    """

    def __init__(self, team: Team, rows: npt.NDArray[np.int64]) -> None:
        self._team, self._rows = team, torch.from_numpy(rows)

    def rules(self, logits: Mapping[int, torch.Tensor]) -> Arrays:
        """What the local CNNs predict, and the rules that combine their predictions.

        Args:
            logits: by subdomain of this rank, ascending, of the whole split, float32 (N, K) on the CPU.
        """
        team, num_subdomains = self._team, self._team.layout.num_subdomains
        row_logits = [values[self._rows] for values in logits.values()]
        probabilities = [values.double().softmax(1) for values in row_logits]
        means = [values.mean(0) for values in probabilities]
        add = SubdomainSum(team.across, "ordered")
        distributions: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in RULES}
        ablation: list[list[torch.Tensor]] = [[] for _ in row_logits]
        for start in range(0, len(self._rows), ROWS):
            here = slice(start, start + ROWS)
            chunks = [values[here] for values in row_logits]
            total = add([torch.stack([rule(chunk, num_subdomains) for rule in RULES.values()]) for chunk in chunks])
            for name, scores in zip(RULES, total, strict=True):
                distributions[name].append(_rounded(distribution(name, scores), scores.argmax(-1)))
            average = total[list(RULES).index("average")].argmax(-1, keepdim=True)
            for values, mean, parts in zip(probabilities, means, ablation, strict=True):
                parts.append((values[here] - mean).gather(1, average).squeeze(1) / num_subdomains)
        return self._with_attribution(
            {f"strategies/{name}": np.concatenate(parts) for name, parts in distributions.items()},
            {
                "local/decisions": [values.argmax(1).int() for values in row_logits],
                "local/confidence": [values.max(1).values.float() for values in probabilities],
                "influence/average/ablation": [torch.cat(parts).float() for parts in ablation],
            },
        )

    def dnn(self, name: str, dnn: ShardedDNN, outputs: Sequence[torch.Tensor]) -> Arrays:
        """What a DNN predicts, on its own or as the end of a coherent model, and what changed its predictions.

        Args:
            name: of the strategy.
            dnn: this rank's part, on the CPU.
            outputs: what it sees of each of this rank's CNNs, ascending by subdomain, of the whole split, float32
                (N, F) on the CPU.
        """
        dnn.eval()
        row_outputs = [output[self._rows] for output in outputs]
        means = [output.double().mean(0).to(output.dtype) for output in row_outputs]
        blocks = [block.detach() for block in dnn.blocks.values()]
        distributions: list[npt.NDArray[np.float32]] = []
        ablation: list[list[torch.Tensor]] = [[] for _ in row_outputs]
        gradient: list[list[torch.Tensor]] = [[] for _ in row_outputs]
        for start in range(0, len(self._rows), ROWS):
            chunks = [output[start : start + ROWS] for output in row_outputs]
            with torch.no_grad():
                hidden = dnn.hidden(chunks)
            logits = dnn.rest(hidden.requires_grad_())
            predicted = logits.argmax(1, keepdim=True)
            (slope,) = torch.autograd.grad(logits.gather(1, predicted).sum(), hidden)
            with torch.no_grad():
                probabilities = logits.double().softmax(1)
                distributions.append(_rounded(probabilities, predicted.squeeze(1)))
                for s, (output, mean, block) in enumerate(zip(chunks, means, blocks, strict=True)):
                    difference = functional.linear(output - mean, block)
                    without = dnn.rest(hidden - difference).double().softmax(1)
                    ablation[s].append((probabilities - without).gather(1, predicted).squeeze(1))
                    gradient[s].append((slope * difference).sum(1))
        return self._with_attribution(
            {f"strategies/{name}": np.concatenate(distributions)},
            {
                f"influence/{name}/ablation": [torch.cat(parts).float() for parts in ablation],
                f"influence/{name}/gradient": [torch.cat(parts).float() for parts in gradient],
            },
        )

    def whole(self, name: str, logits: torch.Tensor) -> Arrays:
        """What a CNN that sees whole images predicts; no message.

        Args:
            name: of the strategy.
            logits: of the whole split, float32 (N, K) on the CPU, on every worker.
        """
        row_logits = logits[self._rows]
        probabilities = _rounded(row_logits.double().softmax(1), row_logits.argmax(1))
        return self._with_attribution({f"strategies/{name}": probabilities}, {})

    def _with_attribution(self, arrays: Arrays, columns: Mapping[str, Sequence[torch.Tensor]]) -> Arrays:
        """Adds, on root, the (n, S) of all ranks' columns (n,); of several replicas the first one sends."""
        workers = self._team.workers
        owned = [len(subdomains) for subdomains in self._team.layout.owned[: workers.size]]
        counts = [number * len(self._rows) for number in owned]
        for column, parts in columns.items():
            mine = torch.stack(list(parts)).numpy()[: owned[workers.rank]]
            gathered = workers.gather(mine, counts)
            if gathered is not None:
                arrays[column] = np.ascontiguousarray(gathered.reshape(-1, len(self._rows)).T)
        return arrays if workers.is_root else {}


def _rounded(probabilities: torch.Tensor, predicted: torch.Tensor) -> npt.NDArray[np.float32]:
    """Float64 (n, K) in float32, such that the first of the most probable classes is the predicted one, (n,).

    Where rounding has made another class as probable, the predicted one is raised by one bit.
    """
    values, classes = probabilities.float().numpy(), predicted.numpy()
    rows = np.flatnonzero(values.argmax(1) != classes)
    values[rows, classes[rows]] = np.nextafter(values[rows].max(1), np.float32(2))
    return values
