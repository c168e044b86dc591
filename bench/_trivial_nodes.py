"""Nodes that do next to nothing, for Photokeep's runner and for a ComfyUI alike: what is timed is the engine."""

from __future__ import annotations

from typing import Any


class BenchStart:
    """A number to begin with."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "bench"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """One number."""
        return {"required": {"value": ("INT", {"default": 0, "min": 0, "max": 10**9})}}

    def run(self, value: int) -> tuple[int]:
        """The number."""
        return (value,)


class BenchStep:
    """The next number."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "bench"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A number from another node, and one of its own."""
        number = {"default": 0, "min": 0, "max": 10**9}
        return {"required": {"value": ("INT", {"forceInput": True}), "add": ("INT", number)}}

    def run(self, value: int, add: int) -> tuple[int]:
        """Their sum."""
        return (value + add,)


class BenchEnd:
    """What a workflow is run for."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "bench"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A number from another node."""
        return {"required": {"value": ("INT", {"forceInput": True})}}

    def run(self, value: int) -> dict[str, Any]:
        """Nothing but having been there."""
        return {"ui": {"text": [str(value)]}, "result": ()}


NODE_CLASS_MAPPINGS = {"BenchStart": BenchStart, "BenchStep": BenchStep, "BenchEnd": BenchEnd}


def chain(nodes: int, start: int = 0) -> dict[str, Any]:
    """A prompt of so many nodes, each taking from the one before."""
    prompt: dict[str, Any] = {"1": {"class_type": "BenchStart", "inputs": {"value": start}}}
    for number in range(2, nodes):
        prompt[str(number)] = {"class_type": "BenchStep", "inputs": {"value": [str(number - 1), 0], "add": 1}}
    prompt[str(nodes)] = {"class_type": "BenchEnd", "inputs": {"value": [str(nodes - 1), 0]}}
    return prompt


def fan(nodes: int, start: int = 0) -> dict[str, Any]:
    """A prompt of so many nodes: one that half of the others take from, and an output behind each of those."""
    prompt: dict[str, Any] = {"1": {"class_type": "BenchStart", "inputs": {"value": start}}}
    for number in range(2, nodes, 2):
        prompt[str(number)] = {"class_type": "BenchStep", "inputs": {"value": ["1", 0], "add": number}}
        prompt[str(number + 1)] = {"class_type": "BenchEnd", "inputs": {"value": [str(number), 0]}}
    return prompt
