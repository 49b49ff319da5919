"""Wrong configurations and command lines."""

from __future__ import annotations

from .row import CODE, Row, folder, text

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))

BOMB_OF_MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30))


def of(content: str | bytes, name: str, message: str, *, mpirun: bool = False) -> Row:
    """A configuration with this content."""
    return Row(name, ("train", "c.yaml"), message, text(content), mpirun=mpirun)


CONFIGURATIONS = [
    Row("configuration missing", ("train", "none.yaml"), "?", mpirun=True),
    Row("configuration is a folder", ("train", "c.yaml"), "?", folder("c.yaml")),
    of(b"\xff\xfe\x00", "configuration is no text", "?"),
    of(b"seed: 1\0", "control characters", "?"),
    of("local:\n\tepochs: 3\n", "tab", "?"),
    of("local: {epochs: [1\nseed: 3\n", "bracket left open", "?"),
    of("seed: 1\nlocal: {}\nseed: 2\n", "key stands twice", "?"),
    of("seed: 1\n---\nseed: 2\n", "two documents", "?"),
    of(f'seed: !!python/object/apply:builtins.exec ["{CODE}"]\n', "tag of Python", "?", mpirun=True),
    of("seed: !mine 3\n", "tag of an application", "?"),
    of("seed: !!int three\n", "tag that does not fit", "?"),
    of(BOMB, "bomb of anchors", "?"),
    of(BOMB_OF_MERGES, "bomb of merges", "?"),
    of("local: {learning_rate: \"\\UFFFFFFFF\"}\n", "escape of no character", "?"),
    Row("dataset for a configuration", ("train", "good.h5"), "?"),
    of("#" * 1_048_577, "more than a configuration", "?"),
    of(f"local: {{epochs: [{'0, ' * 999}]}}\n", "long value", "?"),
    of("local: {epochs: *few}\n", "anchor that is not there", "?"),
    of("local: &local {epochs: *local}\n", "anchor of itself", "?"),
    of("[" * 5000, "deeply nested", "?"),
    of(f"seed: {'9' * 5000}\n", "number of 5000 digits", "?"),
    of("- local\n- epochs\n", "list for a mapping", "?"),
    of("epochs\n", "text for a mapping", "?"),
    of("? [1, 2]\n: 3\n", "key is a list", "?"),
    of("1: 2\n", "key is a number", "?"),
    of("local:\n  epohcs: 3\n", "unknown key", "?"),
    of("decompositon:\n  grid: [2, 2]\n", "unknown section", "?"),
    of("epochs: 3\n", "key without its section", "?"),
    of("local: 5\n", "number for a section", "?"),
    of("local: {epochs: many}\n", "text for a number", "?"),
    of("local: {epochs: 2.5}\n", "fraction for an integer", "?"),
    of("local: {epochs: [2]}\n", "list for a number", "?"),
    of("local: {epochs: null}\n", "null for a number", "?"),
    of("baseline: {enabled: 2}\n", "number for a truth value", "?"),
    of("local: {learning_rate: .nan}\n", "NaN in YAML", "?"),
    of("local: {learning_rate: 1e999}\n", "infinite", "?"),
    of("local: {batch_size: 1}\n", "batch of one sample", "?"),
    of("data: {validation_fraction: 1.0}\n", "fraction of all", "?"),
    of("data: {file: ''}\n", "empty name of the dataset", "?"),
    of('data: {file: "d\\0.h5"}\n', "NUL in the name of the dataset", "?"),
    of('output: "\\uD800"\n', "half a character in the name of the output", "?"),
    of("output: ''\n", "empty name of the output", "?"),
    of("device: gpu\n", "device that is none", "?"),
    of("name: ../up\n", "name that leads outside", "?"),
    of("decomposition: {grid: [2, 0]}\n", "grid without boxes", "?"),
    of("decomposition: {overlap: -1}\n", "negative overlap", "?"),
    of("decomposition: {grid: [2, 2], boxes: [[[0, 0], [4, 4]]]}\n", "contradiction within a section", "?"),
    of("aggregation: {features: probabilities}\ncoherent:\n  features: logits\n", "contradiction between sections", "?"),
    of("local: {momentum: 0.5}\n", "momentum without sgd", "?"),
    of("data: {storage: stream, memory: 100}\n", "budget without choice", "?"),
    of("model: {name: vgg9}\n", "depth that is not there", "?"),
    of("model: {name: 'os:system(\"true\")'}\n", "call for a factory", "?"),
    of("model: {options: {a: 1}}\n", "options without a factory", "?"),
    Row(
        "several mistakes at once",
        ("train", "c.yaml", "--local.epohcs", "3", "--seed", "-1"),
        "?",
        text("device: gpu\nlocal:\n  epochs: 0\n"),
        mpirun=True,
    ),
]

COMMAND_LINES = [
    Row("unknown command", ("trian",), "?", mpirun=True),
    Row("unknown option of hpcdd", ("--verison",), "?"),
    Row("unknown option", ("train", "--local.epoch", "3"), "?"),
    Row("option like nothing", ("train", "--zyx"), "?"),
    Row("value missing", ("train", "--seed"), "?", mpirun=True),
    Row("value is the next option", ("train", "--local.epochs", "--seed", "3"), "?"),
    Row("stray word", ("train", "--decomposition.grid", "2", "2"), "?"),
    Row("list that can't be read", ("train", "--decomposition.grid", "[2"), "?"),
    Row("text for a number in a list", ("train", "--decomposition.grid", "2,x"), "?"),
    Row("NaN on the command line", ("train", "--local.learning_rate", "nan"), "?"),
    Row("value for a switch", ("train", "--print_config=yes"), "?"),
    Row("section as an option", ("train", "--local", "3"), "?"),
    Row("options of info", ("info", "--all"), "?"),
    Row("nothing to prepare", ("prepare",), "?"),
    Row("unknown kind", ("prepare", "cifar", "a", "b.h5"), "?"),
    Row("prepare without a file to make", ("prepare", "idx", "a"), "?"),
    Row("unknown option of prepare", ("prepare", "idx", "a", "b.h5", "--gird", "2,2"), "?"),
    Row("value of prepare is no number", ("prepare", "idx", "a", "b.h5", "--test-fraction", "half"), "?"),
    Row("value of prepare is no choice", ("prepare", "folder", "a", "b.h5", "--fit", "squeeze"), "?"),
    Row("value of prepare missing", ("prepare", "folder", "a", "b.h5", "--size", "32"), "?"),
    Row("nothing to measure", ("bench",), "?"),
    Row("unknown benchmark", ("bench", "speed"), "?", mpirun=True),
    Row("no rounds", ("bench", "io", "--rounds", "0"), "?"),
    Row("widths that are none", ("bench", "coherent", "--widths", "16,x"), "?"),
    Row("unknown option of a benchmark", ("bench", "coherent", "--stepz", "3"), "?"),
]
