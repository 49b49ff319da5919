"""From a data set as its publisher ships it to a dataset file."""
