"""Restore faces: which of them gain by it, what their new crops look like, how much of that goes back into the photo.

The networks are handed in as functions of several crops, so that a caller can bring one model after the other into
memory instead of all at once for each face. Geometry and pasting are in ``faces``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ..errors import NodeInputError
from ..images import luminance
from . import faces as geometry
from .colour import resize, tones
from .compare import side_by_side
from .measures import blur_sigma, noise_sigma

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .detect_faces import Face
    from .face_identity import GuardedStrength

    Crops = Sequence[torch.Tensor]
    Restorer = Callable[[Crops], Sequence[torch.Tensor]]
    Parser = Callable[[Crops], Sequence[torch.Tensor]]
    Guard = Callable[[Sequence[tuple[torch.Tensor, torch.Tensor]], float], Sequence[GuardedStrength]]

_AT_ONCE = 8  # faces whose crops are held together: 6 MB each, and one change of models for all of them

_LOOKED_AT_WHOLE = 16  # faces up to which their pictures are kept at full size

_POOL = 16  # colours are compared at this scale: detail is what the network is to change
_GAIN_RANGE = (0.8, 1.25)
_GAIN_EPS = 1e-2

_COARSE = 4.0  # pixels of the photo: what is larger counts as the face's own shapes
_FEWEST_CELLS = 8

_SURROUNDINGS = 0.1  # of the box's sides, on each side: hair and collar have edges that tell the sharpness


@dataclass(frozen=True)
class FaceSettings:
    """How faces are restored.

    Attributes:
        strength: 0 keeps the photo, 1 is the network's face.
        own_shapes: 0 to 1, how much of the photo's own coarse shapes stays under the network's detail.
        feather: share of the crop's half side over which the change fades out, 0 to 1.
        match_colour: whether faces keep the colour cast of the photo, see ``match_colour``.
        keep_gray: in a black-and-white or toned photo only the lightness of faces changes.
        below_sharpness: only faces less sharp than this are restored; 1 means all. See ``sharpness``.
        skip_detailed: leave faces alone of which the photo shows more than the network can draw.
    """

    strength: float = 1.0
    own_shapes: float = 0.0
    feather: float = 0.25
    match_colour: bool = True
    keep_gray: bool = True
    below_sharpness: float = 1.0
    skip_detailed: bool = False


@dataclass(frozen=True)
class FaceOutcome:
    """What became of one face.

    Attributes:
        photo: which of the batch, from 0.
        face: as it was found.
        before: its crop, (1, 3, S, S): S is 512, or half of that where there are many faces.
        after: what it was turned into; ``before`` itself where it was left alone.
        strength: with which the change was laid back; 0 where it was left alone.
        left_alone: why; empty where it was restored.
        likeness: cosine similarity to the face before; None where nobody compared.
        likeness_asked: what it would have been at the strength that was asked for.
    """

    photo: int
    face: Face
    before: torch.Tensor
    after: torch.Tensor
    strength: float = 0.0
    left_alone: str = ""
    likeness: float | None = None
    likeness_asked: float | None = None


@dataclass(frozen=True)
class _Cut:
    face: Face
    transform: torch.Tensor
    crop: torch.Tensor


def sharpness(blur: float) -> float:
    """1 for ideal edges, towards 0 with blur; ``blur`` is a standard deviation in pixels."""
    return 1.0 / math.sqrt(1.0 + blur * blur)


def face_blur(photo: torch.Tensor, face: Face, noise: float) -> float | None:
    """How soft the edges of a face are.

    Args:
        photo: (1, 3, H, W) in [0, 1].
        face: one of it.
        noise: of the photo, from ``measures.noise_sigma``.
    Returns:
        Standard deviation in pixels of the photo, see ``measures.blur_sigma``; None where no edge tells.
    """
    height, width = photo.shape[-2:]
    x0, y0, x1, y1 = face["box"]
    beside, above = _SURROUNDINGS * (x1 - x0), _SURROUNDINGS * (y1 - y0)
    left, right = max(0, math.floor(x0 - beside)), min(width, math.ceil(x1 + beside))
    top, bottom = max(0, math.floor(y0 - above)), min(height, math.ceil(y1 + above))
    if right - left < 8 or bottom - top < 8:
        return None
    return blur_sigma(photo[:, :, top:bottom, left:right], noise)


def match_colour(restored: torch.Tensor, aligned: torch.Tensor) -> torch.Tensor:
    """Give ``restored`` the colour cast and the broad contrast of ``aligned``; detail stays.

    Mean and deviation of luma and chroma are compared at a sixteenth of the size. Equal images come back bit by bit.

    Args:
        restored: (1, 3, S, S).
        aligned: (1, 3, S, S).
    """
    to_ycc = restored.new_tensor(((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)))
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, restored)
    means, deviations = [], []
    for image in (ycc, torch.einsum("ij,bjhw->bihw", to_ycc, aligned)):
        broad = F.avg_pool2d(image, min(_POOL, image.shape[-1]))
        means.append(broad.mean((-2, -1), keepdim=True))
        deviations.append(broad.std((-2, -1), correction=0, keepdim=True))
    gain = ((deviations[1] + _GAIN_EPS) / (deviations[0] + _GAIN_EPS)).clamp(*_GAIN_RANGE)
    shift = (gain - 1.0) * (ycc - means[0]) + (means[1] - means[0])
    return restored + torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), shift)


def keep_own_shapes(restored: torch.Tensor, crop: torch.Tensor, share: float, scale: float) -> torch.Tensor:
    """Put the photo's own coarse shapes under the network's detail: the likeness is mostly in them.

    Args:
        restored: (1, 3, S, S).
        crop: what it was made from, (1, 3, S, S).
        share: 0 leaves ``restored``, 1 takes all that is larger than about four pixels of the photo from ``crop``.
        scale: crop pixels per pixel of the photo.
    """
    if share == 0.0:
        return restored
    side = crop.shape[-1]
    cells = min(side, max(_FEWEST_CELLS, round(side / (_COARSE * max(1.0, scale)))))
    coarse = resize(crop - restored, (cells, cells))
    return restored + share * F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)


def restore_faces(
    image: torch.Tensor,
    faces: Sequence[Sequence[Face]],
    restorer: Restorer,
    settings: FaceSettings,
    *,
    parser: Parser | None = None,
    guard: Guard | None = None,
) -> tuple[torch.Tensor, torch.Tensor, list[FaceOutcome]]:
    """Restore the faces of every photo.

    Args:
        image: (B, 3, H, W) in [0, 1].
        faces: the faces of each photo, as ``detect_faces`` has them.
        restorer: crops (1, 3, 512, 512) in [0, 1] to the same.
        settings: see there.
        parser: restored crops to (1, 1, 512, 512) in [0, 1], what of each is face; None changes the whole oval.
        guard: pairs of crops, before and after, and the strength asked for, to the strength at which the person is
            still the same, the likeness then, and the likeness at the strength asked for.
    Returns:
        Restored photos, shape, dtype and device as ``image``; the mask (B, H, W) of where they may have changed; what
        became of each face.
    Raises:
        NodeInputError: the faces are of another batch, or the network returned another shape or no numbers.
    """
    if len(faces) != image.shape[0]:
        raise NodeInputError(f"faces of {len(faces)} photos were given for {image.shape[0]} photos")
    side = geometry.CROP if sum(map(len, faces)) <= _LOOKED_AT_WHOLE else geometry.CROP // 2
    photos, masks, outcomes = [], [], []
    for index, (photo, found) in enumerate(zip(torch.split(image, 1), faces, strict=True)):
        if not found:
            photos.append(photo)
            masks.append(torch.zeros_like(photo[:, 0]))
            continue
        canvas = geometry.Canvas(photo)
        lightness_only = settings.keep_gray and tones(photo)[0] != "colour"
        noise = noise_sigma(photo) if settings.skip_detailed or settings.below_sharpness < 1.0 else 0.0
        for first in range(0, len(found), _AT_ONCE):
            group = [_cut(photo, face) for face in found[first : first + _AT_ONCE]]
            made = [_untouched(index, each, photo, settings, noise) for each in group]
            chosen = [i for i, outcome in enumerate(made) if not outcome.left_alone]
            if chosen:
                changes = _restored([group[i] for i in chosen], restorer, settings, lightness_only=lightness_only)
                wheres: Sequence[torch.Tensor | None] = [None] * len(chosen)
                if parser is not None:
                    wheres = parser([change.after for change in changes])
                guarded = _guarded(changes, wheres, guard, settings.strength)
                for at, change, where in zip(chosen, guarded, wheres, strict=True):
                    difference = (change.after - change.before) * change.strength
                    if change.strength > 0.0:
                        canvas.add(difference, group[at].transform, settings.feather, where)
                    made[at] = replace(
                        change, photo=index, after=(change.before + _within(difference, where)).clamp(0.0, 1.0)
                    )
            outcomes += [_for_looking(outcome, side) for outcome in made]
        restored, mask = canvas.result()
        photos.append(restored)
        masks.append(mask)
    return torch.cat(photos), torch.cat(masks), outcomes


def _cut(photo: torch.Tensor, face: Face) -> _Cut:
    transform = geometry.face_transform(face)
    return _Cut(face, transform, geometry.align(photo, transform))


def _untouched(index: int, cut: _Cut, photo: torch.Tensor, settings: FaceSettings, noise: float) -> FaceOutcome:
    """The face as it is, with the reason for leaving it so, if there is one."""
    reason = ""
    if settings.skip_detailed or settings.below_sharpness < 1.0:
        blur = face_blur(photo, cut.face, noise)
        own_pixel = 1.0 / geometry.face_scale(cut.transform)  # what the network draws in one of its own, in the photo's
        if blur is not None and settings.below_sharpness < 1.0 and sharpness(blur) >= settings.below_sharpness:
            reason = f"sharp enough ({sharpness(blur):.2f})"
        elif blur is not None and settings.skip_detailed and own_pixel > 1.0 and blur < own_pixel:
            reason = "the photo shows more of it than the network can draw"
    return FaceOutcome(index, cut.face, cut.crop, cut.crop, left_alone=reason)


def _restored(
    cuts: Sequence[_Cut],
    restorer: Restorer,
    settings: FaceSettings,
    *,
    lightness_only: bool,
) -> list[FaceOutcome]:
    answers = restorer([cut.crop for cut in cuts])
    if len(answers) != len(cuts):
        raise NodeInputError(f"the face network returned {len(answers)} faces of {len(cuts)}")
    made = []
    for cut, answer in zip(cuts, answers, strict=True):
        restored = _checked(answer, cut.crop)
        if settings.match_colour:
            restored = match_colour(restored, cut.crop)
        restored = keep_own_shapes(restored, cut.crop, settings.own_shapes, geometry.face_scale(cut.transform))
        if lightness_only:
            restored = cut.crop + luminance(restored - cut.crop)
        made.append(FaceOutcome(0, cut.face, cut.crop, restored, strength=settings.strength))
    return made


def _checked(restored: torch.Tensor, crop: torch.Tensor) -> torch.Tensor:
    restored = restored.to(crop)
    if restored.shape != crop.shape:
        raise NodeInputError(f"the face network returned {tuple(restored.shape)}, not {tuple(crop.shape)}")
    if not bool(torch.isfinite(restored).all()):
        raise NodeInputError("the face network returned values that are not numbers")
    return restored.clamp(0.0, 1.0)


def _guarded(
    changes: Sequence[FaceOutcome], wheres: Sequence[torch.Tensor | None], guard: Guard | None, asked: float
) -> list[FaceOutcome]:
    if guard is None:
        return list(changes)
    # What will be seen is judged: of the new face only the part that is face.
    pairs = [
        (change.before, change.before + _within(change.after - change.before, where))
        for change, where in zip(changes, wheres, strict=True)
    ]
    answers = guard(pairs, asked)
    return [
        replace(change, strength=min(asked, strength), likeness=likeness, likeness_asked=likeness_asked)
        for change, (strength, likeness, likeness_asked) in zip(changes, answers, strict=True)
    ]


def _within(difference: torch.Tensor, where: torch.Tensor | None) -> torch.Tensor:
    return difference if where is None else difference * where


def _for_looking(outcome: FaceOutcome, side: int) -> FaceOutcome:
    """With crops of ``side`` pixels: those of a crowd are small, or they would fill the memory."""
    if outcome.before.shape[-1] == side:
        return outcome
    before, after = (resize(crop, (side, side)) for crop in (outcome.before, outcome.after))
    return replace(outcome, before=before, after=after)


def before_and_after(outcomes: Sequence[FaceOutcome]) -> torch.Tensor:
    """Every face before and after, side by side: (N, 3, S, 2 S + line) in [0, 1]; one gray picture if there is none."""
    if not outcomes:
        return torch.full((1, 3, geometry.CROP // 2, geometry.CROP), 0.5)
    return torch.cat([side_by_side(each.before, each.after) for each in outcomes]).clamp(0.0, 1.0)


def report(outcomes: Sequence[FaceOutcome], *, photos: int, asked: float, needed: float = 0.0, own: bool = True) -> str:
    """Say in a line for each face what became of it.

    Args:
        outcomes: from ``restore_faces``.
        photos: how many photos there were.
        asked: the strength that was asked for.
        needed: likeness that was to be kept.
        own: whether that is what the identity model needs, and not what the user asked for.
    """
    if not outcomes:
        return "No faces."
    restored = [each for each in outcomes if not each.left_alone and each.strength > 0.0]
    lines = [f"{len(restored)} of {len(outcomes)} {'face' if len(outcomes) == 1 else 'faces'} restored."]
    number = dict.fromkeys(range(photos), 0)
    for each in outcomes:
        number[each.photo] += 1
        name = each.face.get("number", number[each.photo])
        at = f"Photo {each.photo + 1}, face {name}" if photos > 1 else f"Face {name}"
        height = each.face["box"][3] - each.face["box"][1]
        lines.append(f"{at}, {height:.0f} px high: {_fate(each, asked)}")
    if restored and all(each.likeness is None for each in restored):
        lines.append("Nobody checked whether they are still the same people: connect a face identity model.")
    if any(each.likeness is not None for each in outcomes):
        limit = f"from {needed:.2f} on, two pictures are one person's" if own else f"{needed:.2f} was asked for"
        lines.append(f"Likeness is the identity model's own measure: {limit}.")
    return "\n".join(lines)


def _fate(outcome: FaceOutcome, asked: float) -> str:
    if outcome.left_alone:
        return f"left alone, {outcome.left_alone}"
    text = f"restored with strength {outcome.strength:.2f}"
    if outcome.likeness is None:
        return text
    if math.isnan(outcome.likeness):
        return "left as it was, for the identity model could not tell who it is"
    if outcome.strength == 0.0:
        return f"left as it was, or it would have become somebody else (likeness {outcome.likeness_asked:.2f})"
    if outcome.strength < asked:
        text = (
            f"strength lowered from {asked:.2f} to {outcome.strength:.2f}, or it would have become somebody else"
            f" (likeness {outcome.likeness_asked:.2f})"
        )
    return f"{text}; likeness {outcome.likeness:.2f}"
