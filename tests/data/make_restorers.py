"""Make restorers.npz: what the authors' own face restorers make of a face, with the weights of tests/support/restorers.

    python tests/data/make_restorers.py CHECKOUTS [NETWORK ...]

CHECKOUTS is a folder with git checkouts of sczhou/CodeFormer and wzhouxiff/RestoreFormerPlusPlus, each under the last
part of its name. The `reference` extra is needed too: GFPGAN and RestoreFormer are those of the gfpgan package.
"""

from __future__ import annotations

import importlib
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
from published import layout_digest  # noqa: E402
from restorers import GOLDEN, PUBLISHED, STEP, aligned_face, fill  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

FIDELITIES = (0.0, 0.5, 1.0)


def _gfpgan_package(name: str) -> Any:
    runpy.run_path(str(ROOT / "bench" / "_basicsr_compat.py"))["install"]()
    return importlib.import_module(f"gfpgan.archs.{name}")


def gfpgan(_checkouts: Path) -> nn.Module:
    """As GFPGANer builds it for versions 1.3 and 1.4."""
    return _gfpgan_package("gfpganv1_clean_arch").GFPGANv1Clean(
        out_size=512,
        num_style_feat=512,
        channel_multiplier=2,
        decoder_load_path=None,
        fix_decoder=False,
        num_mlp=8,
        input_is_latent=True,
        different_w=True,
        narrow=1,
        sft_half=True,
    )


def restoreformer(_checkouts: Path) -> nn.Module:
    """As GFPGANer builds it."""
    return _gfpgan_package("restoreformer_arch").RestoreFormer()


def restoreformer_plus_plus(checkouts: Path, *, heads: int = 4, scales: int = 1) -> nn.Module:
    """RestoreFormer/RestoreFormer.py, arch RestoreFormer++; with 8 and 0, RestoreFormer."""
    sys.path.insert(0, str(checkouts / "RestoreFormerPlusPlus"))
    module = importlib.import_module("RestoreFormer.modules.vqvae.vqvae_arch")
    return module.VQVAEGANMultiHeadTransformer(head_size=heads, ex_multi_scale_num=scales)


def codeformer(checkouts: Path) -> nn.Module:
    """inference_codeformer.py."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "basicsr"]:
        del sys.modules[name]
    for name in ("basicsr", "basicsr.archs"):
        # The checkout's modules of that name, without the rest of its training framework.
        package = types.ModuleType(name)
        package.__path__ = [str(checkouts / "CodeFormer" / name.replace(".", "/"))]
        sys.modules[name] = package
    utils = types.ModuleType("basicsr.utils")
    utils.get_root_logger = lambda: None
    utils.__path__ = [str(checkouts / "CodeFormer" / "basicsr" / "utils")]
    sys.modules[utils.__name__] = utils
    module = importlib.import_module("basicsr.archs.codeformer_arch")
    return module.CodeFormer(
        dim_embd=512, codebook_size=1024, n_head=8, n_layers=9, connect_list=["32", "64", "128", "256"]
    )


NETWORKS: dict[str, Callable[[Path], nn.Module]] = {
    "gfpgan": gfpgan,
    "restoreformer": restoreformer,
    "restoreformer-plus-plus": restoreformer_plus_plus,
    # Last, for it puts another basicsr in the place of the installed one.
    "codeformer": codeformer,
}


def calls(name: str, network: nn.Module) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The authors' inference, by name of the output."""
    if name == "gfpgan":
        # Without this the noise is drawn anew each time, unlike the file's.
        return {"face": lambda x: network(x, return_rgb=False, randomize_noise=False)[0]}
    if name == "codeformer":
        return {f"face/{w}": lambda x, w=w: network(x, w=w, adain=True)[0] for w in FIDELITIES}
    return {"face": lambda x: network(x)[0]}


def code_margin(name: str, network: nn.Module, image: torch.Tensor) -> float:
    """How much nearer the nearest code is than the second, at the closest: near 0 other machines may choose another."""
    found: list[torch.Tensor] = []
    layer = network.quantize if name.startswith("restoreformer") else network.idx_pred_layer
    handle = layer.register_forward_hook(
        lambda _m, _i, out: found.append(-out[2][3] if name.startswith("restoreformer") else out[:, 0])
    )
    network(image)
    handle.remove()
    best = found[0].topk(2, dim=1).values
    chosen = found[0].argmax(1).unique().numel()
    print(f"{name}: {chosen} codes chosen, scores spread {float(found[0].std()):.3f}")
    return float((best[:, 0] - best[:, 1]).min())


def outputs(name: str, checkouts: Path) -> dict[str, np.ndarray]:
    """What ``restorers.npz`` holds of one network."""
    layout = next(each.layout for each in PUBLISHED.values() if each.layout.network == name)
    network = NETWORKS[name](checkouts).eval()
    state = fill(network.state_dict(), layout)
    network.load_state_dict(state)
    found = {f"{name}/layout": np.array(layout_digest(state))}
    image = aligned_face() * 2 - 1
    with torch.no_grad():
        for key, call in calls(name, network).items():
            face = (call(image) + 1) / 2
            inside = float(((face > 0) & (face < 1)).float().mean())
            print(f"{name}/{key}: mean {float(face.mean()):.3f}, spread {float(face.std()):.3f}, inside {inside:.3f}")
            found[f"{name}/{key}"] = face[0, :, ::STEP, ::STEP].clamp(0, 1).numpy()
        other = (call(image.flip(3)) + 1) / 2
        print(f"{name}: another face's result is off by {float((other - face).abs().mean()):.3f} on average")
        if name != "gfpgan":
            print(f"{name}: code margin {code_margin(name, network, image):.2g}")
    if name == "restoreformer":
        own = restoreformer_plus_plus(checkouts, heads=8, scales=0).eval()
        own.load_state_dict(state)
        with torch.no_grad():
            other = (own(image)[0] + 1) / 2
        print(f"{name}: gfpgan's copy is off the authors' by {float((other - face).abs().max()):.2g}")
    return found


def main() -> None:
    checkouts, names = Path(sys.argv[1]), sys.argv[2:] or list(NETWORKS)
    arrays = dict(np.load(GOLDEN)) if GOLDEN.exists() else {}
    for name in NETWORKS:
        if name in names:
            arrays.update(outputs(name, checkouts))
            np.savez_compressed(GOLDEN, **{key: arrays[key] for key in sorted(arrays)})


if __name__ == "__main__":
    main()
