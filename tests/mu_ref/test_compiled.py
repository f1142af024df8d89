"""Compiled kernels on disk: used when whole, compiled again when not, never a reason to fail."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mu_ref import compiled

SOURCE = """
from pathlib import Path
from mu_ref.compiled import kernel_of

kernel = kernel_of(Path({folder!r}))

@kernel
def twice(x):
    return 2 * x

@kernel
def thrice(x):
    return 3 * x
"""


def run(folder: Path, source: Path) -> tuple[int, float, int]:
    """Import the kernels anew and call them; return what came out, and how many were read."""
    compiled._say.cache_clear()
    source.write_text(SOURCE.format(folder=str(folder)))
    spec = importlib.util.spec_from_file_location("kernels_of_a_test", source)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.twice(21), module.twice(0.5) + module.thrice(0.5)
    hits = sum(sum(k.stats.cache_hits.values()) for k in (module.twice, module.thrice))
    return *values, hits


@pytest.fixture
def kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """A folder that holds three compiled signatures of two kernels."""
    folder, source = tmp_path / "cache", tmp_path / "kernels_of_a_test.py"
    assert run(folder, source) == (42, 2.5, 0)
    assert run(folder, source) == (42, 2.5, 3)
    assert len(list(folder.rglob("*.nbi"))) == 2
    assert len(list(folder.rglob("*.nbc"))) == 3
    assert capsys.readouterr().err == ""
    return folder, source


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip_one_bit(path: Path) -> None:
    first, *rest = path.read_bytes()
    path.write_bytes(bytes([first ^ 1, *rest]))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": cut,
    "random": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "one bit": flip_one_bit,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "a folder": become_folder,
}  # fmt: skip


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("how", list(DAMAGE))
def test_what_is_damaged_is_compiled_again_and_said_once(
    kernels: tuple[Path, Path], ending: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, source = kernels
    for path in folder.rglob(f"*.{ending}"):
        DAMAGE[how](path)
    assert run(folder, source) == (42, 2.5, 0)
    said = capsys.readouterr().err
    assert said.count("damaged; they are compiled again") == 1
    if how == "a folder":  # which nothing may be written over
        return
    assert run(folder, source) == (42, 2.5, 3)
    assert capsys.readouterr().err == ""


def test_code_of_another_kernel_is_not_taken_for_its_own(
    kernels: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, source = kernels
    whole = sorted(folder.rglob("*.nbc"))
    thrice = next(path for path in whole if "thrice" in path.name)
    for path in whole:
        if path != thrice:
            shutil.copy(thrice, path)
    assert run(folder, source)[:2] == (42, 2.5)
    assert "damaged" in capsys.readouterr().err


def test_what_is_missing_is_compiled_in_silence(
    kernels: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, source = kernels
    for path in folder.rglob("*.nbc"):
        path.unlink()
    assert run(folder, source) == (42, 2.5, 0)
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    source = tmp_path / "kernels_of_a_test.py"
    assert run(tmp_path / "file" / "cache", source) == (42, 2.5, 0)
    assert capsys.readouterr().err.count("cannot be written") == 1
    assert not list(tmp_path.rglob("*.nb?"))  # beside the sources neither


def test_a_disk_that_is_full_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled._CheckedFiles, "save", full)
    assert run(tmp_path / "cache", tmp_path / "kernels_of_a_test.py") == (42, 2.5, 0)
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_a_copy_of_the_text_finds_what_is_compiled(kernels: tuple[Path, Path]) -> None:
    folder, source = kernels
    copy = source.parent / "another clone" / source.name
    copy.parent.mkdir()
    assert run(folder, copy) == (42, 2.5, 3)
    os.utime(copy, (1e9, 1e9))  # a time says nothing
    assert run(folder, copy) == (42, 2.5, 3)


def test_functions_of_one_name_in_two_modules_are_two(tmp_path: Path) -> None:
    text = "@kernel_of(Path({folder!r}))\ndef number():\n    return {number}\n"
    head = "from pathlib import Path\nfrom mu_ref.compiled import kernel_of\n"
    for number in (1, 2, 1, 2):  # the bytes of their code are the same: constants stand beside it
        scope: dict[str, Any] = {"__name__": f"room_{number}.sums"}
        path = tmp_path / f"room_{number}" / "sums.py"
        exec(compile(head + text.format(folder=str(tmp_path), number=number), path, "exec"), scope)
        assert scope["number"]() == number


@pytest.mark.parametrize(
    ("whose", "name", "value"),
    [
        ("mu_ref.compiled", "EXTENSION_SUFFIXES", [".cpython-399-x86_64-linux-gnu.so"]),
        ("numba", "__version__", "99.1"),
        ("mu_ref.compiled", "_processor", lambda: ("another", "+avx")),
    ],
)
def test_what_is_compiled_by_or_for_something_else_lies_elsewhere(
    whose: str, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compiled.compiled_folder("x", [])
    monkeypatch.setattr(f"{whose}.{name}", value)
    assert compiled.compiled_folder("x", []) != before


def test_the_folder_is_named_after_every_source(tmp_path: Path) -> None:
    sources = [tmp_path / "a.py", tmp_path / "b.py"]
    for path in sources:
        path.write_text("1")
    before = compiled.compiled_folder("x", sources)
    assert compiled.compiled_folder("x", reversed(sources)) == before
    assert compiled.compiled_folder("x", sources, "other") != before
    sources[1].write_text("2")
    assert compiled.compiled_folder("x", sources) != before


def test_a_user_without_a_home_gets_a_folder() -> None:
    code = "from mu_ref.compiled import compiled_folder as f; print(f('x', []).is_absolute())"
    kept = {k: v for k, v in os.environ.items() if "HOME" not in k and k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept, check=True
    )
    assert done.stdout == "True\n"


ALONE = """
import sys
import numpy as np
from pathlib import Path
from mu_ref.compiled import kernel_of

kernel = kernel_of(Path({folder!r}))

@kernel
def doubled(n):
    found = np.zeros(n)
    for i in range(n):
        found[i] = 2.0 * max(i, 1)
    return found

print(doubled(3).tolist(), sum(doubled.stats.cache_hits.values()), "{module}" in sys.modules)

@kernel
def other(x):
    return np.zeros(3)[:2].sum() + x

x = sys.argv[1]
print(other(float(x) if "." in x else int(x)), doubled(2).tolist())
"""


def test_a_kept_kernel_is_loaded_without_numpy_s_for_the_compiler(tmp_path: Path) -> None:
    """A third of a second; another kernel is compiled beside it all the same, and kept."""
    code = tmp_path / "alone.py"
    code.write_text(ALONE.format(folder=str(tmp_path / "kept"), module="numba.np.arrayobj"))
    loaded = []
    for value in ("1", "1", "1.5"):
        done = subprocess.run(
            [sys.executable, code, value], capture_output=True, text=True, check=True, timeout=120
        )
        first, second = done.stdout.splitlines()
        assert first.startswith("[2.0, 2.0, 4.0] ")
        assert second == f"{float(value)} [2.0, 2.0]"
        loaded.append(first.split("] ")[1])
        assert done.stderr == ""
    assert loaded == ["0 True", "1 False", "1 False"]
