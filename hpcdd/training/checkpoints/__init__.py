"""What makes a run restartable: the states of its trainings on the disk, keyed by subdomain, never by rank."""
