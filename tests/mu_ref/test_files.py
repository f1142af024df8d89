"""Files out: planned before the work, whole or absent, and nothing is replaced that must stay."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mu_ref.border.files import check_folder, check_outputs, write_text, written_whole
from mu_ref.errors import InputError


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- planned before the work -------------------------------------------------------------------


def test_an_output_may_be_new_or_replace_a_file_that_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("x")
    check_outputs({"--out": tmp_path / "new.csv", "--csv": tmp_path / "old.csv", "--plot": None})


@pytest.mark.parametrize("how", ["the same path", "a link", "a hard link", "through dots"])
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, how: str) -> None:
    source = tmp_path / "in.toml"
    source.write_text("x")
    out = tmp_path / "out.toml"
    if how == "the same path":
        out = source
    elif how == "a link":
        out.symlink_to(source)
    elif how == "a hard link":
        os.link(source, out)
    else:
        out = tmp_path / "sub" / ".." / "in.toml"
        (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="--out must not be a file that is read"):
        check_outputs({"--out": out}, [source])


def test_an_input_behind_a_link_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(InputError, match="read"):
        check_outputs({"--out": tmp_path / "real"}, [str(tmp_path / "link"), None])


def test_a_folder_is_new_or_holds_files_of_the_command_only(tmp_path: Path, monkeypatch) -> None:
    asked, folder = [], tmp_path / "out"
    check_folder(folder, "numbers", asked.append)
    assert (asked, folder.exists()) == ([], False)
    folder.mkdir()
    check_folder(folder, "numbers", asked.append)
    (folder / "7").write_text("seven")
    (folder / "8").write_text("eight")
    check_folder(folder, "numbers", lambda path: not asked.append(path))
    assert asked == [folder / "7", folder / "8"]
    with pytest.raises(InputError, match=r"new or hold numbers only, got .*out with '8'; name"):
        check_folder(folder, "numbers", lambda path: path.name == "7")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="must lie in a folder that can be written"):
        check_folder(folder, "numbers", lambda _: True)


@pytest.mark.parametrize("kind", ["a folder", "a link", "a link to nothing", "a pipe"])
def test_what_is_no_file_is_never_the_commands(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "out" / "7"
    place.parent.mkdir()
    (tmp_path / "precious").write_text("x")
    if kind == "a folder":
        place.mkdir()
    elif kind == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("../precious" if kind == "a link" else "nothing")
    with pytest.raises(InputError, match="new or hold numbers only"):
        check_folder(place.parent, "numbers", lambda _: True)


def test_a_folder_is_no_file_and_no_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="DIR must be a folder"):
            check_folder(tmp_path / name, "numbers", lambda _: True)
    with pytest.raises(InputError, match="must lie in a folder that exists"):
        check_folder(tmp_path / "no" / "deeper", "numbers", lambda _: True)


@pytest.mark.parametrize(("a", "b"), [("x", "x"), ("x.png", "X.PNG"), ("s/../x", "x")])
def test_two_outputs_are_two_files(tmp_path: Path, a: str, b: str) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match="must be two files"):
        check_outputs({"--csv": tmp_path / a, "--trace": tmp_path / b})


def test_two_links_to_one_new_file_are_one_output(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to("new")
    with pytest.raises(InputError, match="two files"):
        check_outputs({"--csv": tmp_path / "a", "--trace": tmp_path / "b"})


def test_folders_are_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder that exists.*make .*missing first"):
        check_outputs({"--out": tmp_path / "missing" / "x"})
    with pytest.raises(InputError, match="must be a file, got the folder"):
        check_outputs({"--out": tmp_path})
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "x")
    with pytest.raises(InputError, match="a folder that exists"):
        check_outputs({"--out": tmp_path / "link"})


def test_devices_may_be_given_twice() -> None:
    check_outputs({"--csv": Path("/dev/null"), "--trace": Path("/dev/null")}, ["/dev/stdin"])


# -- appear whole ------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"

    def fail() -> None:
        with written_whole(path) as part:
            part.write_text("half")
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert listed(tmp_path) == []
    write_text(path, "whole\n")
    assert path.read_bytes() == b"whole\n"
    assert listed(tmp_path) == ["x.txt"]


def test_the_mode_of_a_replaced_file_is_kept_and_a_new_one_has_the_usual(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("x")
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        write_text(old, "y")
        write_text(new, "z")
    finally:
        os.umask(before)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("real")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to("made")
    write_text(dangling, "new")
    assert dangling.is_symlink()
    assert (tmp_path / "made").read_text() == "new"


def test_a_link_laid_in_the_way_of_the_temporary_redirects_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (f".x.{os.getpid()}.part", f".x.{'0' * 16}.part"):
        (tmp_path / name).symlink_to(victim)
    write_text(tmp_path / "x", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "x").read_text() == "new"


def test_devices_and_pipes_are_written_through(tmp_path: Path) -> None:
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_can_be_named(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from mu_ref.border.files import write_text; "
        "write_text(Path('{}'), 'hi')"
    )
    for name in ("/dev/stdout", "/dev/fd/1"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "hi"
    out = tmp_path / "out"
    code = "print('before'); " + code + "; print('after')"
    with out.open("w") as file:  # a file behind it is not replaced: the shell still writes to it
        subprocess.run([sys.executable, "-c", code.format("/dev/stdout")], stdout=file, check=True)
    assert out.read_text() == "before\nhiafter\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from mu_ref.border.files import written_whole
with written_whole(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_leftovers_of_a_killed_run_go_and_those_of_a_running_one_stay(tmp_path: Path) -> None:
    path = tmp_path / "x[1].csv"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for run in runs:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
        runs[0].send_signal(signal.SIGKILL)
        runs[0].wait()
        assert len(listed(tmp_path)) == 2
        write_text(path, "mine")
        assert len(listed(tmp_path)) == 2  # the result, and the temporary of the run that goes on
        runs[1].communicate("", timeout=30)
        assert listed(tmp_path) == ["x[1].csv"]
        assert path.read_text() == "half"  # it ended last
    finally:
        for run in runs:
            run.kill()
            run.wait()
            for stream in (run.stdin, run.stdout):
                if stream is not None:
                    stream.close()


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(InputError, match="--out must not be a link that leads to itself"):
        check_outputs({"--out": tmp_path / "a.csv"})


def test_a_picture_must_end_in_what_can_be_drawn_unless_it_is_a_stream(tmp_path: Path) -> None:
    for name in ("a.png", "a.SVG", "a.pdf"):
        check_outputs({}, pictures={"--plot": tmp_path / name})
    check_outputs({}, pictures={"--plot": Path("/dev/null"), "--gantt": None})
    with pytest.raises(InputError, match=r"--plot must end in one of \.png, \.svg, \.pdf, got"):
        check_outputs({}, pictures={"--plot": tmp_path / "a.jpg"})
    with pytest.raises(InputError, match="--gantt and --csv must be two files"):
        check_outputs({"--csv": tmp_path / "a.png"}, pictures={"--gantt": tmp_path / "a.png"})


def test_a_name_with_a_nul_is_no_file() -> None:
    for outputs, inputs in (({"--out": Path("a\0b")}, []), ({"--out": Path("a")}, ["b\0"])):
        with pytest.raises(InputError, match="must have a name without NUL"):
            check_outputs(outputs, inputs)


@pytest.mark.parametrize(("length", "fits"), [(230, True), (231, False)])
def test_a_name_leaves_room_for_that_of_a_temporary(
    tmp_path: Path, length: int, fits: bool
) -> None:
    out = tmp_path / ("x" * length)
    if fits:
        write_text(out, "whole")
        assert out.read_text() == "whole"
        return
    with pytest.raises(InputError, match="must have a name of at most 230 bytes"):
        check_outputs({"--out": out})


def test_nothing_is_written_between_the_json_on_stdout() -> None:
    check_outputs({"--out": Path("/dev/stdout")})
    with pytest.raises(InputError, match="--out must be a file with --json"):
        check_outputs({"--out": Path("/dev/stdout")}, prints_json=True)
