"""Make inpainters.npz: what the authors' LaMa and MAT draw, with the weights and holes of tests/support/inpainters.py.

    python tests/data/make_inpainters.py CHECKOUTS [lama] [mat]

CHECKOUTS is a folder with git checkouts of advimman/lama (as "lama") and fenglinglwb/MAT (as "MAT"). What they import
for training alone is replaced below.
"""

from __future__ import annotations

import ast
import importlib
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
from inpainters import MAT_STEP, lama_case, lama_state, mat_case, mat_state  # noqa: E402
from published import layout_digest  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = Path(__file__).with_name("inpainters.npz")


def _stub(name: str, **attributes: Any) -> None:
    for depth in range(1, name.count(".") + 1):
        sys.modules.setdefault(".".join(name.split(".")[:depth]), types.ModuleType(name))
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(attributes)


def _lama_forward(checkouts: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """``DefaultInpaintingTrainingModule.forward`` without its class, whose module needs all that trains."""
    source = (checkouts / "lama/saicinpainting/training/trainers/default.py").read_text(encoding="utf-8")
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    forward = next(node for node in functions if node.name == "forward")
    scope: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module([forward], []), "default.py", "exec"), scope)
    return scope["forward"]


def lama(checkouts: Path) -> dict[str, np.ndarray]:
    """configs/training/big-lama.yaml, as bin/to_jit.py calls it."""
    sys.path.insert(0, str(checkouts / "lama"))
    _stub("kornia.geometry.transform", rotate=None)
    _stub("pytorch_lightning", seed_everything=None)
    module = importlib.import_module("saicinpainting.training.modules.ffc")
    outside = {"ratio_gin": 0, "ratio_gout": 0, "enable_lfu": False}
    generator = module.FFCResNetGenerator(
        input_nc=4,
        output_nc=3,
        ngf=64,
        n_downsampling=3,
        n_blocks=18,
        add_out_act="sigmoid",
        init_conv_kwargs=outside,
        downsample_conv_kwargs=outside,
        resnet_conv_kwargs={"ratio_gin": 0.75, "ratio_gout": 0.75, "enable_lfu": False},
    ).eval()
    prefix = "model.generator."
    state = lama_state({prefix + name: tensor for name, tensor in generator.state_dict().items()})
    generator.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    trainer = types.SimpleNamespace(
        training=False,
        add_noise_kwargs=None,
        concat_mask=True,
        generator=generator,
        fake_fakes_proba=0,
        refine_mask_for_losses=None,
    )
    image, mask = lama_case()
    batch = _lama_forward(checkouts)(trainer, {"image": image, "mask": mask})
    return {"lama/layout": np.array(layout_digest(state)), "lama/drawn": _drawn(batch["inpainted"], mask, 1)}


def mat(checkouts: Path) -> dict[str, np.ndarray]:
    """generate_image.py, with the published file's lack of noise, and with what chance keeps fixed as it is here."""
    sys.path.insert(0, str(checkouts / "MAT"))
    module = importlib.import_module("networks.mat")
    generator = module.Generator(
        z_dim=512, c_dim=0, w_dim=512, img_resolution=512, img_channels=3, synthesis_kwargs={"use_noise": False}
    ).eval()
    state = mat_state(generator.state_dict())
    generator.load_state_dict(state)
    random = np.random.RandomState(240)
    style = torch.from_numpy(random.randn(1, 512))
    kept = [random.random_sample(shape) < 0.5 for shape in ((1, 256, 180), (1, 512, 16, 16))]

    class Functional:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch.nn.functional, name)

        def dropout(self, values: torch.Tensor, *, training: bool) -> torch.Tensor:
            assert training
            return torch.where(torch.from_numpy(kept.pop(0)), values * 2, torch.zeros(()))

    module.F = Functional()
    image, mask = mat_case()
    drawn = generator(image * 2 - 1, 1 - mask, style, torch.zeros(1, 0), truncation_psi=1, noise_mode="const")
    return {"mat/layout": np.array(layout_digest(state)), "mat/drawn": _drawn(drawn * 0.5 + 0.5, mask, MAT_STEP)}


def _drawn(image: torch.Tensor, mask: torch.Tensor, step: int) -> np.ndarray:
    """Every few of the pixels that were filled, (N, 3), not clamped."""
    filled = image[0].permute(1, 2, 0)[mask[0, 0] == 1][::step]
    outside = ((filled < 0) | (filled > 1)).float().mean()
    print(f"mean {filled.mean():.3f}, spread {filled.std():.3f}, outside of the range {outside:.3f}")
    return filled.numpy()


def main() -> None:
    checkouts, names = Path(sys.argv[1]), sys.argv[2:] or ["lama", "mat"]
    arrays = dict(np.load(TARGET)) if TARGET.exists() else {}
    with torch.no_grad():
        for name in names:
            arrays.update({"lama": lama, "mat": mat}[name](checkouts))
    np.savez_compressed(TARGET, **{key: arrays[key] for key in sorted(arrays)})


if __name__ == "__main__":
    main()
