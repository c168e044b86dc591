"""Call a node over lists of values, as the host does.

An output that is declared a list holds several values. A node that takes one at a time is then called once for each;
where its inputs hold unequally many, the last value of the shorter ones is used again. A node with ``INPUT_IS_LIST``
is called once, with every input as a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .schema import OutputSchema


class Several(list[Any]):
    """The values of one output, where they are not exactly one; a plain list is one value that is a list."""


def calls(inputs: Mapping[str, Any], *, takes_lists: bool) -> Iterator[dict[str, Any]]:
    """The arguments of each call.

    Args:
        inputs: values, or ``Several`` of them.
        takes_lists: the node has ``INPUT_IS_LIST``.
    Raises:
        NodeInputError: an input holds no value at all.
    """
    lists = {name: list(value) if isinstance(value, Several) else [value] for name, value in inputs.items()}
    if takes_lists:
        yield lists
        return
    if empty := [name for name, values in lists.items() if not values]:
        raise NodeInputError(
            f"the input {empty[0]} was given an empty list: there is nothing to work on",
            hint="Look at the stage before it.",
        )
    for index in range(max(map(len, lists.values()), default=1)):
        yield {name: values[min(index, len(values) - 1)] for name, values in lists.items()}


def merged(results: Sequence[Sequence[Any]], outputs: Sequence[OutputSchema]) -> tuple[Any, ...]:
    """The outputs of a stage from those of its calls.

    Args:
        results: of each call, a value for each output; where that is declared a list, a list or tuple.
        outputs: as declared.
    """
    merged_outputs = []
    for slot, output in enumerate(outputs):
        values = Several()
        for result in results:
            values.extend(result[slot] if output.is_list else (result[slot],))
        merged_outputs.append(values[0] if len(values) == 1 else values)
    return tuple(merged_outputs)
