"""What the DDColor entries have in common."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

_LICENCE = Licence(
    "Apache-2.0",
    commercial=True,
    url="https://github.com/piddnad/DDColor/blob/master/LICENSE",
    note="its authors changed to these terms on 13 January 2024; older copies of the code say non-commercial",
)

_LARGE = ((3, 3, 27, 3), (192, 384, 768, 1536))  # ConvNeXt-L: blocks, and channels, of each stage
_TINY = ((3, 3, 9, 3), (96, 192, 384, 768))  # ConvNeXt-T

# Left over from the encoder's own training as a classifier. Upstream has the first and does not use it; it lacks the
# second, which by their sizes the published files have, and loads without being strict.
_UNUSED = ("encoder.arch.norm.", "encoder.arch.head_cls.")


def _build(
    state: Mapping[str, torch.Tensor], *, depths: Sequence[int], widths: Sequence[int], what: str
) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.ddcolor import DDColor, fold_spectral_norms

    used = {name: tensor for name, tensor in state.items() if not name.startswith(_UNUSED)}
    return _load.build(partial(DDColor, depths, widths), fold_spectral_norms(used), what=what)


def entry(
    name: str, *, node_name: str, title: str, tiny: bool, size_bytes: int, sha256: str, description: str
) -> ModelSpec:
    """One of the published DDColor files.

    The module takes CIE L (B, 1, 512, 512) in 0 to 100, and returns CIE a and b (B, 2, 512, 512). Other sides, as long
    as they are multiples of 32, work, and colour worse.

    Args:
        name: its file's, after "ddcolor_" and before ".pth".
        node_name: as of ``ModelSpec``.
        title: as of ``ModelSpec``.
        tiny: whether its encoder is ConvNeXt-T, not ConvNeXt-L.
        size_bytes: as of ``WeightFile``.
        sha256: as of ``WeightFile``.
        description: as of ``ModelSpec``.
    """
    depths, widths = _TINY if tiny else _LARGE
    filename = f"ddcolor_{name}.pth"
    return ModelSpec(
        id=f"ddcolor-{name.removeprefix('paper_')}",
        title=title,
        node_name=node_name,
        role="colorize",
        architecture="DDColor",
        weights=(
            WeightFile(
                Download(filename, f"https://huggingface.co/piddnad/DDColor-models/resolve/main/{filename}"),
                size_bytes=size_bytes,
                sha256=sha256,
                licence=_LICENCE,
            ),
        ),
        build=partial(_build, depths=depths, widths=widths, what=f"DDColor {'tiny' if tiny else 'large'}"),
        weight_bytes=4 * (55_019_263 if tiny else 227_881_759),
        bytes_per_pixel=1_200,
        channels=1,
        multiple_of=32,
        minimum=32,
        native_side=512,
        value_range=(0.0, 100.0),
        # With random weights bfloat16 moves the colours by 0.7 % of their spread, by 4 % at most: on a photo by about
        # 0.1 and 0.6 in units of ab, of which 1 is just visible.
        dtypes=("bfloat16", "float32"),
        description=description,
        source="Kang et al. 2023, arXiv:2212.11613; https://github.com/piddnad/DDColor",
    )
