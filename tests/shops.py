"""A data set with photos of items and faces of users, for tests of the page."""

import numpy as np
import pyarrow as pa
from PIL import Image
from small import JOBS, small_dataset

from anyrec.data.dataset import Dataset
from anyrec.data.synthetic.generate import write_json

COLOURS = {"nurse": "#c33", "pilot": "#36c", "baker": "#c93", "clerk": "#393"}


def photo_shop(folder):
    """Write `data.json` with 60 users and 40 items, a photo of each in the colour of its job, with noise."""
    (folder / "photos").mkdir(parents=True)
    data, rng = small_dataset(), np.random.default_rng(0)
    tables = []
    for side, group, name in (("user", "categorical.job", "face"), ("item", "categorical.tags", "photo")):
        table, names = data.table(side), []
        for key, value in zip(table[f"{side}_id"].to_pylist(), table[group].to_pylist(), strict=True):
            job = value if isinstance(value, str) else value[0]
            assert job in JOBS
            plain = np.asarray(Image.new("RGB", (80, 60), COLOURS[job]), np.int16)
            pixels = np.clip(plain + rng.integers(-40, 40, plain.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{key}.png")
            names.append(f"photos/{key}.png")
        tables.append(table.append_column(f"image.{name}", pa.array(names)))
    write_json(Dataset(*tables, data.interactions, folder, roles=data.roles), folder / "data.json")
    return folder / "data.json"
