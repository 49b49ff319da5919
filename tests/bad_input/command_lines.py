"""Wrong command lines."""

from __future__ import annotations

from .row import Row, text

MACHINE = (
    '{"format": 1, "host": {"processor": "P", "cores": 1, "memory_bytes": 1000}, "mpi_library": "M", "torch": "T"}'
)

COMMAND_LINES = [
    Row("unknown command", ("trian",), "'trian' is not a command; did you mean train?", mpirun=True),
    Row("unknown option of hpcdd", ("--verison",), "command line: --verison is unknown; did you mean --version?"),
    Row(
        "unknown option",
        ("train", "--local.epoch", "3"),
        "command line: --local.epoch is unknown; did you mean --local.epochs?",
    ),
    Row("option like nothing", ("train", "--zyx"), "command line: --zyx is unknown; see `hpcdd train --help`"),
    Row("value missing", ("train", "--seed"), "command line: --seed needs a value", mpirun=True),
    Row(
        "value is the next option",
        ("train", "--local.epochs", "--seed", "3"),
        "command line: --local.epochs needs a value",
    ),
    Row(
        "stray word",
        ("train", "--decomposition.grid", "2", "2"),
        "command line: '2' belongs to no option; put CONFIG first, and write lists with commas: 2,2",
    ),
    Row(
        "list that can't be read",
        ("train", "--decomposition.grid", "[2"),
        "command line: decomposition.grid is '[2', which can't be parsed; write lists as 2,3 or [2,3]",
    ),
    Row(
        "text for a number in a list",
        ("train", "--decomposition.grid", "2,x"),
        "command line: decomposition.grid[1] is 'x': input should be a valid integer, unable to "
        "parse string as an integer",
    ),
    Row(
        "NaN on the command line",
        ("train", "--local.learning_rate", "nan"),
        "command line: local.learning_rate is 'nan': input should be a finite number",
    ),
    Row("value for a switch", ("train", "--print-config=yes"), "command line: --print-config takes no value"),
    Row(
        "section as an option",
        ("train", "--local", "3"),
        "command line: --local is a section; name a field of it, such as --local.epochs",
    ),
    Row(
        "no study",
        ("scale",),
        "command line: STUDY is missing; name a YAML file as the first argument; see `hpcdd scale --help`",
        mpirun=True,
    ),
    Row(
        "study missing",
        ("scale", "study.yaml"),
        "configuration study.yaml can't be read: No such file or directory; name a YAML file",
    ),
    Row(
        "study of nothing",
        ("scale", "c.yaml", "--repeats", "few"),
        "c.yaml: kind is missing\n"
        "command line: repeats is 'few': input should be a valid integer, unable to parse string as an integer",
        text("config: {}"),
    ),
    Row(
        "study appended to something else",
        ("scale", "c.yaml", "--data.file", "good.h5", "--output", "c.yaml"),
        "c.yaml:1 is not a measurement of `hpcdd scale`: content: Invalid JSON: expected value at line 1 column 1; "
        "remove the line, or name another file",
        text("kind: weak\n"),
    ),
    Row(
        "two files for a study",
        ("scale", "c.yaml", "d.yaml"),
        "command line: 'd.yaml' belongs to no option; put STUDY first, and write lists with commas: 2,2",
        text("kind: strong"),
    ),
    Row(
        "a study to be printed",
        ("scale", "c.yaml", "--print_config"),
        "command line: --print_config belongs to `hpcdd train`",
        text("kind: strong"),
    ),
    Row(
        "unknown phase, too many threads",
        ("scale", "c.yaml", "--phases", "foo"),
        "command line: phases[0] is 'foo': input should be 'local', 'alone', 'gather', 'dnn' or 'coherent'\n"
        "c.yaml:2: threads is 100000: input should be less than or equal to 1024",
        text("kind: strong\nthreads: 100000"),
    ),
    Row(
        "a phase that the problem lacks",
        ("scale", "c.yaml", "--data.file", "good.h5", "--coherent.starts", "[]"),
        "phase coherent is measured, but coherent.starts is []; add a start, or remove coherent from phases",
        text("kind: strong"),
    ),
    Row(
        "weak study with overlap",
        ("scale", "c.yaml", "--data.file", "good.h5", "--decomposition.overlap", "1"),
        "a weak study needs boxes of one size on any number of ranks, but with decomposition.overlap [1, 1] the boxes "
        "at the image's edge are smaller; use overlap 0",
        text("kind: weak"),
    ),
    Row(
        "study written to a folder that can't be",
        ("scale", "c.yaml", "--data.file", "good.h5", "--model.name", "vgg2", "--output", "/proc/none/s.jsonl"),
        "/proc/none/s.jsonl can't be written: No such file or directory",
        text("kind: strong"),
        exit_code=74,
    ),
    Row(
        "report of nothing",
        ("report",),
        "command line: the following arguments are required: PATH; see `hpcdd report --help`",
    ),
    Row(
        "one page of a run and something else",
        ("report", ".", "good.h5"),
        "report: 2 paths are combined into one page; name its folder with --output FOLDER (or give one path at a time)",
    ),
    Row("option of report", ("report", "a", "--svg"), "command line: --svg is unknown; see `hpcdd report --help`"),
    Row(
        "report of something else",
        ("report", "good.h5"),
        "good.h5:1 is not a measurement of `hpcdd scale`: content: Invalid JSON: expected value at line 1 column 1; "
        "remove the line, or name another file",
    ),
    Row("options of info", ("info", "--all"), "command line: --all is unknown; see `hpcdd info --help`"),
    Row(
        "nothing to prepare",
        ("prepare",),
        "command line: the kind of source is missing; use one of cifar10, cifar100, faces, folder, idx, nifti, npy, "
        "npz, phantom; see `hpcdd prepare --help`",
    ),
    Row(
        "unknown kind",
        ("prepare", "cifar", "a", "b.h5"),
        "command line: 'cifar' is not a kind of source; did you mean cifar10?",
    ),
    Row(
        "prepare without a file to make",
        ("prepare", "idx", "a"),
        "command line: the following arguments are required: OUT.h5; see `hpcdd prepare idx --help`",
    ),
    Row(
        "unknown option of prepare",
        ("prepare", "idx", "a", "b.h5", "--gird", "2,2"),
        "command line: --gird is unknown; did you mean --grid?",
    ),
    Row(
        "value of prepare is no number",
        ("prepare", "idx", "a", "b.h5", "--test-fraction", "half"),
        "command line: --test-fraction: invalid float value: 'half'; see `hpcdd prepare idx --help`",
    ),
    Row(
        "value of prepare is no choice",
        ("prepare", "folder", "a", "b.h5", "--fit", "squeeze"),
        "command line: --fit: invalid choice: 'squeeze' (choose from 'resize', 'crop', "
        "'pad'); see `hpcdd prepare folder --help`",
    ),
    Row(
        "value of prepare missing",
        ("prepare", "folder", "a", "b.h5", "--size", "32"),
        "command line: --size: expected 2 arguments; see `hpcdd prepare folder --help`",
    ),
    Row(
        "nothing to measure",
        ("bench",),
        "command line: the benchmark is missing; use one of coherent, collectives, device, headline, io, "
        "step, train; see `hpcdd bench --help`",
    ),
    Row(
        "unknown benchmark",
        ("bench", "speed"),
        "command line: 'speed' is not a benchmark; use one of coherent, collectives, device, headline, io, step, train",
    ),
    Row(
        "no rounds",
        ("bench", "io", "--rounds", "0"),
        "command line: --rounds: '0' is not a whole number of 1 or more; see `hpcdd bench io --help`",
    ),
    Row(
        "widths that are no numbers",
        ("bench", "coherent", "--widths", "16,x"),
        "command line: --widths: '16,x' is not a comma-separated list of whole numbers of 1 or more; see `hpcdd bench "
        "coherent --help`",
    ),
    Row(
        "collectives of one rank",
        ("bench", "collectives"),
        "bench collectives measures messages between ranks, and this job has one rank; start it with "
        "`mpirun -n 2 hpcdd bench collectives`, or with more",
    ),
    Row(
        "headline without a folder",
        ("bench", "headline"),
        "command line: the following arguments are required: --output; see `hpcdd bench headline --help`",
    ),
    Row(
        "plan for nobody",
        ("plan", "c.yaml"),
        "command line: the following arguments are required: -n; see `hpcdd plan --help`",
    ),
    Row(
        "plan for half a rank",
        ("plan", "-n", "0.5"),
        "command line: -n: '0.5' is not a whole number of 1 or more; see `hpcdd plan --help`",
    ),
    Row(
        "plan with an unknown option",
        ("plan", "-n", "2", "--machines", "m.json"),
        "command line: --machines is unknown; did you mean --machine?",
    ),
    Row(
        "plan for an invalid machine",
        ("plan", "-n", "2", "--machine", "m.json"),
        "machine file m.json: host.cores: Field required\n"
        "machine file m.json: host.memory_bytes: Field required\n"
        "machine file m.json: mpi_library: Field required\n"
        "machine file m.json: torch: Field required\n"
        "machine file m.json: speed: Extra inputs are not permitted\n"
        "a machine file is made by `hpcdd bench step --output FILE` and `hpcdd bench collectives --output FILE`",
        text('{"format": 1, "host": {"processor": "P"}, "speed": 3}', "m.json"),
    ),
    Row(
        "plan on a GPU that was not measured",
        ("plan", "-n", "2", "--data.file", "good.h5", "--machine", "m.json", "--device", "cuda"),
        "device is 'cuda', but the machine file has no times of a GPU; add them by `mpirun -n N hpcdd bench step "
        "--device cuda --output FILE`, or use --device cpu",
        text(MACHINE, "m.json"),
    ),
    Row(
        "bench into a file of another kind",
        ("bench", "step", "--data.file", "good.h5", "--output", "good.h5"),
        "machine file good.h5: content: Invalid JSON: expected value at line 1 column 1\n"
        "a machine file is made by `hpcdd bench step --output FILE` and `hpcdd bench collectives --output FILE`",
    ),
    Row(
        "unknown option of a benchmark",
        ("bench", "coherent", "--stepz", "3"),
        "command line: --stepz is unknown; did you mean --steps?",
    ),
]
