"""The latency-bandwidth model of the collectives that hpcdd uses, and its fit to measured times.

A message of n bytes costs alpha + beta n seconds (R. W. Hockney, Parallel Computing 20 (1994) 389-398). A collective
over p ranks costs

    t = alpha A(p) + beta B(n, p)

with the terms of R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective Communication Operations in
MPICH", IJHPCA 19 (2005) 49-66, for the algorithms of large messages with the least traffic; with L = ceil(log2 p)

    ===========  ====  =============  =================================================================
    collective   A     B              algorithm
    ===========  ====  =============  =================================================================
    allreduce    L     2 n (p-1)/p    reduce-scatter and allgather (Rabenseifner); beta includes the additions
    broadcast    L     2 n (p-1)/p    scatter and allgather
    allgather    L     n (p-1)/p      recursive doubling; n is what each rank has in the end
    gather       L     n (p-1)/p      binomial tree; n is what root has in the end
    scatter      L     n (p-1)/p      binomial tree; n is what root has in the beginning
    send         1     n              one message from one rank to another
    ===========  ====  =============  =================================================================

Of allreduce and broadcast A is L, not 2 L, since short messages go through one tree and alpha counts for them alone. An
MPI library changes its algorithm with n and p, and one pair of numbers can't follow it: the machine
file states the errors of each fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from .machine import Collective, FittedCollective, MeasuredCollective

COLLECTIVES: tuple[Collective, ...] = get_args(Collective)
FitKey = tuple[Collective, bool, bool]


def terms(collective: str, size: int, ranks: int) -> tuple[float, float]:
    """A and B of the model: how often the latency counts, and the bytes that count.

    Args:
        collective: one of :data:`COLLECTIVES`.
        size: n, bytes.
        ranks: p, 2 or more.
    """
    if collective == "send":
        return 1.0, float(size)
    latencies, part = float((ranks - 1).bit_length()), size * (ranks - 1) / ranks
    return latencies, 2 * part if collective in ("allreduce", "broadcast") else part


def seconds(fit: FittedCollective, size: int, ranks: int) -> float:
    """Of a collective of ``size`` bytes over ``ranks`` ranks; 0 on one rank, where nothing is sent."""
    if ranks < 2:
        return 0.0
    a, b = terms(fit.collective, size, ranks)
    return fit.latency * a + fit.seconds_per_byte * b


def fit(points: Sequence[MeasuredCollective]) -> FittedCollective:
    """Least squares of the relative errors of the medians, with alpha and beta not below 0.

    Args:
        points: at least one, all of the same collective, between hosts or not, oversubscribed or not.
    """
    measured = np.array([point.seconds[1] for point in points])
    rows = np.array([terms(point.collective, point.size, point.ranks) for point in points]) / measured[:, None]
    alpha, beta = least_squares(rows)
    errors = np.abs(rows @ (alpha, beta) - 1)
    return FittedCollective(
        collective=points[0].collective,
        between_hosts=points[0].hosts > 1,
        oversubscribed=points[0].oversubscribed,
        latency=alpha,
        seconds_per_byte=beta,
        typical_error=float(np.median(errors)),
        largest_error=float(errors.max()),
        points=len(points),
    )


def fit_all(points: Iterable[MeasuredCollective]) -> dict[FitKey, FittedCollective]:
    """The fit of every collective, by collective, between hosts or not, oversubscribed or not."""
    grouped: dict[FitKey, list[MeasuredCollective]] = {}
    for point in points:
        grouped.setdefault((point.collective, point.hosts > 1, point.oversubscribed), []).append(point)
    return {key: fit(group) for key, group in grouped.items()}


def least_squares(rows: npt.NDArray[Any]) -> tuple[float, float]:
    """The a, b >= 0 with the least sum of squares of rows @ (a, b) - 1; rows (n, 2) are divided by measurements."""
    from scipy.optimize import nnls

    scale = np.maximum(np.linalg.norm(rows, axis=0), 1e-300)  # latencies and bytes differ by many powers of ten
    alpha, beta = nnls(rows / scale, np.ones(len(rows)))[0] / scale
    return float(alpha), float(beta)
