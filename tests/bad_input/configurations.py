"""Wrong configurations."""

from __future__ import annotations

from .row import CODE, Row, folder, text

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))

BOMB_OF_MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30))


def of(content: str | bytes, name: str, message: str, *, mpirun: bool = False) -> Row:
    """A configuration with this content."""
    return Row(name, ("train", "c.yaml"), message, text(content), mpirun=mpirun)


CONFIGURATIONS = [
    Row(
        "configuration missing",
        ("train", "none.yaml"),
        "configuration none.yaml can't be read: No such file or directory; name a YAML file",
        mpirun=True,
    ),
    Row(
        "configuration is a folder",
        ("train", "c.yaml"),
        "configuration c.yaml can't be read: Is a directory; name a YAML file",
        folder("c.yaml"),
    ),
    of(b"\xff\xfe\x00", "configuration is no text", "configuration c.yaml is not a text file; name a YAML file"),
    of(b"seed: 1\0", "control characters", "c.yaml:1: not valid YAML: it contains the character '\\x00'"),
    of("local:\n\tepochs: 3\n", "tab", "c.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
    of(
        "local: {epochs: [1\nseed: 3\n",
        "bracket left open",
        "c.yaml:2: not valid YAML: expected ',' or ']', but got ':'",
    ),
    of("seed: 1\nlocal: {}\nseed: 2\n", "key stands twice", "c.yaml:3: not valid YAML: the key 'seed' occurs twice"),
    of(
        "seed: 1\n---\nseed: 2\n",
        "two documents",
        "c.yaml:2: not valid YAML: expected a single document in the stream, but found another document",
    ),
    of(
        f'seed: !!python/object/apply:builtins.exec ["{CODE}"]\n',
        "tag of Python",
        "c.yaml:1: not valid YAML: the tag !!python/object/apply:builtins.exec is not supported; a configuration holds "
        "strings, numbers, lists and mappings",
        mpirun=True,
    ),
    of(
        "seed: !mine 3\n",
        "tag of an application",
        "c.yaml:1: not valid YAML: the tag !mine is not supported; a configuration holds strings, numbers, lists and "
        "mappings",
    ),
    of("seed: !!int three\n", "tag that does not fit", "c.yaml:1: not valid YAML: three can't be read as an integer"),
    of(BOMB, "bomb of anchors", "c.yaml:9: not valid YAML: what starts here expands to more than 65,536 values"),
    of(
        BOMB_OF_MERGES,
        "bomb of merges",
        "c.yaml:15: not valid YAML: what starts here expands to more than 65,536 values",
    ),
    of(
        'local: {learning_rate: "\\UFFFFFFFF"}\n',
        "escape of no character",
        "c.yaml: not valid YAML: an escape or a version is out of range (Python int too large to convert to C int)",
    ),
    Row(
        "dataset for a configuration",
        ("train", "good.h5"),
        "configuration good.h5 is an HDF5 file; name a dataset file with --data.file good.h5",
    ),
    of(
        "#" * 262_145, "more than a configuration", "configuration c.yaml has more than 262,144 bytes; name a YAML file"
    ),
    of(
        f"local: {{epochs: [{'0, ' * 999}]}}\n",
        "long value",
        f"c.yaml:1: local.epochs is {str([0] * 999)[:200]}...: input should be a valid integer",
    ),
    of("local: {epochs: *few}\n", "anchor that is not there", "c.yaml:1: not valid YAML: found undefined alias 'few'"),
    of(
        "local: &local {epochs: *local}\n",
        "anchor of itself",
        "c.yaml:1: not valid YAML: what starts here holds itself",
    ),
    of("[" * 5000, "deeply nested", "c.yaml: not valid YAML: it is nested too deeply"),
    of(
        f"seed: {'9' * 5000}\n",
        "number of 5000 digits",
        "c.yaml:1: not valid YAML: 9999999999999999999999999999999999999999... can't be read as an integer",
    ),
    of(
        "- local\n- epochs\n",
        "list for a mapping",
        "configuration c.yaml must be a mapping such as `local: {epochs: 5}`, not a list",
    ),
    of(
        "epochs\n",
        "text for a mapping",
        "configuration c.yaml must be a mapping such as `local: {epochs: 5}`, not a str",
    ),
    of(
        "? [1, 2]\n: 3\n",
        "key is a list",
        "c.yaml:1: not valid YAML: the key [...] is not a string; put it in quotes if it is meant to be one",
    ),
    of(
        "1: 2\n",
        "key is a number",
        "c.yaml:1: not valid YAML: the key 1 is not a string; put it in quotes if it is meant to be one",
    ),
    of("local:\n  epohcs: 3\n", "unknown key", "c.yaml:2: local.epohcs is unknown; did you mean local.epochs?"),
    of(
        "decompositon:\n  grid: [2, 2]\n",
        "unknown section",
        "c.yaml:1: decompositon is unknown; did you mean decomposition?",
    ),
    of("epochs: 3\n", "key without its section", "c.yaml:1: epochs is unknown; did you mean local.epochs?"),
    of("local: 5\n", "number for a section", "c.yaml:1: local is 5: it is a section; write its fields below it"),
    of(
        "local: {epochs: many}\n",
        "text for a number",
        "c.yaml:1: local.epochs is 'many': input should be a valid integer, unable to parse string as an integer",
    ),
    of(
        "local: {epochs: 2.5}\n",
        "fraction for an integer",
        "c.yaml:1: local.epochs is 2.5: input should be a valid integer, got a number with a fractional part",
    ),
    of("local: {epochs: [2]}\n", "list for a number", "c.yaml:1: local.epochs is [2]: input should be a valid integer"),
    of(
        "local: {epochs: null}\n",
        "null for a number",
        "c.yaml:1: local.epochs is null: input should be a valid integer",
    ),
    of(
        "baseline: {enabled: 2}\n",
        "number for a truth value",
        "c.yaml:1: baseline.enabled is 2: input should be a valid boolean, unable to interpret input",
    ),
    of(
        "local: {learning_rate: .nan}\n",
        "NaN in YAML",
        "c.yaml:1: local.learning_rate is '.nan': input should be a valid number, unable to parse string as a number",
    ),
    of(
        "local: {learning_rate: 1e999}\n",
        "infinite",
        "c.yaml:1: local.learning_rate is inf: input should be a finite number",
    ),
    of(
        "local: {batch_size: 1}\n",
        "batch of one sample",
        "c.yaml:1: local.batch_size is 1: input should be greater than or equal to 2",
    ),
    of(
        "data: {validation_fraction: 1.0}\n",
        "fraction of all",
        "c.yaml:1: data.validation_fraction is 1.0: input should be less than 1",
    ),
    of(
        "data: {file: ''}\n",
        "empty name of the dataset",
        "c.yaml:1: data.file is '': string should have at least 1 character",
    ),
    of(
        'data: {file: "d\\0.h5"}\n',
        "NUL in the name of the dataset",
        "c.yaml:1: data.file is 'd\\x00.h5': this is not a valid file name",
    ),
    of(
        'output: "\\uD800"\n',
        "half a character in the name of the output",
        "c.yaml:1: output is '\\ud800': input should be a valid string, unable to parse raw data as a unicode string",
    ),
    of("output: ''\n", "empty name of the output", "c.yaml:1: output is '': string should have at least 1 character"),
    of("device: gpu\n", "unknown device", "c.yaml:1: device is 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
    of("name: ../up\n", "name that leads outside", "c.yaml:1: name is '../up': use letters, digits and . _ + -"),
    of(
        "decomposition: {grid: [2, 0]}\n",
        "grid without boxes",
        "c.yaml:1: decomposition.grid[1] is 0: input should be greater than 0",
    ),
    of(
        "decomposition: {overlap: -1}\n",
        "negative overlap",
        "c.yaml:1: decomposition.overlap is -1: input should be greater than or equal to 0, or "
        "input should be a valid tuple",
    ),
    of(
        "decomposition: {grid: [2, 2], boxes: [[[0, 0], [4, 4]]]}\n",
        "contradiction within a section",
        "c.yaml:1: decomposition.boxes and decomposition.grid are both set; use one of them",
    ),
    of(
        "aggregation: {features: probabilities}\ncoherent:\n  features: logits\n",
        "contradiction between sections",
        "c.yaml:3: coherent.features is 'logits', but a start by transfer (coherent.starts) with "
        "coherent.dnn_start 'trained' resumes a DNN that sees probabilities "
        "(aggregation.features); use coherent.dnn_start fresh, or like features",
    ),
    of(
        "local: {momentum: 0.5}\n",
        "momentum without sgd",
        "c.yaml:1: local.momentum is 0.5, but it has no effect on optimizer 'adamw'",
    ),
    of(
        "data: {storage: stream, memory: 100}\n",
        "budget without choice",
        "c.yaml:1: data.memory has no effect with data.storage 'stream'; it belongs to auto",
    ),
    of(
        "model: {name: vgg9}\n", "depth that is not there", "c.yaml:1: model.name is 'vgg9'; vggN has N = 1 to 8 blocks"
    ),
    of(
        "model: {name: 'os:system(\"true\")'}\n",
        "call for a factory",
        "c.yaml:1: model.name is 'os:system(\"true\")'; use vgg3, resnet20, fast3 (or other depths), or "
        "package.module:factory",
    ),
    of(
        "model: {options: {a: 1}}\n",
        "options without a factory",
        "c.yaml:1: model.options has no effect on 'vgg3'; it belongs to package.module:factory",
    ),
    Row(
        "several mistakes at once",
        ("train", "c.yaml", "--local.epohcs", "3", "--seed", "-1"),
        "command line: --local.epohcs is unknown; did you mean --local.epochs?\n"
        "command line: seed is -1: input should be greater than or equal to 0\n"
        "c.yaml:1: device is 'gpu': input should be 'auto', 'cpu' or 'cuda'\n"
        "c.yaml:3: local.epochs is 0: input should be greater than 0",
        text("device: gpu\nlocal:\n  epochs: 0\n"),
        mpirun=True,
    ),
]
