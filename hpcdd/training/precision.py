"""In which precision CNNs are trained: what devices compute in bfloat16, and what ``precision: auto`` means there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config.schema import Config
from ..core import environment
from ..core.errors import UserError
from ..decomposition.rank_layout import RankLayout
from ..mpi.communicator import Comm

SECTIONS = ("local", "coherent", "baseline")
_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of a processor (x86, x86, ARM) whose instructions multiply bfloat16; others would convert at every step."""


def native_bf16(device: str) -> bool:
    """Whether a device has instructions for bfloat16, so that a training in it is faster."""
    if device != "cpu":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(_FLAGS & environment.processor_flags()) and _stores_bf16()


def agreed_bf16(comm: Comm, layout: RankLayout) -> bool:
    """Collective: whether the devices of all ranks that train have instructions for bfloat16."""
    placement = layout.placements[comm.rank]
    return comm.maximum(int(bool(placement.subdomains) and not native_bf16(placement.device))) == 0


def resolved(config: Config, bf16: bool) -> Config:
    """The configuration with ``fp32`` or ``bf16`` in the place of ``auto``."""
    chosen = "bf16" if bf16 else "fp32"
    sections = {name: getattr(config, name) for name in SECTIONS if getattr(config, name).precision == "auto"}
    return config.model_copy(
        update={name: section.model_copy(update={"precision": chosen}) for name, section in sections.items()}
    )


def resolved_on(comm: Comm, layout: RankLayout, config: Config, sections: Sequence[str] = SECTIONS) -> Config:
    """Collective: :func:`resolved` for the devices of all ranks, see :func:`check_precisions`.

    Raises:
        UserError: on all ranks, if a device of one does not compute in a precision that a section asks for.
    """
    config = resolved(config, agreed_bf16(comm, layout))
    comm.on_all(lambda: check_precisions(config, layout.placements[comm.rank].device, sections))
    return config


def check_precisions(config: Config, device: str, sections: Sequence[str] = SECTIONS) -> None:
    """:func:`check_precision` of some sections of a configuration whose ``auto`` is resolved."""
    for section in sections:
        check_precision(section, getattr(config, section).computed_in, device)


def check_precision(section: str, precision: str, device: str) -> None:
    """Refuses bf16 where the device would only imitate it.

    A processor that lacks the instructions, but multiplies in float32 what it stores in bfloat16, is admitted: whether
    that is faster is the user's decision.

    Args:
        section: of the configuration, for the message.
        precision: that it asks for, ``fp32`` or ``bf16``.
        device: of this rank.

    Raises:
        UserError: naming section and device.
    """
    if precision == "bf16" and not (native_bf16(device) if device != "cpu" else _stores_bf16()):
        raise UserError(f"{section}.precision is 'bf16', but {device} does not compute in bfloat16; use fp32 or auto")


def _stores_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
