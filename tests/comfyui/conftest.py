"""A real ComfyUI with this checkout in its custom_nodes, for the tests beside this file.

``COMFYUI_PATH`` names a ComfyUI checkout, ``COMFYUI_PYTHON`` the interpreter it runs with (default: this one), and
``COMFYUI_FRONTEND`` the ``static`` folder of another frontend than the one that interpreter has. The
checkout is not written to: the host gets a temporary base directory, with a copy of what a clone of this repository
would hold.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 240.0
RUN_TIMEOUT = 900.0

_running: list[Host] = []


def _refuse_nan(text: str) -> float:
    raise ValueError(f"{text} is not JSON; the editor's JSON.parse refuses the whole answer")


class Events:
    """The host's event stream over a WebSocket: text frames from a server, which is all that is needed (RFC 6455)."""

    def __init__(self, port: int, client_id: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.settimeout(RUN_TIMEOUT)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._stream = self._socket.makefile("rb")
        status = self._stream.readline()
        if b" 101 " not in status:
            raise ConnectionError(f"no WebSocket: {status!r}")
        while self._stream.readline().strip():
            pass

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while head := self._stream.read(2):
            opcode, size = head[0] & 0x0F, head[1] & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self._stream.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._stream.read(8))
            payload = self._stream.read(size)
            if opcode == 1:
                yield json.loads(payload)
            elif opcode == 8:
                return


class Host:
    """One running ComfyUI."""

    def __init__(self, checkout: Path, python: str, base: Path) -> None:
        self.base = base
        self.pack = base / "custom_nodes" / "photokeep"
        self.log_path = base / "comfyui.log"
        self._copy_checkout()
        for folder in ("input", "output", "models", "user/default"):
            (base / folder).mkdir(parents=True)
        # A new user is greeted by a template browser that covers the canvas.
        (base / "user/default/comfy.settings.json").write_text(json.dumps({"Comfy.TutorialCompleted": True}))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # Without PYTHONPATH: the host must not find this checkout as a second, installed copy of the pack. Without the
        # user's models: what is missing is the same on every machine.
        self._env = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PHOTOKEEP_MODELS")
        }
        self._env["XDG_DATA_HOME"] = str(base / "user-data")
        self._log = self.log_path.open("wb")
        self._process = subprocess.Popen(
            [
                *(python, "main.py", "--cpu", "--disable-api-nodes", "--listen", "127.0.0.1", "--port", str(self.port)),
                *("--base-directory", str(base), "--database-url", f"sqlite:///{base}/user/comfyui.db"),
                *(("--front-end-root", frontend) if (frontend := os.environ.get("COMFYUI_FRONTEND")) else ()),
            ],
            cwd=checkout,
            env={**self._env, "PHOTOKEEP_CACHE": str(base / "host-cache"), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _copy_checkout(self) -> None:
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (self.pack / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.pack / name)
        shutil.copy(Path(__file__).with_name("probe_node.py"), self.pack.parent / "photokeep_probe.py")

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with status {self._process.returncode}\n{self.log[-8000:]}")
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return
            time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not answer within {START_TIMEOUT:.0f} s\n{self.log[-8000:]}")

    def stop(self) -> None:
        """End this host's own process group, nothing else."""
        for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        self._log.close()

    def fetch(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> tuple[int, bytes]:
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path: str) -> Any:
        status, body = self.fetch(path)
        assert status == 200, f"{path}: {status} {body[:500]!r}"
        return json.loads(body, parse_constant=_refuse_nan)

    def post(self, path: str, value: Any) -> tuple[int, Any]:
        status, body = self.fetch(path, json.dumps(value).encode())
        return status, json.loads(body) if body else None

    def upload(self, photo: Path, name: str) -> str:
        """Put a photo into the host's input folder as the editor's upload button does; returns the name it got."""
        boundary = secrets.token_hex(16)
        head = f'Content-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png'
        body = f"--{boundary}\r\n{head}\r\n\r\n".encode() + photo.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        status, answer = self.fetch("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        assert status == 200, answer
        return json.loads(answer)["name"]

    def events(self, client_id: str) -> contextlib.AbstractContextManager[Events]:
        return contextlib.closing(Events(self.port, client_id))

    def queue(self, prompt: dict[str, Any], *, workflow: Any = None, client_id: str = "tests") -> str:
        """Queue a prompt in the API format, with the editor's file beside it as the editor sends it."""
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow is not None else {}
        status, answer = self.post("/prompt", {"prompt": prompt, "client_id": client_id, "extra_data": extra})
        assert status == 200, json.dumps(answer, indent=1)
        assert not answer["node_errors"], json.dumps(answer["node_errors"], indent=1)
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """Poll the history until the prompt has ended, however it ended."""
        deadline = time.monotonic() + RUN_TIMEOUT
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return dict(history[prompt_id])
            assert self._process.poll() is None, f"ComfyUI ended with status {self._process.returncode}"
            time.sleep(0.2)
        raise TimeoutError(f"prompt {prompt_id} did not end within {RUN_TIMEOUT:.0f} s")

    def run(self, prompt: dict[str, Any], *, workflow: Any = None) -> dict[str, Any]:
        """Queue, wait and insist on success."""
        entry = self.wait(self.queue(prompt, workflow=workflow))
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
        return entry

    def photokeep_run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The command line of the very copy that the host has loaded, as a process and with a cache of its own."""
        return subprocess.run(
            [sys.executable, "-c", "from headless.cli import run_command; run_command()", *map(str, arguments)],
            cwd=self.pack,
            env={**self._env, "PYTHONPATH": str(self.pack), "PHOTOKEEP_CACHE": str(self.base / "runner-cache")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            check=False,
        )

    def saved(self, entry: dict[str, Any]) -> list[Path]:
        """Files in the output folder that a finished prompt reports."""
        images = [image for node in entry["outputs"].values() for image in node.get("images", [])]
        folder = self.base / "output"
        return [folder / image["subfolder"] / image["filename"] for image in images if image["type"] == "output"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A running ComfyUI that has loaded this checkout and run nothing yet."""
    named = os.environ.get("COMFYUI_PATH", "")
    if not named:
        pytest.skip("COMFYUI_PATH is not set: name a ComfyUI checkout to test the nodes in a real ComfyUI")
    checkout = Path(named).expanduser().resolve()
    if not (checkout / "main.py").is_file():
        pytest.skip(f"COMFYUI_PATH names no ComfyUI checkout: {checkout} holds no main.py")
    python = os.environ.get("COMFYUI_PYTHON") or sys.executable
    comfyui = Host(checkout, python, tmp_path_factory.mktemp("comfyui"))
    _running.append(comfyui)
    try:
        comfyui.wait_until_ready()
        yield comfyui
    finally:
        _running.remove(comfyui)
        comfyui.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the host's log with a failure."""
    report = yield
    if report.failed and "host" in getattr(item, "fixturenames", ()):
        report.sections.extend(("ComfyUI's log", comfyui.log[-6000:]) for comfyui in _running)
    return report
