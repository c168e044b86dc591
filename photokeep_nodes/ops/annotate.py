"""Draw what was found onto a photo, for a preview."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..images import to_bchw, to_bhwc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .detect_faces import Face

_BOX = (64, 224, 96)
_LANDMARKS = ((255, 80, 80), (80, 160, 255), (255, 220, 60), (255, 120, 220), (120, 255, 255))


def draw_faces(image: torch.Tensor, faces: Sequence[Face]) -> torch.Tensor:
    """Mark each face with its box, its landmarks, its number and its score.

    Args:
        image: (1, 3, H, W) in [0, 1].
        faces: as ``detect_faces`` returns them for this photo.
    Returns:
        (1, 3, H, W), in 8-bit steps; ``image`` itself where there are no faces.
    """
    if not faces:
        return image
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray((to_bhwc(image)[0] * 255.0).round().byte().numpy())
    draw = ImageDraw.Draw(canvas)
    longest = max(canvas.size)
    line = max(1, round(longest / 400))
    dot = 1.5 * line
    font = ImageFont.load_default(size=max(10, round(longest / 45)))
    for place, face in enumerate(faces, 1):
        # PIL counts pixels, the faces' coordinates are continuous: pixel j is [j, j + 1).
        left, top, right, bottom = (round(v) for v in face["box"])
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=_BOX, width=line)
        for (x, y), tint in zip(face["landmarks"], _LANDMARKS, strict=True):
            draw.ellipse((x - 0.5 - dot, y - 0.5 - dot, x - 0.5 + dot, y - 0.5 + dot), fill=tint)
        text = f"{face.get('number', place)}: {face['score']:.2f}"
        wide, high = (int(v) + 1 for v in draw.textbbox((0, 0), text, font=font)[2:])
        # Above the box; inside where that would leave the photo.
        above = top - high - line
        at = (max(0, min(left, canvas.width - wide)), above if above >= 0 else max(0, top + line))
        draw.rectangle((at[0], at[1], at[0] + wide, at[1] + high), fill=(0, 0, 0))
        draw.text(at, text, fill=_BOX, font=font)
    return to_bchw(torch.from_numpy(np.array(canvas))[None] / 255.0).to(image)


def list_faces(faces: Sequence[Sequence[Face]]) -> str:
    """Say in a line for each face where it is and how sure the detector was; numbered as ``draw_faces`` does."""
    texts = [_list_of_one(found) for found in faces]
    if len(texts) > 1:
        texts = [f"Photo {i} of {len(texts)}\n{text}" for i, text in enumerate(texts, 1)]
    return "\n\n".join(texts)


def _list_of_one(faces: Sequence[Face]) -> str:
    if not faces:
        return "No faces."
    lines = [f"{len(faces)} {'face' if len(faces) == 1 else 'faces'}"]
    for place, face in enumerate(faces, 1):
        left, top, right, bottom = face["box"]
        lines.append(
            f"{face.get('number', place)}: {right - left:.0f} x {bottom - top:.0f} px at {left:.0f}, {top:.0f};"
            f" score {face['score']:.2f}"
        )
    return "\n".join(lines)
