"""What the face identity networks are shown, here and in `tests/data/make_face_identity.py`."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from published import photo, random_tensor
from skimage import data

from photokeep_nodes.ops.faces import align, face_transform

GOLDEN = Path(__file__).parents[1] / "data" / "face_identity.npz"

_GAIN, _CENTRE = 1.0, 0.9

ASTRONAUT = ((204.8, 100.8), (247.4, 103.4), (223.6, 129.2), (202.5, 138.1), (244.2, 140.6))
"""Eyes, tip of the nose and corners of the mouth in `skimage.data.astronaut()`, as RetinaFace finds them."""


def astronaut() -> torch.Tensor:
    """Her face as it comes to the networks: (1, 3, 512, 512)."""
    image = torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]  # HWC -> BCHW
    face = {"box": [178.0, 57.0, 273.0, 177.0], "score": 1.0, "landmarks": [list(point) for point in ASTRONAUT]}
    return align(image, face_transform(face))


def people() -> torch.Tensor:
    """A hundred people: (100, 3, 512, 512), gray, from 25 x 25 px with the eyes about 7 px apart.

    Labeled Faces in the Wild, as scikit-image brings it. They are placed by their mean face.
    """
    small = torch.from_numpy(data.lfw_subset()[:100]).float()[:, None]
    large = F.interpolate(small, size=(375, 375), mode="bicubic", align_corners=False).clamp(0, 1)
    return F.pad(large, (85, 52, 115, 22), mode="replicate").expand(-1, 3, -1, -1)


def blurred(face: torch.Tensor, factor: int) -> torch.Tensor:
    """Of the resolution of a face ``factor`` times smaller."""
    small = F.interpolate(face, scale_factor=1 / factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=face.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


def noisy(face: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = np.random.RandomState(3).standard_normal(tuple(face.shape)).astype(np.float32)
    return (face + sigma * torch.from_numpy(noise)).clamp(0, 1)


def as_jpeg(face: torch.Tensor, quality: int) -> torch.Tensor:
    """(1, 3, S, S) compressed and decoded."""
    stream = io.BytesIO()
    Image.fromarray((face[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)[None].float() / 255


def turned(face: torch.Tensor, degrees: float) -> torch.Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]])
    grid = F.affine_grid(turn, list(face.shape), align_corners=False)
    return F.grid_sample(face, grid, padding_mode="reflection", align_corners=False)


COPIES = {
    "mirrored": lambda face: face.flip(-1),
    "a twelfth of the size": lambda face: blurred(face, 12),
    "noise": lambda face: noisy(face, 0.1),
    "dark": lambda face: face * 0.6,
    "bright": lambda face: (face + 0.15).clamp(0, 1),
    "gray": lambda face: face.mean(1, keepdim=True).expand_as(face),
    "jpeg": lambda face: as_jpeg(face, 10),
    "turned": lambda face: turned(face, 10),
    "all at once": lambda face: as_jpeg(noisy(blurred(turned(face * 0.8, 4), 8), 0.05), 30),
}
"""What a face may suffer and still be that person's: (1, 3, S, S) to the same."""


def dlib_chips() -> np.ndarray:
    """(2, 150, 150, 3) uint8: a woman's face and a cat's."""
    return np.stack((data.astronaut()[40:190, 150:300], data.chelsea()[50:200, 130:280]))


def arcface_crops() -> torch.Tensor:
    """(3, 3, 112, 112) in [-1, 1]: a face, and two that are not like it."""
    face = photo(112, 112) * 2 - 1
    return torch.cat((face, face.flip(2) * 0.7 + 0.2, -face))


def arcface_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Random values for one tensor of the published file."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    return random_tensor(name, shape, gain=_GAIN, centre=_CENTRE)


def arcface_state() -> dict[str, torch.Tensor]:
    """The state dict of facexlib's own network, by its own names."""
    rows = (str(row).split(" ") for row in np.load(GOLDEN)["arcface/state"])
    return {name: arcface_tensor(name, tuple(int(side) for side in sides)) for name, *sides in rows}
