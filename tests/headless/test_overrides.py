from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.graph import Link
from headless.job import Job, node_schemas
from headless.overrides import apply_overrides, feed_photo, input_stages
from headless.plan import make_plan
from headless.schema import schemas_of
from headless.workflow import parse_workflow
from photokeep_nodes import host
from photokeep_nodes.errors import WorkflowInvalidError


class Load:
    DISPLAY_NAME = "Load photo"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    FILE_INPUTS = ("photo",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"photo": (["anna.png", "bert.png"],)}}

    @classmethod
    def VALIDATE_INPUTS(cls, photo):
        return True


class Save:
    DISPLAY_NAME = "Save photo"
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"image": ("IMAGE",), "filename": ("STRING", {"default": "x"})},
            "optional": {
                "scale": ("FLOAT", {"min": 1, "max": 8}),
                "tile": ("INT", {}),
                "on": ("BOOLEAN", {}),
                "bits": ([8, 16],),
                "model.width": ("INT", {}),
            },
        }


SCHEMAS = schemas_of({"Load": Load, "Save": Save})


@pytest.fixture
def workflow():
    return parse_workflow(
        {
            "1": {"class_type": "Load", "inputs": {"photo": "anna.png"}, "_meta": {"title": "Family photo"}},
            "2": {
                "class_type": "Save",
                "inputs": {"image": ["1", 0], "filename": "r"},
                "_meta": {"title": "Out v1.5 = x"},
            },
            "3": {
                "class_type": "Save",
                "inputs": {"image": ["1", 0], "filename": ["2", 0]},
                "_meta": {"title": "Twin"},
            },
            "4": {"class_type": "Save", "inputs": {"image": ["1", 0], "filename": "s"}, "_meta": {"title": "twin"}},
            "5": {"class_type": "Elsewhere", "inputs": {}},
        },
        SCHEMAS,
    )


def refused(workflow, *settings, schemas=None):
    with pytest.raises(WorkflowInvalidError) as caught:
        apply_overrides(workflow, settings, schemas or SCHEMAS)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("The settings cannot be applied")
    return caught.value.context["problems"]


@pytest.mark.parametrize(
    ("setting", "node_id", "name", "value"),
    [
        ("2.filename=new", "2", "filename", "new"),
        ("2.filename=", "2", "filename", ""),
        ("2.filename=a=b.c=d", "2", "filename", "a=b.c=d"),
        ("2.filename= padded ", "2", "filename", " padded "),
        ("2.scale=3", "2", "scale", 3.0),
        ("2.scale= 1e0 ", "2", "scale", 1.0),
        ("2.tile=-64", "2", "tile", -64),
        ("2.on=yes", "2", "on", True),
        ("2.on=FALSE", "2", "on", False),
        ("2.bits=16", "2", "bits", 16),
        ("2.bits=12", "2", "bits", "12"),
        ("2.model.width=5", "2", "model.width", 5),
        ("family PHOTO.photo=bert.png", "1", "photo", "bert.png"),
        (" Family  photo . photo =bert.png", "1", "photo", "bert.png"),
        ("Out v1.5 = x.filename=a.b=c", "2", "filename", "a.b=c"),
        ("out V1.5 = X.scale=2", "2", "scale", 2.0),
        ("1.photo=/elsewhere/c.d=e.png", "1", "photo", "/elsewhere/c.d=e.png"),
    ],
)
def test_a_setting_is_applied(workflow, setting, node_id, name, value):
    changed = apply_overrides(workflow, [setting], SCHEMAS)
    assert changed.nodes[node_id].inputs[name] == value
    assert type(changed.nodes[node_id].inputs[name]) is type(value)
    others = {key: node for key, node in changed.nodes.items() if key != node_id}
    assert others == {key: node for key, node in workflow.nodes.items() if key != node_id}
    assert workflow.nodes[node_id].inputs.get(name) != value  # the original is left alone


def test_setting_a_linked_input_replaces_the_link_and_the_last_setting_wins(workflow):
    assert workflow.nodes["3"].inputs["filename"] == Link("2", 0)
    changed = apply_overrides(workflow, ["3.filename=a", "3.scale=2", "3.filename=b"], SCHEMAS)
    assert changed.nodes["3"].inputs == {"image": Link("1", 0), "filename": "b", "scale": 2.0}


def test_setting_an_input_mends_its_broken_link():
    raw = {
        "nodes": [
            {"id": 1, "type": "Load", "widgets_values": ["anna.png"], "outputs": [{"name": "i", "type": "IMAGE"}]},
            {
                "id": 2,
                "type": "Save",
                "widgets_values": ["x", 2.0, 0, True, 8],
                "inputs": [
                    {"name": "image", "type": "IMAGE", "link": 1},
                    {"name": "filename", "type": "STRING", "link": 9, "widget": {"name": "filename"}},
                ],
            },
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }
    workflow = parse_workflow(raw, SCHEMAS)
    with pytest.raises(WorkflowInvalidError, match="bad_linked_input"):
        make_plan(workflow, SCHEMAS)
    plan = make_plan(apply_overrides(workflow, ["2.filename=mine"], SCHEMAS), SCHEMAS)
    assert plan.stages["2"].inputs["filename"] == "mine"


def test_an_id_wins_over_a_title():
    workflow = parse_workflow(
        {
            "1": {"class_type": "Save", "inputs": {}, "_meta": {"title": "2"}},
            "2": {"class_type": "Save", "inputs": {}},
        },
        SCHEMAS,
    )
    assert apply_overrides(workflow, ["2.filename=x"], SCHEMAS).nodes["2"].inputs == {"filename": "x"}


@pytest.mark.parametrize(
    ("setting", "says", "hint"),
    [
        ("2", "NODE.INPUT=VALUE", "id or a title"),
        ("filename=x", "NODE.INPUT=VALUE", ""),
        ("2.filename", "NODE.INPUT=VALUE", ""),
        (".filename=x", "NODE.INPUT=VALUE", ""),
        ("2.=x", "NODE.INPUT=VALUE", ""),
        ("", "NODE.INPUT=VALUE", ""),
        ("Twin.filename=x", '2 nodes are called "Twin"', "Use an id: 3, 4."),
        ("Famly photo.photo=x", 'no node "Famly photo"', 'Did you mean "Family photo"?'),
        ("77.filename=x", 'no node "77"', '1 "Family photo", 2 "Out v1.5 = x"'),
        ("2.fliename=x", 'no input "fliename"', "Did you mean filename? It can be set: filename, scale, tile"),
        ("2.image=x", 'takes "image" from a link only', "It can be set: filename"),
        ("5.x=y", 'no node class "Elsewhere"', "another node pack"),
    ],
)
def test_a_setting_that_fits_nowhere_says_what_there_is(workflow, setting, says, hint):
    (problem,) = refused(workflow, setting)
    assert problem["code"] == "bad_override"
    assert says in problem["message"]
    assert hint in problem["hint"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("2.scale=large", '"large" is not a number'),
        ("2.scale=nan", '"nan" is not a number'),
        ("2.scale=1e999", '"1e999" is not a number'),
        ("2.tile=1.5", '"1.5" is not a whole number'),
        ("2.tile=" + "9" * 5000, "is not a whole number"),
        ("2.on=maybe", '"maybe" is neither true nor false'),
    ],
)
def test_a_value_that_cannot_be_read_names_its_input(workflow, setting, says):
    (problem,) = refused(workflow, setting)
    assert (problem["code"], problem["node_id"]) == ("invalid_input_type", "2")
    assert says in problem["message"]
    assert problem["input"] in setting


def test_every_bad_setting_is_reported_at_once(workflow):
    problems = refused(workflow, "nonsense", "2.filename=fine", "2.scale=x", "9.a=b")
    assert [each["code"] for each in problems] == ["bad_override", "invalid_input_type", "bad_override"]


def test_a_node_that_is_switched_off_says_so():
    raw = {"nodes": [{"id": 4, "type": "Save", "mode": 4, "title": "Second copy"}], "links": []}
    workflow = parse_workflow(raw, SCHEMAS)
    for name in ("4", "second copy"):
        (problem,) = refused(workflow, f"{name}.filename=x")
        assert 'node 4 "Second copy" is bypassed' in problem["message"]


def test_ranges_are_left_for_the_planner(workflow):
    changed = apply_overrides(workflow, ["2.scale=99"], SCHEMAS)
    with pytest.raises(WorkflowInvalidError, match="value_bigger_than_max"):
        make_plan(changed, SCHEMAS)


@given(st.text(max_size=30))
def test_any_text_is_applied_or_refused(text):
    workflow = parse_workflow({"1": {"class_type": "Save", "inputs": {}, "_meta": {"title": "a.b"}}}, SCHEMAS)
    for setting in (text, f"1.{text}", f"a.b.filename={text}", f"1.scale={text}"):
        with contextlib.suppress(WorkflowInvalidError):
            assert apply_overrides(workflow, [setting], SCHEMAS).nodes["1"].inputs


def test_a_setting_full_of_dots_and_equals_signs_is_refused_in_good_time(workflow):
    refused(workflow, ".=" * 20_000)


def test_input_stages_are_those_that_name_photos(workflow):
    assert input_stages(workflow, SCHEMAS) == [("1", "photo")]
    two = parse_workflow(
        {
            "10": {"class_type": "Load", "inputs": {"photo": "anna.png"}},
            "2": {"class_type": "Load", "inputs": {"photo": "anna.png"}},
            "3": {"class_type": "Save", "inputs": {"image": ["10", 0], "filename": "x"}},
        },
        SCHEMAS,
    )
    assert input_stages(two, SCHEMAS) == [("2", "photo"), ("10", "photo")]
    assert input_stages(make_plan(two, SCHEMAS), SCHEMAS) == [("10", "photo")]


def test_a_photo_is_fed_to_the_only_load_node(workflow):
    fed = feed_photo(workflow, "/photos/oma.jpg", SCHEMAS)
    assert fed.nodes["1"].inputs == {"photo": "/photos/oma.jpg"}
    assert workflow.nodes["1"].inputs == {"photo": "anna.png"}


def test_without_a_load_node_or_with_several_the_user_is_told():
    none = parse_workflow({"1": {"class_type": "Save", "inputs": {}}}, SCHEMAS)
    with pytest.raises(
        WorkflowInvalidError, match=r"no_input_node: no node of this workflow reads a photo. .*Load photo"
    ):
        feed_photo(none, "x.png", SCHEMAS)
    several = parse_workflow({str(i): {"class_type": "Load", "inputs": {"photo": "anna.png"}} for i in (1, 2)}, SCHEMAS)
    with pytest.raises(WorkflowInvalidError, match=r"several_input_nodes: 2 inputs .* --set 1.photo=PATH"):
        feed_photo(several, "x.png", SCHEMAS)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ([4, "fixed", "old", "image"], [7, "fixed", "old", "image"]),  # the seed's control widget keeps its place
        ({"seed": 4, "name": "old"}, {"seed": 7, "name": "old"}),
        ([], [7]),
    ],
)
def test_the_editors_graph_shows_the_new_value(saved, expected):
    class Seeded:
        RETURN_TYPES = ()
        OUTPUT_NODE = True
        FUNCTION = "run"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"seed": ("INT", {"default": 0, "max": 99}), "name": ("STRING", {"default": ""})}}

    schemas = schemas_of({"Seeded": Seeded})
    graph = {"nodes": [{"id": 5, "type": "Seeded", "mode": 0, "widgets_values": saved}], "links": [], "version": 0.4}
    workflow = parse_workflow(graph, schemas)
    changed = apply_overrides(workflow, ["5.seed=7"], schemas)
    assert changed.editor_graph["nodes"][0]["widgets_values"] == expected
    assert graph["nodes"][0]["widgets_values"] == saved


def node(node_id, class_type, values, inputs=(), outputs=()):
    return {
        "id": node_id, "type": class_type, "mode": 0, "inputs": list(inputs), "outputs": list(outputs),
        "widgets_values": values, "properties": {},
    }  # fmt: skip


def in_a_subgraph(inner, instances=1):
    """A file whose node 2 lies in a subgraph that is there once or more often."""
    inner = node(*inner)
    definition = {
        "id": "abc", "name": "Mine", "nodes": [inner], "links": [], "inputs": [], "outputs": [],
        "inputNode": {"id": -10}, "outputNode": {"id": -20},
    }  # fmt: skip
    return {
        "nodes": [node(10 + index, "abc", []) for index in range(instances)],
        "links": [], "version": 0.4, "definitions": {"subgraphs": [definition]},
    }  # fmt: skip


OURS = node_schemas()


def test_a_value_inside_a_subgraph_is_written_into_its_definition():
    workflow = parse_workflow(in_a_subgraph((2, "PrimitiveString", ["old"])), OURS)
    changed = apply_overrides(workflow, ["10:2.value=new"], OURS)
    (definition,) = changed.editor_graph["definitions"]["subgraphs"]
    assert definition["nodes"][0]["widgets_values"] == ["new"]
    assert parse_workflow(changed.editor_graph, OURS).to_prompt() == changed.to_prompt()
    assert changed.warnings == ()


def test_a_graph_that_would_say_something_else_is_left_out_with_a_word():
    workflow = parse_workflow(in_a_subgraph((2, "PrimitiveString", ["old"]), instances=2), OURS)
    changed = apply_overrides(workflow, ["11:2.value=new"], OURS)  # both instances have one widget
    assert {each.id: each.inputs["value"] for each in changed.nodes.values()} == {"10:2": "old", "11:2": "new"}
    assert changed.editor_graph is None
    (warning,) = changed.warnings
    assert (warning.code, warning.node_id, warning.input) == ("graph_left_out", "11:2", "value")


def test_an_input_that_comes_with_a_choice_is_set_and_kept_in_the_editors_graph():
    graph = {"nodes": [node(1, "ResizeImageMaskNode", ["scale dimensions", 10, 20, "center", "area"])],
             "links": [], "version": 0.4}  # fmt: skip
    workflow = parse_workflow(graph, OURS)
    changed = apply_overrides(workflow, ["1.resize_type.width=30"], OURS)
    assert changed.nodes["1"].inputs["resize_type.width"] == 30
    assert changed.editor_graph["nodes"][0]["widgets_values"] == ["scale dimensions", 30, 20, "center", "area"]


def test_a_new_choice_brings_its_inputs_and_drops_those_of_the_old_one():
    graph = {"nodes": [node(1, "ResizeImageMaskNode", ["scale dimensions", 10, 20, "center", "area"])],
             "links": [], "version": 0.4}  # fmt: skip
    workflow = parse_workflow(graph, OURS)
    settings = ["1.resize_type.multiplier=3", "1.resize_type=scale by multiplier"]  # in whatever order
    changed = apply_overrides(workflow, settings, OURS)
    assert changed.nodes["1"].inputs == {
        "resize_type": "scale by multiplier", "resize_type.multiplier": 3.0, "scale_method": "area"
    }  # fmt: skip
    assert changed.editor_graph["nodes"][0]["widgets_values"] == ["scale by multiplier", 3.0, "area"]
    (refusal,) = refused(workflow, "1.resize_type.multiplier=3", schemas=OURS)
    assert "resize_type.width" in refusal["hint"]


def test_a_typed_in_choice_takes_its_place_in_the_list_along():
    graph = {"nodes": [node(1, "CustomCombo", ["a", 0, "a", "b", "c", ""])], "links": [], "version": 0.4}
    workflow = parse_workflow(graph, OURS)
    changed = apply_overrides(workflow, ["1.choice=c"], OURS)
    assert (changed.nodes["1"].inputs["choice"], changed.nodes["1"].inputs["index"]) == ("c", 2)
    assert parse_workflow(changed.editor_graph, OURS).to_prompt() == changed.to_prompt()
    (refusal,) = refused(workflow, "1.choice=d", schemas=OURS)
    assert (refusal["code"], refusal["hint"]) == ("value_not_in_list", 'Choose from "a", "b", "c".')


RESIZE = {"nodes": [node(1, "ResizeImageMaskNode", ["scale dimensions", 10, 20, "center", "area"])],
          "links": [], "version": 0.4}  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
def test_an_input_that_two_choices_share_keeps_what_was_set_in_either_order(order):
    settings = ["1.resize_type=scale width", "1.resize_type.width=33"][::order]
    changed = apply_overrides(parse_workflow(RESIZE, OURS), settings, OURS)
    assert changed.nodes["1"].inputs["resize_type.width"] == 33


def test_the_last_of_several_settings_wins_though_the_choice_comes_after_them():
    settings = [f"1.resize_type.longer_size={size}" for size in (50, 60, 50)] + ["1.resize_type=scale longer dimension"]
    changed = apply_overrides(parse_workflow(RESIZE, OURS), settings, OURS)
    assert changed.nodes["1"].inputs["resize_type.longer_size"] == 50


def test_the_warning_names_the_setting_that_has_no_place():
    graph = in_a_subgraph((2, "PrimitiveString", ["old"]), instances=2)
    graph["nodes"].append(node(1, "PrimitiveString", ["a"]))
    changed = apply_overrides(parse_workflow(graph, OURS), ["1.value=b", "11:2.value=new"], OURS)
    (warning,) = changed.warnings
    assert (warning.node_id, warning.input) == ("11:2", "value")


def test_placeholders_in_a_set_name_are_filled_in_as_in_the_editor():
    graph = {"nodes": [node(1, "PrimitiveString", ["anna/berta"], inputs=()), node(2, "SaveImage", ["x"])],
             "links": [], "version": 0.4}  # fmt: skip
    graph["nodes"][0]["title"] = "Name"
    changed = apply_overrides(parse_workflow(graph, OURS), ["2.filename_prefix=%Name.value%_%width%"], OURS)
    assert changed.nodes["2"].inputs["filename_prefix"] == "anna_berta_%width%"


@pytest.mark.parametrize(("width", "kept"), [(64, True), (48, False)])
def test_a_picture_whose_graph_says_something_else_gives_the_prompt_alone(tmp_path, width, kept):
    prompt = {"1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 8, "batch_size": 1, "color": 0}},
              "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}}  # fmt: skip
    saved = node(2, "SaveImage", ["%date:yyyy%"], inputs=[{"name": "images", "type": "IMAGE", "link": 1}])
    graph = {"nodes": [node(1, "EmptyImage", [64, 8, 1, 0]), saved], "links": [[1, 1, 0, 2, 0, "IMAGE"]],
             "version": 0.4}  # fmt: skip
    path = tmp_path / "both.json"
    path.write_text(json.dumps({"prompt": prompt, "workflow": graph}))
    job = Job(path, settings=host.Standalone(output_dir=tmp_path), store=None)
    plan = job.laid_out(None).plan
    assert (plan.workflow.editor_graph is not None) == kept
    assert [each.code for each in plan.warnings] == ([] if kept else ["graph_left_out"])
    assert plan.workflow.nodes["1"].inputs["width"] == width
