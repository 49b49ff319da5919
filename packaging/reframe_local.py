"""ReFrame settings of a workstation: one system, tests start by mpirun. For a cluster take the site's own."""

site_configuration = {
    "systems": [
        {
            "name": "workstation",
            "hostnames": [".*"],
            "partitions": [{"name": "default", "scheduler": "local", "launcher": "mpirun", "environs": ["builtin"]}],
        }
    ],
    "environments": [{"name": "builtin"}],
}
