"""What launchers say of themselves in the environment, and the refusal of N jobs of one rank."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hpcdd.core.errors import UserError
from hpcdd.mpi import launcher
from hpcdd.mpi.launcher import (
    Launch,
    check_library,
    check_size,
    choose_network,
    from_environment,
    kind_of,
)

from .. import launchers
from ..waiting import LIMIT

MPICH = "MPICH Version:      5.0.2\nMPICH Release date: ..."
MPICH_OF_BOTH = f"{MPICH}\nMPICH Device:       ch4:ucx ofi\nMPICH configure:    --with-device=ch4:ucx,ofi\n"
BY_SRUN = Launch("mpich", 0, 2, by_srun=True)
OPENMPI = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4, May 26, 2022\0"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch("none", 0, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, Launch("mpich", 3, 8, local_rank=3)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, Launch("openmpi", 1, 2, local_rank=1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_NTASKS": "6"}, Launch("slurm", 5, 6, local_rank=5)),
        (
            {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "PMI_RANK": "5", "PMI_SIZE": "6"},
            Launch("mpich", 5, 6, by_srun=True, local_rank=5),
        ),
        # sbatch without srun: tasks were asked for, but none was started
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6", "SLURM_JOB_ID": "17"}, Launch("none", 0, 1)),
        ({"PMI_RANK": "", "PMI_SIZE": "8"}, Launch("none", 0, 1)),
        ({"PMI_RANK": "0", "PMI_SIZE": "many"}, Launch("none", 0, 1)),
        ({"PMI_RANK": "3"}, Launch("none", 0, 1)),
    ],
)
def test_from_environment(environment: dict[str, str], expected: Launch) -> None:
    assert from_environment(environment) == expected


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        ("openmpi", {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}),
        ("mpich", {"PMI_RANK": "3", "PMI_SIZE": "4"}),
    ],
)
def test_mpirun_inside_a_slurm_job_is_what_counts(kind: str, variables: dict[str, str]) -> None:
    """There srun starts one daemon per node, whose own variables every rank of the node inherits."""
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    assert from_environment(slurm | variables) == Launch(kind, 3, 4, local_rank=3)


@pytest.mark.parametrize(
    ("variables", "local"),
    [
        ({"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}, (1, 4)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "5",
                "OMPI_COMM_WORLD_SIZE": "8",
                "OMPI_COMM_WORLD_LOCAL_RANK": "2",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
            },
            (2, 3),
        ),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_NODEID": "2"}, (1, 3)),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_NODEID": "1"}, (1, 4)),
        ({"SLURM_LOCALID": "1"}, (5, 1)),
    ],
)
def test_the_place_on_the_host(variables: dict[str, str], local: tuple[int, int]) -> None:
    slurm = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"} if "SLURM_LOCALID" in variables else {}
    launch = from_environment(slurm | variables)
    assert (launch.local_rank, launch.local_size) == local


def container(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """As one with that many bytes of shared memory."""
    monkeypatch.setattr(launcher.shutil, "disk_usage", lambda _: SimpleNamespace(total=size))


def test_shared_memory_that_is_too_small_for_the_ranks_of_a_host_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    container(monkeypatch, 64 << 20)
    fault = launcher.shared_memory_fault(MPICH, 16)
    assert re.match(r"/dev/shm on .* has 64 MiB, but 16 ranks .* need 96 MiB.*--shm-size.* 10", fault or "")


@pytest.mark.parametrize(("ranks", "library"), [(10, MPICH), (16, OPENMPI)])
def test_shared_memory_that_is_enough(monkeypatch: pytest.MonkeyPatch, ranks: int, library: str) -> None:
    container(monkeypatch, 64 << 20)
    assert launcher.shared_memory_fault(library, ranks) is None


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small /dev/shm")
def test_ranks_in_a_container_s_shared_memory_end_with_the_remedy() -> None:
    script = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$0" -n 16 "$1" -m hpcdd'
    command = ["unshare", "-m", "sh", "-c", script, launchers.find()["mpich"].mpirun, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hpcdd: ")]
    assert "16 ranks" in line
    assert "--shm-size" in line


def test_this_process_s_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.delenv("OMPI_COMM_WORLD_RANK", raising=False)
    assert from_environment() == Launch("mpich", 1, 2, local_rank=1)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (MPICH, "mpich"),
        (OPENMPI, "openmpi"),
        ("Intel(R) MPI Library 2021.11 for Linux* OS", "mpich"),
        ("MVAPICH2 Version      :\t2.3.7", "mpich"),
        ("MPI VERSION    : CRAY MPICH version 8.1.25.17 (ANL base 3.4a2)", "mpich"),
        ("HYDRA build details:\n    Version: 5.0.2", "mpich"),
        ("mpirun (Open MPI) 5.0.3\n\nReport bugs to https://www.open-mpi.org/community/help/", "openmpi"),
        ("prterun (PRRTE) 3.0.5", "openmpi"),
    ],
)
def test_kind_of(text: str, kind: str) -> None:
    assert kind_of(text) == kind


@pytest.mark.parametrize(("kind", "library"), [("mpich", OPENMPI), ("openmpi", MPICH)])
def test_the_other_library_is_refused_with_both_names_and_the_fix(kind: str, library: str) -> None:
    with pytest.raises(UserError) as error:
        check_library(Launch(kind, 0, 4), library)
    message = str(error.value)
    assert "4 processes" in message
    assert "Open MPI" in message
    assert "MPICH" in message
    assert "MPI4PY_LIBMPI" in message
    assert "\0" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("launch", "library"),
    [
        (Launch("mpich", 0, 4), MPICH),
        (Launch("openmpi", 0, 4), OPENMPI),
        (Launch("mpich", 0, 1), OPENMPI),  # one process needs no other
        (Launch("slurm", 0, 4), OPENMPI),  # srun speaks both; only the size will tell
        (Launch("slurm", 0, 4), MPICH),
        (Launch("none", 0, 1), MPICH),
    ],
)
def test_libraries_that_may_fit_are_not_refused(launch: Launch, library: str) -> None:
    check_library(launch, library)
    check_size(launch, library, launch.size)


def test_srun_that_made_n_jobs_of_one_rank_is_refused_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"srun started 16 processes.*MPICH.*--mpi=pmi2.*--mpi=pmix"):
        check_size(Launch("slurm", 3, 16), MPICH, 1)


def test_srun_that_offers_pmi_to_open_mpi_is_refused_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"^srun started 16 processes.*Open MPI.*--mpi=pmix"):
        check_library(Launch("mpich", 3, 16, by_srun=True), OPENMPI)


@pytest.mark.parametrize(("kind", "library"), [("mpich", MPICH), ("openmpi", OPENMPI)])
def test_mpirun_of_another_installation_is_refused(kind: str, library: str) -> None:
    with pytest.raises(UserError, match=r"2 processes.*which -a mpirun"):
        check_size(Launch(kind, 0, 2), library, 1)


@pytest.mark.parametrize(
    ("launch", "library", "environment", "after"),
    [
        (BY_SRUN, MPICH_OF_BOTH, {}, {"MPIR_CVAR_CH4_NETMOD": "ofi"}),
        (BY_SRUN, MPICH_OF_BOTH, {"MPIR_CVAR_CH4_NETMOD": "ucx"}, {"MPIR_CVAR_CH4_NETMOD": "ucx"}),
        (BY_SRUN, MPICH_OF_BOTH, {"MPICH_CH4_NETMOD": "ucx"}, {"MPICH_CH4_NETMOD": "ucx"}),
        (BY_SRUN, MPICH_OF_BOTH.replace("ucx ofi", "ucx"), {}, {}),
        (BY_SRUN, MPICH, {}, {}),
        (Launch("mpich", 0, 2), MPICH_OF_BOTH, {}, {}),  # hydra takes lines of any length
        (Launch("slurm", 0, 2), OPENMPI, {}, {}),
    ],
)
def test_under_srun_an_mpich_that_has_both_uses_libfabric_unless_another_is_chosen(
    launch: Launch, library: str, environment: dict[str, str], after: dict[str, str]
) -> None:
    choose_network(launch, library, environment)
    assert environment == after
