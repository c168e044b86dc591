"""Write the workflow files of this folder: which nodes, how connected, in which groups, with which note.

    python workflows/make_workflows.py [FOLDER]

``sheet.py`` lays them out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from sheet import Group, Node, Sheet, text_of  # noqa: E402

from photokeep_nodes import NODE_CLASS_MAPPINGS  # noqa: E402
from photokeep_nodes.models import catalogue  # noqa: E402

BYPASSED, MUTED = 4, 2


def model(model_id: str, mode: int = 0) -> Node:
    """The node that names a model of the catalogue."""
    spec = catalogue()[model_id]
    # Short, or the editor widens the node beyond its place.
    return Node(f"PhotokeepModel{spec.node_name}", spec.title, mode)


def load() -> Node:
    """The photo."""
    return Node("PhotokeepLoadPhoto", "Load")


def save(image: tuple[Node, str], photo: Node, *, painted: bool = False, **widgets: Any) -> Node:
    """Where the result goes, with what the photo brought along.

    Args:
        image: the result.
        photo: where it comes from.
        painted: its mask is what people paint on it, and would make the result transparent there.
        widgets: those that differ from the defaults.
    """
    more = {"photo_info": photo.out("photo_info")}
    if not painted:
        more["mask"] = photo.out("mask")
    return Node("PhotokeepSavePhoto", "Save", widgets=widgets, inputs={"image": image, **more})


def keep(image: tuple[Node, str], photo: Node, title: str, filename: str) -> Node:
    """Where a picture goes that is for looking at."""
    inputs = {"image": image, "photo_info": photo.out("photo_info")}
    return Node("PhotokeepSavePhoto", title, widgets={"filename": filename, "format": "jpeg"}, inputs=inputs)


def stage(kind: str, title: str, mode: int = 0, widgets: dict[str, Any] | None = None, **inputs: Any) -> Node:
    """A node that works on the photo."""
    return Node(f"Photokeep{kind}", title, mode, widgets or {}, inputs)


def _look(photo: Node, detector: Node) -> tuple[Node, Node]:
    faces = stage("FaceDetect", "Find Faces", image=photo.out("image"), detector=detector.out("model"))
    return faces, stage("Analyze", "Analyze", image=photo.out("image"), faces=faces.out("faces"))


def _repair(photo: Node, faces: Node) -> tuple[Node, Node]:
    found = stage("ScratchDetect", "Find Scratches", image=photo.out("image"), faces=faces.out("faces"))
    return found, stage("Inpaint", "Inpaint", image=photo.out("image"), mask=found.out("mask"))


def _starter(photo: Node) -> tuple[Node, Node, list[Group]]:
    """What runs without a download: the faces that are found, the enlarged photo, and the groups up to there."""
    detector = model("retinaface-mobilenet")
    faces, analysis = _look(photo, detector)
    told = {"analysis": analysis.out("analysis")}
    scratches, inpaint = _repair(photo, faces)
    denoiser, upscaler = model("ffdnet-color"), model("realesrgan-x4plus")
    denoise = stage("Denoise", "Denoise", image=inpaint.out("image"), model=denoiser.out("model"), **told)
    colours = stage("RestoreColors", "Restore Colors", image=denoise.out("image"), **told)
    upscale = stage("Upscale", "Upscale", image=colours.out("image"), model=upscaler.out("model"))
    groups = [
        Group("The photo", "Photo", [[photo]]),
        Group("Look at it", "Look", [[detector], [faces, analysis]]),
        Group("Scratches", "Clean", [[scratches, inpaint]]),
        Group("Noise and fading", "Colour", [[denoiser], [denoise, colours]]),
        Group("Size", "Size", [[upscaler, upscale]]),
    ]
    return faces, upscale, groups


def restore() -> Sheet:
    """The starter path: what runs without a download."""
    photo = load()
    faces, upscale, groups = _starter(photo)
    restorer, identity = model("gfpgan-1.4", BYPASSED), model("dlib-face", BYPASSED)
    face = stage(
        "FaceRestore",
        "Face Restore",
        BYPASSED,
        image=upscale.out("image"),
        model=restorer.out("model"),
        faces=faces.out("faces"),
        identity=identity.out("model"),
    )
    colouring = model("ddcolor-modelscope", BYPASSED)
    colorize = stage("Colorize", "Colorize", BYPASSED, image=face.out("image"), model=colouring.out("model"))
    note = (
        "# Restore a photo\n"
        "Choose a photo in **Load** and queue. From left to right: look at the photo, repair scratches, take the noise"
        " off, bring faded colours back, enlarge.\n\n"
        "**Face Restore** and **Colorize** are bypassed (purple), because their weights are not in the starter set. Get"
        " them with `photokeep models get gfpgan-1.4 ddcolor-modelscope`, select the purple nodes, press Ctrl+B."
    )
    return Sheet(
        "restore",
        note,
        [
            *groups,
            Group("Faces: bypassed, needs weights", "Faces", [[restorer, identity], [face]]),
            Group("Colour: bypassed, needs weights", "Colour", [[colouring, colorize]]),
            Group("The result", "Photo", [[save(colorize.out("image"), photo)]]),
        ],
    )


def restore_full() -> Sheet:
    """Every stage, with the models that suit most photos; all other models on a shelf."""
    photo, detector = load(), model("retinaface-r50")
    faces, analysis = _look(photo, detector)
    told = {"analysis": analysis.out("analysis")}
    jpeg_model = model("fbcnn-color")
    jpeg = stage("RemoveJPEGArtifacts", "Remove JPEG", image=photo.out("image"), model=jpeg_model.out("model"), **told)
    finder, filler = model("bopb-scratch"), model("lama")
    scratches = stage(
        "ScratchDetect",
        "Find Scratches",
        image=jpeg.out("image"),
        model=finder.out("model"),
        faces=faces.out("faces"),
    )
    inpaint = stage(
        "Inpaint", "Inpaint", image=jpeg.out("image"), mask=scratches.out("mask"), model=filler.out("model")
    )
    denoiser, deblurrer, brightener = model("scunet-psnr"), model("nafnet-gopro64"), model("zero-dce")
    denoise = stage("Denoise", "Denoise", image=inpaint.out("image"), model=denoiser.out("model"), **told)
    deblur = stage("Deblur", "Deblur", image=denoise.out("image"), model=deblurrer.out("model"), **told)
    light = stage(
        "LowLight",
        "Low Light",
        widgets={"when": "auto"},
        image=deblur.out("image"),
        model=brightener.out("model"),
        **told,
    )
    colouring = model("ddcolor-modelscope")
    colours = stage("RestoreColors", "Restore Colors", image=light.out("image"), **told)
    colorize = stage("Colorize", "Colorize", image=colours.out("image"), model=colouring.out("model"))
    upscaler = model("realesrgan-x4plus")
    upscale = stage("Upscale", "Upscale", image=colorize.out("image"), model=upscaler.out("model"))
    restorer, parser, identity = model("gfpgan-1.4"), model("bisenet-parse"), model("dlib-face")
    face = stage(
        "FaceRestore",
        "Face Restore",
        image=upscale.out("image"),
        model=restorer.out("model"),
        faces=faces.out("faces"),
        parser=parser.out("model"),
        identity=identity.out("model"),
    )
    used = {node.kind for node in (detector, jpeg_model, finder, filler, denoiser, deblurrer, brightener, colouring)}
    used |= {node.kind for node in (upscaler, restorer, parser, identity)}
    shelf = [model(model_id, MUTED) for model_id in catalogue()]
    note = (
        "# Every stage\n"
        "`photokeep models get -w workflows/restore_full.json` fetches the weights of the models that are connected;"
        " their licences are shown by `photokeep models licenses`.\n\n"
        "The order is clean-up, then colour while the photo is small, then size, and faces last. Stages set themselves"
        " by **Analyze** and leave alone what needs nothing; any of them can be bypassed (Ctrl+B). The other models lie"
        " on the shelf below: connect one in place of another and press Ctrl+M to switch it on."
    )
    return Sheet(
        "restore_full",
        note,
        [
            Group("The photo", "Photo", [[photo]]),
            Group("Look at it", "Look", [[detector], [faces, analysis]]),
            Group("JPEG and scratches", "Clean", [[jpeg_model, finder, filler], [jpeg, scratches, inpaint]]),
            Group("Noise, blur, light", "Clean", [[denoiser, deblurrer, brightener], [denoise, deblur, light]]),
            Group("Colour", "Colour", [[colouring], [colours, colorize]]),
            Group("Size", "Size", [[upscaler, upscale]]),
            Group("Faces", "Faces", [[restorer, parser, identity], [face]]),
            Group("The result", "Photo", [[save(face.out("image"), photo)]]),
        ],
        sorted((node for node in shelf if node.kind not in used), key=lambda node: _category(node.kind)),
    )


def _category(kind: str) -> tuple[str, str]:
    return NODE_CLASS_MAPPINGS[kind].CATEGORY, kind


def portraits() -> Sheet:
    """Faces alone: chosen, restored, guarded, and shown before and after."""
    photo, detector = load(), model("retinaface-mobilenet")
    faces = stage("FaceDetect", "Find Faces", image=photo.out("image"), detector=detector.out("model"))
    chosen = stage("FaceSelect", "Select Faces", faces=faces.out("faces"), image=photo.out("image"))
    upscaler = model("realesrgan-x4plus")
    upscale = stage("Upscale", "Upscale", widgets={"scale": 2.0}, image=photo.out("image"), model=upscaler.out("model"))
    restorer, parser, identity = model("gfpgan-1.4"), model("bisenet-parse"), model("dlib-face")
    face = stage(
        "FaceRestore",
        "Face Restore",
        image=upscale.out("image"),
        model=restorer.out("model"),
        faces=chosen.out("faces"),
        parser=parser.out("model"),
        identity=identity.out("model"),
    )
    pictures = keep(face.out("before_after"), photo, "Save Faces", "%photo%_faces")
    shelf = (
        "gfpgan-1.3",
        "restoreformer",
        "restoreformer-plus-plus",
        "codeformer",
        "retinaface-r50",
        "yunet",
        "arcface-ir-se50",
    )
    note = (
        "# Portraits\n"
        "Only faces change. **Select Faces** decides which: all, the largest, or by number, as the preview of **Find"
        " Faces** shows. The identity model compares every face before and after and lowers the strength where it would"
        " become somebody else; the report of **Face Restore** says so. **Save Faces** keeps each face before and"
        " after.\n\n"
        "First: `photokeep models get -w workflows/portraits.json`. CodeFormer, on the shelf, is non-commercial."
    )
    return Sheet(
        "portraits",
        note,
        [
            Group("The photo", "Photo", [[photo]]),
            Group("Which faces", "Look", [[detector], [faces], [chosen]]),
            Group("Size", "Size", [[upscaler, upscale]]),
            Group("Faces", "Faces", [[restorer, parser, identity], [face]]),
            Group("The result", "Photo", [[save(face.out("image"), photo)], [pictures]]),
        ],
        [model(model_id, MUTED) for model_id in shelf],
    )


def colorize() -> Sheet:
    """Colour for a black-and-white photo, with a hint that can be switched on."""
    photo, colouring = load(), model("ddcolor-modelscope")
    hint = stage("ColorHint", "Color Hint", MUTED, {"color": "#3b5b8c"}, mask=photo.out("mask"))
    coloured = stage(
        "Colorize",
        "Colorize",
        image=photo.out("image"),
        model=colouring.out("model"),
        hint_image=hint.out("hint_image"),
        hint_mask=hint.out("hint_mask"),
    )
    compare = stage("Compare", "Compare", before=photo.out("image"), after=coloured.out("image"))
    sides = keep(compare.out("side_by_side"), photo, "Save Comparison", "%photo%_before_after")
    note = (
        "# Colour a black-and-white photo\n"
        "Lightness and detail stay exactly as they are; only colour is added. Photos that have colour pass unchanged"
        " unless **when** is *always*.\n\n"
        "You know better which colour the dress had? Open the photo in the mask editor, paint over it, switch **Color"
        " Hint** on (Ctrl+M) and write its colour. First: `photokeep models get ddcolor-modelscope`."
    )
    return Sheet(
        "colorize",
        note,
        [
            Group("The photo", "Photo", [[photo]]),
            Group("Colour", "Colour", [[colouring, hint], [coloured]]),
            Group("Compare", "Look", [[compare]]),
            Group(
                "The result",
                "Photo",
                [[save(coloured.out("image"), photo, painted=True, filename="%photo%_coloured")], [sides]],
            ),
        ],
        [model(model_id, MUTED) for model_id in ("ddcolor-artistic", "ddcolor-tiny", "siggraph17")],
    )


def scratches() -> Sheet:
    """Scratches and tears: found, joined with what was painted by hand, filled."""
    photo, detector = load(), model("retinaface-mobilenet")
    faces = stage("FaceDetect", "Find Faces", image=photo.out("image"), detector=detector.out("model"))
    found = stage("ScratchDetect", "Find Scratches", image=photo.out("image"), faces=faces.out("faces"))
    joined = stage("MaskCombine", "Add What Is Painted", first=found.out("mask"), second=photo.out("mask"))
    grown = stage("MaskGrow", "Grow", widgets={"pixels": 1}, mask=joined.out("mask"))
    filled = stage("Inpaint", "Inpaint", image=photo.out("image"), mask=grown.out("mask"))
    shown = keep(found.out("preview"), photo, "Save Mask Preview", "%photo%_scratches")
    note = (
        "# Scratches and tears\n"
        "**Find Scratches** marks what it takes for damage (red in its preview); eyes and mouths are left out. What it"
        " misses, a torn corner say, paint in the mask editor of **Load**: it is added.\n\n"
        "Nothing needs a download. Better filling of large holes: connect LaMa, from the shelf, to **Inpaint**"
        " (`photokeep models get lama`); MAT is for non-commercial use."
    )
    return Sheet(
        "scratches",
        note,
        [
            Group("The photo", "Photo", [[photo]]),
            Group("Find", "Look", [[detector, faces], [found]]),
            Group("The mask", "Clean", [[joined, grown]]),
            Group("Fill", "Clean", [[filled]]),
            Group(
                "The result",
                "Photo",
                [[save(filled.out("image"), photo, painted=True, filename="%photo%_repaired")], [shown]],
            ),
        ],
        [model(model_id, MUTED) for model_id in ("bopb-scratch", "lama", "mat")],
    )


def batch_album() -> Sheet:
    """A shoebox of scans: every stage sets itself, the quick models, nothing to download."""
    photo, detector = load(), model("retinaface-mobilenet")
    faces, analysis = _look(photo, detector)
    told = {"analysis": analysis.out("analysis")}
    scratches, filled = _repair(photo, faces)
    denoiser, brightener, upscaler = model("ffdnet-color"), model("zero-dce"), model("realesr-animevideov3")
    denoise = stage("Denoise", "Denoise", image=filled.out("image"), model=denoiser.out("model"), **told)
    light = stage(
        "LowLight",
        "Low Light",
        widgets={"when": "auto"},
        image=denoise.out("image"),
        model=brightener.out("model"),
        **told,
    )
    colours = stage("RestoreColors", "Restore Colors", image=light.out("image"), **told)
    upscale = stage(
        "Upscale",
        "Upscale",
        widgets={"factor": "auto", "scale": 2.0},
        image=colours.out("image"),
        model=upscaler.out("model"),
        **told,
    )
    note = (
        "# A whole album\n"
        "`photokeep-run workflows/batch_album.json -i scans/ -o restored/` takes every photo of a folder. **Analyze**"
        " looks at each one, and the stages do only what that photo needs: a sharp scan of 3000 px is not enlarged, a"
        " bright one not brightened. Quick models, no downloads; photos that are done are not done again."
    )
    return Sheet(
        "batch_album",
        note,
        [
            Group("The photo", "Photo", [[photo]]),
            Group("Look at it", "Look", [[detector], [faces, analysis]]),
            Group("Scratches", "Clean", [[scratches, filled]]),
            Group("Noise and light", "Clean", [[denoiser, brightener], [denoise, light]]),
            Group("Fading and size", "Size", [[upscaler], [colours, upscale]]),
            Group(
                "The result",
                "Photo",
                [[save(upscale.out("image"), photo, filename="%photo%", format="jpeg", quality=92)]],
            ),
        ],
    )


def before_after() -> Sheet:
    """The starter path, and the photo before and after side by side."""
    photo = load()
    _, upscale, groups = _starter(photo)
    compare = stage("Compare", "Compare", before=photo.out("image"), after=upscale.out("image"))
    saved = Node(
        "PhotokeepSavePhoto",
        "Save",
        widgets={"filename": "before_after"},
        inputs={"image": compare.out("side_by_side")},
    )
    return Sheet(
        "before_after",
        "# Before and after\nRestores as restore.json does, and saves the photo before and after side by side.",
        [
            *groups,
            Group("Before and after", "Photo", [[compare], [saved]]),
        ],
    )


SHEETS = (restore, restore_full, portraits, colorize, scratches, batch_album, before_after)


def main(arguments: list[str]) -> None:
    """Write every workflow into this folder, or into the one given."""
    folder = Path(arguments[0]) if arguments else HERE
    for make in SHEETS:
        sheet = make()
        path = folder / f"{sheet.name}.json"
        path.write_text(text_of(sheet), encoding="utf-8")
        print(f"{path.name}: {len(sheet.saved()['nodes'])} nodes")


if __name__ == "__main__":
    main(sys.argv[1:])
