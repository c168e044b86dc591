"""The error tree: what its docstring draws, what the classes carry, and that they survive a queue."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from photokeep_nodes import errors
from photokeep_nodes.errors import PhotokeepError, WeightsMissingError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PhotokeepError)]


def drawn_tree() -> dict[str, str | None]:
    """Class name to its parent's, as the module's docstring draws it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+)(?:  |$)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else None
    return parents


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    actual = {cls.__name__: None if cls is PhotokeepError else cls.__mro__[1].__name__ for cls in CLASSES}
    assert drawn_tree() == actual


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling_and_copying(cls: type[PhotokeepError]) -> None:
    error = cls("it broke", hint="mend it", path="/a/b", sizes=[1, 2])
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert (twin.message, twin.hint, twin.context) == ("it broke", "mend it", {"path": "/a/b", "sizes": [1, 2]})
        assert str(twin) == str(error) == "it broke\nmend it"
        assert twin.args == ("it broke",)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_is(cls: type[PhotokeepError]) -> None:
    assert cls.__name__.endswith("Error")
    assert cls.__doc__
    assert str(cls("it broke")) == "it broke"
    # 1 a stage failed, 2 bad workflow, 3 weights missing: what the command line promises.
    assert cls.exit_code in (1, 2, 3)
    assert (cls.exit_code == 3) == issubclass(cls, WeightsMissingError)
    usage = (errors.WorkflowError, errors.UsageError, errors.CacheError, errors.LicenceNotAcceptedError)
    assert (cls.exit_code == 2) == issubclass(cls, usage)
