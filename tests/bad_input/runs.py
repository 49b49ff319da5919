"""What does not go together: configuration, data set, machine, folder and the user's own CNN."""

from __future__ import annotations

from .row import CODE, Make, Row, folder, text

OWN = """\
import math
import torch

def lazy(*, input_shape, num_classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))

def one_too_few(*, input_shape, num_classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes - 1))

def raising(**_):
    raise RuntimeError("no CNN today")

def shallow(*, input_shape, num_classes, width):
    return torch.nn.Linear(3, num_classes)

def text(**_):
    return "a CNN"

number = 3
"""


def given(*words: str) -> tuple[str, ...]:
    """Training of a small CNN on the good file, with these options."""
    return ("train", "--data.file", "good.h5", "--model.name", "vgg1", *words)


def own(name: str, message: str, content: str = OWN, *, mpirun: bool = False) -> Row:
    """A CNN of the user's, from a module of its own for every row."""
    module, _, factory = name.rpartition(":")
    words = ("train", "--data.file", "good.h5", "--model.name", name, "--model.local_width", "4")
    return Row(f"CNN {factory} of {module}", words, message, text(content, f"{module}.py"), mpirun=mpirun)


def full() -> None:
    """A folder with something in it."""
    folder("full")()
    text("precious", "full/results.json")()


def threads(value: str) -> Row:
    """A number of threads that is none."""
    return Row(f"{value} threads", given(), "?", variables={"OMP_NUM_THREADS": value}, mpirun=value == "many")


THREE_AXES = "[[[0, 0, 0], [4, 4, 4]]]"

RUNS = [
    threads("0"),
    threads("many"),
    threads("99999"),
    Row("hidden layer beyond the memory", given("--aggregation.hidden", "9" * 12), "?"),
    Row("width beyond the memory", given("--model.width", "65536"), "?"),
    Row("width beyond all numbers", given("--model.width", "9" * 30), "?"),
    Row("local width beyond the memory", given("--model.local_width", "65536"), "?"),
    Row("GPU without one", given("--device", "cuda"), "?", mpirun=True),
    Row("live display without a terminal", given("--progress", "live"), "?"),
    Row("output is a file", given("--output", "taken"), "?", text("precious", "taken")),
    Row("output is full", given("--output", "full"), "?", full, mpirun=True),
    Row("output below a file", given("--output", "taken/below"), "?", text("precious", "taken")),
    Row("output can't be made", given("--output", "/proc/x"), "?", mpirun=True),
    Row("output has too long a name", given("--output", "x" * 300), "?"),
    Row("runs is a file", given(), "?", text("precious", "runs")),
    Row("grid of too many axes", given("--decomposition.grid", "2,2,2"), "?"),
    Row("grid finer than the pixels", given("--decomposition.grid", "9,2"), "?", mpirun=True),
    Row("overlap of too many axes", given("--decomposition.overlap", "1,1,1"), "?"),
    Row("boxes beyond the image", given("--decomposition.grid", "null", "--decomposition.boxes", "[[[0, 0], [9, 6]]]"), "?"),
    Row("boxes of too many axes", given("--decomposition.grid", "null", "--decomposition.boxes", THREE_AXES), "?"),
    Row("coarse with nothing to average", given("--decomposition.grid", "1,1", "--decomposition.coarse", "true"), "?"),
    Row("mirrored along an axis that is not there", given("--augmentation.mirror", "2"), "?"),
    Row("shift beyond the image", given("--augmentation.shift", "9"), "?"),
    Row("CNNs without room", given("--decomposition.grid", "8,6", "--model.width", "1"), "?"),
    Row("early stopping without validation", given("--local.early_stopping", "2", "--data.validation_fraction", "0"), "?"),
    Row("subset larger than the data", given("--data.subset", "99"), "?"),
    Row("class that is not there", given("--data.classes", "ant,be"), "?"),
    Row("class number that is not there", given("--data.classes", "0,7"), "?"),
    Row("class named twice", given("--data.classes", "0,ant"), "?"),
    own("mine_few:one_too_few", "?", mpirun=True),
    own("mine_lazy:lazy", "?"),
    own("mine_raising:raising", "?"),
    own("mine_shallow:shallow", "?"),
    own("mine_text:text", "?"),
    own("mine_number:number", "?"),
    own("mine_absent:absent", "?"),
    own("mine_broken:factory", "?", "def factory(:\n"),
    own("mine_exit:factory", "?", "raise SystemExit(0)\n"),
    Row("CNN of a module that is not there", given("--model.name", "nowhere:factory"), "?"),
]
