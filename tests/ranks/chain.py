"""``mpirun -n N python chain.py JOBS.json``: many jobs of hpcdd one after the other in one, each on some of its ranks.

JOBS.json is a list of ``{"ranks": n, "arguments": [...], "fault": [phase, rank, what] | null, "folder": PATH}``, see
:mod:`.faulty` for faults that let their process live; FOLDER is the job's current folder. To start N processes takes
longer than a small job. The exit codes are written to ``codes.json``, and what the ranks have printed on standard
error, in rank order, to ``errors.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from hpcdd.cli import main as cli
from hpcdd.mpi import communicator, runtime
from tests.launchers import without_report
from tests.ranks.faulty import planted


def main() -> None:
    everyone = communicator.world()
    codes, errors = [], []
    for job in json.loads(Path(sys.argv[1]).read_text()):
        within = everyone.rank < job["ranks"]
        part = everyone.split(0 if within else None)
        code, error = 0, io.StringIO()
        if part is not None:
            with contextlib.ExitStack() as stack:
                stack.enter_context(
                    mock.patch.object(communicator, "world", lambda part=part: communicator.Comm(part.mpi.Dup()))
                )
                stack.enter_context(contextlib.redirect_stderr(error))
                stack.enter_context(contextlib.chdir(job["folder"]))
                stack.enter_context(mock.patch.object(sys, "path", [job["folder"], *sys.path]))  # as `python -m` does
                if job["fault"] is not None:
                    phase, rank, specification = job["fault"]
                    stack.enter_context(planted(phase, specification, part.rank, chosen=part.rank == rank))
                code = cli.main(without_report(job["arguments"]))
        codes.append(everyone.maximum(code))  # the others sleep
        errors.append("".join(everyone.allgather_object(error.getvalue())))
    runtime.FINALIZE_TIMEOUTS.clear()  # the jobs had other ranks than this one has
    if everyone.is_root:
        for name, values in (("codes", codes), ("errors", errors)):
            Path(f"{name}.json").write_text(json.dumps(values))


if __name__ == "__main__":
    main()
