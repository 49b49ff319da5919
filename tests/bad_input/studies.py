"""Wrong studies of runs."""

from __future__ import annotations

from .row import Row, folder, text

STUDY = ("study", "s.yaml")


def study(matrix: str, more: str = "", config: str = "model: {name: vgg1, width: 4}") -> str:
    return f"config: {{data: {{file: good.h5}}, {config}}}\nmatrix: {matrix}\n{more}"


def make_foreign() -> None:
    text(study("{seed: [0]}"), "s.yaml")()
    folder("studies/s")()
    text("mine", "studies/s/notes")()


STUDIES = [
    Row(
        "no study of runs",
        ("study",),
        "command line: STUDY is missing; name a YAML file as the first argument; see `hpcdd study --help`",
        mpirun=True,
    ),
    Row(
        "study of runs that is missing",
        STUDY,
        "configuration s.yaml can't be read: No such file or directory; name a YAML file",
    ),
    Row(
        "typo in a field of a matrix",
        STUDY,
        "s.yaml:2: decomposition.gird is unknown; did you mean decomposition.grid?",
        text(study("{decomposition.gird: [[2, 2]], seed: [0, 1]}"), "s.yaml"),
        mpirun=True,
    ),
    Row(
        "empty axis, and one that is no list",
        STUDY,
        "s.yaml:2: matrix.seed is []: use a list of values, or cases such as {label: {field: value}}\n"
        "s.yaml:2: matrix.local.epochs is 3: use a list of values, or cases such as {label: {field: value}}",
        text(study("{seed: [], local.epochs: 3}"), "s.yaml"),
    ),
    Row(
        "empty matrix",
        STUDY,
        "s.yaml:2: matrix is {}: name at least one field with a list of its values",
        text(study("{}"), "s.yaml"),
    ),
    Row("no matrix", STUDY, "s.yaml: matrix is missing", text("config: {}\n", "s.yaml")),
    Row(
        "a value twice",
        STUDY,
        "s.yaml:2: the matrix has two runs seed=0; list each value once, and give cases different labels",
        text(study("{seed: [0, 0]}"), "s.yaml"),
    ),
    Row(
        "unknown variant",
        (*STUDY, "--variant", "quik"),
        "command line: --variant quik is unknown; did you mean quick?",
        text(study("{seed: [0]}", "variants: {quick: {ranks: 2}}\n"), "s.yaml"),
    ),
    Row(
        "mistakes of a variant",
        STUDY,
        "s.yaml:3: variants.quick.ranks is 0: input should be greater than 0\n"
        "s.yaml:3: variants.quick.rank is unknown; did you mean ranks?",
        text(study("{seed: [0]}", "variants: {quick: {rank: 1, ranks: 0}}\n"), "s.yaml"),
    ),
    Row(
        "hypothesis on an unknown strategy",
        STUDY,
        "s.yaml:3: expect: 'dnn > avrage': avrage is not a strategy; use one of local, average, majority, log_pool, "
        "dnn, coherent_transfer, coherent_scratch, global",
        text(study("{seed: [0]}", "expect: [dnn > avrage]\n"), "s.yaml"),
    ),
    Row(
        "value that the configuration refuses",
        STUDY,
        "s.yaml:2: local.epochs is 0: input should be greater than 0 (run seed=0,epochs=0 and seed=1,epochs=0)",
        text(study("{seed: [0, 1], local.epochs: [1, 0]}"), "s.yaml"),
    ),
    Row(
        "decomposition that does not fit the images",
        STUDY,
        "run grid=9x2,seed=0 and 1 more: decomposition.grid is [9, 2], but the image is 8 pixels long along axis 0; "
        "use 1 to 8 along axis 0",
        text(study("{decomposition.grid: [[2, 2], [9, 2]], seed: [0, 1]}"), "s.yaml"),
        mpirun=True,
    ),
    Row(
        "data set that is not there, in a dry run",
        (*STUDY, "--dry-run"),
        "run file=nothing: data.file: nothing.h5 is not there; name a dataset file",
        text(study("{data.file: [good.h5, nothing.h5]}"), "s.yaml"),
    ),
    Row(
        "batches too small for the ranks of a run",
        (*STUDY, "--ranks", "16", "--dry-run"),
        "run batch_size=2: local.batch_size is 2, but 4 ranks share each batch; use 4 or more",
        text(study("{local.batch_size: [2]}"), "s.yaml"),
    ),
    Row(
        "fields that a study has no use for",
        (*STUDY, "--progress", "live"),
        "s.yaml: output belongs to `hpcdd train`; the runs of a study lie in STUDYDIR/runs\n"
        "s.yaml: progress belongs to `hpcdd train`; a study prints a line when a run begins and when it ends",
        text(study("{seed: [0], output: [a]}"), "s.yaml"),
    ),
    Row(
        "option that every run overwrites",
        (*STUDY, "--seed", "3"),
        "command line: --seed has no effect, because the study's matrix sets it in every run",
        text(study("{seed: [0]}"), "s.yaml"),
    ),
    Row(
        "pattern that matches no run",
        (*STUDY, "--only", "grid=*"),
        "command line: --only grid=* matches no run; their names are like seed=0",
        text(study("{seed: [0]}"), "s.yaml"),
    ),
    Row(
        "machine file without a dry run",
        (*STUDY, "--machine", "m.json"),
        "command line: --machine has no effect without --dry-run",
        text(study("{seed: [0]}"), "s.yaml"),
    ),
    Row(
        "study directory that is a file",
        (*STUDY, "--output", "good.h5"),
        "output is good.h5, which is a file; name a folder with --output",
        text(study("{seed: [0]}"), "s.yaml"),
    ),
    Row(
        "study directory with something else in it",
        STUDY,
        "output is studies/s, a folder that is not empty and holds no study; name another --output",
        make_foreign,
    ),
]
