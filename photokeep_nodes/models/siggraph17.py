"""Zhang 2017 ("siggraph17"): colours black-and-white photos.

The module takes CIE L (B, 1, H, W) in 0 to 100, and returns CIE a and b (B, 2, H, W) of the same size. It was trained
on 256 x 256: run it on a copy of that size and enlarge the colours, keeping the photo's own lightness. Hints
(B, 2, H, W), a and b in CIE units and 0 where nothing is known, and their mask (B, 1, H, W), 1 where they hold and 0
elsewhere, may follow as arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.batch_norm import without_counters
    from .._arch.siggraph17 import Siggraph17

    return _load.build(Siggraph17, without_counters(state), what="siggraph17")


SPEC = ModelSpec(
    id="siggraph17",
    title="Zhang 2017 (siggraph17)",
    node_name="Siggraph17",
    role="colorize",
    architecture="Siggraph17",
    weights=(
        WeightFile(
            Download(
                "siggraph17-df00044c.pth",
                "https://colorizers.s3.us-east-2.amazonaws.com/siggraph17-df00044c.pth",
            ),
            size_bytes=136_787_426,
            sha256="df00044c0a4d7c3edcecf6f75437ce346a66e7a42612d9b968e1a7e17dbc6f66",
            licence=Licence(
                "BSD-2-Clause", commercial=True, url="https://github.com/richzhang/colorization/blob/master/LICENSE"
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 34_192_787,
    bytes_per_pixel=4_000,
    channels=1,
    multiple_of=8,
    minimum=8,
    native_side=256,
    takes_hints=True,
    value_range=(0.0, 100.0),
    dtypes=("float32",),
    description="Colours black-and-white photos; cautious, small and quick.",
    source="Zhang et al. 2017, arXiv:1705.02999; https://github.com/richzhang/colorization",
)
