"""my_images: 96 small pictures called LABEL_PLACE_NUMBER.png, a bright disc or ring over grass or sea."""

from pathlib import Path

import numpy as np
from PIL import Image

folder = Path("my_images")
folder.mkdir(exist_ok=True)
rows, columns = np.mgrid[:48, :48]
for number in range(96):
    rng = np.random.default_rng(number)
    label, place = ("disc", "ring")[number % 2], ("grass", "sea")[number // 2 % 2]
    distance = np.hypot(rows - rng.integers(16, 32), columns - rng.integers(16, 32))
    shape = distance < 12 if label == "disc" else abs(distance - 10) < 3
    pixels = rng.integers(0, 60, (48, 48, 3)) + np.array((40, 90, 30) if place == "grass" else (20, 60, 120))
    pixels[shape] = 230
    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{label}_{place}_{number:02}.png")
