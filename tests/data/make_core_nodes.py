"""Ask a ComfyUI's own nodes what ``tests/support/core_node_cases.py`` asks ours, and keep what they say.

    cd COMFYUI_CHECKOUT && THEIR_PYTHON /path/to/tests/data/make_core_nodes.py [OUT]

The nodes are called as functions, on the CPU; no server is started. Nodes that an older ComfyUI does not have are left
out. ``OUT`` is ``core_nodes.json.xz`` beside this file unless it is named.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
EXTRAS = (
    *("mask", "images", "post_processing", "compositing", "logic", "math", "number_convert", "string", "primitive"),
    *("preview_any", "resolution", "seed", "upscale_model", "image_compare"),
)

DECLARED = ("input", "output", "output_name", "output_node", "display_name", "category")
OTHERS = {
    *("SaveImage", "PreviewImage", "ImageCompare", "LoadImageOutput"),
    *("UpscaleModelLoader", "ImageUpscaleWithModel"),
}


def main() -> None:
    """Write the answers."""
    out = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE / "core_nodes.json.xz"
    sys.argv = [sys.argv[0], "--cpu", "--disable-api-nodes"]
    sys.path[:0] = [str(Path.cwd()), str(HERE.parent / "support")]
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths
    import nodes
    from comfyui_version import __version__
    from core_node_cases import SAVES, UPSCALES, cases, write_networks, write_pictures
    from core_node_results import saved_files, summary

    import_module("comfy_extras.nodes_post_processing")  # it and another import each other; it has to be first

    with tempfile.TemporaryDirectory() as folder:
        folders = {name: Path(folder, name) for name in ("input", "output", "temp", "models")}
        for each in folders.values():
            each.mkdir()
        folder_paths.set_input_directory(str(folders["input"]))
        folder_paths.set_output_directory(str(folders["output"]))
        folder_paths.set_temp_directory(str(folders["temp"]))
        folder_paths.add_model_folder_path("upscale_models", str(folders["models"]))
        for name in EXTRAS:
            path = Path("comfy_extras", f"nodes_{name}.py")
            if path.is_file():
                asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
        known = nodes.NODE_CLASS_MAPPINGS
        titles = nodes.NODE_DISPLAY_NAME_MAPPINGS
        asked = sorted({case.node for case in cases()} | OTHERS)
        declared = {name: _declared(known[name], titles.get(name, name)) for name in asked if name in known}
        write_pictures(folders["input"])
        write_networks(folders["models"])
        answers: dict[str, Any] = {}
        for case in cases():
            if case.node not in known:
                continue
            assert case.name not in answers, case
            try:
                values = _call(known[case.node], case)
            except Exception as error:  # noqa: BLE001 - an older host cannot do all of it
                answers[case.name] = {"error": f"{type(error).__name__}: {error}"}
            else:
                answers[case.name] = [summary(value, exact=not case.tolerance) for value in values]
        for saved in SAVES:
            image = _tensor(saved.picture.make())
            answer = known["SaveImage"]().save_images(image, saved.prefix, saved.prompt, saved.extra_pnginfo)
            answers[saved.name] = saved_files(folders["output"], answer["ui"]["images"])
        for upscale in UPSCALES:
            model = _outputs(known["UpscaleModelLoader"], {"model_name": upscale.network})[0]
            image = _tensor(upscale.photo.make())
            large = _outputs(known["ImageUpscaleWithModel"], {"upscale_model": model, "image": image})[0]
            answers[upscale.name] = [summary(large, exact=False)]
    found = {"comfyui": __version__, "declared": declared, "answers": answers}
    out.write_bytes(lzma.compress(json.dumps(found).encode()))
    print(f"{len(answers)} answers of ComfyUI {__version__} in {out}")


def _declared(node: Any, title: str) -> dict[str, Any]:
    """What ``/object_info`` says of a node, without its prose."""
    if hasattr(node, "GET_NODE_INFO_V1"):
        info = node.GET_NODE_INFO_V1()
    else:
        info = {
            "input": node.INPUT_TYPES(),
            "output": node.RETURN_TYPES,
            "output_name": getattr(node, "RETURN_NAMES", node.RETURN_TYPES),
            "output_node": getattr(node, "OUTPUT_NODE", False),
            "display_name": title,
            "category": node.CATEGORY,
        }
    return {name: _without_prose(info[name]) for name in DECLARED}


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_prose(each) for key, each in value.items() if key != "tooltip"}
    return [_without_prose(each) for each in value] if isinstance(value, (list, tuple)) else value


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def _call(node: Any, case: Any) -> list[Any]:
    return _outputs(node, case.call(_tensor))


def _outputs(node: Any, inputs: dict[str, Any]) -> list[Any]:
    """Call a node of either kind."""
    if hasattr(node, "define_schema"):
        node.hidden = SimpleNamespace(prompt=None, extra_pnginfo=None, unique_id=None)
        return list(node.execute(**_nested(inputs)).args)
    answer = getattr(node(), node.FUNCTION)(**inputs)
    return list(answer["result"] if isinstance(answer, dict) else answer)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dynamic inputs as the host hands them to a node: what belongs together in one dict."""
    groups = {name.partition(".")[0] for name in flat if "." in name}
    nested: dict[str, Any] = {name: {} for name in groups}
    for name, value in flat.items():
        group, _, inner = name.partition(".")
        if group in groups:
            nested[group][inner or group] = value
        else:
            nested[name] = value
    return nested


if __name__ == "__main__":
    main()
