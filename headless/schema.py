"""What a node class declares, as plain data: the parser and the planner read schemas, never classes.

A schema is made from a V1 node class by calling nothing but ``INPUT_TYPES``; importing this module imports no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from photokeep_nodes.errors import NodeDefinitionError

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
"""A list of choices, each of which brings inputs of its own."""

AUTOGROW = "COMFY_AUTOGROW_V3"
"""A socket that multiplies as it is connected."""

CUSTOM_COMBO = "CustomCombo"
"""The class of a list of choices that users type in themselves: the editor adds a widget for each."""

MATCH_TYPE = "COMFY_MATCHTYPE_V3"
"""A socket whose type is that of whatever is connected first."""

WIDGET_TYPES = frozenset(
    {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO}
    | {"AUDIOUPLOAD", "AUDIO_RECORD", "AUDIO_UI", "BOUNDING_BOX", "BOUNDING_BOXES", "CAMERA_ANGLE_VIEW"}
    | {
        "CAMERA_INFO_STATE",
        "CHART",
        "COLOR",
        "COLORS",
        "COMPOSITOR",
        "CURVE",
        "GALLERIA",
        "IMAGECOMPARE",
        "IMAGEUPLOAD",
    }
    | {"LIGHT_INFO_PREVIEW", "LOAD_3D", "LOAD_3D_ADVANCED", "MARKDOWN", "PAINTER", "PREVIEW_3D", "RANGE"}
    | {"RESOLUTION_PREVIEW", "TEXTAREA", "VIDEO_EDIT", "WEBCAM"}
)
"""Input types for which the editor draws a widget, so that a value needs no link."""

LIVE_TYPES = frozenset(
    {"MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "CLIP_VISION", "CLIP_VISION_OUTPUT", "STYLE_MODEL"}
    | {"GUIDER", "SAMPLER", "SIGMAS", "NOISE", "AUDIO", "VIDEO", "LATENT"}
)
"""The host's types whose values are objects of a running program: they have no widget, and are not stored."""

SEED_NAMES = frozenset({"seed", "noise_seed"})
"""INT inputs of these names get a control-after-generate widget even where the class says nothing about it."""

_WIDGET_DEFAULTS: Mapping[str, Any] = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}


@dataclass(frozen=True)
class InputSchema:
    """One input of a node class.

    Attributes:
        name: the input's key.
        type: its type; a list of choices is ``COMBO``, several types are joined by commas, ``*`` takes anything.
        required: whether the host refuses a node without it.
        choices: what a ``COMBO`` offers, else None.
        listed: the choices were declared as a bare list, which the host tells apart from the type name ``COMBO``.
        default: the declared default, or None; see ``widget_default``.
        min: smallest allowed number, or None.
        max: largest allowed number, or None.
        step: the widget's step, or None.
        force_input: the editor draws a socket and no widget.
        socketless: the editor draws a widget and no socket.
        control_after_generate: the declared flag, or None where nothing is declared.
        multiselect: a ``COMBO`` whose value is a list of choices.
        is_widget: the editor draws a widget for it.
        widget_type: the kind of that widget, mostly the type.
        options: everything declared beside the type.
    """

    name: str
    type: str
    required: bool
    choices: tuple[Any, ...] | None = None
    listed: bool = False
    default: Any = None
    min: float | None = None
    max: float | None = None
    step: float | None = None
    force_input: bool = False
    socketless: bool = False
    control_after_generate: bool | None = None
    multiselect: bool = False
    is_widget: bool = False
    widget_type: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def control_slots(self) -> int:
        """Places in ``widgets_values`` that the editor's own control widgets take after this input's value.

        A number's control is one widget; a list of choices also has a filter box.
        """
        flag = self.control_after_generate
        if flag is None:
            flag = self.widget_type == "INT" and self.name in SEED_NAMES
        if not flag or not self.is_widget:
            return 0
        return 2 if self.widget_type == "COMBO" else 1

    @property
    def lazy(self) -> bool:
        """Whether the node may do without it, by ``check_lazy_status``."""
        return bool(self.options.get("lazy", False))

    @property
    def widget_default(self) -> Any:
        """Value a fresh widget shows: the declared default, else the type's own."""
        if self.default is not None:
            return self.default
        if self.choices is not None:
            return self.choices[0] if self.choices else None
        return _WIDGET_DEFAULTS.get(self.widget_type or self.type)


@dataclass(frozen=True)
class OutputSchema:
    """One output of a node class.

    Attributes:
        name: what the editor shows beside the socket.
        type: as an input's type.
        choices: what a ``COMBO`` output may hold, where it was declared as a bare list.
        is_list: the node returns a list of values here.
    """

    name: str
    type: str
    choices: tuple[Any, ...] | None = None
    is_list: bool = False


@dataclass(frozen=True)
class NodeSchema:
    """One node class.

    Attributes:
        class_type: the node's id in a workflow file.
        display_name: the title the editor gives a new node.
        inputs: required inputs, then optional ones, each in declared order.
        hidden: hidden inputs, name to what the host puts there (``PROMPT``, ``EXTRA_PNGINFO``, ``UNIQUE_ID``).
        outputs: in declared order.
        output_node: the host runs a workflow for the sake of such nodes.
        function: name of the method that does the work.
        category: where the editor lists it.
        file_inputs: widget inputs that name input photos.
        input_is_list: the node takes whole lists.
        accepts_all: it is given whatever inputs a workflow names, declared or not.
        deprecated: its authors advise against it.
        node_class: the class itself; None for a schema read from a description.
        validate_args: parameters of ``VALIDATE_INPUTS``, empty where there is none.
        validate_required: those of them without a default.
        validate_all: ``VALIDATE_INPUTS`` takes ``**kwargs``, so every input.
    """

    class_type: str
    display_name: str
    inputs: tuple[InputSchema, ...]
    hidden: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[OutputSchema, ...] = ()
    output_node: bool = False
    function: str = ""
    category: str = ""
    file_inputs: tuple[str, ...] = ()
    input_is_list: bool = False
    accepts_all: bool = False
    deprecated: bool = False
    node_class: type | None = None
    validate_args: frozenset[str] = frozenset()
    validate_required: frozenset[str] = frozenset()
    validate_all: bool = False

    @cached_property
    def _by_name(self) -> dict[str, InputSchema]:
        return {each.name: each for each in self.inputs}

    def input(self, name: str) -> InputSchema | None:
        """The input called ``name``, or None."""
        return self._by_name.get(name)

    @cached_property
    def widgets(self) -> tuple[InputSchema, ...]:
        """Inputs that own a widget, in the order the editor saves their values."""
        return tuple(each for each in self.inputs if each.is_widget)

    @cached_property
    def sockets(self) -> tuple[InputSchema, ...]:
        """Inputs in the order the editor lays out sockets: plain ones first, then those of widgets."""
        return tuple(sorted((each for each in self.inputs if not each.socketless), key=lambda each: each.is_widget))

    def checks_itself(self, name: str) -> bool:
        """Whether ``VALIDATE_INPUTS`` takes this input, which turns the host's range and list checks off."""
        return self.validate_all or name in self.validate_args


def schemas_of(
    node_class_mappings: Mapping[str, type], display_names: Mapping[str, str] | None = None
) -> dict[str, NodeSchema]:
    """Schemas of a pack's classes.

    Args:
        node_class_mappings: node id to V1 class, as in ``NODE_CLASS_MAPPINGS``.
        display_names: node id to title, as in ``NODE_DISPLAY_NAME_MAPPINGS``.

    Raises:
        NodeDefinitionError: a class does not declare itself as the contract asks.
    """
    titles = display_names or {}
    return {name: schema_of(name, cls, titles.get(name, "")) for name, cls in node_class_mappings.items()}


def schema_of(class_type: str, node_class: type, display_name: str = "") -> NodeSchema:
    """Schema of one V1 class.

    Args:
        class_type: the node's id.
        node_class: the class.
        display_name: the editor's title; without it the class's ``DISPLAY_NAME``, else the id.

    Raises:
        NodeDefinitionError: the class does not declare itself as the contract asks.
    """
    declared = _declared_inputs(class_type, node_class)
    inputs = [
        input_schema(class_type, name, spec, required=group == "required")
        for group in ("required", "optional")
        for name, spec in declared.get(group, {}).items()
    ]
    names = [each.name for each in inputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise NodeDefinitionError(f"{class_type} declares the input {twice[0]!r} as required and as optional")
    hidden = {name: str(_first(spec)) for name, spec in declared.get("hidden", {}).items()}
    args, required, takes_all = _validator(node_class)
    return NodeSchema(
        class_type=class_type,
        display_name=display_name or getattr(node_class, "DISPLAY_NAME", "") or class_type,
        inputs=tuple(inputs),
        hidden=hidden,
        outputs=_outputs(class_type, node_class),
        output_node=bool(getattr(node_class, "OUTPUT_NODE", False)),
        function=str(getattr(node_class, "FUNCTION", "")),
        category=str(getattr(node_class, "CATEGORY", "")),
        file_inputs=tuple(getattr(node_class, "FILE_INPUTS", ())),
        input_is_list=bool(getattr(node_class, "INPUT_IS_LIST", False)),
        accepts_all=bool(getattr(node_class, "ACCEPT_ALL_INPUTS", False)),
        deprecated=bool(getattr(node_class, "DEPRECATED", False)),
        node_class=node_class,
        validate_args=args,
        validate_required=required,
        validate_all=takes_all,
    )


def _first(spec: Any) -> Any:
    return spec[0] if isinstance(spec, (tuple, list)) and spec else spec


def _declared_inputs(class_type: str, node_class: type) -> Mapping[str, Mapping[str, Any]]:
    ask = getattr(node_class, "INPUT_TYPES", None)
    if not callable(ask):
        raise NodeDefinitionError(f"{class_type} has no INPUT_TYPES")
    declared = ask()
    if not isinstance(declared, Mapping) or not all(isinstance(group, Mapping) for group in declared.values()):
        raise NodeDefinitionError(f"INPUT_TYPES of {class_type} is not a dict of dicts")
    return declared


def input_schema(class_type: str, name: str, spec: Any, *, required: bool) -> InputSchema:
    """Schema of one declared input.

    Args:
        class_type: the node's id, for messages.
        name: the input's key.
        spec: ``(type, options)`` as INPUT_TYPES and ``/object_info`` have it.
        required: which of the two groups it stands in.

    Raises:
        NodeDefinitionError: it is not of that form.
    """
    if not isinstance(spec, (tuple, list)) or not spec:
        raise NodeDefinitionError(f"input {name!r} of {class_type} is not a tuple that begins with a type")
    options = (spec[1] if len(spec) > 1 else None) or {}
    if not isinstance(options, Mapping):
        raise NodeDefinitionError(f"the options of input {name!r} of {class_type} are not a dict")
    declared, listed = spec[0], isinstance(spec[0], (list, tuple))
    type_name = "COMBO" if listed else str(declared)
    choices: tuple[Any, ...] | None = None
    if listed:
        choices = tuple(declared)
    elif type_name == "COMBO":
        choices = tuple(_listed(options.get("options")))
    elif type_name == DYNAMIC_COMBO:
        choices = tuple(each.get("key") for each in _listed(options.get("options")) if isinstance(each, Mapping))
    force_input = bool(options.get("forceInput", False))
    widget_type = str(options.get("widgetType", type_name))
    control = options.get("control_after_generate")
    return InputSchema(
        name=name,
        type=type_name,
        required=required,
        choices=choices,
        listed=listed,
        default=options.get("default"),
        min=_number(options.get("min")),
        max=_number(options.get("max")),
        step=_number(options.get("step")),
        force_input=force_input,
        control_after_generate=None if control is None else bool(control),
        socketless=bool(options.get("socketless", False)),
        multiselect=bool(options.get("multiselect", False)),
        is_widget=not force_input and widget_type in WIDGET_TYPES,
        widget_type=widget_type,
        options=dict(options),
    )


def _number(value: Any) -> float | None:
    """A limit as declared; some packs write text there, which bounds nothing."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _listed(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else ()


def _outputs(class_type: str, node_class: type) -> tuple[OutputSchema, ...]:
    types = getattr(node_class, "RETURN_TYPES", ())
    if not isinstance(types, (tuple, list)):
        raise NodeDefinitionError(f"RETURN_TYPES of {class_type} is not a tuple", hint="Write ('IMAGE',) with a comma.")
    names = getattr(node_class, "RETURN_NAMES", ()) or ()
    return output_schemas(types, names, getattr(node_class, "OUTPUT_IS_LIST", ()) or ())


def output_schemas(types: Sequence[Any], names: Sequence[Any], lists: Sequence[Any]) -> tuple[OutputSchema, ...]:
    """Schemas of a class's outputs.

    Args:
        types: a type's name or a list of choices for each.
        names: what the editor shows, for as many as have a name.
        lists: whether each is a list, for as many as it is said of.
    """
    outputs = []
    for index, declared in enumerate(types):
        listed = isinstance(declared, (list, tuple))
        type_name = "COMBO" if listed else str(declared)
        outputs.append(
            OutputSchema(
                name=str(names[index]) if index < len(names) and names[index] else type_name,
                type=type_name,
                choices=tuple(declared) if listed else None,
                is_list=bool(lists[index]) if index < len(lists) else False,
            )
        )
    return tuple(outputs)


def _validator(node_class: type) -> tuple[frozenset[str], frozenset[str], bool]:
    """Parameters of VALIDATE_INPUTS, those without a default, and whether it takes any name."""
    check = getattr(node_class, "VALIDATE_INPUTS", None)
    if not callable(check):
        return frozenset(), frozenset(), False
    kinds = inspect.Parameter
    named = [
        each
        for each in inspect.signature(check).parameters.values()
        if each.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    ]
    takes_all = any(each.kind is kinds.VAR_KEYWORD for each in inspect.signature(check).parameters.values())
    return (
        frozenset(each.name for each in named),
        frozenset(each.name for each in named if each.default is kinds.empty),
        takes_all,
    )
