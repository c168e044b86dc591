"""How much memory calls take: learnt, guessed for new sizes, kept in a file that may be in any state."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vram_rig import Clock

from photokeep_nodes._vram import learnt
from photokeep_nodes._vram.keep import SCHEMA_VERSION, Keep
from photokeep_nodes._vram.learnt import NOISE_BYTES, WINDOW, WorkingMemory, working_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
GPU = "NVIDIA Some Card"
MIB = 2**20


@pytest.fixture
def clock():
    return Clock(1e9)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "vram.sqlite3"


@pytest.fixture
def memory(path, clock):
    return WorkingMemory(path, clock=clock)


def ask(memory: WorkingMemory, side: int, fallback: int = 1000, *, device: str = GPU, dtype: str = "float16") -> int:
    return memory.estimate("net", side, side, dtype, device, fallback)


def see(memory: WorkingMemory, side: int, n_bytes: int, *, device: str = GPU, dtype: str = "float16") -> None:
    memory.observe("net", side, side, dtype, device, n_bytes)


def rows(memory: WorkingMemory) -> list[tuple[int, int, int]]:
    return [(row["width"], row["peak_bytes"], row["times"]) for row in memory.listing()]


# -- estimates --------------------------------------------------------------------------------------------------------


def test_begins_with_the_catalogue_and_then_believes_what_was_seen(memory):
    assert ask(memory, 100) == 1000
    see(memory, 100, 400)
    assert ask(memory, 100) == 420  # with a margin for what the allocator does not count
    see(memory, 100, 2000)
    assert ask(memory, 100) == 2100


def test_other_types_devices_and_models_are_other_things(memory):
    see(memory, 100, 400)
    assert ask(memory, 100, dtype="float32") == 1000
    assert ask(memory, 100, device="NVIDIA Another") == 1000
    assert memory.estimate("other", 100, 100, "float16", GPU, 77) == 77


def test_a_larger_size_is_taken_from_the_nearest_by_its_bytes_per_pixel(memory):
    see(memory, 100, 10_000)
    see(memory, 10, 500)  # further away, and worse per pixel: a call's fixed part weighs more there
    assert ask(memory, 200) == int(10_000 * 4 * learnt.BEYOND_MARGIN)


def test_a_smaller_size_is_taken_from_the_nearest_larger_one(memory):
    see(memory, 100, 10_000)
    see(memory, 200, 80_000)
    assert ask(memory, 50) == int(2_500 * learnt.BEYOND_MARGIN)


def test_between_two_sizes_the_worse_rate_counts(memory):
    see(memory, 100, 10_000)  # 1 byte per pixel
    see(memory, 300, 180_000)  # 2
    assert ask(memory, 200) == int(2 * 40_000 * learnt.BETWEEN_MARGIN)


def test_a_tile_of_another_shape_and_the_same_area_counts_as_near(memory):
    memory.observe("net", 50, 200, "float16", GPU, 10_000)
    assert ask(memory, 100) == int(10_000 * learnt.BEYOND_MARGIN)


def test_an_outlier_is_forgotten_after_some_calls_and_not_before(memory):
    see(memory, 100, 9_000)
    for _ in range(WINDOW - 1):
        see(memory, 100, 100)
    assert ask(memory, 100) == 9_450
    see(memory, 100, 100)
    assert ask(memory, 100) == 105


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_sampled_figures_raise_an_estimate_and_never_lower_it(memory, device):
    see(memory, 100, 0, device=device)
    see(memory, 100, 300, device=device)
    assert ask(memory, 100, device=device) == 1000
    see(memory, 100, 2000, device=device)
    assert ask(memory, 100, device=device) == 2100


def test_small_sampled_figures_say_nothing_about_other_sizes(memory):
    see(memory, 64, NOISE_BYTES - 1, device="cpu")
    assert ask(memory, 1024, 5000 * MIB, device="cpu") == 5000 * MIB
    assert ask(memory, 128, 1000, device="cpu") == 1000
    see(memory, 512, 1024 * MIB, device="cpu")
    assert ask(memory, 1024, 1000, device="cpu") == int(4096 * MIB * learnt.BEYOND_MARGIN)


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=30), st.integers(0, 10**10), st.sampled_from([GPU, "cpu"]))
def test_an_estimate_is_never_below_what_the_last_calls_took(tmp_path_factory, peaks, fallback, device):
    memory = WorkingMemory(Path(os.devnull) / "nowhere")
    for n_bytes in peaks:
        see(memory, 100, n_bytes, device=device)
        assert ask(memory, 100, fallback, device=device) >= n_bytes
    assert ask(memory, 100, fallback, device=device) >= max(peaks[-WINDOW:])


# -- out of memory ----------------------------------------------------------------------------------------------------


def test_running_out_asks_for_half_as_much_again(memory, clock):
    memory.ran_out("net", 100, 100, "float16", GPU, 1000)
    memory.ran_out("net", 100, 100, "float16", GPU, 1500)  # tried again at once, and counted once
    assert ask(memory, 100) == 1500
    clock.now += learnt.REFUSED_ONCE_S
    memory.ran_out("net", 100, 100, "float16", GPU, 1500)
    assert ask(memory, 100) == 2250
    clock.now += learnt.REFUSED_ONCE_S
    memory.ran_out("net", 100, 100, "float16", GPU, 10**9)
    assert ask(memory, 100) == 4000  # a full card must not ban the model for good


def test_running_out_warns_other_sizes_too(memory):
    memory.ran_out("net", 100, 100, "float16", GPU, 10_000)
    assert ask(memory, 110) > 15_000
    assert ask(memory, 50, 10) > 10


def test_a_call_that_succeeds_brings_a_refusal_down_and_a_day_ends_it(memory, clock):
    memory.ran_out("net", 100, 100, "float16", GPU, 1000)
    see(memory, 100, 500)
    assert ask(memory, 100) == 1000  # halfway from 1500
    clock.now += learnt.REFUSED_FOR_S + 1
    assert ask(memory, 100) == 525
    assert memory.listing()[0]["refused_bytes"] == 0


# -- the file ---------------------------------------------------------------------------------------------------------


def test_what_was_learnt_outlives_the_process(memory, path, clock):
    see(memory, 100, 400)
    see(memory, 100, 300)
    memory.ran_out("net", 200, 200, "float16", GPU, 5000)
    memory.flush()
    again = WorkingMemory(path, clock=clock)
    assert ask(again, 100) == 420
    assert ask(again, 200, 4000) == 7500
    assert rows(again) == [(100, 400, 2), (200, 0, 0)]


def test_asking_makes_no_file(memory, path):
    assert ask(memory, 100) == 1000
    assert memory.listing() == []
    assert memory.last_run() is None
    memory.flush()
    assert not path.parent.exists()


def test_repeated_calls_are_written_together(memory, path, clock):
    see(memory, 100, 400)
    for _ in range(20):
        see(memory, 100, 300)
    assert rows(WorkingMemory(path)) == [(100, 400, 1)]
    clock.now += learnt.FLUSH_INTERVAL_S
    see(memory, 100, 200)
    again = WorkingMemory(path)
    assert rows(again) == [(100, 300, 22)]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (WINDOW,)


def test_the_last_run_is_kept(memory, path):
    memory.save_run({"counters": {"hits": 2}})
    memory.save_run({"counters": {"hits": 3}})
    found = WorkingMemory(path).last_run()
    assert found == {"at": 1e9, "counters": {"hits": 3}}


def test_a_note_that_is_no_object_is_no_run(memory, path):
    memory.save_run({})
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE notes SET data = '[1]'")
    connection.close()
    assert memory.last_run() is None


def damaged_file(path: Path) -> bytes:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this was a database once\n" * 200)
    return path.read_bytes()


def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(memory, path, caplog):
    before = damaged_file(path)
    (path.parent / f"{path.name}-journal").write_bytes(b"left behind")
    assert ask(memory, 100) == 1000
    assert (path.parent / f"{path.name}.damaged").read_bytes() == before
    assert not path.exists()
    see(memory, 100, 400)
    assert ask(WorkingMemory(path), 100) == 420
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(path) in caplog.text


def test_writing_finds_the_damage_and_writes_all_the_same(path):
    memory = WorkingMemory(path)
    assert memory.listing() == []
    damaged_file(path)
    memory.save_run({"a": 1})
    assert memory.last_run() is not None
    assert (path.parent / f"{path.name}.damaged").exists()


def test_a_file_that_another_process_has_mended_meanwhile_stays(path, tmp_path):
    keep, mended = Keep(path), tmp_path / "new.sqlite3"
    keep.write_note("a", {"old": 1})
    Keep(mended).write_note("a", {"new": 1})

    def finds_damage(_connection: sqlite3.Connection) -> None:
        if mended.exists():
            mended.replace(path)
            raise sqlite3.DatabaseError("database disk image is malformed")

    assert keep.read(finds_damage) is None
    assert keep.read_note("a") == {"new": 1}
    assert not (path.parent / f"{path.name}.damaged").exists()


def test_damage_that_stays_is_not_tried_for_ever(path):
    keep = Keep(path)
    keep.write_note("a", {})

    def finds_damage(_connection: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    assert keep.write(finds_damage) is False


def test_what_a_killed_writer_left_behind_is_rolled_back_by_a_reader(path):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from photokeep_nodes._vram.keep import Keep\n"
        "keep = Keep(Path(sys.argv[1]))\n"
        "keep.write_note('a', {'n': 1})\n"
        "def dies(connection):\n"
        "    connection.execute('PRAGMA cache_size = 1')\n"
        "    connection.execute('PRAGMA cache_spill = 1')\n"
        "    for n in range(3000):\n"
        "        connection.execute('INSERT OR REPLACE INTO notes VALUES (?, ?)', (str(n % 500), 'x' * 900))\n"
        "    os._exit(9)\n"
        "keep.write(dies)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 9
    assert (path.parent / f"{path.name}-journal").stat().st_size > 0
    assert Keep(path).read_note("a") == {"n": 1}
    assert Keep(path).read_note("1") is None


@pytest.mark.parametrize("nonsense", ["text", None, b"\xff"])
def test_nonsense_inside_the_file_is_noticed_when_it_is_read(memory, path, nonsense):
    see(memory, 100, 400)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other AS SELECT * FROM calls")
        connection.execute("DROP TABLE calls")
        connection.execute("ALTER TABLE other RENAME TO calls")
        connection.execute("UPDATE calls SET peak_bytes = ?", (nonsense,))
    connection.close()
    again = WorkingMemory(path)
    assert ask(again, 100) == 1000
    assert (path.parent / f"{path.name}.damaged").exists()


def test_a_newer_photokeeps_file_is_left_alone(memory, path, caplog):
    see(memory, 100, 400)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    again = WorkingMemory(path)
    assert ask(again, 100) == 1000
    see(again, 100, 500)
    assert ask(again, 100) == 525
    assert "newer photokeep" in caplog.text
    assert not (path.parent / f"{path.name}.damaged").exists()


def test_an_empty_file_is_filled(memory, path):
    path.parent.mkdir(parents=True)
    path.touch()
    assert ask(memory, 100) == 1000
    see(memory, 100, 400)
    assert ask(WorkingMemory(path), 100) == 420


def carries_on_in_memory(memory: WorkingMemory, caplog: pytest.LogCaptureFixture) -> None:
    see(memory, 200, 400)
    memory.ran_out("net", 300, 300, "float16", GPU, 1000)
    memory.save_run({"a": 1})
    memory.flush()
    assert ask(memory, 200) == 420
    assert len(caplog.records) == 1


@pytest.mark.parametrize("where", ["file/cache/vram.sqlite3", "folder.sqlite3"])
def test_where_there_can_be_no_file_learning_goes_on_in_memory(tmp_path, caplog, where):
    (tmp_path / "file").touch()
    (tmp_path / "folder.sqlite3").mkdir()
    carries_on_in_memory(WorkingMemory(tmp_path / where), caplog)


@contextmanager
def as_somebody_who_may_not_write(folder: Path) -> Iterator[None]:
    """Root may write anywhere, so be nobody for a while."""
    if os.geteuid() == 0:
        folder.chmod(0o755)
        os.seteuid(65534)
    else:
        folder.chmod(0o500)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions as POSIX has them")
@pytest.mark.parametrize("exists", [True, False])
def test_in_a_read_only_folder_what_is_there_is_read_and_learning_goes_on_in_memory(caplog, exists):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders may be entered by their owner only
        path = Path(name) / "vram.sqlite3"
        if exists:
            see(WorkingMemory(path), 100, 400)
            path.chmod(0o444)
        with as_somebody_who_may_not_write(path.parent):
            memory = WorkingMemory(path)
            assert ask(memory, 100) == (420 if exists else 1000)
            carries_on_in_memory(memory, caplog)
        assert path.exists() == exists


def test_a_locked_file_is_not_waited_for_and_what_is_new_is_written_later(memory, path, caplog):
    see(memory, 100, 400)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    see(memory, 200, 900)
    see(memory, 200, 1000)
    assert ask(memory, 200) == 1050
    assert ask(WorkingMemory(path), 100) == 1000  # cannot even be read
    other.execute("ROLLBACK")
    other.close()
    memory.flush()
    assert rows(WorkingMemory(path)) == [(100, 400, 1), (200, 1000, 2)]
    assert "locked" in caplog.text


def test_calls_seen_while_a_write_fails_are_not_lost(memory, path):
    def fails_meanwhile(_change) -> bool:
        for _ in range(WINDOW):
            memory._entry(learnt.Size("net", 100, 100, "float16", GPU)).recent.append(7)
        return False

    write = memory._keep.write
    memory._keep.write = fails_meanwhile
    see(memory, 100, 400)
    memory._keep.write = write
    memory.flush()
    assert WorkingMemory(path).listing()[0]["times"] == 1


def test_many_processes_write_at_once(path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from photokeep_nodes._vram.learnt import WorkingMemory\n"
        "memory = WorkingMemory(Path(sys.argv[1]))\n"
        "assert sys.stdin.readline()\n"
        "for n in range(1, 31):\n"
        "    memory.observe('net', 100, 100, 'float16', 'card', n * 100 + int(sys.argv[2]))\n"
        "    memory.observe('net', int(sys.argv[2]), 10, 'float16', 'card', n)\n"
        "memory.flush()\n"
        "print('torch' in sys.modules)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, "False"), err
    memory = WorkingMemory(path)
    found = {(row["height"], row["width"]): row for row in memory.listing()}
    # A process that met a locked file writes with its next call, or at its end; only that may come to nothing.
    assert 30 <= found[100, 100]["times"] <= 90
    assert 3000 < found[100, 100]["peak_bytes"] <= 3003
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_sizes_not_seen_for_long_make_room_for_others(memory, path, clock, monkeypatch):
    monkeypatch.setattr(learnt, "SIZES_KEPT", 3)
    see(memory, 10, 1, device="NVIDIA Another")
    for side in (10, 20, 30):
        see(memory, side, side)
        clock.now += 1
    see(memory, 10, 50)  # seen again
    see(memory, 40, 40)
    assert [side for side, _, _ in rows(memory)] == [10, 10, 30, 40]
    again = WorkingMemory(path)
    assert [side for side, _, _ in rows(again)] == [10, 10, 30, 40]
    see(again, 50, 50)
    assert [side for side, _, _ in rows(again)] == [10, 10, 40, 50]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (5,)


def test_threads_share_one_store(memory):
    def work(number: int) -> None:
        for n in range(50):
            see(memory, number, n)
            assert ask(memory, number) >= 0

    threads = [threading.Thread(target=work, args=(number,)) for number in (10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.flush()
    assert [times for _, _, times in rows(memory)] == [50, 50, 50]


def _in_the_child(memory: WorkingMemory, results) -> None:
    results.put((ask(memory, 100), sum(each.is_fresh for each in memory._sizes.values())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_ask_and_does_not_write_what_its_parent_will(memory):
    see(memory, 100, 400)
    see(memory, 100, 300)  # not written yet
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with memory._lock:  # as another thread may hold it at that moment
        child = context.Process(target=_in_the_child, args=(memory, results))
        child.start()
    child.join(60)
    assert child.exitcode == 0
    assert results.get() == (420, 0)
    memory.flush()
    assert rows(memory) == [(100, 400, 2)]


def test_what_a_child_inherits_counts_as_written(memory, path):
    see(memory, 100, 400)
    see(memory, 100, 300)
    memory._forked(cuda_was_live=False)
    memory.flush()
    assert rows(WorkingMemory(path)) == [(100, 400, 1)]
    WorkingMemory(path)._forked(cuda_was_live=True)  # that has not read anything yet


def test_the_users_store_lies_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    memory = working_memory()
    assert memory is working_memory()
    see(memory, 100, 400)
    assert (tmp_path / "vram.sqlite3").exists()
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "other"))
    assert working_memory() is not memory
