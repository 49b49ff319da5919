"""ReFrame checks: does hpcdd train on this system, and how many CPU seconds does it take?

reframe -C SITE_SETTINGS.py -c packaging/reframe.py -r        # on a workstation: packaging/reframe_local.py
"""

import reframe as rfm
import reframe.utility.sanity as sn


@rfm.simple_test
class QuickStart(rfm.RunOnlyRegressionTest):
    """The quick start on four ranks: the accuracy that it promises, and its CPU seconds."""

    descr = "hpcdd: the quick start"
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    executable = "hpcdd"
    executable_opts = ["train", "--output", "run", "--progress", "off"]
    num_tasks = 4
    env_vars = {"OMP_NUM_THREADS": "1"}
    time_limit = "20m"

    @sanity_function
    def is_accurate(self):
        """The coherent model classifies at least 90% of the test images correctly."""
        accuracy = sn.extractsingle(r"coherent model, by transfer\s+│.*│\s+([\d.]+) │", self.stdout, 1, float)
        return sn.assert_ge(accuracy, 0.90)

    @performance_function("s")
    def cpu_seconds(self):
        """CPU seconds of all ranks, without start-up and reading."""
        return sn.extractsingle(r"CPU seconds, all ranks: .*total ([\d.]+)", self.stdout, 1, float)
