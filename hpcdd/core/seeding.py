"""Named random streams: what is drawn depends on (seed, purpose, subdomain, epoch), never on the rank."""

from __future__ import annotations

import zlib

import numpy as np

WHOLE = -1
"""Stands for "no single subdomain": streams that belong to the image or to the whole model."""


def seed_of(seed: int, purpose: str, *, subdomain: int = WHOLE, epoch: int = 0) -> int:
    """A 63-bit seed for one stream; different arguments give independent streams (numpy's SeedSequence).

    A stream is started anew for each epoch, so that no generator state needs to be carried from one to the next.

    Args:
        seed: the run's ``seed``.
        purpose: a short name, such as ``"order"``.
        subdomain: s, or :data:`WHOLE`.
        epoch: number of the epoch, from 0.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), subdomain + 1, epoch])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
