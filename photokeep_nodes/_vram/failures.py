"""What an exception from a model call means, whatever library it came from, and how to let go of what it holds."""

from __future__ import annotations

import traceback

import torch

# What allocators say that have no exception of their own: torch's on the CPU, by system, MPS, and NVIDIA's libraries.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)

# After any of these the device's context is lost for this process: every later call on it fails as well.
_DEVICE_LOST = (
    "CUDA error",
    "HIP error",
    "device-side assert",
    "GPU has fallen off the bus",
    "device was lost",
    "uncorrectable ECC error",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocator's refusal, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether ``error`` says that its device can no longer be used."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or any(words in str(error) for words in _DEVICE_LOST)


def let_go(error: BaseException) -> None:
    """Empty the frames that ``error`` came through, and those of the errors before it: they keep tensors alive."""
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        each = chain.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            chain += (each.__cause__, each.__context__)
