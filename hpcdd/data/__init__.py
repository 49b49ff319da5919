"""The dataset file, its importers, and the samples that a rank trains on."""
