"""Build the port in `c/`, run it on a golden folder, compare: what the tests and `c/` share."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mu_ref.executors import shipped_drafter, shipped_weights
from mu_ref.golden.check import Outcome, compare, read_port
from mu_ref.golden.folder import read_golden
from mu_ref.golden.write import Tokens, write_run
from mu_ref.integers.tables import c_header
from mu_ref.redrafter.beams import Search

SOURCES = Path(__file__).parent / "c"
COMPILER = (
    os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
)
STRICT = ("-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

Edits = Mapping[str, Sequence[tuple[str, str]]]  # {file: what to write instead of what}


def build(folder: Path, flags: Sequence[str] = ("-O2",), edits: Edits | None = None) -> Path:
    """Compile the port, changed by edits, in a folder of its own.

    Args:
        folder: a new one.
        flags: of the compiler, beside those that make it strict.
        edits: each text must stand in its file once.

    Returns:
        The program.
    """
    assert COMPILER is not None
    folder.mkdir()
    (folder / "mu_tables.h").write_text(c_header(), encoding="utf-8")
    for source in sorted(SOURCES.glob("*.[ch]")):
        text = source.read_text(encoding="utf-8")
        for old, new in (edits or {}).get(source.name, ()):
            assert text.count(old) == 1, f"{source.name} must hold once: {old}"
            text = text.replace(old, new)
        (folder / source.name).write_text(text, encoding="utf-8")
    program = folder / "mu-port"
    files = sorted(str(path) for path in folder.glob("*.c"))
    subprocess.run([COMPILER, *STRICT, *flags, *files, "-o", str(program)], check=True)
    return program


def run(program: Path, golden: Path, model: Path, drafter: Path | None, out: Path) -> Outcome:
    """Run the port on what a golden folder has run, and compare all tensors.

    Args:
        program: from `build`.
        golden: folder.
        model: integer weight file.
        drafter: to write with drafts, or None.
        out: folder for the port's tensors; made anew.

    Returns:
        The comparison.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command = [program, golden, model, out / "port.safetensors", *([drafter] if drafter else [])]
    subprocess.run([str(part) for part in command], check=True, timeout=300)
    return compare(read_golden(golden), read_port(out, {}))


def ask(program: Path, folder: Path, source: Sequence[int], scheme: str, drafts: bool) -> Outcome:
    """Let mu-nano and the port answer a query, and compare every integer.

    Args:
        program: from `build`.
        folder: for files; made anew.
        source: tokens of the query.
        scheme: "w8a16" or "w8a8".
        drafts: write with drafts of one beam.

    Returns:
        The comparison.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    ids = np.array([source])
    read = Tokens(ids, np.ones(ids.shape, bool), np.array([[1]]))
    drafter = shipped_drafter(scheme) if drafts else None
    search = Search(beam_width=1, draft_len=6)
    weights = shipped_weights(scheme)
    write_run(folder / "golden", weights, scheme, read, 32, drafter, search)
    return run(program, folder / "golden", weights, drafter, folder / "port")
