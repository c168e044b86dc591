"""Inputs that come and go: choices with inputs of their own, and sockets that multiply.

In a prompt they are flat keys: ``resize_type`` and ``resize_type.width``; ``images.image0``, ``images.image1``. What a
node has of them follows from its own values, so it is asked per node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from .schema import AUTOGROW, DYNAMIC_COMBO, MATCH_TYPE, InputSchema, input_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .schema import NodeSchema

_MAX_GROWTH = 1000
_MAX_DEPTH = 8
_MAX_INPUTS = 10_000  # of one node: sockets that multiply can bring others that do


@dataclass(frozen=True)
class Growth:
    """What an autogrow input grows by.

    Attributes:
        group: the input's own name, before the dot.
        inputs: what each step adds, mostly one.
        names: what the steps are called, where they are named.
        prefix: what their names begin with where they are numbered.
        minimum: steps that are required.
        maximum: steps there can be.
    """

    group: str
    inputs: tuple[InputSchema, ...]
    names: tuple[str, ...]
    prefix: str
    minimum: int
    maximum: int

    def step(self, index: int) -> tuple[InputSchema, ...]:
        """The inputs of one step, counted from 0."""
        return tuple(
            replace(each, name=self._name(index, each.name), required=each.required and index < self.minimum)
            for each in self.inputs
        )

    def _name(self, index: int, key: str) -> str:
        if self.names:
            return f"{self.group}.{self.names[index]}"
        return f"{self.group}.{self.prefix if len(self.inputs) == 1 else key}{index}"


def growth_of(spec: InputSchema) -> Growth:
    """What an ``AUTOGROW`` input grows by; a template that is not of the known form grows by nothing."""
    template = spec.options.get("template")
    template = template if isinstance(template, Mapping) else {}
    names = tuple(str(each) for each in _list(template.get("names")))
    maximum = len(names) if names else _whole(template.get("max"), 100)
    return Growth(
        group=spec.name,
        inputs=tuple(_declared(spec.name, template.get("input"), prefix="")),
        names=names,
        prefix=str(template.get("prefix") or ""),
        minimum=_whole(template.get("min"), 1),
        maximum=min(maximum, _MAX_GROWTH),
    )


def chosen_inputs(spec: InputSchema, choice: Any) -> tuple[InputSchema, ...]:
    """Inputs that come with one choice of a ``DYNAMIC_COMBO``, named ``choice input.name``."""
    for option in _list(spec.options.get("options")):
        if isinstance(option, Mapping) and option.get("key") == choice:
            return tuple(_declared(spec.name, option.get("inputs"), prefix=f"{spec.name}."))
    return ()


def resolved(spec: InputSchema) -> InputSchema:
    """The same input, a matching type replaced by the types it allows."""
    if spec.type != MATCH_TYPE:
        return spec
    template = spec.options.get("template")
    allowed = template.get("allowed_types") if isinstance(template, Mapping) else None
    return replace(spec, type=allowed if isinstance(allowed, str) and allowed else "*")


def flat_inputs(schema: NodeSchema, given: Mapping[str, Any]) -> tuple[InputSchema, ...]:
    """Every input a node has, dynamic ones spelled out as a prompt names them.

    Args:
        schema: its class.
        given: its inputs by name; choices decide which others there are.
    """
    if not any(each.type in _DYNAMIC for each in schema.inputs):
        return schema.inputs
    return tuple(islice(_flat(schema.inputs, given, 0), _MAX_INPUTS))


_DYNAMIC = frozenset({AUTOGROW, DYNAMIC_COMBO, MATCH_TYPE})


def _flat(inputs: tuple[InputSchema, ...], given: Mapping[str, Any], depth: int) -> Iterator[InputSchema]:
    for spec in inputs:
        if spec.type == AUTOGROW:
            growth = growth_of(spec)
            wanted = sum(name.startswith(f"{spec.name}.") for name in given)
            for index in range(growth.maximum):
                step = growth.step(index)
                present = any(each.name in given for each in step)
                if present or index < growth.minimum:
                    yield from _flat(step, given, depth + 1)
                wanted -= present
                if wanted <= 0 and index + 1 >= growth.minimum:
                    break
        elif spec.type == DYNAMIC_COMBO:
            yield replace(spec, type="COMBO", listed=False)
            if depth < _MAX_DEPTH:
                yield from _flat(chosen_inputs(spec, given.get(spec.name)), given, depth + 1)
        else:
            yield resolved(spec)


def _declared(owner: str, groups: Any, *, prefix: str) -> Iterator[InputSchema]:
    for group in ("required", "optional"):
        specs = groups.get(group) if isinstance(groups, Mapping) else None
        for name, spec in (specs if isinstance(specs, Mapping) else {}).items():
            yield input_schema(owner, f"{prefix}{name}", spec, required=group == "required")


def _list(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else ()


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
