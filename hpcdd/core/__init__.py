"""What every other package may use: errors, names, whole files or none, HDF5, seeds, facts about the machine."""
