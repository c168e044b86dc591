"""Let basicsr 1.4.2, and with it realesrgan and gfpgan, import beside a current torchvision."""

from __future__ import annotations

import sys
import types


def install() -> None:
    """Provide ``torchvision.transforms.functional_tensor``, gone since torchvision 0.17; basicsr wants one function."""
    from torchvision.transforms import functional

    module = types.ModuleType("torchvision.transforms.functional_tensor")
    module.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules.setdefault(module.__name__, module)
