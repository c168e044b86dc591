from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from headless.schema import schema_of, schemas_of
from photokeep_nodes.errors import NodeDefinitionError


class Restore:
    DISPLAY_NAME = "Restore photo"
    CATEGORY = "Tests"
    RETURN_TYPES = ("IMAGE", ["a", "b"], "STRING")
    RETURN_NAMES = ("image", "choice")
    OUTPUT_IS_LIST = (False, True)
    OUTPUT_NODE = True
    FUNCTION = "run"
    FILE_INPUTS = ("photo",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "optional": {"analysis": ("PHOTOKEEP_ANALYSIS",), "note": ("STRING", {"forceInput": True})},
            "required": {
                "image": ("IMAGE",),
                "photo": (["one.png", "two.png"], {"image_upload": True}),
                "scale": ("FLOAT", {"default": 2.0, "min": 1.0, "max": 8.0, "step": 0.5}),
                "seed": ("INT", {"default": 3}),
                "steps": ("INT", {"control_after_generate": True}),
                "noise_seed": ("INT", {"control_after_generate": False}),
                "style": ("COMBO", {"options": ["x", "y"], "default": "y", "control_after_generate": True}),
                "flag": ("BOOLEAN", {}),
                "any": ("*", {}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, photo, scale=1.0):
        return True

    def run(self):
        return ()


@pytest.fixture
def schema():
    return schema_of("Restore", Restore)


def test_inputs_are_required_then_optional_in_declared_order(schema):
    names = [each.name for each in schema.inputs]
    assert names == [
        *["image", "photo", "scale", "seed", "steps", "noise_seed", "style", "flag", "any"],
        *["analysis", "note"],
    ]
    assert [each.required for each in schema.inputs] == [True] * 9 + [False] * 2


def test_a_number_keeps_its_range(schema):
    scale = schema.input("scale")
    assert (scale.type, scale.default, scale.min, scale.max, scale.step) == ("FLOAT", 2.0, 1.0, 8.0, 0.5)
    assert schema.input("flag").min is None


def test_a_list_of_choices_is_a_combo_and_so_is_the_type_name(schema):
    assert (schema.input("photo").type, schema.input("photo").choices) == ("COMBO", ("one.png", "two.png"))
    assert (schema.input("style").type, schema.input("style").choices) == ("COMBO", ("x", "y"))
    assert schema.input("photo").listed
    assert not schema.input("style").listed


def test_widgets_are_inputs_with_a_widget_type_that_is_not_forced_to_be_a_socket(schema):
    assert [each.name for each in schema.widgets] == [
        "photo", "scale", "seed", "steps", "noise_seed", "style", "flag",
    ]  # fmt: skip
    assert [each.name for each in schema.sockets][:4] == ["image", "any", "analysis", "note"]


@pytest.mark.parametrize(
    ("name", "slots"),
    [("seed", 1), ("steps", 1), ("noise_seed", 0), ("style", 2), ("scale", 0), ("photo", 0), ("image", 0)],
)
def test_control_slots(schema, name, slots):
    assert schema.input(name).control_slots == slots


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 2.0), ("steps", 0), ("flag", False), ("photo", "one.png"), ("style", "y"), ("image", None)],
)
def test_a_fresh_widget_shows_the_declared_default_or_the_types_own(schema, name, value):
    assert schema.input(name).widget_default == value


def test_outputs_take_their_type_as_a_name_where_none_is_given(schema):
    assert [(each.name, each.type, each.is_list) for each in schema.outputs] == [
        ("image", "IMAGE", False),
        ("choice", "COMBO", True),
        ("STRING", "STRING", False),
    ]
    assert schema.outputs[1].choices == ("a", "b")


def test_the_rest_is_carried_along(schema):
    assert (schema.display_name, schema.category, schema.function) == ("Restore photo", "Tests", "run")
    assert schema.output_node
    assert schema.file_inputs == ("photo",)
    assert schema.hidden == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    assert schema.input("prompt") is None
    assert (schema.validate_args, schema.validate_required) == ({"photo", "scale"}, {"photo"})
    assert schema.checks_itself("scale")
    assert not schema.checks_itself("seed")


def test_display_names_of_the_pack_win():
    assert schemas_of({"Restore": Restore}, {"Restore": "Mend"})["Restore"].display_name == "Mend"

    class Bare:
        @classmethod
        def INPUT_TYPES(cls):
            return {}

    bare = schemas_of({"Bare": Bare})["Bare"]
    assert (bare.display_name, bare.inputs, bare.outputs, bare.output_node) == ("Bare", (), (), False)


def test_an_any_type_that_overrides_equality_becomes_its_text():
    class AnyType(str):
        __slots__ = ()

        def __ne__(self, other):
            return False

        __hash__ = str.__hash__

    class Takes:
        RETURN_TYPES = (AnyType("*"),)

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"x": (AnyType("*"),)}}

    schema = schema_of("Takes", Takes)
    assert type(schema.inputs[0].type) is str
    assert type(schema.outputs[0].type) is str


def test_a_schema_survives_pickling():
    # The class itself must be importable for that, as those of a pack are.
    schema = schema_of("Fraction", type("Plain", (), {"INPUT_TYPES": classmethod(lambda cls: {"required": {}})}))
    from dataclasses import replace

    described = replace(schema, node_class=None)
    assert pickle.loads(pickle.dumps(described)) == described


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "no INPUT_TYPES"),
        ({"INPUT_TYPES": classmethod(lambda cls: ["x"])}, "not a dict"),
        ({"INPUT_TYPES": classmethod(lambda cls: {"required": ["x"]})}, "not a dict"),
        ({"INPUT_TYPES": classmethod(lambda cls: {"required": {"x": "INT"}})}, "'x'"),
        ({"INPUT_TYPES": classmethod(lambda cls: {"required": {"x": ()}})}, "'x'"),
        ({"INPUT_TYPES": classmethod(lambda cls: {"required": {"x": ("INT", 3)}})}, "options of input 'x'"),
        (
            {"INPUT_TYPES": classmethod(lambda cls: {"required": {"x": ("INT",)}, "optional": {"x": ("INT",)}})},
            "as required and as optional",
        ),
        ({"INPUT_TYPES": classmethod(lambda cls: {}), "RETURN_TYPES": "IMAGE"}, "not a tuple"),
    ],
)
def test_a_class_that_breaks_the_contract_is_named(members, says):
    with pytest.raises(NodeDefinitionError, match="Broken") as caught:
        schema_of("Broken", type("Broken", (), members))
    assert says in caught.value.message


def test_the_package_is_light():
    code = (
        "import sys, headless, headless.schema, headless.workflow, headless.overrides, headless.plan\n"
        "heavy = {'torch', 'numpy', 'PIL', 'networkx', 'click', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert headless.make_plan is headless.plan.make_plan\n"
        "assert all(getattr(headless, name) for name in headless.__all__)\n"
        "assert set(headless.__all__) <= set(dir(headless))\n"
        "assert not hasattr(headless, 'nothing_of_the_kind')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
