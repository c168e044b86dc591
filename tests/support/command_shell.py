"""The two commands in processes of their own, with folders of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import skimage.data
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


class Shell:
    """Runs the two commands in a folder of their own, with a cache of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PHOTOKEEP_CACHE": str(folder / "cache"),
            "PHOTOKEEP_MODELS": str(folder / "models"),
            "XDG_DATA_HOME": str(folder / "data"),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def start(self, entry: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        code = f"from headless.cli import {entry}; {entry}()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._finish(self.start("run_command", *arguments, **environment))

    def photokeep(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._finish(self.start("main", *arguments, **environment))

    def output(self) -> list[str]:
        folder = self.folder / "output"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def save_photo(path: Path, side: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(skimage.data.astronaut()[60 : 60 + side, 180 : 180 + side])).save(path)
    return path


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
