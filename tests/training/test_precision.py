"""Precision: what is admitted where, and what ``auto`` means."""

from __future__ import annotations

import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.core import environment
from hpcdd.core.errors import UserError
from hpcdd.training.precision import check_precision, native_bf16, resolved


def test_fp32_is_admitted_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    for device in ("cpu", "cuda:0"):
        check_precision("local", "fp32", device)


@pytest.mark.parametrize("section", ["local", "coherent", "baseline"])
def test_bf16_is_admitted_where_the_device_computes_in_it(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for device in ("cpu", "cuda:1"):
        check_precision(section, "bf16", device)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for device in ("cpu", "cuda:1"):
        with pytest.raises(UserError, match=rf"{section}\.precision is 'bf16', but {device} does not compute"):
            check_precision(section, "bf16", device)


@pytest.mark.parametrize(
    ("flags", "kernels", "native"),
    [
        ("avx2 avx512_bf16", True, True),
        ("amx_bf16", True, True),
        ("avx2 avx512f", True, False),
        ("avx512_bf16", False, False),
        ("", True, False),
    ],
    ids=str,
)
def test_auto_is_bf16_where_a_processor_has_instructions_for_it(
    flags: str, kernels: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "processor_flags", lambda: set(flags.split()))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: kernels)
    assert native_bf16("cpu") == native
    config = resolved(
        Config.model_validate({"local": {"precision": "auto"}, "coherent": {"precision": "fp32"}}), native
    )
    assert (config.local.bf16, config.coherent.bf16, config.baseline.bf16) == (native, False, False)
    check_precision("local", config.local.computed_in, "cpu")


def test_the_processor_tells_its_flags() -> None:
    assert environment.processor_flags()
