"""The command line: dispatch and exit codes; torch and MPI are imported late."""
