"""Writes a dataset file with h5py alone: 300 training and 60 test images of three classes, made from nothing.

python docs/examples/write_dataset.py OUT.h5
"""

import sys

import h5py
import numpy as np

generator = np.random.default_rng(0)
splits = {}
for split, samples in (("train", 300), ("test", 60)):
    labels = np.arange(samples) % 3
    images = generator.integers(0, 60, (samples, 1, 12, 12)).astype(np.uint8)  # (n, C, *spatial)
    for image, label in zip(images, labels, strict=True):
        image[:, :: label + 2] += 120
    splits[split] = images, labels

with h5py.File(sys.argv[1], "w", libver="v110") as file:
    file.attrs["hpcdd_format"] = 1
    file.attrs["name"] = "stripes"
    file.attrs["class_names"] = ["every second row", "every third row", "every fourth row"]
    file.attrs["source"], file.attrs["licence"] = "made by docs/examples/write_dataset.py", "CC0"
    pixels = splits["train"][0]
    file.attrs["mean"], file.attrs["std"] = [pixels.mean()], [pixels.std()]  # per channel, of the training split
    for split, (images, labels) in splits.items():
        file[f"{split}/images"], file[f"{split}/labels"] = images, labels
