"""Stage outputs as bytes: what goes in comes out, bit by bit."""

from __future__ import annotations

import enum
import json
import math
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headless.artefact import KINDS, decode, encode, lent_handle
from photokeep_nodes.errors import CacheError
from photokeep_nodes.model_spec import ModelHandle

ROOT = Path(__file__).resolve().parents[2]


def back(value: Any) -> Any:
    stored = encode(value)
    assert stored is not None
    return decode(stored.kind, stored.data)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_same_bits(one: torch.Tensor, other: torch.Tensor) -> None:
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert bits(one) == bits(other)


def stored_bytes(tensor: torch.Tensor) -> int:
    stored = encode(tensor)
    assert stored is not None
    return len(stored.data)


# -- tensors -----------------------------------------------------------------------------------------------------------

eight_bit = st.integers(0, 255).map(lambda level: float(np.float32(level) / np.float32(255)))
special = st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 3.4e38, 1 / 255, 1.0000001])


@settings(deadline=None)
@given(st.lists(st.floats(width=32) | eight_bit | special, max_size=40))
def test_any_floats_come_back_bit_by_bit(numbers: list[float]) -> None:
    tensor = torch.tensor(numbers, dtype=torch.float32)
    assert_same_bits(back(tensor), tensor)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8))
def test_any_bit_patterns_come_back(patterns: list[int]) -> None:
    """Signalling NaNs and payloads, too."""
    data = b"".join(struct.pack("<I", pattern) for pattern in patterns)
    tensor = torch.frombuffer(bytearray(data), dtype=torch.float32)
    assert_same_bits(back(tensor), tensor)


def test_every_8_bit_level_is_stored_in_a_byte() -> None:
    """As LoadPhoto makes them: uint8 values divided by 255."""
    photo = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 16, 64, 3)
    image = torch.from_numpy(photo.numpy() / np.float32(255))
    assert_same_bits(back(image), image)
    assert stored_bytes(image) < photo.numel() + 200
    assert_same_bits(back(photo.float() / 255), photo.float() / 255)


@pytest.mark.parametrize(
    "odd", [-0.0, 1 / 510, 256 / 255, -1 / 255, math.nan, math.inf, np.nextafter(np.float32(1), 0)]
)
@pytest.mark.parametrize("where", [0, -1])
def test_one_value_of_another_kind_is_kept(odd: float, where: int) -> None:
    image = torch.full((1, 700, 700, 3), 51 / 255)  # more than one piece of the comparison
    image.view(-1)[where] = float(odd)
    assert_same_bits(back(image), image)
    assert stored_bytes(image) > 4 * image.numel()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(1, 5, 7, 3),
        torch.rand(2, 5, 7),
        torch.rand(1, 5, 7, 3) * 3 - 1,
        torch.rand(1, 5, 7, 3).half(),
        torch.rand(1, 5, 7, 3).bfloat16(),
        torch.rand(4, dtype=torch.float64),
        torch.rand(2, 64, 64) > 0.5,
        torch.zeros(1, 64, 64),
        torch.ones(1, 64, 64),
        torch.randint(-9, 9, (3, 3)),
        torch.randint(0, 255, (3, 3), dtype=torch.uint8),
        torch.tensor(2.5),
        torch.tensor(7),
        torch.zeros(0, 4, 3),
        torch.rand(1, 7, 5, 3).transpose(1, 2),
        torch.rand(1, 3, 5, 7).permute(0, 2, 3, 1),
        torch.rand(1, 1, 1, 3).expand(2, 4, 4, 3),
        torch.rand(3, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_every_kind_of_tensor_comes_back(tensor: torch.Tensor) -> None:
    found = back(tensor)
    assert_same_bits(found, tensor.detach())
    assert found.is_contiguous()
    assert not found.requires_grad


def test_what_comes_back_can_be_changed_without_touching_what_is_stored() -> None:
    for tensor in (torch.rand(4), torch.ones(4)):
        stored = encode(tensor)
        assert stored is not None
        decode(stored.kind, stored.data).mul_(0.0)
        assert_same_bits(decode(stored.kind, stored.data), tensor)


def test_tensors_born_in_inference_mode_are_stored() -> None:
    with torch.inference_mode():
        tensor = torch.rand(2, 3)
    assert_same_bits(back(tensor), tensor.clone())


def test_digests_tell_contents_shapes_and_types_apart_and_nothing_else() -> None:
    image = torch.rand(2, 3, 4)
    others = [
        image * 0.5,
        image.view(2, 4, 3),
        image.half(),
        image.double(),
        -image,
        torch.zeros(2, 3, 4),
        torch.ones(2, 3, 4),
    ]
    others += [torch.zeros(2, 3, 4, dtype=torch.uint8), torch.ones(2, 3, 4, dtype=torch.bool), -torch.zeros(2, 3, 4)]
    digests = [encode(each).digest for each in (image, *others)]  # type: ignore[union-attr]
    assert len(set(digests)) == len(digests)
    assert encode(image.clone().requires_grad_()).digest == digests[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(3, 3).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.nn.Parameter(torch.zeros(2)),
        torch.empty(2, device="meta"),
    ],
    ids=["sparse", "complex", "parameter", "meta"],
)
def test_odd_tensors_are_not_stored(tensor: torch.Tensor) -> None:
    assert encode(tensor) is None


# -- JSON --------------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_comes_back_with_its_types_and_order(value: Any) -> None:
    assert repr(back(value)) == repr(value)


@pytest.mark.parametrize(
    "value", [-0.0, 0.1 + 0.2, 5e-324, 2**200, "\ud800 caf\udce9.jpg", "\x00", {"b": 1, "a": 2}, ""]
)
def test_odd_json_comes_back(value: Any) -> None:
    assert repr(back(value)) == repr(value)


def test_equal_values_of_other_types_have_other_digests() -> None:
    digests = [encode(value).digest for value in (1, 1.0, True, "1", [1], {"a": 1}, None)]  # type: ignore[union-attr]
    assert len(set(digests)) == len(digests)
    assert encode({"a": 1, "b": 2}).digest == encode({"b": 2, "a": 1}).digest  # type: ignore[union-attr]


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [1, math.inf],
        {"a": math.nan},
        (1, 2),
        {1: "a"},
        {"a": {1, 2}},
        b"bytes",
        object(),
        Colour.RED,
        np.zeros(2),
        np.float32(1),
        torch,
        10**6000,
        [torch.zeros(1)],
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_stored(value: Any) -> None:
    assert encode(value) is None


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_handle_comes_back_and_its_digest_is_that_of_the_model() -> None:
    handle = ModelHandle("ffdnet-color")
    stored = encode(handle, model_digest="weights 1")
    assert stored is not None
    assert stored.kind == "model"
    assert decode(stored.kind, stored.data) == handle
    assert encode(handle, model_digest="weights 1") == stored
    others = [
        encode(handle, model_digest="weights 2"),
        encode(ModelHandle("zero-dce"), model_digest="weights 1"),
        encode("ffdnet-color"),
    ]
    assert len({stored.digest, *(other.digest for other in others if other is not None)}) == 4


def test_a_lent_model_is_kept_by_its_name_and_is_not_the_handle() -> None:
    from photokeep_nodes.exchange import LentUpscaler

    handle = ModelHandle("realesr-animevideov3")
    assert lent_handle(LentUpscaler(handle)) == handle
    assert lent_handle(handle) is None
    assert encode(LentUpscaler(handle)) is None, "a bare name says nothing about the weights"
    stored = encode(LentUpscaler(handle), model_digest="weights 1")
    assert stored is not None
    back = decode(stored.kind, stored.data)
    assert isinstance(back, LentUpscaler)
    assert back.handle == handle
    others = [encode(handle, model_digest="weights 1"), encode(LentUpscaler(handle), model_digest="weights 2")]
    assert stored.digest not in {other.digest for other in others if other is not None}


# -- damage ------------------------------------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"{", b"[1", b"\x00" * 8, b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      ", pickle.dumps(Harmful())],
    ids=lambda data: repr(data[:10]),
)
def test_what_cannot_be_read_is_a_cache_error(
    kind: Any, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match=f"a stored {kind} cannot be read"):
        decode(kind, data)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_tensor_is_a_cache_error() -> None:
    stored = encode(torch.rand(10))
    assert stored is not None
    for length in range(0, len(stored.data), 7):
        with pytest.raises(CacheError):
            decode("tensor", stored.data[:length])


@pytest.mark.parametrize("data", [b"3", b"null", b'["ffdnet-color"]', b"{}"])
def test_what_names_no_model_is_a_cache_error(data: bytes) -> None:
    with pytest.raises(CacheError):
        decode("model", data)


def test_json_and_models_need_no_torch() -> None:
    code = (
        "import sys, json\n"
        "from headless.artefact import decode, encode\n"
        "from photokeep_nodes.model_spec import ModelHandle\n"
        "for value in ({'a': [1, 2.5, None]}, ModelHandle('zero-dce'), object()):\n"
        "    stored = encode(value)\n"
        "    assert stored is None or decode(stored.kind, stored.data) == value\n"
        "print(json.dumps('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) is False
