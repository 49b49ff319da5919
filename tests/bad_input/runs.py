"""Configurations that do not fit the data set, the machine, the folder or the user's own CNN."""

from __future__ import annotations

from .row import LONG, Row, folder, text

OWN = """\
import math
import torch

def lazy(*, input_shape, num_classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))

def one_too_few(*, input_shape, num_classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes - 1))

def dense(*, input_shape, num_classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))

def raising(**_):
    raise RuntimeError("no CNN today")

def shallow(*, input_shape, num_classes, width):
    return torch.nn.Linear(3, num_classes)

def text(**_):
    return "a CNN"

number = 3
"""


def training(*options: str) -> tuple[str, ...]:
    """Training of a small CNN on the good file, with these options."""
    return ("train", "--data.file", "good.h5", "--model.name", "vgg1", *options)


def boxes(text: str) -> tuple[str, ...]:
    """Boxes in the place of a grid."""
    return training("--decomposition.grid", "null", "--decomposition.overlap", "0", "--decomposition.boxes", text)


def own_cnn(name: str, message: str, content: str = OWN, *, options: tuple[str, ...] = (), mpirun: bool = False) -> Row:
    """A CNN of the user's, from a module of its own for every row."""
    module, _, factory = name.rpartition(":")
    arguments = ("train", "--data.file", "good.h5", "--model.name", name, "--model.local_width", "4")
    arguments += ("--decomposition.overlap", "0", "--coherent.features", "logits")
    arguments += options
    return Row(f"CNN {factory} of {module}", arguments, message, text(content, f"{module}.py"), mpirun=mpirun)


def full() -> None:
    """A folder with something in it."""
    folder("full")()
    text("precious", "full/results.json")()


def threads(value: str) -> Row:
    """An invalid number of threads."""
    message = (
        f"the environment variable OMP_NUM_THREADS is {value!r}; set it to a number from 1 to 1024, or unset it "
        "(rank 0)"
    )
    return Row(f"{value} threads", training(), message, variables={"OMP_NUM_THREADS": value}, mpirun=value == "2048")


THREE_AXES = "[[[0, 0, 0], [4, 4, 4]]]"

RUNS = [
    threads("0"),
    threads("many"),
    threads("2048"),
    threads("99999"),
    Row(
        "hidden layer beyond the memory",
        training("--aggregation.hidden", "9" * 12),
        "the DNN has 15,999,999,999,987 parameters, which alone take 59,604.6 GiB, but ... GiB are "
        "free; use a smaller aggregation.hidden",
    ),
    Row(
        "width beyond all numbers",
        training("--model.width", "9" * 30),
        "command line: model.width is 999999999999999999999999999999: input should be less than or equal to 65536",
    ),
    Row(
        "local width beyond the memory",
        training("--model.name", "vgg8", "--model.local_width", "65536"),
        "a local CNN has 1,336,967,636,451,331 parameters, which alone take 4,980,592.6 GiB, but "
        "... GiB are free; use a smaller model.local_width or model.width",
    ),
    Row(
        "GPU without one",
        training("--device", "cuda"),
        "device is 'cuda', but torch sees no GPU on host HOST; use --device auto or cpu, or ask "
        "the batch system for GPUs and install a torch build with CUDA (rank 0)",
        variables={"CUDA_VISIBLE_DEVICES": ""},
    ),
    Row(
        "live display without a terminal",
        training("--progress", "live"),
        "progress is 'live', but root has no terminal (output is redirected, the job is in the background, or root and "
        "its launcher are on different hosts); use --progress auto or --progress lines",
    ),
    Row(
        "output is a file",
        training("--output", "taken"),
        "output is taken, which is a file; name a folder that is empty or does not exist",
        text("precious", "taken"),
    ),
    Row(
        "output is full",
        training("--output", "full"),
        "output is full, a folder that is not empty and holds no run; it is not overwritten, so name another folder",
        full,
        mpirun=True,
    ),
    Row(
        "output below a file",
        training("--output", "taken/below"),
        "the run directory can't be created: [Errno 20] Not a directory: 'taken/below'; use --output FOLDER with a "
        "folder where you may write",
        text("precious", "taken"),
    ),
    Row(
        "output can't be made",
        training("--output", "/proc/x"),
        "the run directory can't be created: [Errno 2] No such file or directory: '/proc/x'; use --output FOLDER with "
        "a folder where you may write",
    ),
    Row(
        "output has too long a name",
        training("--output", LONG),
        f"output is {LONG!r}, which can't be a folder: [Errno 36] File name too long: {LONG!r}",
    ),
    Row(
        "runs is a file",
        training(),
        "the run directory can't be created: [Errno 17] File exists: 'runs'; use --output FOLDER with a folder where "
        "you may write",
        text("precious", "runs"),
    ),
    Row(
        "grid of too many axes",
        training("--decomposition.grid", "2,2,2"),
        "decomposition.grid is [2, 2, 2], with 3 axes, but the image has 2 spatial axes, 8 x 6 pixels; give 2 numbers",
    ),
    Row(
        "grid finer than the pixels",
        training("--decomposition.grid", "9,2"),
        "decomposition.grid is [9, 2], but the image is 8 pixels long along axis 0; use 1 to 8 along axis 0",
    ),
    Row(
        "overlap of too many axes",
        training("--decomposition.overlap", "1,1,1"),
        "decomposition.overlap is [1, 1, 1], with 3 axes, but the image has 2 spatial axes; give one number, or 2",
    ),
    Row(
        "boxes beyond the image",
        training(
            "--decomposition.grid",
            "null",
            "--decomposition.overlap",
            "0",
            "--decomposition.boxes",
            "[[[0, 0], [9, 6]]]",
        ),
        "decomposition.boxes[0] is [[0, 0], [9, 6]], which along axis 0 is not within 0 to 8; use 0 <= first "
        "< last <= 8",
    ),
    Row(
        "boxes of too many axes",
        boxes(THREE_AXES),
        "decomposition.boxes[0] is [[0, 0, 0], [4, 4, 4]], but the image has 2 spatial axes; give 2 first and"
        " 2 last pixels",
    ),
    Row(
        "coarse with nothing to average",
        training("--decomposition.grid", "1,1", "--decomposition.coarse", "true"),
        "decomposition.coarse is true, but the boxes are 8 x 6 pixels large and the image 8 x 6, so there is nothing "
        "to average; use smaller boxes, or no coarse subdomain",
    ),
    Row(
        "flipped along an axis that is not there",
        training("--augmentation.flip", "2"),
        "augmentation.flip names axis 2, but the images have 2 spatial axes; use 0 to 1",
    ),
    Row(
        "translation beyond the image",
        training("--augmentation.translate", "9"),
        "augmentation.translate is 9 pixels along axis 0, but the images have 8; use 0 to 7; augmentation.translate "
        "is 9 pixels along axis 1, but the images have 6; use 0 to 5",
    ),
    Row(
        "CNNs without room",
        training("--decomposition.grid", "8,6", "--decomposition.overlap", "0", "--model.width", "1"),
        "48 local CNNs of width 1 have 2,064 parameters, more than the global CNN of width 1 (54); increase "
        "model.width, use fewer subdomains, or set model.local_width to a number",
    ),
    Row(
        "early stopping without validation",
        training("--local.early_stopping", "2", "--data.validation_fraction", "0"),
        "local.early_stopping needs a validation split, but FOLDER/good.h5 has none; set data.validation_fraction",
    ),
    Row(
        "subset larger than the data",
        training("--data.subset", "99"),
        "data.subset is 99, but FOLDER/good.h5 has 24 training samples of 3 classes to choose from; use 3 to 24",
    ),
    Row(
        "class that is not there",
        training("--data.classes", "ant,be"),
        "data.classes names 'be', which FOLDER/good.h5 does not have; did you mean bee?",
    ),
    Row(
        "class number that is not there",
        training("--data.classes", "0,7"),
        "data.classes names 7, which FOLDER/good.h5 does not have; use names (ant, bee, cat) or numbers from 0 to 2",
    ),
    Row(
        "class named twice",
        training("--data.classes", "0,ant"),
        "data.classes is [0, 'ant'], which names class 'ant' twice; name each class once",
    ),
    own_cnn(
        "mine_few:one_too_few",
        "model.name is 'mine_few:one_too_few', which maps a batch of shape (2, 2, 4, 3) to (2, 2); it must "
        "return logits of shape (2, 3)",
        mpirun=True,
    ),
    own_cnn(
        "mine_lazy:lazy",
        "model.name is 'mine_lazy:lazy', which has lazy layers; set their sizes from input_shape",
    ),
    own_cnn(
        "mine_raising:raising",
        "model.name is 'mine_raising:raising'; calling it with input_shape (2, 8, 6), num_classes, "
        "width and model.options {} fails: RuntimeError: no CNN today; FOLDER/mine_raising.py:14",
    ),
    own_cnn(
        "mine_shallow:shallow",
        "model.name is 'mine_shallow:shallow', which maps a batch of shape (2, 2, 4, 3) to (2, 2, 4, 3); it "
        "must return logits of shape (2, 3)",
    ),
    own_cnn(
        "mine_dense:dense",
        "optimizer 'muon' (local, coherent) acts only on the filters of convolutions, but the CNN of "
        "'mine_dense:dense' has none; use sgd or adamw",
        options=("--local.optimizer", "muon", "--coherent.optimizer", "muon"),
    ),
    own_cnn("mine_text:text", "model.name is 'mine_text:text', which returns a str, not a torch.nn.Module"),
    own_cnn("mine_number:number", "model.name is 'mine_number:number', which is a int; it must be a function"),
    own_cnn(
        "mine_absent:absent",
        "model.name is 'mine_absent:absent', but FOLDER/mine_absent.py has no 'absent'; check the name after "
        "the colon, and that no other module has the same name as yours",
    ),
    own_cnn(
        "mine_broken:factory",
        "model.name is 'mine_broken:factory', but it can't be imported (SyntaxError: invalid "
        "syntax (mine_broken.py, line 1)); start where 'mine_broken' lies, or put its folder on "
        "PYTHONPATH of all ranks (Open MPI: `mpirun -x PYTHONPATH`)",
        "def factory(:\n",
    ),
    own_cnn(
        "mine_exit:factory",
        "model.name is 'mine_exit:factory', but it can't be imported (SystemExit: 0; "
        "FOLDER/mine_exit.py:1); start where 'mine_exit' lies, or put its folder on PYTHONPATH "
        "of all ranks (Open MPI: `mpirun -x PYTHONPATH`)",
        "raise SystemExit(0)\n",
    ),
    Row(
        "CNN of a module that is not there",
        training("--model.name", "nowhere:factory"),
        "model.name is 'nowhere:factory', but it can't be imported (ModuleNotFoundError: No module "
        "named 'nowhere'); start where 'nowhere' lies, or put its folder on PYTHONPATH "
        "of all ranks (Open MPI: `mpirun -x PYTHONPATH`)",
    ),
]
