"""The widgets of one node as the editor holds them: made from the class, filled from the file.

Values are saved by position, without names, and the list of widgets changes while it is filled: a choice brings
widgets of its own, which take the next places. So the list is made and filled here in the editor's own order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any, Final

from .dynamic_inputs import chosen_inputs, growth_of, resolved
from .schema import AUTOGROW, CUSTOM_COMBO, DYNAMIC_COMBO, MATCH_TYPE, WIDGET_TYPES

if TYPE_CHECKING:
    from .editor_graph import EditorNode
    from .schema import InputSchema, NodeSchema

UNSET: Final = object()
"""The value of a widget nobody gave one; it is not sent."""

_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload")
_WITH_3D_BUTTONS = frozenset({"Load3D"})
_WITH_3D_PREVIEW = frozenset({"Preview3D", "SaveGLB"})
_BUTTONS_3D = {"upload 3d model": "upload3dmodel", "upload extra resources": "uploadExtraResources", "clear": "clear"}
_MAX_WIDGETS = 10_000


@dataclass(eq=False)
class Widget:
    """One widget.

    Attributes:
        name: the key its value is sent under.
        value: what it holds.
        spec: the input it belongs to; None for those the editor adds.
        sent: whether the host gets the value.
        saved: whether it has a place in the file.
    """

    name: str
    value: Any
    spec: InputSchema | None = None
    sent: bool = True
    saved: bool = True

    @property
    def choices(self) -> tuple[Any, ...]:
        """What a list offers; nothing for other widgets."""
        return (self.spec.choices or ()) if self.spec is not None else ()


@dataclass(eq=False)
class Socket:
    """An input of a node, connected or not.

    Attributes:
        name: the input's name.
        type: the types it takes.
        widget: the widget it can stand in for; None for a plain socket.
        link: where its link comes from, as (node id, output index); None where nothing is connected.
        link_id: that link's own id in the file.
        matching: its type becomes that of what is connected.
    """

    name: str
    type: str
    widget: Widget | None = None
    link: tuple[str, int] | None = None
    link_id: str = ""
    matching: bool = False


@dataclass(eq=False)
class Fields:
    """Sockets and widgets of one node, each in the editor's order.

    Attributes:
        sockets: as they are now.
        widgets: as they are now.
        first_sockets: names of the sockets a new node has, before any value is set.
        disagreeing: widgets of which the file has two values: name, the one by position, the one by name.
    """

    sockets: list[Socket] = field(default_factory=list)
    widgets: list[Widget] = field(default_factory=list)
    first_sockets: tuple[str, ...] = ()
    disagreeing: tuple[tuple[str, Any, Any], ...] = ()

    def socket(self, name: str) -> Socket | None:
        """The first socket called ``name``."""
        return next((each for each in self.sockets if each.name == name), None)

    def widget(self, name: str) -> Widget | None:
        """The first widget called ``name``."""
        return next((each for each in self.widgets if each.name == name), None)


def fresh_fields(schema: NodeSchema) -> Fields:
    """Sockets and widgets of a new node: plain sockets first, then each widget with its socket."""
    made = Fields()
    for spec in schema.inputs:
        if not spec.is_widget:
            _add_socket(made, spec)
    for spec in schema.inputs:
        if spec.is_widget:
            if spec.widget_type == "LOAD_3D" and schema.class_type in _WITH_3D_BUTTONS:
                made.widgets += [Widget(name, value) for name, value in _BUTTONS_3D.items()]
            _add_widget(made, spec)
    if schema.class_type == CUSTOM_COMBO:
        made.widgets += [Widget("index", UNSET), Widget("option1", "")]
    if schema.class_type in _WITH_3D_PREVIEW:
        made.widgets.append(Widget("image", ""))
    if any(spec.options.get(flag) for spec in schema.inputs for flag in _UPLOADS):
        if any(_refreshes(spec.options.get("remote")) for spec in schema.inputs):
            names = ("Auto-refresh after generation", "refresh")
            made.widgets += [Widget(name, UNSET, sent=False) for name in names]
        button = Widget("upload", UNSET, sent=False)
        made.widgets.append(button)
        made.sockets.append(Socket("upload", "IMAGEUPLOAD", button))
    made.first_sockets = tuple(each.name for each in made.sockets)
    return made


def _refreshes(remote: Any) -> bool:
    return isinstance(remote, Mapping) and bool(remote.get("refresh_button"))


def filled_fields(node: EditorNode, schema: NodeSchema) -> Fields:
    """Sockets and widgets of a node with the values the file has for it.

    A widget the file has no value for shows its default; surplus values are ignored. Where a file has values both by
    position and by name, the editor goes by position; files with names only are read by name.
    """
    made = fresh_fields(schema)
    saved = node.widgets_values
    if isinstance(saved, list):
        positional = without_forced(saved, schema, made)
        _fill(made, schema, lambda _name, position: positional[position] if position < len(positional) else UNSET)
        named = node.widgets_named
        made.disagreeing = tuple(
            (each.name, each.value, named[each.name])
            for each in made.widgets
            if each.sent and each.spec is not None and each.value != named.get(each.name, each.value)
        )
    else:
        by_name = {**(saved or {}), **node.widgets_named}
        _fill(made, schema, lambda name, _position: by_name.get(name, UNSET))
    _mend(made, schema)
    return made


def _fill(made: Fields, schema: NodeSchema, value_of: Any) -> None:
    """Give every widget its saved value; the list may grow on the way."""
    index = position = 0
    while index < len(made.widgets) and index < _MAX_WIDGETS:
        widget = made.widgets[index]
        index += 1
        if not widget.saved:
            continue
        value = value_of(widget.name, position)
        position += 1
        if value is not UNSET:
            set_value(made, schema, widget, value)


def set_value(made: Fields, schema: NodeSchema, widget: Widget, value: Any) -> None:
    """Set one widget, with what follows from it: a choice changes which widgets there are."""
    if schema.class_type == CUSTOM_COMBO and widget.name.startswith("option"):
        widget.value = value
        if made.widgets[-1] is widget and value:
            made.widgets.append(Widget(f"option{len(made.widgets) - 1}", ""))
        return
    if widget.spec is not None and widget.spec.widget_type == "STRING" and widget.spec.options.get("multiline"):
        value = _as_typed(value)
    before, widget.value = widget.value, value
    if widget.spec is not None and widget.spec.type == DYNAMIC_COMBO:
        _choose(made, widget, same=before == value)


def _as_typed(value: Any) -> Any:
    """A text area's value: whatever it is given, it holds text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, float)) else value


def _mend(made: Fields, schema: NodeSchema) -> None:
    """What the editor puts right in any file it loads."""
    sampler = schema.class_type in {"KSampler", "KSamplerAdvanced"}
    for widget in list(made.widgets):
        if widget.spec is None:
            continue
        if sampler and widget.name == "sampler_name" and isinstance(widget.value, str):
            widget.value = widget.value.removeprefix("sample_")
        if widget.spec.choices and (widget.value is None or widget.value is UNSET):
            set_value(made, schema, widget, widget.spec.choices[0])


def without_forced(saved: list[Any], schema: NodeSchema, made: Fields) -> list[Any]:
    """Drop the places that files from before frontend 1.16 have for inputs that are forced to be sockets."""
    names = {each.name for each in made.widgets if each.saved}
    forced: list[bool] = []
    for each in schema.inputs:
        if each.name in names or each.force_input:
            forced += [each.force_input] + [False] * (1 if each.control_after_generate else 0)
    if len(forced) != len(saved) or not any(forced):
        return saved
    return [value for value, drop in zip(saved, forced, strict=True) if not drop]


def _add_socket(made: Fields, spec: InputSchema) -> None:
    if spec.type == AUTOGROW:
        growth = growth_of(spec)
        for index in range(min(growth.maximum, growth.minimum + 1)):
            if len(made.sockets) + len(made.widgets) > _MAX_WIDGETS:
                return
            for each in growth.step(index):
                _add_input(made, each)
        return
    made.sockets.append(Socket(spec.name, resolved(spec).type, matching=spec.type == MATCH_TYPE))


def _add_input(made: Fields, spec: InputSchema) -> None:
    if spec.is_widget:
        _add_widget(made, spec)
    else:
        _add_socket(made, spec)


def _add_widget(made: Fields, spec: InputSchema) -> None:
    if spec.widget_type == "IMAGECOMPARE":  # pictures of the last run: not kept, and empty until there is one
        widget = Widget(spec.name, ["", ""], spec, saved=False)
    else:
        default = spec.widget_default
        widget = Widget(spec.name, UNSET if default is None else default, spec)
    made.widgets.append(widget)
    made.widgets += [Widget(name, UNSET, sent=False) for name in _CONTROLS[: spec.control_slots]]
    if spec.type == DYNAMIC_COMBO:
        widget.value = spec.choices[0] if spec.choices else UNSET
        _choose(made, widget, same=False)
    if not spec.socketless:
        made.sockets.append(Socket(spec.name, spec.type, widget))


_CONTROLS = ("control_after_generate", "control_filter_list")


def _choose(made: Fields, widget: Widget, *, same: bool) -> None:
    """Put the widgets and sockets that come with a choice right behind it; those of another choice go."""
    spec = widget.spec
    if spec is None:  # never: only choices are chosen
        return
    group = f"{spec.name}."
    old_values = {each.name: each.value for each in made.widgets if each.name.startswith(group)} if same else {}
    old_links = {each.name: each.link for each in made.sockets if each.name.startswith(group)}
    made.widgets = [each for each in made.widgets if not each.name.startswith(group)]
    made.sockets = [each for each in made.sockets if not each.name.startswith(group)]
    new = Fields()
    for each in chosen_inputs(spec, widget.value):
        _add_input(new, each)
    for each_widget in new.widgets:
        each_widget.value = old_values.get(each_widget.name, each_widget.value)
    for socket in new.sockets:
        socket.link = old_links.get(socket.name)
    at = next(index for index, each in enumerate(made.widgets) if each is widget) + 1
    made.widgets[at:at] = new.widgets
    own = next((index + 1 for index, each in enumerate(made.sockets) if each.widget is widget), len(made.sockets))
    made.sockets[own:own] = new.sockets


def as_entered(spec: InputSchema | None, value: Any) -> Any:
    """A number as its widget takes it when it is entered, as by a primitive: on the widget's steps, within its limits.

    Values that are loaded are not looked at, whatever they are.
    """
    if spec is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if spec.widget_type == "INT":
        return _within(spec, _on_steps(value, 1 if spec.step is None else spec.step, spec.min or 0))
    if spec.widget_type == "FLOAT":
        step = 0.5 if spec.step is None else spec.step
        digits = max(0, -math.floor(math.log10(step))) if step > 0 else 0
        grain = spec.options.get("round") or (10.0**-digits if digits else 0)
        return _within(spec, _on_grain(value, grain, digits)) if isinstance(grain, (int, float)) and grain else value
    return value


_EXACT = 1e15
"""Beyond this, and beyond as many digits, floats have no digits left to round."""


def _on_steps(value: float, step: float, start: float) -> int | float:
    if step in {0, 1} or not 1 / _EXACT < abs(step) < _EXACT or max(abs(value), abs(start)) > _EXACT:
        return _rounded(value)
    first = math.fmod(start, step)
    made = _rounded((value - first) / step) * step + first
    return int(made) if float(made).is_integer() else made


def _on_grain(value: float, grain: float, digits: int) -> float:
    """Both are rounded to: what a class names and what its step has."""
    if grain < 1 / _EXACT or digits > 15 or abs(value) > _EXACT:
        return value
    exact = Decimal(_rounded(value / grain) * grain)
    return float(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, Context(prec=60)))


def _rounded(value: float) -> int:
    """Halves go up, as in JavaScript."""
    return value if isinstance(value, int) else math.floor(value + 0.5)


def _within(spec: InputSchema, value: float) -> int | float:
    """Limits that a class does not name are the editor's own."""
    return min(max(value, 0 if spec.min is None else spec.min), 2048 if spec.max is None else spec.max)


def is_added(class_type: str, name: str) -> bool:
    """Whether an input is of a widget that the editor itself adds to a class, and sends with the others."""
    if class_type in _WITH_3D_BUTTONS:
        return name in _BUTTONS_3D
    return class_type in _WITH_3D_PREVIEW and name == "image"


def draws_widget(type_name: str) -> bool:
    """Whether the editor has a widget for inputs of this type."""
    return type_name in WIDGET_TYPES
