"""Make the sample photo: a public-domain portrait, aged as if it had lain in a shoebox for forty years.

The source is ``skimage.data.astronaut()``, NASA's portrait of Eileen Collins (public domain). Everything random is
seeded: the same versions of the libraries give the same bytes.

Run it as ``python workflows/make_sample.py``; it needs scikit-image, which is a development dependency.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data

TARGET = Path(__file__).with_name("old_portrait.jpg")

_SEED = 1961
_CROP = (92, 0, 348, 320)  # head and shoulders of the 512 x 512 picture
_SIZE = (208, 260)  # small enough for the x4 model on two cores, the face 80 pixels wide
_JPEG_QUALITY = 68


def aged() -> np.ndarray:
    """The aged portrait: (260, 208, 3) uint8, before JPEG."""
    rng = np.random.default_rng(_SEED)
    portrait = Image.fromarray(data.astronaut()).crop(_CROP).resize(_SIZE, Image.Resampling.LANCZOS)
    photo = np.asarray(portrait).astype(np.float64) / 255
    photo = ndimage.gaussian_filter(photo, (0.65, 0.65, 0))  # a cheap lens and a small print
    photo = _faded(photo)
    photo = photo + _grain(rng, photo.shape)
    photo = _scratched(rng, photo)
    return np.rint(photo.clip(0, 1) * 255).astype(np.uint8)


def _faded(photo: np.ndarray) -> np.ndarray:
    """Dyes that went: less colour, blacks turned brown, whites turned cream, the edges first."""
    gray = (photo @ [0.299, 0.587, 0.114])[..., None]
    photo = gray + 0.74 * (photo - gray)
    # Cyan goes first in old colour prints, then the contrast.
    photo = np.array([0.17, 0.135, 0.105]) + photo * np.array([0.71, 0.67, 0.62])
    height, width = photo.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    off_centre = np.hypot((x - width / 2) / width, (y - height / 2) / height)[..., None]
    edge = np.clip(off_centre - 0.35, 0, None) ** 2
    return photo + edge * np.array([0.9, 0.75, 0.5])


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Film grain, 10 of 255: clumps that all dyes share, and a little that each has for itself."""
    shared = ndimage.gaussian_filter(rng.normal(size=(*shape[:2], 1)), (0.3, 0.3, 0))
    own = ndimage.gaussian_filter(rng.normal(size=shape), (0.3, 0.3, 0))
    grain = 0.8 * shared / shared.std() + 0.6 * own / own.std()
    return grain * (10 / 255)


def _scratched(rng: np.random.Generator, photo: np.ndarray) -> np.ndarray:
    """A few hairline scratches and specks of dust, drawn four times as large so that their edges are soft."""
    height, width = photo.shape[:2]
    marks = Image.new("L", (4 * width, 4 * height), 0)
    pen = ImageDraw.Draw(marks)
    for start, end in (((0.16, 0.02), (0.11, 0.98)), ((0.86, 0.04), (0.91, 0.72)), ((0.30, 0.97), (0.99, 0.83))):
        along = np.linspace(0, 1, 24)
        xs = 4 * width * np.interp(along, (0, 1), (start[0], end[0])) + rng.normal(0, 1.5, 24).cumsum()
        ys = 4 * height * np.interp(along, (0, 1), (start[1], end[1]))
        for i in range(23):
            if rng.random() < 0.97:  # scratches skip
                pen.line([(xs[i], ys[i]), (xs[i + 1], ys[i + 1])], fill=int(rng.integers(170, 245)), width=4)
    for _ in range(20):
        x, y, radius = rng.uniform(0, 4 * width), rng.uniform(0, 4 * height), rng.uniform(1.5, 4.5)
        if np.hypot((x / 4 - 104) / 45, (y / 4 - 95) / 62) < 1:
            continue  # not on the face, where no stage repairs it: it could be a mole
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=int(rng.integers(120, 240)))
    weight = np.asarray(marks.resize((width, height), Image.Resampling.BOX)).astype(np.float64)[..., None] / 255
    return photo * (1 - weight) + np.array([0.93, 0.90, 0.83]) * weight


def encoded(photo: np.ndarray) -> bytes:
    """The photo as the JPEG file that ships."""
    exif = Image.Exif()
    exif[0x010E] = "Sample photo: NASA portrait of Eileen Collins (public domain), aged by make_sample.py"
    exif[0x0132] = "1983:06:12 15:30:00"
    out = io.BytesIO()
    Image.fromarray(photo).save(out, "JPEG", quality=_JPEG_QUALITY, exif=exif, dpi=(150, 150))
    return out.getvalue()


def main(arguments: list[str]) -> None:
    """Write the sample to its place, or to the path given."""
    target = Path(arguments[0]) if arguments else TARGET
    target.write_bytes(encoded(aged()))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
