"""What every other package may use: errors, files that are whole or not there, HDF5, seeds, facts about the machine."""
