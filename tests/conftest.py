"""For every test: no folder of the user's own is read or written."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _folders_of_our_own(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photokeep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOTOKEEP_CACHE", str(folder / "cache"))
        patch.setenv("PHOTOKEEP_MODELS", str(folder / "models"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield
