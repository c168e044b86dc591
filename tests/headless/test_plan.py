from __future__ import annotations

import itertools
import pickle

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.graph import SHOWN_PROBLEMS, Link
from headless.plan import make_plan
from headless.schema import schemas_of
from headless.workflow import parse_workflow
from photokeep_nodes.errors import NodeInputError, WorkflowInvalidError


class Load:
    DISPLAY_NAME = "Load photo"
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("image", "mask", "name")
    FUNCTION = "run"
    FILE_INPUTS = ("photo",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"photo": (["anna.png"], {"image_upload": True}), "page": ("INT", {"min": 0, "default": 0})}
        }

    @classmethod
    def VALIDATE_INPUTS(cls, photo):
        if photo == "boom.png":
            raise RuntimeError("the disk is on fire\x07")
        if photo == "typed.png":
            raise NodeInputError("this is no photo", hint="Pick another.")
        return photo.endswith(".png") or f"{photo} is no PNG."


class Step:
    DISPLAY_NAME = "Step"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"image": ("IMAGE",)},
            "optional": {
                "scale": ("FLOAT", {"default": 2.0, "min": 1.0, "max": 8.0}),
                "tile": ("INT", {"min": 0, "max": 1024}),
                "note": ("STRING", {}),
                "on": ("BOOLEAN", {}),
                "when": (["if_gray", "always"], {}),
                "bits": ([8, 16], {}),
                "style": ("COMBO", {"options": ["x", "y"]}),
                "tags": ("COMBO", {"options": ["a", "b", "c"], "multiselect": True}),
                "mask": ("MASK",),
                "either": ("IMAGE,MASK",),
                "anything": ("*",),
                "analysis": ("PHOTOKEEP_ANALYSIS",),
                "custom": ("CURVE",),
            },
            "hidden": {"prompt": "PROMPT"},
        }


class Join(Step):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("IMAGE",), "b": ("IMAGE",)}}


class Save(Step):
    DISPLAY_NAME = "Save photo"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "filename": ("STRING", {"default": "photo"})}}


class Choices:
    RETURN_TYPES = (["if_gray", "always"], ["other"], "COMBO", "STRING", "*", "MASK, LATENT")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


class SelfChecked(Save):
    """Takes everything into its own check, links' types included."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"image": ("IMAGE",), "size": ("INT", {"min": 1, "max": 4}), "kind": (["a"],)},
            "hidden": {"uid": "UNIQUE_ID", "prompt": "PROMPT", "png": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types, uid, prompt, png, **values):
        if values.get("size") == 99:
            return f"{input_types} {uid} {sorted(prompt)} {sorted(png)} {values}"
        return values.get("size") != 100


class WantsTheImage(Save):
    @classmethod
    def VALIDATE_INPUTS(cls, image, filename):
        return "called"


SCHEMAS = schemas_of(
    {
        "Load": Load,
        "Step": Step,
        "Join": Join,
        "Save": Save,
        "Choices": Choices,
        "SelfChecked": SelfChecked,
        "WantsTheImage": WantsTheImage,
        "PhotokeepLoadPhoto": Load,
    }
)


def node(class_type, title=None, **inputs):
    return {"class_type": class_type, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


def small(**step):
    """Load, one Step with the given inputs, Save."""
    return {
        "1": node("Load", "Family photo", photo="anna.png", page=0),
        "2": node("Step", "Enlarge", **{"image": ["1", 0], **step}),
        "3": node("Save", image=["2", 0], filename="r"),
    }


def plan_of(prompt):
    return make_plan(parse_workflow(prompt, SCHEMAS), SCHEMAS)


def problems_of(prompt):
    with pytest.raises(WorkflowInvalidError) as caught:
        plan_of(prompt)
    assert caught.value.exit_code == 2
    problems = caught.value.context["problems"]
    for each in problems:
        assert each.keys() == {"code", "message", "node_id", "title", "class_type", "input", "hint", "within"}
        line = next(
            line for line in caught.value.message.splitlines() if each["code"] in line and each["message"] in line
        )
        if each["node_id"]:
            assert f"node {each['node_id']} " in line
            assert f'"{each["title"]}"' in line
        assert each["input"] in line
        assert each["hint"] in line
    assert pickle.loads(pickle.dumps(caught.value)).context == caught.value.context
    return problems


def the_problem(prompt):
    (problem,) = problems_of(prompt)
    assert problem["hint"]
    return problem


# The plan


def test_a_plan_holds_the_stages_its_outputs_need_in_order():
    prompt = {
        "10": node("Save", image=["9", 0], filename="a"),
        "9": node("Join", a=["2", 0], b=["1", 0]),
        "2": node("Step", image=["1", 0]),
        "1": node("Load", photo="anna.png", page=0),
        "11": node("Step", image=["1", 0]),
        "12": node("Step", image=["11", 0]),
    }
    plan = plan_of(prompt)
    assert plan.order == ("1", "2", "9", "10")
    assert plan.unused == ("11", "12")
    assert list(plan.stages) == ["1", "2", "9", "10"]
    assert isinstance(plan.graph, nx.DiGraph)
    assert set(plan.graph.edges) == {("1", "2"), ("1", "9"), ("2", "9"), ("9", "10")}
    assert plan.graph.nodes["9"]["stage"] is plan.stages["9"]
    assert plan.stages["9"].links == {"a": Link("2", 0), "b": Link("1", 0)}
    assert [stage.output_node for stage in plan.stages.values()] == [False, False, False, True]
    assert plan.warnings == ()
    assert plan.workflow.nodes.keys() == prompt.keys()


def test_of_the_stages_that_are_free_the_smallest_number_goes_first():
    prompt = {str(i): node("Load", photo="anna.png", page=i) for i in (10, 9, 2, 30)}
    prompt |= {"5:10": node("Join", a=["10", 0], b=["2", 0]), "5:9": node("Join", a=["9", 0], b=["30", 0])}
    prompt["99"] = node("Join", a=["5:9", 0], b=["5:10", 0])
    prompt["100"] = node("Save", image=["99", 0], filename="x")
    assert plan_of(prompt).order == ("2", "9", "10", "5:10", "30", "5:9", "99", "100")
    assert plan_of(dict(reversed(prompt.items()))).order == plan_of(prompt).order


def test_a_node_that_nobody_needs_is_not_checked():
    prompt = {**small(), "7": node("Step", scale=99, image=["nobody", 3])}
    assert plan_of(prompt).unused == ("7",)


def test_a_plan_survives_pickling():
    plan = plan_of(small())
    again = pickle.loads(pickle.dumps(plan))
    assert (again.order, again.stages) == (plan.order, plan.stages)


# Values


@pytest.mark.parametrize(
    ("name", "value", "coerced"),
    [
        ("scale", 2, 2.0),
        ("scale", "2.5", 2.5),
        ("scale", True, 1.0),
        ("tile", "64", 64),
        ("tile", 64.0, 64),
        ("tile", True, 1),
        ("note", 12, "12"),
        ("note", None, "None"),
        ("on", 1, True),
        ("on", 0, False),
        ("bits", 16.0, 16),
        ("note", {"__value__": "x"}, "x"),
        ("tags", {"__value__": ["a", "c"]}, ["a", "c"]),
        ("tags", "b", "b"),
        ("custom", {"points": [1, 2]}, {"points": [1, 2]}),
        ("anything", 5, 5),
        ("mask", None, None),
    ],
)
def test_values_are_converted_as_the_host_does(name, value, coerced):
    stage = plan_of(small(**{name: value})).stages["2"]
    assert stage.inputs[name] == coerced
    assert type(stage.inputs[name]) is type(coerced)


def test_inputs_are_in_the_classs_order_and_absent_optional_ones_stay_absent():
    stage = plan_of(small(tile=1, scale=2)).stages["2"]
    assert list(stage.inputs) == ["image", "scale", "tile"]


@pytest.mark.parametrize(("value", "says"), [(3.7, "3.7 is cut to 3"), ("no", '"no" counts as true')])
def test_a_conversion_that_changes_the_value_is_a_warning(value, says):
    plan = plan_of(small(**({"tile": value} if isinstance(value, float) else {"on": value})))
    (warning,) = plan.warnings
    assert (warning.code, warning.node_id) == ("value_converted", "2")
    assert says in warning.message
    assert says in warning.line()


def test_an_unknown_input_is_ignored_and_warned_of_and_a_hidden_one_is_neither():
    plan = plan_of(small(sharpness=3, prompt={"x": 1}, other=["9", 0]))
    assert [(each.code, each.input) for each in plan.warnings] == [
        ("unknown_input", "sharpness"),
        ("unknown_input", "other"),
    ]
    assert list(plan.stages["2"].inputs) == ["image"]


# Each code


@pytest.mark.parametrize(
    ("prompt", "input_name", "hint"),
    [
        ({"3": node("Save", filename="x")}, "image", "Connect an output of type IMAGE"),
        ({**small(), "1": node("Load", page=1)}, "photo", "Give it a value of type COMBO"),
    ],
)
def test_required_input_missing(prompt, input_name, hint):
    problem = the_problem(prompt)
    assert (problem["code"], problem["input"]) == ("required_input_missing", input_name)
    assert hint in problem["hint"]


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (["99", 0], "node 99, which does not exist"),
        (["1", 3], 'node 1 "Family photo" has no output 3'),
        (["1", -1], "has no output -1"),
        (["1", 2**63], "has no output 9223372036854775808"),
        (["1"], "neither a value nor a link"),
        (["1", 0, 0], "neither a value nor a link"),
        (["1", "0"], "neither a value nor a link"),
        (["1", False], "neither a value nor a link"),
        ([], "neither a value nor a link"),
        ([None, 0], "neither a value nor a link"),
    ],
)
def test_bad_linked_input(link, says):
    problem = the_problem(small(image=link))
    assert (problem["code"], problem["node_id"], problem["input"]) == ("bad_linked_input", "2", "image")
    assert says in problem["message"]


def test_a_link_to_a_node_without_outputs():
    prompt = {**small(image=["4", 0]), "4": node("Save", "Copy", image=["1", 0], filename="y")}
    problem = the_problem(prompt)
    assert (problem["code"], problem["message"]) == ("bad_linked_input", 'node 4 "Copy" has no output 0')
    assert problem["hint"] == "It has no outputs."


@pytest.mark.parametrize(
    ("slot", "name", "fits"),
    [
        (0, "when", True),  # the same list of choices
        (1, "when", False),
        (2, "when", False),  # the host does not take COMBO for a list
        (3, "when", False),
        (4, "when", True),  # any
        (2, "style", True),
        (0, "style", False),
        (3, "style", False),
        (3, "note", True),
        (5, "mask", True),  # unions that overlap
        (5, "either", True),
        (5, "note", False),
        (3, "anything", True),
        (4, "mask", True),
        (3, "mask", False),
    ],
)
def test_return_type_mismatch(slot, name, fits):
    prompt = {**small(**{name: ["8", slot]}), "8": node("Choices", "Chooser")}
    if fits:
        assert plan_of(prompt).stages["2"].inputs[name] == Link("8", slot)
        return
    problem = the_problem(prompt)
    assert (problem["code"], problem["node_id"], problem["input"]) == ("return_type_mismatch", "2", name)
    assert 'node 8 "Chooser" gives' in problem["message"]


def test_return_type_mismatch_names_an_output_that_would_fit():
    problem = the_problem(small(mask=["1", 0]))
    assert problem["hint"] == "Its output 1 (mask) would fit."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", "fast"),
        ("scale", None),
        ("scale", "nan"),
        ("scale", "inf"),
        ("scale", {"__value__": [1]}),
        ("scale", 10**90 * 10**9),
        ("scale", "1e400"),
        ("tile", "3.5"),
        ("tile", {"a": 1}),
        ("image", "photo.png"),
        ("image", None),
        ("mask", 3),
        ("analysis", {"images": []}),
    ],
)
def test_invalid_input_type(name, value):
    problem = the_problem(small(**{name: value}))
    if name == "scale" and isinstance(value, int):
        assert problem["code"] == "value_bigger_than_max"
        return
    assert (problem["code"], problem["node_id"], problem["input"]) == ("invalid_input_type", "2", name)


@pytest.mark.parametrize(
    ("name", "value", "code", "hint"),
    [
        ("scale", 0.5, "value_smaller_than_min", "a number from 1.0 to 8.0"),
        ("scale", 9, "value_bigger_than_max", "a number from 1.0 to 8.0"),
        ("tile", -1, "value_smaller_than_min", "a whole number from 0 to 1024"),
        ("tile", 2**63, "value_bigger_than_max", "a whole number from 0 to 1024"),
    ],
)
def test_ranges(name, value, code, hint):
    problem = the_problem(small(**{name: value}))
    assert (problem["code"], problem["input"]) == (code, name)
    assert hint in problem["hint"]


def test_a_range_with_one_end():
    prompt = small()
    prompt["1"]["inputs"]["page"] = -1
    assert the_problem(prompt)["hint"] == "Give a whole number of at least 0."


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("when", "alway", 'Did you mean "always"?'),
        ("when", "ALWAYS", 'Choose from "if_gray", "always".'),
        ("when", 0, "Choose from"),
        ("bits", True, "Choose from 8, 16."),
        ("bits", "8", "8, 16"),
        ("style", "z", '"x", "y"'),
        ("tags", {"__value__": ["a", "z"]}, '"a", "b", "c"'),
        ("tags", {"__value__": [["a"]]}, '"a", "b", "c"'),
    ],
)
def test_value_not_in_list(name, value, hint):
    problem = the_problem(small(**{name: value}))
    assert (problem["code"], problem["node_id"], problem["input"]) == ("value_not_in_list", "2", name)
    assert hint in problem["hint"]


def test_a_class_that_checks_an_input_itself_is_asked_instead_of_the_list():
    prompt = small()
    prompt["1"]["inputs"]["photo"] = "/photos/elsewhere.png"
    assert plan_of(prompt).stages["1"].inputs["photo"] == "/photos/elsewhere.png"


@pytest.mark.parametrize(
    ("photo", "says", "hint"),
    [
        ("anna.bmp", "anna.bmp is no PNG", ""),
        ("boom.png", "RuntimeError: the disk is on fire?", ""),
        ("typed.png", "this is no photo", "Pick another."),
    ],
)
def test_custom_validation_failed(photo, says, hint):
    prompt = small()
    prompt["1"]["inputs"]["photo"] = photo
    (problem,) = problems_of(prompt)
    assert (problem["code"], problem["node_id"], problem["input"]) == ("custom_validation_failed", "1", "photo")
    assert says in problem["message"]
    assert problem["hint"] == hint


def test_a_class_may_check_types_and_ask_for_hidden_inputs():
    prompt = small()
    prompt["3"] = node("SelfChecked", image=["1", 1], size=99, kind="not in the list")
    (problem,) = problems_of(prompt)
    assert problem["message"] == (
        "{'image': 'MASK'} 3 ['1', '2', '3'] [] {'size': 99, 'kind': 'not in the list'}"
    )  # the type, the range and the list are its own business
    prompt["3"]["inputs"]["size"] = 100
    assert problems_of(prompt)[0]["message"] == "the node refuses its values"
    prompt["3"]["inputs"]["size"] = 1000
    assert plan_of(prompt).order == ("1", "3")


def test_a_check_that_wants_a_linked_value_is_left_for_the_run():
    prompt = small()
    prompt["3"]["class_type"] = "WantsTheImage"
    assert plan_of(prompt).order == ("1", "2", "3")


def test_a_cycle_is_named_along_the_flow():
    prompt = {
        "7": node("Step", "C", image=["5", 0]),
        "5": node("Step", "B", image=["4", 0]),
        "4": node("Step", "A", image=["7", 0]),
        "9": node("Save", image=["7", 0], filename="x"),
    }
    problem = the_problem(prompt)
    assert (problem["code"], problem["node_id"], problem["input"]) == ("dependency_cycle", "4", "image")
    assert '4 "A" -> 5 "B" -> 7 "C" -> 4 "A"' in problem["message"]


def test_a_node_linked_to_itself_is_a_cycle_and_others_are_listed_too():
    prompt = {
        "2": node("Join", "Own tail", a=["2", 0], b=["3", 0]),
        "3": node("Step", image=["4", 0]),
        "4": node("Step", image=["3", 0]),
        "9": node("Save", image=["2", 0], filename="x"),
    }
    problems = problems_of(prompt)
    assert [each["code"] for each in problems] == ["dependency_cycle"] * 2
    assert '2 "Own tail" -> 2 "Own tail"' in problems[0]["message"]
    assert '3 "Step" -> 4 "Step" -> 3 "Step"' in problems[1]["message"]


def test_a_cycle_that_no_output_needs_is_left_alone():
    assert plan_of({**small(), "8": node("Step", image=["8", 0])}).unused == ("8",)


def test_a_cycle_through_an_input_the_class_does_not_have_is_none():
    assert plan_of(small(gone=["3", 0])).order == ("1", "2", "3")


@pytest.mark.parametrize(
    ("class_type", "hint"),
    [
        ("Stepp", "Did you mean Step?"),
        ("SaveAnimatedPNG", "ComfyUI's own nodes"),
        ("KSampler", "ComfyUI's own nodes"),
        ("VHS_VideoCombine", "another node pack"),
        ("x" * 500, "another node pack"),
    ],
)
def test_missing_node_type(class_type, hint):
    prompt = {**small(), "8": node(class_type, "Mystery")}
    problem = the_problem(prompt)
    assert (problem["code"], problem["node_id"], problem["title"]) == ("missing_node_type", "8", "Mystery")
    assert hint in problem["hint"]
    assert len(problem["message"]) < 200


def test_an_unknown_class_is_said_once_not_by_its_consumers():
    prompt = small()
    prompt["1"]["class_type"] = "Nobody"
    assert [each["code"] for each in problems_of(prompt)] == ["missing_node_type"]


def test_prompt_no_outputs():
    prompt = small()
    del prompt["3"]
    problem = the_problem(prompt)
    assert (problem["code"], problem["node_id"]) == ("prompt_no_outputs", "")
    assert "Save photo" in problem["hint"]


def test_prompt_no_outputs_names_an_output_that_is_switched_off():
    raw = {"nodes": [{"id": 4, "type": "Save", "mode": 2}], "links": []}
    with pytest.raises(WorkflowInvalidError, match='Node 4 "Save photo" is muted: switch it on'):
        make_plan(parse_workflow(raw, SCHEMAS), SCHEMAS)


def test_every_problem_is_found_at_once():
    prompt = {
        "1": node("Load", photo="anna.bmp", page=-1),
        "2": node("Step", image=["1", 1], scale=99, tile="x", when="never", mask=["77", 0]),
        "3": node("Nobody"),
        "4": node("Step", image=["4", 0]),
        "5": node("Join", a=["2", 0]),
        "6": node("Save", image=["5", 0]),
        "7": node("Save", image=["4", 0], filename="x"),
    }
    assert [(each["node_id"], each["code"], each["input"]) for each in problems_of(prompt)] == [
        ("1", "value_smaller_than_min", "page"),
        ("1", "custom_validation_failed", "photo"),
        ("2", "return_type_mismatch", "image"),
        ("2", "value_bigger_than_max", "scale"),
        ("2", "invalid_input_type", "tile"),
        ("2", "value_not_in_list", "when"),
        ("2", "bad_linked_input", "mask"),
        ("3", "missing_node_type", ""),
        ("4", "dependency_cycle", "image"),
        ("5", "required_input_missing", "b"),
        ("6", "required_input_missing", "filename"),
    ]


def test_without_any_output_the_rest_is_still_checked():
    assert [each["code"] for each in problems_of({"1": node("Load", photo="anna.png", page=-1)})] == [
        "value_smaller_than_min",
        "prompt_no_outputs",
    ]


def test_the_text_stays_short_where_there_are_thousands_of_problems():
    prompt = {str(i): node(f"Nobody{i}") for i in range(3000)}
    with pytest.raises(WorkflowInvalidError) as caught:
        plan_of(prompt)
    assert len(caught.value.context["problems"]) == 3000
    assert len(caught.value.message.splitlines()) == SHOWN_PROBLEMS + 2
    assert caught.value.message.endswith("and 2950 more")
    assert caught.value.message.startswith("The workflow cannot run: 3000 problems")


# Size


def chain(n):
    prompt = {"1": node("Load", photo="anna.png", page=0)}
    prompt |= {str(i): node("Step", image=[str(i - 1), 0], scale=2) for i in range(2, n)}
    prompt[str(n)] = node("Save", image=[str(n - 1), 0], filename="x")
    return prompt


def test_a_chain_of_ten_thousand_is_planned_without_recursion():
    plan = plan_of(chain(10_000))
    assert plan.order == tuple(str(i) for i in range(1, 10_001))


def test_a_cycle_of_ten_thousand_is_named_in_short():
    prompt = chain(10_000)
    prompt["2"]["inputs"]["image"] = ["9999", 0]
    problem = the_problem(prompt)
    assert problem["code"] == "dependency_cycle"
    assert "9986 more" in problem["message"]
    assert len(problem["message"]) < 500


def test_work_grows_with_the_number_of_links_only():
    # Counted, not timed: every node asks the schemas a fixed number of times.
    class Counting(dict):
        asked = 0

        def get(self, key, default=None):
            Counting.asked += 1
            return super().get(key, default)

    schemas = Counting(SCHEMAS)
    asked = []
    for n in (100, 1000):
        workflow = parse_workflow(chain(n), SCHEMAS)
        Counting.asked = 0
        make_plan(workflow, schemas)
        asked.append(Counting.asked / n)
    assert asked[1] <= asked[0] * 1.1


@given(st.data(), st.integers(1, 25))
def test_any_acyclic_graph_is_put_in_a_valid_order_and_any_back_link_is_found(data, n):
    ids = data.draw(st.permutations([str(i) for i in range(n)]))
    prompt = {}
    for position, node_id in enumerate(ids):
        if position == 0:
            prompt[node_id] = node("Load", photo="anna.png", page=0)
            continue
        a, b = data.draw(st.tuples(*[st.integers(0, position - 1)] * 2))
        prompt[node_id] = node("Join", a=[ids[a], 0], b=[ids[b], 0])
    prompt["out"] = node("Save", image=[ids[-1], 0], filename="x")
    plan = plan_of(dict(data.draw(st.permutations(list(prompt.items())))))
    place = {node_id: i for i, node_id in enumerate(plan.order)}
    assert len(place) == len(plan.order) == len(plan.stages)
    for stage in plan.stages.values():
        for link in stage.links.values():
            assert place[link.node_id] < place[stage.id]
    assert {*plan.stages, *plan.unused} == prompt.keys()
    assert set(plan.unused).isdisjoint(plan.stages)
    reachable = nx.ancestors(plan.graph, "out") | {"out"}
    assert reachable == set(plan.stages)
    if len(plan.order) > 2:
        later, earlier = data.draw(st.sampled_from(list(itertools.combinations(reversed(plan.order[:-1]), 2))))
        if prompt[earlier]["class_type"] == "Join":
            prompt[earlier]["inputs"]["a"] = [later, 0]
            closes_circle = nx.has_path(plan.graph, earlier, later)
            codes = []
            try:
                plan_of(prompt)
            except WorkflowInvalidError as error:
                codes = [each["code"] for each in error.context["problems"]]
            assert ("dependency_cycle" in codes) == closes_circle
