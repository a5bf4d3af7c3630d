"""Files and folders are written completely or not at all, and an output that cannot be written is a fault."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core import files
from anyrec.core.errors import OutputError
from anyrec.core.files import atomic_files, atomic_folder, atomic_write, exclusive, find_folder
from anyrec.core.outputs import check_output, write_fault
from anyrec.serving.list_files import write_table


def write_file(root: Path, text: str) -> None:
    with atomic_write(root / "one.txt") as temporary:
        temporary.write_text(text)


def write_files(root: Path, text: str) -> None:
    with atomic_files(root / "many", "group") as new:
        (new / "sub").mkdir()
        for name in ("a.txt", "b.txt", "sub/c.txt"):
            (new / name).write_text(text)


def write_folder(root: Path, text: str) -> None:
    with atomic_folder(root / "whole", "last.txt") as new:
        (new / "first.txt").write_text(text)
        (new / "last.txt").write_text(text)


WRITERS = {"a file": write_file, "a group of files": write_files, "a folder": write_folder}


def contents(root: Path) -> dict[str, str]:
    """What a reader finds: the text of each file that is not hidden."""
    found = find_folder(root / "whole", "last.txt")
    if found is not None and found != root / "whole":
        return {f"whole/{path.name}": path.read_text() for path in found.iterdir()}
    paths = (path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): path.read_text()
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


@pytest.mark.parametrize("kind", WRITERS)
def test_files_are_on_the_disk_before_they_are_in_their_place(kind, tmp_path, monkeypatch):
    synced, moved = set(), []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))

    def checked(move):
        def moves(source, target):
            parts = [Path(source), *Path(source).rglob("*")]
            assert synced.issuperset(part.stat().st_ino for part in parts), f"{parts} are not all on the disk"
            moved.extend(part.name for part in parts)
            move(source, target)

        return moves

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, checked(getattr(os, name)))
    WRITERS[kind](tmp_path, "new")
    assert set(moved) >= {Path(name).name for name in contents(tmp_path)}


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".*")]


def in_child(program, *, at: int | None = None) -> int:
    """Run in a fork, which dies without any cleanup before its at-th file operation; the exit code, 9 if it died."""
    child = os.fork()
    if not child:
        code = 1
        try:
            count = 0

            def die(event, arguments):
                nonlocal count
                if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.chmod"):
                    count += 1
                    if count == at:
                        os._exit(9)

            sys.addaudithook(die)
            program()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two renames"])
@pytest.mark.parametrize("older", [True, False], ids=["replacing", "first"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_writer_killed_before_any_of_its_operations_leaves_old_or_new(write, older, exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    at, status = 0, 9
    while status == 9:
        at += 1
        root = tmp_path / str(at)
        root.mkdir()
        if older:
            write(root, "old")
        status = in_child(lambda root=root: write(root, "new"), at=at)
        found = contents(root)
        whole = len(set(found.values())) <= 1 and len(found) in (
            0,
            {write_file: 1, write_files: 3, write_folder: 2}[write],
        )
        if write is not write_files:  # the files of a group are replaced one after another
            assert whole and bool(found) >= older, (at, found)
        write(root, "newer")
        assert set(contents(root).values()) == {"newer"}
        assert hidden(root) == [], "the next writer removes what the killed one left"
    assert status == 0 and at > 5


def test_a_group_whose_writer_died_between_its_files_is_completed_by_the_next_writer(tmp_path, monkeypatch):
    write_files(tmp_path, "old")

    def dies():
        replace, calls = os.replace, []

        def once(*paths):
            calls.append(paths)
            if len(calls) == 2:
                os._exit(9)
            replace(*paths)

        os.replace = once
        write_files(tmp_path, "new")

    assert in_child(dies) == 9
    assert sorted(contents(tmp_path).values()) == ["new", "old", "old"]
    with pytest.raises(ZeroDivisionError), atomic_files(tmp_path / "many", "group"):
        raise ZeroDivisionError
    assert set(contents(tmp_path).values()) == {"new"} and hidden(tmp_path) == []


def test_a_folder_whose_writer_died_between_two_renames_is_found_and_put_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    write_folder(tmp_path, "old")

    def dies():
        Path.rename = lambda one, other, rename=Path.rename: (rename(one, other), os._exit(9))
        write_folder(tmp_path, "new")

    assert in_child(dies) == 9
    assert not (tmp_path / "whole").exists()
    place = find_folder(tmp_path / "whole", "last.txt")
    assert place == tmp_path / "whole" and (place / "first.txt").read_text() == "new"
    assert hidden(tmp_path) == [".whole.lock"], "the next writer takes the lock over and removes it"


@pytest.mark.slow
def test_a_removed_folder_stays_removed_whatever_a_killed_writer_left(tmp_path):
    write_folder(tmp_path, "old")
    for at in range(1, 30):
        in_child(lambda: write_folder(tmp_path, "new"), at=at)
        for path in [*(tmp_path / "whole").glob("*"), tmp_path / "whole"]:
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        assert find_folder(tmp_path / "whole", "last.txt") is None
        write_folder(tmp_path, "old")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_writer_that_fails_leaves_the_old_output_and_nothing_else(write, tmp_path, monkeypatch):
    for older in (False, True):
        if older:
            write(tmp_path, "old")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
            with pytest.raises(OutputError, match=r"the disk is full .* bytes are free"):
                write(tmp_path, "new")
        assert hidden(tmp_path) == []
        assert set(contents(tmp_path).values()) == ({"old"} if older else set())
        assert older or list(tmp_path.iterdir()) == [], "folders made for the output are removed"


def test_the_workspace_of_a_living_process_is_left_alone(tmp_path):
    with atomic_write(tmp_path / "one.txt") as first:
        first.write_text("first")
        write_file(tmp_path, "second")
        assert first.read_text() == "first"
    assert contents(tmp_path) == {"one.txt": "first"} and hidden(tmp_path) == []


def test_a_signal_while_a_workspace_is_removed_leaves_nothing_behind(tmp_path, monkeypatch):
    remove, stopped = files.shutil.rmtree, []

    def interrupted(folder: Path, **options) -> None:
        if not stopped:
            stopped.append(folder)
            raise KeyboardInterrupt
        remove(folder, **options)

    monkeypatch.setattr(files.shutil, "rmtree", interrupted)
    for write in (write_file, write_files, write_folder):
        stopped.clear()
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "new")
        assert stopped and hidden(tmp_path) == []
    assert set(contents(tmp_path).values()) == {"new"}


def test_an_error_of_a_stream_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("anyrec.core.outputs._free", lambda path: 0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert write_fault(RuntimeError("no reason"), pipe) is None
    fault = write_fault(RuntimeError("no reason"), tmp_path / "file")
    assert fault is not None and "disk is full" in fault.what


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ".ndjson", ".json"])
def test_lists_that_go_to_a_pipe_are_those_that_go_to_a_file(tmp_path, ending):
    table = pa.table({"user_id": [f"u{n}" for n in range(50_000)], "score": pa.array(range(50_000), pa.float32())})
    pipe, file = tmp_path / f"pipe{ending}", tmp_path / f"file{ending}"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_table(table, pipe)
    reader.join()
    write_table(table, file)
    assert got == [file.read_bytes()] and pipe.is_fifo()


def test_links_are_followed_and_special_characters_and_long_names_work(tmp_path):
    (tmp_path / "link").symlink_to("target.txt")
    for path in (tmp_path / "link", tmp_path / "a[1]*?.txt", tmp_path / ("x" * 250), tmp_path / ("é" * 127)):
        for text in ("one", "two"):
            with atomic_write(path) as temporary:
                temporary.write_text(text)
        assert path.read_text() == "two"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target.txt").read_text() == "two"
    assert hidden(tmp_path) == []


def test_a_device_or_a_pipe_is_written_to_and_never_replaced(tmp_path):
    with pytest.raises(OutputError, match=r"/dev/full: the disk is full"), atomic_write(Path("/dev/full")) as path:
        path.write_text("x" * 10)
    with atomic_write(Path("/dev/null")) as path:
        path.write_text("x")
    assert all(stat.S_ISCHR(Path(f"/dev/{name}").stat().st_mode) for name in ("full", "null"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    with atomic_write(pipe) as path:
        path.write_text("through the pipe")
    reader.join()
    assert got == ["through the pipe"] and pipe.is_fifo()
    program = (
        "from pathlib import Path; from anyrec.core.files import atomic_write\n"
        "with atomic_write(Path('/dev/stdout')) as p: p.write_text('here')"
    )
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "here"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "here"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_permissions_that_the_umask_leaves(umask, tmp_path):
    def private(path: Path) -> None:
        path.write_text("x")
        path.chmod(0o600)

    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "one") as path:
            private(path)
        with atomic_folder(tmp_path / "whole", "last") as new:
            private(new / "last")
        with atomic_files(tmp_path / "many", "group") as new:
            private(new / "a")
    finally:
        os.umask(before)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(found) == 3 and {path.stat().st_mode & 0o777 for path in found} == {0o666 & ~umask}


def test_a_second_writer_is_refused_and_the_first_ones_process_named(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from anyrec.core.files import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    for write in (lambda: atomic_folder(tmp_path / "run", "last"), lambda: exclusive(tmp_path / "run")):
        with pytest.raises(OutputError, match=f"process {holder.pid} is writing here"), write():
            pass
    assert not (tmp_path / "run").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with exclusive(tmp_path / "run"), exclusive(tmp_path / "run"), atomic_folder(tmp_path / "run", "last") as new:
        (new / "last").touch()
    assert hidden(tmp_path) == []


def test_threads_of_one_process_exclude_each_other_too(tmp_path):
    inside, seen = threading.Event(), []

    def hold():
        with exclusive(tmp_path / "run"):
            inside.set()
            while not seen:
                time.sleep(0.01)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        with pytest.raises(OutputError, match=f"process {os.getpid()}"), exclusive(tmp_path / "run"):
            pass
    finally:
        seen.append(True)
        thread.join()


def test_an_output_that_cannot_be_written_is_found_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for path, kind, what in (
        (tmp_path, "file", "this is a folder"),
        (tmp_path / "file", "folder", "this is a file"),
        (tmp_path / "file" / "x" / "y", "file", "a part of this path is a file"),
        (tmp_path / "file" / "x", "inside", "a part of this path is a file"),
        (tmp_path / ("x" * 300), "file", "too long"),
        (tmp_path / "a\0b", "file", "NUL"),
        (Path("/proc/none"), "file", "cannot be written"),
        (Path("/"), "folder", "root of the file system"),
        (tmp_path / "loop", "file", "loop of symbolic links"),
    ):
        with pytest.raises(OutputError, match=what):
            check_output(path, kind)  # type: ignore[arg-type]
    for path, kind in ((tmp_path / "new" / "x", "file"), (tmp_path / "file", "file"), (tmp_path, "inside")):
        check_output(path, kind)  # type: ignore[arg-type]
    check_output(Path("/dev/full"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_a_limit_on_the_size_of_files_is_found_before_any_work_and_named(tmp_path):
    def limited(action) -> str:
        def program():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            try:
                action()
            except OutputError as error:
                os.write(channel[1], str(error).encode())

        channel = os.pipe()
        assert in_child(program) == 0
        os.close(channel[1])
        message = os.read(channel[0], 10_000).decode()
        os.close(channel[0])
        return message

    for action in (lambda: check_output(tmp_path / "x"), lambda: write_file(tmp_path, "x")):
        assert "a file is not allowed to become that large (the limit is 0 bytes)" in limited(action)
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_is_not_taken_for_one_of_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "one.txt"):
        (tmp_path / "other.txt").read_text()
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "one.txt"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@given(st.sampled_from(sorted(errno.errorcode)), st.booleans(), st.sampled_from([OSError, RuntimeError, ValueError]))
def test_every_error_number_of_a_write_gives_a_fault_with_path_cause_and_hint(number, named, kind):
    path = Path("/tmp/out.json")
    if kind is OSError:
        error = OSError(number, os.strerror(number), str(path) if named else None)
    else:
        error = kind(f"I/O error: {os.strerror(number)} (os error {number})")
    fault = write_fault(error, path)
    is_reported = (named and kind is OSError) or number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EIO,
        errno.EPIPE,
    )
    assert (fault is not None) == is_reported
    if fault is not None:
        assert fault.where == str(path) and fault.what.endswith(".") and fault.hint.endswith(".")
