"""In which floating type a network computes: who decides, and that bfloat16 does not show."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from photokeep_nodes import inference, precision, tiled_inference, weights
from photokeep_nodes.models import catalogue

if TYPE_CHECKING:
    from photokeep_nodes.model_spec import ModelSpec

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPACT = catalogue()["realesr-animevideov3"]


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture
def automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOKEEP_PRECISION", "auto")


def photo(height: int, width: int, top: int = 60, left: int = 180) -> torch.Tensor:
    part = data.astronaut()[top : top + height, left : left + width]
    return torch.from_numpy(part / np.float32(255)).permute(2, 0, 1)[None]


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(-10 * torch.log10((one.clamp(0, 1) - other.clamp(0, 1)).square().mean()))


def instructions(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the CPU have these and no others that count."""
    found = {name: name in names for name in ("avx512_f", "avx512_bf16", "amx_bf16")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


# -- who decides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_the_user_can_have_float32_everywhere(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    instructions(monkeypatch, "amx_bf16")
    for spec in catalogue().values():
        assert precision.choose(spec, device) == torch.float32


@pytest.mark.usefixtures("automatic")
@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16"])
def test_a_cpu_computes_bfloat16_only_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    allowed = replace(COMPACT, dtypes=("float16", "bfloat16", "float32"))
    forbidden = replace(COMPACT, dtypes=("float16", "float32"))
    instructions(monkeypatch, "avx512_f", name)
    assert precision.choose(allowed, CPU) == torch.bfloat16
    assert precision.choose(forbidden, CPU) == torch.float32
    instructions(monkeypatch, "avx512_f")
    assert precision.choose(allowed, CPU) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert precision.choose(allowed, CPU) == torch.float32, "a torch that cannot tell"


@pytest.mark.usefixtures("automatic")
@pytest.mark.parametrize(
    ("dtypes", "bf16", "expected"),
    [
        (("float16", "float32"), True, torch.float16),
        (("bfloat16", "float32"), True, torch.bfloat16),
        (("bfloat16", "float32"), False, torch.float32),
        (("bfloat16", "float16"), False, torch.float16),
        (("float32",), True, torch.float32),
        (("bfloat16",), False, torch.float32),
    ],
)
def test_on_cuda_the_architecture_decides(
    monkeypatch: pytest.MonkeyPatch, dtypes: Any, bf16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert precision.choose(replace(COMPACT, dtypes=dtypes), CUDA) == expected


# -- what bfloat16 changes ---------------------------------------------------------------------------------------------


X4PLUS = catalogue()["realesrgan-x4plus"]
needs_starter = pytest.mark.skipif(weights.status(X4PLUS).state != "installed", reason="needs the starter extra")


def run(image: torch.Tensor, dtype: torch.dtype, spec: ModelSpec = COMPACT) -> torch.Tensor:
    height, width = image.shape[-2:]
    return inference.run(spec, lambda network: network(image), height=height, width=width, dtype=dtype)


@pytest.mark.parametrize(
    ("spec", "least_psnr"), [(COMPACT, 55), pytest.param(X4PLUS, 48, marks=needs_starter)], ids=["compact", "x4plus"]
)
def test_bfloat16_cannot_be_told_from_float32_by_eye(spec: ModelSpec, least_psnr: float) -> None:
    """x4plus invents texture, and in each precision a little otherwise."""
    image = photo(48, 48)
    exact, mixed = run(image, torch.float32, spec), run(image, torch.bfloat16, spec)
    assert mixed.dtype == torch.float32
    assert not torch.equal(exact, mixed), "otherwise this compares float32 with itself"
    assert psnr(mixed, exact) > least_psnr
    # It is as near to the photo as float32 is.
    small = nn.functional.avg_pool2d
    assert abs(psnr(small(mixed, 4), image) - psnr(small(exact, 4), image)) < 0.2


def test_a_bright_sky_gets_no_bands() -> None:
    """As a whole in bfloat16 its steps near white are 1/256."""
    sky = torch.linspace(0.9, 1.0, 64).expand(1, 3, 32, 64).contiguous()
    whole = weights.load_module(COMPACT).bfloat16()
    with torch.no_grad():
        banded = whole(sky.bfloat16()).float()
    kept = run(sky, torch.bfloat16)
    row = slice(60, 61)
    assert banded[0, 0, row].unique().numel() < 30
    assert kept[0, 0, row].unique().numel() > 200


def test_the_weights_stay_in_float32_and_the_last_layer_computes_in_it() -> None:
    """The last to run, that is: FBCNN defines the layers that judge the quality after it."""
    seen = {}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail = nn.Conv2d(4, 3, 1)
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
            self.judge = nn.Conv2d(4, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.body(x)
            seen["inner"] = inner.dtype
            seen["judged"] = self.judge(inner).dtype
            out: torch.Tensor = self.tail(inner)
            return out

    module = precision.prepare(Net(), torch.bfloat16, torch.rand(1, 3, 4, 4))
    with torch.no_grad(), precision.computing(CPU, torch.bfloat16):
        assert module(torch.rand(1, 3, 4, 4)).dtype == torch.float32
    assert seen == {"inner": torch.bfloat16, "judged": torch.bfloat16}
    assert {each.dtype for each in module.parameters()} == {torch.float32}
    assert precision.stored(torch.bfloat16) == torch.float32


def test_float16_is_the_network_as_a_whole() -> None:
    module = precision.prepare(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.float16)
    assert {each.dtype for each in module.parameters()} == {torch.float16}
    with precision.computing(CPU, torch.float16):
        assert not torch.is_autocast_enabled("cpu")


def test_a_network_that_is_one_layer_has_none_to_protect() -> None:
    lone = nn.Conv2d(3, 3, 1)
    assert precision.prepare(lone, torch.bfloat16, torch.rand(1, 3, 4, 4)) is lone


def test_no_model_of_the_catalogue_gives_rounded_values() -> None:
    """What is stored in bfloat16 can hold no more than 256 values between one half and one."""
    for spec in catalogue().values():
        if "bfloat16" in spec.dtypes and weights.status(spec).state == "installed":
            module = precision.prepare(weights.load_module(spec), torch.bfloat16, *precision.example_of(spec))
            with torch.no_grad(), precision.computing(CPU, torch.bfloat16):
                out = module(photo(24, 24))
            rounded = out == out.bfloat16().float()
            assert rounded.float().mean() < 0.02, spec.id


@pytest.mark.usefixtures("automatic")
def test_a_photo_runs_in_tiles_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(COMPACT, dtypes=("bfloat16", "float32"))
    image = photo(40, 150)
    instructions(monkeypatch, "amx_bf16")
    mixed = tiled_inference.apply_tiled(spec, image, tile=96)
    instructions(monkeypatch, "avx512_f")
    exact = tiled_inference.apply_tiled(spec, image, tile=96)
    assert not torch.equal(mixed, exact)
    assert psnr(mixed, exact) > 55
