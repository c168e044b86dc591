"""The rules by which the editor turns its own format into what it sends, each alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.editor_links import compatible
from headless.graph import Link
from headless.plan import make_plan
from headless.schema import schemas_of
from headless.workflow import load_workflow, parse_workflow
from photokeep_nodes.errors import WorkflowFormatError, WorkflowInvalidError

DATA = Path(__file__).parent.parent / "data" / "workflows"


def node_class(required, outputs=("IMAGE",), optional=None, name="", **members):
    inputs = {"required": required, "optional": optional or {}}
    return type(
        "Node",
        (),
        {
            "INPUT_TYPES": classmethod(lambda cls: inputs),
            "RETURN_TYPES": outputs,
            "FUNCTION": "run",
            "DISPLAY_NAME": name,
            "run": lambda self, **values: tuple(values.values()),
            **members,
        },
    )


SCHEMAS = schemas_of(
    {
        "Load": node_class(
            {"photo": (["anna.png"], {"image_upload": True}), "on_damage": (["refuse", "accept"],)},
            ("IMAGE", "MASK"),
            name="Load photo",
        ),
        "Denoise": node_class(
            {
                "image": ("IMAGE",),
                "strength": ("FLOAT", {"default": 1.0}),
                "seed": ("INT", {"default": 0}),
                "noise": (["auto", "manual"],),
            },
            name="Denoise photo",
        ),
        "Upscale": node_class({"image": ("IMAGE",), "scale": ("FLOAT", {"default": 2.0}), "tile": ("INT", {})}),
        "Save": node_class(
            {"image": ("IMAGE",), "filename": ("STRING", {"default": "photo"}), "format": (["png", "jpeg"],)},
            (),
            OUTPUT_NODE=True,
        ),
        "Model": node_class({}, ("PHOTOKEEP_UPSCALE_MODEL",)),
        "Enhance": node_class({"image": ("IMAGE",), "model": ("PHOTOKEEP_UPSCALE_MODEL",)}),
        "Show": node_class({"anything": ("*",)}, (), OUTPUT_NODE=True),
        # Its mask goes in before its image: what passes through a bypassed one depends on the types.
        "Crossed": node_class({"mask": ("MASK",), "image": ("IMAGE",)}, ("IMAGE", "MASK")),
        "Inverted": node_class({"image": ("IMAGE",), "mask": ("MASK",)}, ("IMAGE", "MASK")),
        "Number": node_class({"value": ("INT", {})}, ("INT",)),
        "Many": node_class(
            {
                "a": ("INT", {"default": 1}),
                "style": ("COMBO", {"options": ["x", "y"], "control_after_generate": True}),
                "text": ("STRING", {"default": "t"}),
                "noise_seed": ("INT", {"control_after_generate": False}),
            },
            optional={
                "flag": ("BOOLEAN", {"default": True}),
                "socketless": ("INT", {"default": 5, "socketless": True}),
            },
        ),
        "Forced": node_class(
            {
                "a": ("INT", {"default": 1}),
                "seed": ("INT", {"control_after_generate": True}),
                "linked": ("STRING", {"forceInput": True}),
                "text": ("STRING", {"default": "t"}),
            }
        ),
    }
)


class Graph:
    """A small graph in the editor's format; each call connects by input name."""

    def __init__(self):
        self.nodes = {}
        self.links = []

    def node(self, node_id, kind, values=None, *, mode=0, inputs=None, outputs=None, **extra):
        schema = SCHEMAS.get(kind)
        names = inputs or ([(each.name, each.type, each.is_widget) for each in schema.sockets] if schema else [])
        self.nodes[node_id] = {
            "id": node_id,
            "type": kind,
            "mode": mode,
            "inputs": [
                {"name": name, "type": type_, "link": None, **({"widget": {"name": name}} if widget else {})}
                for name, type_, widget in names
            ],
            "outputs": [{"name": each, "type": each, "links": []} for each in outputs or ()]
            if schema is None
            else [{"name": each.name, "type": each.type, "links": []} for each in schema.outputs],
            **({} if values is None else {"widgets_values": values}),
            **extra,
        }
        return self

    def reroute(self, node_id, **extra):
        return self.node(node_id, "Reroute", inputs=[("", "*", False)], outputs=["IMAGE"], **extra)

    def link(self, origin, slot, target, name):
        link_id = len(self.links) + 1
        inputs = self.nodes[target]["inputs"]
        index = next(i for i, each in enumerate(inputs) if each["name"] == name)
        inputs[index]["link"] = link_id
        self.links.append([link_id, origin, slot, target, index, "IMAGE"])
        return self

    def raw(self, **extra):
        return {"nodes": list(self.nodes.values()), "links": self.links, "version": 0.4, **extra}

    def parsed(self, **extra):
        return parse_workflow(json.dumps(self.raw(**extra)), SCHEMAS)

    def inputs(self, node_id, **extra):
        return self.parsed(**extra).nodes[str(node_id)].inputs


# Formats


@pytest.mark.parametrize("name", ["restore_editor_0_4.json", "restore_editor_1.json"])
def test_both_versions_come_out_as_the_api_format_has_them(name):
    expected = json.loads((DATA / "restore_api.json").read_text())
    workflow = parse_workflow(load_workflow(DATA / name), SCHEMAS)
    assert workflow.to_prompt() == expected
    assert workflow.source == "editor"
    assert workflow.extra_pnginfo["workflow"]["nodes"][5]["type"] == "MarkdownNote"
    assert parse_workflow(expected, SCHEMAS).nodes == workflow.nodes


def test_reading_leaves_the_embedded_graph_as_it_was():
    raw = load_workflow(DATA / "restore_editor_0_4.json")
    before = json.dumps(raw)
    assert json.dumps(parse_workflow(raw, SCHEMAS).editor_graph) == json.dumps(raw) == before


# 1: virtual nodes


def test_notes_are_left_out():
    graph = Graph().node(1, "Note", ["x"]).node(2, "MarkdownNote", ["y"]).node(3, "Show")
    assert graph.parsed().nodes.keys() == {"3"}
    assert graph.parsed().inactive == ()


@pytest.mark.parametrize("mode", [0, 2, 4])
def test_a_primitive_copies_its_value_whatever_its_mode_and_its_link_vanishes(mode):
    graph = Graph().node(1, "PrimitiveNode", [9, "fixed"], mode=mode, outputs=["INT"]).node(2, "Upscale", [2.0, 0])
    graph.link(1, 0, 2, "tile")
    assert graph.inputs(2) == {"scale": 2.0, "tile": 9}


def test_a_primitive_serves_several_widgets_and_may_be_saved_by_name():
    graph = Graph().node(1, "PrimitiveNode", None, outputs=["INT"], widgets_values_named={"value": 3})
    graph.node(2, "Upscale", [2.0, 0]).node(3, "Many", [1, "x", "fixed", "", "t", 2])
    graph.link(1, 0, 2, "tile").link(1, 0, 3, "noise_seed")
    assert graph.inputs(2)["tile"] == 3
    assert graph.inputs(3)["noise_seed"] == 3


def test_a_primitive_that_never_had_a_value_leaves_the_widget_alone():
    graph = Graph().node(1, "PrimitiveNode", outputs=["INT"]).node(2, "Upscale", [2.0, 7]).link(1, 0, 2, "tile")
    assert graph.inputs(2)["tile"] == 7


def test_a_primitive_does_not_reach_through_a_reroute_nor_into_a_socket():
    graph = Graph().node(1, "PrimitiveNode", [9], outputs=["INT"]).reroute(2).node(3, "Upscale", [2.0, 7])
    graph.link(1, 0, 2, "").link(2, 0, 3, "tile").link(1, 0, 3, "image")
    assert graph.inputs(3) == {"scale": 2.0, "tile": 7}


# 2, 3: emitting and muting


def test_every_real_node_that_is_on_is_emitted_even_unconnected():
    graph = Graph().node(1, "Load").node(2, "Load", mode=2).node(3, "Load", mode=4).node(4, "Load", mode=1)
    workflow = graph.parsed()
    assert workflow.nodes.keys() == {"1", "4"}
    assert [(each.id, each.mode, each.title) for each in workflow.inactive] == [
        ("2", "muted", "Load photo"),
        ("3", "bypassed", "Load photo"),
    ]


def test_a_muted_source_gives_nothing_and_the_planner_says_why():
    graph = Graph().node(1, "Load", mode=2, title="Photo").node(2, "Save", ["r", "png"]).link(1, 0, 2, "image")
    assert graph.inputs(2) == {"filename": "r", "format": "png"}
    with pytest.raises(WorkflowInvalidError, match=r'required_input_missing: node 2 "Save", input "image": it is') as e:
        make_plan(graph.parsed(), SCHEMAS)
    assert 'node 1 "Photo" is muted' in e.value.message


def test_a_widget_whose_link_leads_nowhere_keeps_its_saved_value():
    graph = Graph().node(1, "Number", [5], mode=2).node(2, "Upscale", [2.0, 7]).link(1, 0, 2, "tile")
    assert graph.inputs(2)["tile"] == 7


def test_a_muted_reroute_gives_nothing():
    graph = Graph().node(1, "Load").reroute(2, mode=2).node(3, "Show").link(1, 0, 2, "").link(2, 0, 3, "anything")
    assert graph.inputs(3) == {}


# 4: bypass


def test_a_bypassed_node_passes_its_input_of_the_same_index_through():
    graph = Graph().node(1, "Load").node(2, "Denoise", mode=4).node(3, "Save").link(1, 0, 2, "image")
    graph.link(2, 0, 3, "image")
    assert graph.inputs(3)["image"] == Link("1", 0)


def test_a_chain_of_bypassed_nodes_and_reroutes_is_followed():
    graph = Graph().node(1, "Load").node(2, "Denoise", mode=4).reroute(3).node(4, "Upscale", mode=4).node(5, "Save")
    graph.link(1, 0, 2, "image").link(2, 0, 3, "").link(3, 0, 4, "image").link(4, 0, 5, "image")
    assert graph.inputs(5)["image"] == Link("1", 0)


def test_bypass_looks_for_the_final_consumers_type_where_the_index_does_not_fit():
    graph = Graph().node(1, "Load").node(2, "Crossed", mode=4).node(3, "Save").node(4, "Show")
    graph.link(1, 0, 2, "image").link(1, 1, 2, "mask").link(2, 0, 3, "image").link(2, 0, 4, "anything")
    assert graph.inputs(3)["image"] == Link("1", 0)  # IMAGE is wanted: the second input
    assert graph.inputs(4)["anything"] == Link("1", 1)  # anything is wanted: the same index, whatever it is


def test_bypass_for_any_type_falls_back_to_the_first_input():
    graph = Graph().node(1, "Load").node(2, "Wide", mode=4, inputs=[("image", "IMAGE", False)], outputs=["A", "B"])
    graph.node(3, "Show").link(1, 0, 2, "image").link(2, 1, 3, "anything")
    assert graph.inputs(3)["anything"] == Link("1", 0)


def test_bypass_prefers_the_exact_type_and_then_takes_a_union():
    graph = Graph().node(1, "Load").node(9, "Load")
    graph.node(
        2,
        "Unknown",
        mode=4,
        inputs=[("m", "MASK", False), ("u", "IMAGE,MASK", False), ("i", "IMAGE", False)],
        outputs=["IMAGE"],
    )
    graph.node(3, "Save").link(1, 0, 2, "u").link(9, 0, 2, "i").link(2, 0, 3, "image")
    assert graph.inputs(3)["image"] == Link("9", 0)
    union = (
        Graph()
        .node(1, "Load")
        .node(2, "Unknown", mode=4, inputs=[("m", "MASK", False), ("u", "IMAGE,MASK", False)], outputs=["IMAGE"])
    )
    union.node(3, "Save").link(1, 0, 2, "u").link(2, 0, 3, "image")
    assert union.inputs(3)["image"] == Link("1", 0)


def test_a_bypassed_model_leaves_the_next_stage_without_one_and_planning_says_so():
    graph = Graph().node(1, "Load", ["anna.png", "refuse"]).node(2, "Model", mode=4, title="Big model")
    graph.node(3, "Enhance").node(4, "Save", ["r", "png"])
    graph.link(1, 0, 3, "image").link(2, 0, 3, "model").link(3, 0, 4, "image")
    assert graph.inputs(3) == {"image": Link("1", 0)}
    with pytest.raises(WorkflowInvalidError) as caught:
        make_plan(graph.parsed(), SCHEMAS)
    (problem,) = caught.value.context["problems"]
    assert (problem["code"], problem["node_id"], problem["input"]) == ("required_input_missing", "3", "model")
    assert 'node 2 "Big model" is bypassed' in problem["message"]
    # Bypassing the stage too is what the hint advises, and it works.
    graph.nodes[3]["mode"] = 4
    assert make_plan(graph.parsed(), SCHEMAS).order == ("1", "4")


def test_a_bypassed_node_with_nothing_connected_gives_nothing():
    graph = Graph().node(2, "Denoise", mode=4).node(3, "Save").link(2, 0, 3, "image")
    workflow = graph.parsed()
    assert "image" not in workflow.nodes["3"].inputs
    assert "not connected" in workflow.nodes["3"].dropped["image"]


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("IMAGE", "IMAGE", True),
        ("image", "IMAGE", True),
        ("*", "MASK", True),
        ("MASK", "", True),
        ("IMAGE,MASK", "MASK", True),
        ("IMAGE,MASK", "LATENT,MASK", True),
        ("IMAGE, MASK", "MASK", False),  # the editor does not look past the blank
        ("IMAGE", "MASK", False),
        ("IMAGE,LATENT", "MASK", False),
    ],
)
def test_compatible_types(one, other, fits):
    assert compatible(one, other) is fits
    assert compatible(other, one) is fits


# 5: reroutes


def test_reroutes_pass_through_and_native_ones_are_cosmetic():
    graph = Graph().node(1, "Load").reroute(2).reroute(3).node(4, "Save")
    graph.link(1, 0, 2, "").link(2, 0, 3, "").link(3, 0, 4, "image")
    extra = {"reroutes": [{"id": 1, "pos": [0, 0], "linkIds": [1]}], "linkExtensions": [{"id": 1, "parentId": 1}]}
    assert graph.inputs(4, extra=extra, groups=[{"title": "g"}], floatingLinks=[{}])["image"] == Link("1", 0)


def test_a_reroute_with_nothing_behind_it_gives_nothing():
    graph = Graph().reroute(2).node(4, "Save").link(2, 0, 4, "image")
    assert "image" not in graph.inputs(4)
    assert "nothing connected" in graph.parsed().nodes["4"].dropped["image"]


@pytest.mark.parametrize("mode", [0, 4])
def test_a_circle_of_reroutes_is_named(mode):
    graph = Graph().reroute(1, mode=mode).reroute(2).reroute(3).node(4, "Save", ["r", "png"])
    graph.link(1, 0, 2, "").link(2, 0, 3, "").link(3, 0, 1, "").link(3, 0, 4, "image")
    with pytest.raises(WorkflowInvalidError) as caught:
        make_plan(graph.parsed(), SCHEMAS)
    (problem,) = caught.value.context["problems"]
    assert (problem["code"], problem["node_id"], problem["input"]) == ("dependency_cycle", "4", "image")
    assert '1 "Reroute" -> 2 "Reroute" -> 3 "Reroute" -> 1 "Reroute"' in problem["message"]


def test_a_reroute_into_itself_is_named_once_it_is_used():
    graph = Graph().reroute(1).node(4, "Show").link(1, 0, 1, "")
    assert graph.parsed().problems == ()
    graph.link(1, 0, 4, "anything")
    assert [each.code for each in graph.parsed().problems] == ["dependency_cycle"]


def test_ten_thousand_reroutes_are_followed_without_recursion_for_every_consumer():
    graph = Graph().node(0, "Load", ["anna.png", "refuse"])
    for i in range(1, 5000):
        graph.reroute(i).link(i - 1, 0, i, "")
    for i in range(5000, 9990):
        graph.node(i, "Show").link(i - 5000, 0, i, "anything")
    workflow = graph.parsed()
    assert {node.inputs["anything"] for node in workflow.nodes.values() if node.class_type == "Show"} == {Link("0", 0)}


# 6, 15: what cannot be converted


def test_a_definition_that_nobody_uses_does_no_harm():
    definitions = {"subgraphs": [{"id": "c0ffee", "name": "Unused"}]}
    assert Graph().node(1, "Load").parsed(definitions=definitions).nodes.keys() == {"1"}


@pytest.mark.parametrize("prefix", ["workflow>", "workflow/"])
def test_a_group_node_is_refused_by_name(prefix):
    graph = Graph().node(3, f"{prefix}faces", title="My faces")
    with pytest.raises(WorkflowFormatError, match='node 3 "My faces" is a group node') as caught:
        graph.parsed(extra={"groupNodes": {"faces": {}}})
    assert "nodes" in caught.value.hint


# 8, 9, 12, 14: widget values


def test_values_go_by_position_required_then_optional_past_the_control_slots():
    graph = Graph().node(1, "Many", [4, "y", "randomize", "", "hello", 11, False, 6])
    assert graph.inputs(1) == {
        "a": 4, "style": "y", "text": "hello", "noise_seed": 11, "flag": False, "socketless": 6,
    }  # fmt: skip


def test_a_seed_has_a_control_slot_even_if_the_class_does_not_say_so():
    graph = Graph().node(1, "Denoise", [0.5, 123, "randomize", "manual"])
    assert graph.inputs(1) == {"strength": 0.5, "seed": 123, "noise": "manual"}


def test_surplus_values_are_ignored_and_missing_ones_are_the_widgets_defaults():
    assert Graph().node(1, "Load", ["anna.png", "accept", "image"]).inputs(1) == {
        "photo": "anna.png",
        "on_damage": "accept",
    }
    assert Graph().node(1, "Load", ["anna.png"]).inputs(1)["on_damage"] == "refuse"
    assert Graph().node(1, "Denoise").inputs(1) == {"strength": 1.0, "seed": 0, "noise": "auto"}


def test_values_may_be_saved_by_name():
    graph = Graph().node(1, "Denoise", {"noise": "manual", "seed": 5, "other": 1})
    assert graph.inputs(1) == {"strength": 1.0, "seed": 5, "noise": "manual"}


def test_values_by_position_win_over_values_by_name_as_in_the_editor_and_the_user_is_told():
    graph = Graph().node(
        1, "Denoise", [0.5, 1, "fixed", "manual"], widgets_values_named={"seed": 9, "control_after_generate": "fixed"}
    )
    assert graph.inputs(1) == {"strength": 0.5, "seed": 1, "noise": "manual"}
    (warning,) = graph.parsed().warnings
    assert (warning.code, warning.node_id, warning.input) == ("values_disagree", "1", "seed")
    assert "9" in warning.message


def test_values_by_name_alone_are_taken_by_name():
    graph = Graph().node(1, "Denoise", widgets_values_named={"seed": 9})
    assert graph.inputs(1) == {"strength": 1.0, "seed": 9, "noise": "auto"}
    assert not graph.parsed().warnings


def test_slots_of_forced_sockets_in_older_files_are_dropped_when_the_lengths_match():
    assert Graph().node(1, "Forced", [4, 7, "fixed", "was linked", "hello"]).inputs(1) == {
        "a": 4, "seed": 7, "text": "hello",
    }  # fmt: skip
    assert Graph().node(1, "Forced", [4, 7, "fixed", "hello"]).inputs(1)["text"] == "hello"


def test_a_list_is_wrapped_so_that_it_does_not_read_as_a_link():
    graph = Graph().node(1, "Load", [["7", 0], "refuse"])
    assert graph.inputs(1)["photo"] == {"__value__": ["7", 0]}
    assert graph.parsed().to_prompt()["1"]["inputs"]["photo"] == {"__value__": ["7", 0]}


# 10, 11: links


def test_a_link_overrides_the_widget():
    graph = Graph().node(1, "Number", [64]).node(2, "Upscale", [2.0, 7]).link(1, 0, 2, "tile")
    assert graph.inputs(2)["tile"] == Link("1", 0)


def test_links_are_matched_by_input_name_before_the_target_slot():
    graph = Graph().node(1, "Load").node(2, "Crossed", inputs=[("image", "IMAGE", False), ("mask", "MASK", False)])
    graph.link(1, 0, 2, "image").link(1, 1, 2, "mask")
    graph.links[0][4], graph.links[1][4] = 5, 0  # stale slots, as the editor leaves them
    assert graph.inputs(2) == {"image": Link("1", 0), "mask": Link("1", 1)}


def test_the_target_slot_is_used_where_a_socket_says_nothing_of_links():
    graph = Graph().node(1, "Load").node(2, "Save").link(1, 0, 2, "image")
    for each in graph.nodes[2]["inputs"]:
        del each["link"]
    assert graph.inputs(2)["image"] == Link("1", 0)


def test_a_socket_the_class_does_not_have_stays_for_the_planner_to_mention():
    graph = Graph().node(1, "Load", ["anna.png", "refuse"])
    graph.node(2, "Save", ["r", "png"], inputs=[("image", "IMAGE", False), ("gone", "MASK", False)])
    graph.link(1, 0, 2, "image").link(1, 1, 2, "gone")
    assert graph.inputs(2)["gone"] == Link("1", 1)
    plan = make_plan(graph.parsed(), SCHEMAS)
    assert [(each.code, each.node_id, each.input) for each in plan.warnings] == [("unknown_input", "2", "gone")]
    assert "gone" not in plan.stages["2"].inputs


# What the file may get wrong


def test_dangling_links_are_problems_of_the_node_that_has_them():
    graph = Graph().node(1, "Load", ["anna.png", "refuse"]).node(2, "Save", ["r", "png"]).node(3, "Save", ["r", "png"])
    graph.link(1, 0, 2, "image").link(99, 0, 3, "image")
    graph.nodes[2]["inputs"][0]["link"] = 77
    with pytest.raises(WorkflowInvalidError) as caught:
        make_plan(graph.parsed(), SCHEMAS)
    found = {(each["code"], each["node_id"]): each["message"] for each in caught.value.context["problems"]}
    assert "link 77, which the file does not have" in found["bad_linked_input", "2"]
    assert "node 99, which the file does not have" in found["bad_linked_input", "3"]


def test_a_dangling_link_of_a_node_nobody_needs_is_a_warning():
    graph = Graph().node(1, "Load", ["anna.png", "refuse"]).node(2, "Save", ["r", "png"]).node(3, "Upscale", [2.0, 0])
    graph.link(1, 0, 2, "image").link(99, 0, 3, "image")
    plan = make_plan(graph.parsed(), SCHEMAS)
    assert [(each.code, each.node_id) for each in plan.warnings] == [("bad_linked_input", "3")]
    assert plan.unused == ("3",)


def test_a_node_of_an_unknown_class_is_emitted_with_its_links_and_its_pack_is_named():
    graph = Graph().node(1, "Load", ["anna.png", "refuse"])
    graph.node(
        2,
        "FaceMagic",
        [1, 2],
        inputs=[("image", "IMAGE", False)],
        outputs=["IMAGE"],
        properties={"aux_id": "someone/face-magic"},
    )
    graph.node(3, "Save", ["r", "png"]).link(1, 0, 2, "image").link(2, 0, 3, "image")
    assert graph.inputs(2) == {"image": Link("1", 0)}
    with pytest.raises(WorkflowInvalidError) as caught:
        make_plan(graph.parsed(), SCHEMAS)
    (problem,) = caught.value.context["problems"]
    assert (problem["code"], problem["title"]) == ("missing_node_type", "FaceMagic")
    assert "another node pack (someone/face-magic)" in problem["hint"]


def test_links_that_were_deleted_and_ids_as_text_are_read():
    graph = Graph().node("1", "Load").node("2", "Save").link("1", "0", "2", "image")
    raw = graph.raw()
    raw["links"].insert(0, None)
    assert parse_workflow(raw, SCHEMAS).nodes["2"].inputs["image"] == Link("1", 0)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"nodes": [3]}, "node number 1 is 3"),
        ({"nodes": [{"type": "Save"}]}, "node number 1 has no id"),
        ({"nodes": [{"id": True, "type": "Save"}]}, "node number 1 has no id"),
        ({"nodes": [{"id": 1}]}, "node 1 has no type"),
        ({"nodes": [{"id": 1, "type": "Save"}, {"id": "1", "type": "Save"}]}, "two nodes have the id 1"),
        ({"nodes": [{"id": 1, "type": "Save", "inputs": {}}]}, "sockets of node 1"),
        ({"nodes": [{"id": 1, "type": "Save", "inputs": [5]}]}, "a socket of node 1 is 5"),
        ({"nodes": [], "links": 5}, "links are not a list"),
        ({"nodes": [], "links": [[1, 2]]}, "link number 1"),
        ({"nodes": [], "links": [[1, 2, -1, 3, 0, "IMAGE"]]}, "link number 1"),
        ({"nodes": [], "links": [[1, None, 0, 3, 0, "IMAGE"]]}, "link number 1"),
        ({"nodes": [], "links": [{"id": 1}]}, "link number 1"),
        ({"nodes": [], "links": ["x"]}, "link number 1"),
    ],
)
def test_what_the_editor_never_writes_is_refused(raw, says):
    with pytest.raises(WorkflowFormatError, match=says) as caught:
        parse_workflow(raw, SCHEMAS)
    assert caught.value.hint


def test_an_empty_graph_has_no_outputs():
    with pytest.raises(WorkflowInvalidError, match="prompt_no_outputs"):
        make_plan(parse_workflow({"nodes": [], "links": []}, SCHEMAS), SCHEMAS)


@given(
    st.lists(
        st.tuples(st.sampled_from(["Denoise", "Upscale", "Inverted", "Reroute"]), st.sampled_from([0, 2, 4])),
        max_size=8,
    )
)
def test_a_chain_with_anything_switched_off_ends_where_a_hand_would_follow_it(kinds):
    graph = Graph().node(1, "Load")
    for i, (kind, mode) in enumerate(kinds, 2):
        graph = graph.reroute(i, mode=mode) if kind == "Reroute" else graph.node(i, kind, mode=mode)
        graph.link(i - 1, 0, i, "" if kind == "Reroute" else "image")
    last = len(kinds) + 2
    graph.node(last, "Save").link(last - 1, 0, last, "image")
    expected = Link("1", 0)
    for i, (kind, mode) in enumerate(kinds, 2):
        if mode == 2:
            expected = None
        elif mode == 0 and kind != "Reroute":
            expected = Link(str(i), 0)
    assert graph.inputs(last).get("image") == expected
