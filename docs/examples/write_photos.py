"""Writes a folder of pictures by class, as people have them: 120 of each of the ten classes of the embedded data set.

python docs/examples/write_photos.py FOLDER
"""

import sys
from collections import Counter
from pathlib import Path

import h5py
from PIL import Image

from hpcdd.data.format import EMBEDDED

folder, written = Path(sys.argv[1]), Counter()
with h5py.File(EMBEDDED) as file:
    names = [name.decode().replace("/", " or ") for name in file.attrs["class_names"]]
    for image, label in zip(file["train/images"][:2000, 0], file["train/labels"][:2000], strict=True):
        if written[label] < 120:
            path = folder / names[label] / f"{written[label]:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            written[label] += 1
print(f"{sum(written.values())} pictures of {len(written)} classes in {folder}")
