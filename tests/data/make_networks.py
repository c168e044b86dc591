"""Make networks.npz: outputs of the authors' own networks, with the weights and photos of tests/support/published.py.

    python tests/data/make_networks.py CHECKOUTS [NETWORK ...]

CHECKOUTS is a folder with git checkouts of XPixelGroup/HAT, JingyunLiang/SwinIR, zhengchen1999/DAT, muslll/neosr,
cszn/KAIR, cszn/SCUNet, megvii-research/NAFNet, jiaxi-jiang/FBCNN and swz30/Restormer, each under the last part of its
name. The `reference` extra is needed too: Real-ESRGAN's networks are in basicsr. What a file imports beside torch,
numpy and einops is replaced below: parts for training, and of timm.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from published import LAYOUTS, layout_digest, photo, random_state  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = Path(__file__).with_name("networks.npz")
TOLD_QUALITY = 0.6


class _DropPath(nn.Identity):
    """timm's, which does nothing once training is over."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()


class _Registry:
    @staticmethod
    def register() -> Callable[[type], type]:
        return lambda cls: cls


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


_LAYERS = {"DropPath": _DropPath, "to_2tuple": _pair, "trunc_normal_": nn.init.trunc_normal_}
_STUBS: dict[str, dict[str, Any]] = {
    "timm.models.layers": _LAYERS,
    "thop": {"profile": None},
    "neosr.archs.arch_util": {"DySample": None, "net_opt": lambda: (4, False)},
    "neosr.utils.registry": {"ARCH_REGISTRY": _Registry},
}


def load(checkouts: Path, path: str) -> Any:
    """Run one file of a checkout, its sibling modules importable by their own names."""
    runpy.run_path(str(ROOT / "bench" / "_basicsr_compat.py"))["install"]()
    for name, attributes in _STUBS.items():
        for depth in range(1, name.count(".") + 1):
            sys.modules.setdefault(".".join(name.split(".")[:depth]), types.ModuleType(name))
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(attributes)
    file = checkouts / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hat(checkouts: Path) -> nn.Module:
    """options/train/train_Real_HAT_GAN_SRx4_finetune_from_mse_model.yml."""
    return load(checkouts, "HAT/hat/archs/hat_arch.py").HAT(
        upscale=4,
        in_chans=3,
        img_size=64,
        window_size=16,
        compress_ratio=3,
        squeeze_factor=30,
        conv_scale=0.01,
        overlap_ratio=0.5,
        img_range=1.0,
        depths=[6] * 6,
        embed_dim=180,
        num_heads=[6] * 6,
        mlp_ratio=2,
        upsampler="pixelshuffle",
        resi_connection="1conv",
    )


def swinir(checkouts: Path, *, large: bool) -> nn.Module:
    """main_test_swinir.py, task real_sr."""
    depth, width, heads = (9, 240, 8) if large else (6, 180, 6)
    return load(checkouts, "SwinIR/models/network_swinir.py").SwinIR(
        upscale=4,
        in_chans=3,
        img_size=64,
        window_size=8,
        img_range=1.0,
        depths=[6] * depth,
        embed_dim=width,
        num_heads=[heads] * depth,
        mlp_ratio=2,
        upsampler="nearest+conv",
        resi_connection="3conv" if large else "1conv",
    )


def dat(checkouts: Path) -> nn.Module:
    """options/Test/test_DAT_2_x4.yml."""
    return load(checkouts, "DAT/basicsr/archs/dat_arch.py").DAT(
        upscale=4,
        in_chans=3,
        img_size=64,
        img_range=1.0,
        split_size=[8, 32],
        depth=[6] * 6,
        embed_dim=180,
        num_heads=[6] * 6,
        expansion_factor=2,
        resi_connection="1conv",
    )


def realplksr(checkouts: Path, *, scale: int) -> nn.Module:
    """The defaults: the sizes of the published safetensors tell them from all variants."""
    return load(checkouts, "neosr/neosr/archs/realplksr_arch.py").realplksr(upscaling_factor=scale)


def scunet(checkouts: Path) -> nn.Module:
    """main_test_scunet_real_application.py."""
    return load(checkouts, "SCUNet/models/network_scunet.py").SCUNet(in_nc=3, config=[4] * 7, dim=64)


def nafnet(checkouts: Path, *, gopro: bool) -> nn.Module:
    """options/test/*/NAFNet-width64.yml; GoPro's pools locally, which changes nothing below 384 px."""
    for name in ("basicsr", "basicsr.models", "basicsr.models.archs"):
        # The checkout's modules of that name, without the rest of its training framework.
        package = types.ModuleType(name)
        package.__path__ = [str(checkouts / "NAFNet" / name.replace(".", "/"))]
        sys.modules[name] = package
    module = load(checkouts, "NAFNet/basicsr/models/archs/NAFNet_arch.py")
    encoders, middle, decoders = ([1, 1, 1, 28], 1, [1] * 4) if gopro else ([2, 2, 4, 8], 12, [2] * 4)
    network = module.NAFNetLocal if gopro else module.NAFNet
    return network(width=64, enc_blk_nums=encoders, middle_blk_num=middle, dec_blk_nums=decoders)


def fbcnn(checkouts: Path, *, channels: int) -> nn.Module:
    """main_test_fbcnn_color_real.py, main_test_fbcnn_gray_doublejpeg.py."""
    module = load(checkouts, "FBCNN/models/network_fbcnn.py")
    return module.FBCNN(in_nc=channels, out_nc=channels, nc=[64, 128, 256, 512], nb=4, act_mode="R")


def restormer(checkouts: Path) -> nn.Module:
    """Denoising/Options/GaussianColorDenoising_Restormer.yml."""
    module = load(checkouts, "Restormer/basicsr/models/archs/restormer_arch.py")
    return module.Restormer(LayerNorm_type="BiasFree")


def _basicsr(name: str) -> Any:
    runpy.run_path(str(ROOT / "bench" / "_basicsr_compat.py"))["install"]()
    return importlib.import_module(f"basicsr.archs.{name}")


def rrdbnet(_checkouts: Path, *, scale: int) -> nn.Module:
    """Real-ESRGAN's inference_realesrgan.py."""
    module = _basicsr("rrdbnet_arch")
    return module.RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=64, num_block=23, num_grow_ch=32, scale=scale)


def srvgg(_checkouts: Path) -> nn.Module:
    """Real-ESRGAN's inference_realesrgan.py."""
    module = _basicsr("srvgg_arch")
    return module.SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=32, upscale=4, act_type="prelu")


def bsrgan(checkouts: Path) -> nn.Module:
    """KAIR's main_test_bsrgan.py."""
    module = load(checkouts, "KAIR/models/network_rrdbnet.py")
    return module.RRDBNet(in_nc=3, out_nc=3, nf=64, nb=23, gc=32, sf=4)


NETWORKS: dict[str, Callable[[Path], nn.Module]] = {
    "rrdbnet-x4": lambda folder: rrdbnet(folder, scale=4),
    "rrdbnet-x2": lambda folder: rrdbnet(folder, scale=2),
    "srvgg-x4": srvgg,
    "bsrgan": bsrgan,
    "hat": hat,
    "swinir-l": lambda folder: swinir(folder, large=True),
    "swinir-m": lambda folder: swinir(folder, large=False),
    "dat2": dat,
    "realplksr-x4": lambda folder: realplksr(folder, scale=4),
    "realplksr-x1": lambda folder: realplksr(folder, scale=1),
    "scunet": scunet,
    "fbcnn-color": lambda folder: fbcnn(folder, channels=3),
    "fbcnn-gray": lambda folder: fbcnn(folder, channels=1),
    "restormer": restormer,
    # Last, for they put another basicsr in the place of the installed one.
    "nafnet-sidd": lambda folder: nafnet(folder, gopro=False),
    "nafnet-gopro": lambda folder: nafnet(folder, gopro=True),
}


def outputs(name: str, checkouts: Path) -> dict[str, np.ndarray]:
    """What ``networks.npz`` holds of one network."""
    layout = next(layout for layout in LAYOUTS.values() if layout.network == name)
    network = NETWORKS[name](checkouts).eval()
    state = random_state(network.state_dict(), layout)
    network.load_state_dict(state)
    image = photo(layout.height, layout.width, layout.channels)

    def kept(result: torch.Tensor) -> np.ndarray:
        print(f"{name}: mean {float(result.mean()):.3f}, spread {float(result.std()):.3f}")
        return result[0, :, :: layout.step, :: layout.step].numpy()

    found = {f"{name}/layout": np.array(layout_digest(state))}
    with torch.no_grad():
        result = network(image)
        if isinstance(result, tuple):
            result, damage = result
            found[f"{name}/quality"] = 1 - damage.numpy().ravel()
            found[f"{name}/told"] = kept(network(image, torch.tensor([[1 - TOLD_QUALITY]]))[0])
        found[f"{name}/blind"] = kept(result)
    return found


def main() -> None:
    checkouts, names = Path(sys.argv[1]), sys.argv[2:] or list(NETWORKS)
    arrays = dict(np.load(TARGET)) if TARGET.exists() else {}
    for name in NETWORKS:
        if name in names:
            arrays.update(outputs(name, checkouts))
    np.savez_compressed(TARGET, **{key: arrays[key] for key in sorted(arrays)})


if __name__ == "__main__":
    main()
