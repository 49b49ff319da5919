"""A picture of the boxes on a sample image, in the colours of the ranks that own them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data import contact_sheet
from ..data.format import DatasetInfo
from ..decomposition import Decomposition, by
from ..files import writing, written_whole


def write(path: Path, info: DatasetInfo, decomposition: Decomposition, owners: Sequence[int]) -> None:
    """Writes the first training image with the boxes on it as PNG; of a volume three slices.

    Args:
        path: the picture to make; one that is there is replaced.
        info: of the dataset file.
        decomposition: whose boxes are drawn.
        owners: by subdomain its rank.

    Raises:
        WriteError: it can't be written.
    """
    title = f"{info.name}: {by(info.image_shape[1:])} pixels, {len(decomposition.boxes)} boxes"
    ranks = len(set(owners))
    title += f" on {ranks} rank{'s' if ranks > 1 else ''}, a colour for each rank"
    sheet = contact_sheet.of_one(info, decomposition, owners, title)
    with writing(path), written_whole(path) as temporary:
        sheet.save(temporary, "PNG")
