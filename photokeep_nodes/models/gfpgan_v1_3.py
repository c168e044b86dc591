"""GFPGAN 1.3: the version before 1.4, which sharpens less.

Same network and same contract as ``gfpgan_v1_4``; see there.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download
from . import gfpgan_v1_4

SPEC = replace(
    gfpgan_v1_4.SPEC,
    id="gfpgan-1.3",
    title="GFPGAN 1.3",
    node_name="GFPGANv13",
    weights=(
        replace(
            gfpgan_v1_4.SPEC.weights[0],
            origin=Download(
                "GFPGANv1.3.pth", "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.3.pth"
            ),
            sha256="c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70",
        ),
    ),
    description="Rebuilds faces from their remains; less sharp than 1.4, and often more natural.",
)
