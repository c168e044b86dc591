"""Terms that several models come under."""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import Licence

REAL_ESRGAN = Licence("BSD-3-Clause", commercial=True, url="https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE")
HAT = Licence("Apache-2.0", commercial=True, url="https://github.com/XPixelGroup/HAT/blob/main/LICENSE")
SWINIR = Licence("Apache-2.0", commercial=True, url="https://github.com/JingyunLiang/SwinIR/blob/main/LICENSE")
SCUNET = Licence("Apache-2.0", commercial=True, url="https://github.com/cszn/SCUNet/blob/main/LICENSE")
NAFNET = Licence("MIT", commercial=True, url="https://github.com/megvii-research/NAFNet/blob/main/LICENSE")
FBCNN = Licence("Apache-2.0", commercial=True, url="https://github.com/jiaxi-jiang/FBCNN/blob/main/LICENSE")
PHILIP_HOFMANN = Licence(
    "CC-BY-4.0",
    commercial=True,
    url="https://creativecommons.org/licenses/by/4.0/",
    note="name the author, Philip Hofmann, where you pass the weights on",
)


def of_copy(licence: Licence, filename: str, by: str) -> Licence:
    """The terms of a file whose authors have it on Google Drive, which has no direct addresses; it comes from others.

    Args:
        licence: the authors' terms.
        filename: the file.
        by: who has put up the copy.
    """
    return replace(licence, note=f"{filename} is a copy by {by}; the authors publish on Google Drive")
