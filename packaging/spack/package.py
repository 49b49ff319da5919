# SPDX-License-Identifier: BSD-3-Clause
"""hpcdd as a Spack package (Spack 1.0 or later: package API v2).

Copy this file into a package repository of your own, as packages/py_hpcdd/package.py.
"""

from spack.package import *
from spack_repo.builtin.build_systems.python import PythonPackage


class PyHpcdd(PythonPackage):
    """Image classifiers trained by domain decomposition over MPI."""

    homepage = "https://arxiv.org/abs/2408.14442"
    license("BSD-3-Clause")

    # Not audited by Spack itself, which was not available.
    # Without a release on PyPI: `spack dev-build py-hpcdd@main` in a checkout.
    version("main")

    depends_on("python@3.11:3.13", type=("build", "run"))
    depends_on("py-hatchling@1.25:", type="build")
    depends_on("mpi", type="run")
    for name, spec in (
        ("py-h5py", "@3.11:"),
        ("py-jinja2", "@3.1:"),
        ("py-matplotlib", "@3.8:"),
        ("py-mpi4py", "@4.1:"),
        ("py-nibabel", "@5.3:"),
        ("py-numpy", "@1.26:"),
        ("pil", "@11.3:"),
        ("py-psutil", "@5.9:"),
        ("py-pydantic", "@2.10:"),
        ("py-pyyaml", "@6.0.1:"),
        ("py-rich", "@13.7:"),
        ("py-scipy", "@1.13:"),
        ("py-shtab", "@1.9:"),
        ("py-torch", "@2.8:2.13"),
    ):
        depends_on(f"{name}{spec}", type=("build", "run"))
