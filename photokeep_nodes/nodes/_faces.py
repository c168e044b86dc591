"""What the nodes that look for faces, choose among them or use them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..model_spec import ModelHandle
    from ..ops.detect_faces import Face

FACES = "PHOTOKEEP_FACES"
"""Socket that carries the faces of a batch: plain data, ``{"images": [{"width", "height", "faces"}]}``."""

MIN_SCORE = 0.8
"""Least probability at which a find counts as a face, unless the user says otherwise."""

Turned = Literal["auto", "always", "never"]
TURNED: tuple[Turned, ...] = get_args(Turned)

_ASPECT_TOLERANCE = 0.02  # of the sides' ratio, beside a pixel of rounding: further off it is another photo


def find(
    photo: torch.Tensor, detector: ModelHandle, min_score: float = MIN_SCORE, turned: Turned = "never"
) -> list[list[Face]]:
    """Look for faces with a leased detector.

    Args:
        photo: (B, 3, H, W) in [0, 1].
        detector: handle of a model for face detection.
        min_score: least probability that counts.
        turned: whether also to look in the photo turned by quarters, for scans that lie on their side.
    Returns:
        The faces of each photo.
    Raises:
        NodeInputError: the handle is not a detector's.
        WeightsError: its weights are missing or damaged.
    """
    from .. import inference
    from ..ops import detect_faces, turned_faces

    spec = inference.spec_for(detector, "face_detect")
    height, width = detect_faces.working_sizes(*photo.shape[-2:])[-1]

    def search(network: inference.Network) -> list[list[Face]]:
        def detect(image: torch.Tensor) -> list[list[Face]]:
            return detect_faces.detect(network.module, image, min_score=min_score)

        with network.learning(height, width):
            return turned_faces.detect_turned(detect, photo, turned)

    return inference.run(spec, search, height=height, width=width)


def pack(photo: torch.Tensor, faces: Sequence[Sequence[Face]]) -> dict[str, Any]:
    """Make the data that a FACES socket carries.

    Args:
        photo: (B, 3, H, W), in which they were found.
        faces: of each photo.
    """
    height, width = photo.shape[-2:]
    return {
        "images": [
            {"width": width, "height": height, "faces": [{**face, "number": n} for n, face in enumerate(found, 1)]}
            for found in faces
        ]
    }


def entries(faces: Any) -> list[dict[str, Any]]:
    """Look the data of a FACES socket over.

    Returns:
        For each photo a dict of "width", "height" and "faces".
    Raises:
        NodeInputError: it is something else.
    """
    try:
        found: list[dict[str, Any]] = [
            {
                "width": int(entry["width"]),
                "height": int(entry["height"]),
                "faces": [_face(face, number) for number, face in enumerate(entry["faces"], 1)],
            }
            for entry in faces["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NodeInputError("these are no faces", hint="Connect the output of Find Faces or Select Faces.") from error
    if any(entry["width"] < 1 or entry["height"] < 1 for entry in found):
        raise NodeInputError("these faces are of a photo without a size", hint="Connect the output of Find Faces.")
    return found


def _face(value: Any, place: int) -> Face:
    box = [float(v) for v in value["box"]]
    landmarks = [[float(x), float(y)] for x, y in value["landmarks"]]
    if len(box) != 4 or len(landmarks) != 5:
        raise ValueError("a face has a box and five landmarks")
    number = int(value.get("number", place))
    return {"box": box, "score": float(value["score"]), "landmarks": landmarks, "number": number}


def unpack(faces: Any, photo: torch.Tensor, *, node: str) -> list[list[Face]]:
    """Read the faces of a batch, in its own pixels: they may have been found before it was enlarged.

    Args:
        faces: of a FACES socket.
        photo: (B, 3, H, W), the same photos at any size.
        node: title of the node that asks, for messages.
    Raises:
        NodeInputError: they are no faces, of another number of photos, or of photos of another shape.
    """
    found = entries(faces)
    count, (height, width) = photo.shape[0], photo.shape[-2:]
    if len(found) != count:
        raise NodeInputError(
            f"the faces are of {len(found)} images, but {count} came in",
            hint=f"Find the faces in the same images that {node} takes.",
        )
    scaled: list[list[Face]] = []
    for entry in found:
        across, down = width / entry["width"], height / entry["height"]
        room = _ASPECT_TOLERANCE + 1.0 / min(entry["width"], entry["height"], width, height)
        if abs(across / down - 1.0) > room:
            raise NodeInputError(
                f"the faces were found in {entry['width']} x {entry['height']} px, which is no smaller or larger copy"
                f" of this photo of {width} x {height} px",
                hint="Find the faces after the photo is cropped or turned, not before.",
            )
        scaled.append([_scaled(face, across, down) for face in entry["faces"]])
    return scaled


def _scaled(face: Face, across: float, down: float) -> Face:
    x0, y0, x1, y1 = face["box"]
    return {
        **face,
        "box": [x0 * across, y0 * down, x1 * across, y1 * down],
        "landmarks": [[x * across, y * down] for x, y in face["landmarks"]],
    }


def in_photo(
    photo: torch.Tensor, faces: Any, detector: ModelHandle | None, *, node: str, min_score: float = MIN_SCORE
) -> list[list[Face]] | None:
    """The faces that are connected, or those that a detector finds; None where neither is connected.

    Args:
        photo: (B, 3, H, W).
        faces: of a FACES socket, or None.
        detector: handle of a model for face detection, or None.
        node: title of the node that asks, for messages.
        min_score: least probability that counts, for the detector.
    """
    if faces is not None:
        return unpack(faces, photo, node=node)
    return None if detector is None else find(photo, detector, min_score)
