"""SCUNet, adversarially trained: removes noise of unknown kind and strength, and puts texture in its place.

The module takes (B, 3, H, W) RGB in [0, 1], H and W multiples of 64, and returns the same shape, not clamped.
"""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Download, WeightFile
from . import _licences, scunet_psnr

SPEC = replace(
    scunet_psnr.SPEC,
    id="scunet-gan",
    title="SCUNet GAN",
    node_name="SCUNetGAN",
    weights=(
        WeightFile(
            Download(
                "scunet_color_real_gan.pth",
                "https://github.com/cszn/KAIR/releases/download/v1.0/scunet_color_real_gan.pth",
                folder="upscale_models",
            ),
            size_bytes=71_982_835,
            sha256="892c83f812c59173273b74f4f34a14ecaf57a2fdb68df056664589beb55c966e",
            licence=_licences.SCUNET,
        ),
    ),
    description="Removes noise of unknown kind and strength; crisper than SCUNet PSNR, redraws fine texture.",
)
