"""ReFrame settings for a workstation: tests are started by mpirun. On a cluster, use the site's own settings."""

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
