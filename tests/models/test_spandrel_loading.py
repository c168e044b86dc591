"""A weight file of another network is refused by the name of what it is."""

from __future__ import annotations

import pytest
import torch
from spandrel.architectures.HAT import HAT
from spandrel.architectures.PLKSR import RealPLKSR
from spandrel.architectures.SwinIR import SwinIR

from photokeep_nodes import models
from photokeep_nodes.errors import WeightsFormatError

# spandrel's own constructors, called here by hand, call it the old way.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

SMALL = {"depths": [1], "num_heads": [2], "embed_dim": 12, "mlp_ratio": 2, "img_size": 16}
NETWORKS = {
    "HAT x4": lambda: HAT(window_size=16, squeeze_factor=2, upscale=4, upsampler="pixelshuffle", **SMALL),
    "SwinIR x4": lambda: SwinIR(window_size=8, upscale=4, upsampler="nearest+conv", **SMALL),
    "SwinIR x2": lambda: SwinIR(window_size=8, upscale=2, upsampler="pixelshuffle", **SMALL),
    "PLKSR x1": lambda: RealPLKSR(dim=16, n_blocks=1, upscaling_factor=1),
    "PLKSR x4": lambda: RealPLKSR(dim=16, n_blocks=1, upscaling_factor=4),
}


@pytest.mark.parametrize(
    ("model_id", "given", "wanted"),
    [
        ("swinir-l-real", "HAT x4", "SwinIR x4"),
        ("hat-real", "SwinIR x4", "HAT x4"),
        ("swinir-m-real", "SwinIR x2", "SwinIR x4"),
        ("realesrgan-x2plus", "PLKSR x4", "ESRGAN x2"),
        ("webphoto-realplksr", "PLKSR x1", "PLKSR x4"),
        ("realplksr-dejpg", "PLKSR x4", "PLKSR x1"),
        ("scunet-psnr", "PLKSR x1", "SCUNet x1"),
        ("nafnet-gopro64", "PLKSR x1", "NAFNet x1"),
        ("fbcnn-color", "PLKSR x1", "FBCNN x1"),
        ("dat2-realwebphoto", "HAT x4", "DAT x4"),
        ("realesr-general-x4v3", "HAT x4", "Compact x4"),
    ],
)
def test_another_networks_weights_are_refused_by_name(model_id: str, given: str, wanted: str) -> None:
    state = NETWORKS[given]().state_dict()
    with pytest.raises(WeightsFormatError, match=f"the weights are {given} with 3 channels; {wanted} with 3") as caught:
        models.catalogue()[model_id].build(state)
    assert "models list" in caught.value.hint


@pytest.mark.parametrize("model_id", ["hat-real", "swinir-m-real", "realplksr-dejpg", "fbcnn-color"])
def test_weights_of_nothing_known_are_refused(model_id: str) -> None:
    with pytest.raises(WeightsFormatError, match="no architecture"):
        models.catalogue()[model_id].build({"banana": torch.zeros(3)})


def test_a_missing_tensor_is_refused() -> None:
    state = NETWORKS["PLKSR x4"]().state_dict()
    del state["feats.1.refine.bias"]
    with pytest.raises(WeightsFormatError, match="do not fit PLKSR x4"):
        models.catalogue()["webphoto-realplksr"].build(state)
