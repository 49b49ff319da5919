"""``bench device``: the tests marked for devices, and steps of local CNNs in several ways, on one GPU (or a CPU).

The reference of each is the plain loop of :mod:`hpcdd.bench.plain_loop`, eager and in fp32, on the same samples,
network and batch, interleaved. Samples are random: what is in them does not matter for the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from ..artifacts import device_file
from ..artifacts.device_file import DeviceReport, DeviceTests, MeasuredWay
from ..artifacts.documents import write_document
from ..config.schema import Config, LocalSettings
from ..core import environment
from ..core.devices import use_processor
from ..core.errors import StopRequest, UserError
from ..core.files import writing
from ..core.interleaved_timing import quartiles
from ..data.samples import Samples
from ..parallel.host_staging import Staging, seconds_of_copies
from ..phases.local import create_local_cnn
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.precision import native_bf16
from ..training.trainer import Member
from .alternating import Alternation, train_alternating
from .plain_loop import PlainLoop, use_torch_layers
from .single_steps import finish

ROOT = Path(__file__).parents[2]
"""Of a checkout, with its tests."""
MANY = 16
_MESSAGES = (1 << 10, 1 << 14, 1 << 18)
_LIMIT = 240
"""Seconds for the tests."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on subimages.

    Attributes:
        label: for the user.
        model: name of the family.
        shape: (C, *spatial).
        batch: samples of a step.
    """

    label: str
    model: str
    shape: tuple[int, ...]
    batch: int


CASES = (
    Case("VGG3, 20 x 20 pixels", "vgg3", (3, 20, 20), 128),
    Case("fast3, 20 x 20 pixels", "fast3", (3, 20, 20), 512),
    Case("VGG2, 18 x 18 x 18 voxels", "vgg2", (1, 18, 18, 18), 64),
    Case("fast2, 18 x 18 x 18 voxels", "fast2", (1, 18, 18, 18), 64),
)


def run(device: str, output: Path, rounds: int, steps: int) -> None:
    """In one process: prints each measurement as it is made, writes device.json; the report has the table.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        output: folder for the file.
        rounds: in each of which both are measured; one more warms up.
        steps: of each in a round.

    Raises:
        UserError: there is no such device, or ``output`` holds a result already.
        WriteError: the file can't be written.
    """
    if (output / device_file.NAME).exists():
        raise UserError(f"bench device: {output} already holds {device_file.NAME}; name another folder")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("bench device: device is 'cuda', but torch sees no GPU here; use cpu")
    start = time.perf_counter()
    torch_device = "cuda:0" if device != "cpu" and torch.cuda.is_available() else "cpu"
    use_processor(torch.get_num_threads(), 1)
    name = torch.cuda.get_device_name(0) if torch_device != "cpu" else environment.processor()
    print(f"{name}: tests of devices", flush=True)
    tests = run_tests(torch_device)
    print(tests.reason or f"{tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped", flush=True)
    left_out: list[str] = []
    measurements: list[MeasuredWay] = []
    for case in CASES:
        for way in _measured(case, torch_device, rounds, steps, left_out):
            measurements.append(way)
            print(f"{way.case}, {way.way}: {1e3 * way.seconds[1]:.2f} ms, {way.factor[1]:.2f} x", flush=True)
    report = DeviceReport(
        device=name,
        kind=torch_device.partition(":")[0],
        machine={**environment.facts(), "processor": environment.processor()},
        tests=tests,
        measurements=measurements,
        staging=_staging(torch_device),
        left_out=list(dict.fromkeys(left_out)),
        seconds=time.perf_counter() - start,
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    write_document(output / device_file.NAME, report)
    print(f"results: {output / device_file.NAME}", flush=True)


def run_tests(device: str, root: Path = ROOT) -> DeviceTests:
    """The tests marked ``device`` of a checkout, in a process of their own."""
    if not (root / "tests/device").is_dir():
        return DeviceTests(reason=f"{root} is not a checkout; the tests come with the sources, not with the package")
    start = time.perf_counter()
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}  # or they would take a GPU that is there
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "device", "tests/device"]
    try:
        done = subprocess.run(
            command, cwd=root, env=os.environ | hidden, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return DeviceTests(failed=1, seconds=_LIMIT, output=f"on {device} they took more than {_LIMIT} s")
    seconds = time.perf_counter() - start

    def count(word: str) -> int:
        return sum(int(number) for number in re.findall(rf"(\d+) {word}", done.stdout.splitlines()[-1]))

    if done.returncode not in (0, 1) or not done.stdout:  # pytest may be missing
        return DeviceTests(seconds=seconds, failed=1, output=(done.stdout + done.stderr)[-4000:])
    return DeviceTests(
        passed=count("passed"),
        failed=count("failed") + count("error"),
        skipped=count("skipped"),
        seconds=seconds,
        output=done.stdout[-4000:],
    )


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way to train CNNs.

    Attributes:
        name: for the user.
        cnns: number of CNNs.
        at_once: how many of them one step of the loop trains.
        train: trains until all rounds are measured.
    """

    name: str
    train: Callable[[Alternation], object]
    cnns: int = 1
    at_once: int = 1


def _stepping(step: Callable[[], None]) -> Callable[[Alternation], None]:
    """Takes one step after the other until all rounds are measured."""

    def train(alternation: Alternation) -> None:
        with contextlib.suppress(StopRequest):
            while True:
                alternation.boundary()
                step()

    return train


def _measured(case: Case, device: str, rounds: int, steps: int, left_out: list[str]) -> list[MeasuredWay]:
    """All ways of one case."""

    def trained(
        cnns: int, *, kept: str | None = None, precision: str, batched: bool
    ) -> Callable[[Alternation], object]:
        return lambda alternation: _train(
            case, device, cnns, alternation, kept=kept, precision=precision, batched=batched
        )

    precisions = ["fp32", *["bf16"] * native_bf16(device)]
    if len(precisions) == 1:
        left_out.append(f"bf16: {device} does not support it")
    gpu = device != "cpu"
    ways = [_Way(f"hpcdd, {p}", trained(1, precision=p, batched=gpu)) for p in precisions]
    if gpu:
        in_host_memory = trained(1, kept="cpu", precision="fp32", batched=True)
        ways.append(_Way("hpcdd, fp32, samples in the host's memory", in_host_memory))
        ways.append(_Way("torch.compile, fp32", _stepping(_plain(case, device, 0, compiled=True).step)))
    else:
        left_out.append("torch.compile, and samples in host memory: measured on GPUs only")
    for p in precisions:
        ways.append(_Way(f"hpcdd, {p}, one after the other", trained(1, precision=p, batched=False), MANY))
        ways.append(_Way(f"hpcdd, {p}, batched", trained(MANY, precision=p, batched=True), MANY, MANY))
    plain = [_plain(case, device, s) for s in range(MANY)]
    return [_measured_way(case, device, way, plain[: way.cnns], rounds, steps) for way in ways]


def _measured_way(
    case: Case, device: str, way: _Way, plain: Sequence[PlainLoop], rounds: int, steps: int
) -> MeasuredWay:
    """One way, interleaved with plain loops of as many CNNs."""
    loops = itertools.cycle(plain)

    def reference() -> None:
        for loop in itertools.islice(loops, way.at_once):
            loop.step()

    number = max(way.cnns, steps) // way.at_once
    alternation = Alternation(number, rounds + 1, lambda: finish(device), reference)
    way.train(alternation)
    ours, theirs = (
        [way.cnns / way.at_once * t for t in times[1:]] for times in (alternation.seconds, alternation.others)
    )
    return MeasuredWay(
        case=case.label,
        way=way.name,
        cnns=way.cnns,
        batch=case.batch,
        seconds=quartiles(ours),
        reference=quartiles(theirs),
        factor=quartiles([b / a for a, b in zip(ours, theirs, strict=True)]),
    )


def _train(
    case: Case, device: str, cnns: int, alternation: Alternation, *, kept: str | None, precision: str, batched: bool
) -> None:
    """Local CNNs, until all rounds are measured: in steps of all of them, or only the first."""
    samples = _samples(case, device, kept)
    members = [Member(s, _network(case, device, s), samples, None, NullCheckpointManager()) for s in range(cnns)]
    config = _config(case, _settings(case, precision))
    train_alternating(alternation, config, members, batched=batched)


def _plain(case: Case, device: str, subdomain: int, *, compiled: bool = False) -> PlainLoop:
    network = _network(case, device, subdomain, torchs=True)
    if compiled:
        network.compile()
    return PlainLoop(_settings(case), network, _samples(case, device))


def _config(case: Case, local: LocalSettings) -> Config:
    model = {"name": case.model, "local_width": 16}
    return Config.model_validate({"model": model}).model_copy(update={"local": local})


def _settings(case: Case, precision: str = "fp32") -> LocalSettings:
    recipe = {"optimizer": "muon", "momentum": 0.6} if case.model.startswith("fast") else {}
    return LocalSettings.model_validate(
        {"batch_size": case.batch, "schedule": "constant", "precision": precision, **recipe}
    )


def _network(case: Case, device: str, subdomain: int, *, torchs: bool = False) -> nn.Module:
    network = create_local_cnn(_config(case, _settings(case)), subdomain, case.shape, 10, 16)
    if torchs:
        use_torch_layers(network)
    return network.to(device)


def _samples(case: Case, device: str, kept: str | None = None) -> Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4 * case.batch, *case.shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % 10
    channels = case.shape[0]
    return Samples.of_images(images, labels, [127.5] * channels, [73.9] * channels, device, kept=kept)


def _staging(device: str) -> dict[int, float]:
    if device == "cpu":
        return {}
    sizes: Sequence[int] = _MESSAGES
    return {8 * n: seconds_of_copies(Staging(direct=False), n, torch.int64, torch.device(device)) for n in sizes}
