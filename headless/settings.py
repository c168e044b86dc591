"""What a user can set once for every run: ``PHOTOKEEP_*`` variables, read into one frozen object."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from photokeep_nodes import host
from photokeep_nodes.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes that a size such as "8G", "512 MiB" or "1000000" stands for; units are powers of 1024.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]?)(?:i?b)?\s*", text, flags=re.IGNORECASE | re.ASCII)
    n_bytes = 0 if match is None else int(Fraction(match[1]) * _UNITS[match[2].lower()])
    if n_bytes < 1:
        raise UsageError(f"{text!r} is no size", hint="Write it like 8G, 512M or 12.5GiB.")
    return n_bytes


@dataclass(frozen=True)
class Settings:
    """Defaults that the command line can override. A variable that is set to nothing counts as not set.

    Attributes:
        device: PHOTOKEEP_DEVICE: "auto", "cpu" or "cuda:N".
        vram_budget_bytes: PHOTOKEEP_VRAM_BUDGET: cap on the pool of a GPU; None leaves it to the card.
        cache_dir: PHOTOKEEP_CACHE: converted weights and stage outputs.
        cache_limit_bytes: PHOTOKEEP_CACHE_LIMIT: the stage cache is kept below this.
        output_dir: PHOTOKEEP_OUTPUT: where results are written.
        precision: PHOTOKEEP_PRECISION: "auto", or "full" for float32 everywhere; the node pack reads it by itself.
    """

    device: str
    vram_budget_bytes: int | None
    cache_dir: Path
    cache_limit_bytes: int
    output_dir: Path
    precision: str = "auto"

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the variables.

        Raises:
            UsageError: one of them cannot be understood.
        """
        return cls(
            device=_variable("PHOTOKEEP_DEVICE", check_device) or "auto",
            vram_budget_bytes=_variable("PHOTOKEEP_VRAM_BUDGET", parse_size),
            cache_dir=host.cache_dir(),
            cache_limit_bytes=_variable("PHOTOKEEP_CACHE_LIMIT", parse_size) or 20 * 2**30,
            output_dir=_variable("PHOTOKEEP_OUTPUT", lambda text: Path(text).expanduser()) or Path("output"),
            precision=_variable("PHOTOKEEP_PRECISION", _check_precision) or "auto",
        )


def _variable(name: str, read: Callable[[str], T]) -> T | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        return read(text)
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint) from None


def _check_precision(name: str) -> str:
    if name.lower() not in {"auto", "full"}:
        raise UsageError(f"{name!r} is no precision", hint="Use auto, or full for float32 everywhere.")
    return name.lower()


def check_device(name: str) -> str:
    """``name`` if it is a device name.

    Raises:
        UsageError: it is not.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name, flags=re.ASCII) is None:
        raise UsageError(f"{name!r} is no device", hint="Use auto, cpu, cuda or cuda:N.")
    return name


def require_device(name: str) -> None:
    """Check that torch can compute on ``name``; asks it only where a particular accelerator was named.

    Raises:
        UsageError: this machine does not have it, or torch cannot use it.
    """
    kind, _, index = name.partition(":")
    if kind in {"auto", "cpu"}:
        return
    import torch

    count = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(index or 0) >= count:
        found = "none" if count == 0 else f"{count}, from cuda:0 to cuda:{count - 1}"
        raise UsageError(
            f"there is no device {name} here: torch finds {found}",
            hint="Use --device auto or cpu; `photokeep doctor` shows what is there.",
        )
