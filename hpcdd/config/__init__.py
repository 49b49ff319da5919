"""The configuration: its schema, and how it comes from a YAML file and the command line."""
