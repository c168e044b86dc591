"""Restore faces with leased models: one after the other for a group of faces, never several in memory for one face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import host, inference
from .ops import face_identity, face_parsing, face_restore
from .ops.faces import CROP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model_spec import ModelSpec
    from .ops.detect_faces import Face
    from .ops.face_identity import GuardedStrength
    from .ops.face_restore import Crops, FaceOutcome, FaceSettings, Guard, Parser


def restore_faces(
    spec: ModelSpec,
    image: torch.Tensor,
    faces: Sequence[Sequence[Face]],
    settings: FaceSettings,
    *,
    fidelity: float,
    parsing: ModelSpec | None = None,
    identity: ModelSpec | None = None,
    likeness: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, list[FaceOutcome]]:
    """Restore the faces of every photo; see ``ops.face_restore.restore_faces``.

    Args:
        spec: the network that restores.
        image: (B, 3, H, W) in [0, 1].
        faces: the faces of each photo.
        settings: how.
        fidelity: 0 to 1, for networks that can be told.
        parsing: a network that says what of a crop is face; None changes the whole oval.
        identity: a network that tells people apart; None guards nobody.
        likeness: least likeness to keep.
    Returns:
        See there.
    Raises:
        WeightsError, VramError: see ``inference.run``.
        NodeInputError: see ``ops.face_restore.restore_faces``.
    """
    progress = host.Progress(sum(map(len, faces)), "faces")
    done = 0

    def restorer(crops: Crops) -> list[torch.Tensor]:
        nonlocal done
        told = (torch.tensor([fidelity]),) if spec.condition == "fidelity" else ()

        def call(network: inference.Network) -> list[torch.Tensor]:
            restored = []
            progress.reach(done)  # it may be called a second time
            for crop in crops:
                restored.append(network(crop, *told).cpu())
                progress.advance()
            return restored

        answers = inference.run(spec, call, height=CROP, width=CROP)
        done += len(crops)
        return answers

    return face_restore.restore_faces(
        image,
        faces,
        restorer,
        settings,
        parser=None if parsing is None else _parser(parsing),
        guard=None if identity is None else _guard(identity, likeness),
    )


def _parser(spec: ModelSpec) -> Parser:
    def parse(crops: Crops) -> list[torch.Tensor]:
        def call(network: inference.Network) -> list[torch.Tensor]:
            return [face_parsing.face_mask(network(crop)).cpu() for crop in crops]

        return inference.run(spec, call, height=CROP, width=CROP)

    return parse


def _guard(spec: ModelSpec, least: float) -> Guard:
    def guard(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], asked: float) -> list[GuardedStrength]:
        def call(network: inference.Network) -> list[GuardedStrength]:
            return [
                face_identity.guarded_strength(network, before, after, strength=asked, least=least)
                for before, after in pairs
            ]

        return inference.run(spec, call, height=CROP, width=CROP)

    return guard
