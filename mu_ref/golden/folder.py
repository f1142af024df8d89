"""A golden folder: tensors in safetensors, and a manifest that says what each of them is.

    DIR/manifest.json          schema, versions, configuration, and every tensor in execution order
    DIR/tensors.safetensors    raw tensors of native width: int8, int16, float32, float64
    DIR/constants.safetensors  of integer schemes: multipliers, shifts, RoPE turns, tables

The whole manifest is written last and holds the sha256 of the others: a folder that is not whole is
told from one that is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import check_folder, write_text
from mu_ref.border.reading import file_digest, read_json
from mu_ref.errors import InputError
from mu_ref.golden.record import Entry
from mu_ref.version import __version__
from mu_ref.weights import read_safetensors, write_safetensors

__all__ = ["SCHEMA", "Golden", "check_golden_folder", "read_golden", "write_golden"]

SCHEMA = "mu-ref golden 1"
MANIFEST, TENSORS, CONSTANTS = "manifest.json", "tensors.safetensors", "constants.safetensors"
# A float of a port is right if it lies this close, as a share of the tensor's largest magnitude:
# another order of the sums of a whole model costs that much.
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden folder that was read."""

    manifest: dict[str, Any]
    tensors: dict[str, np.ndarray]  # in execution order
    constants: dict[str, np.ndarray]

    def tolerance(self, key: str) -> float:
        """How far a tensor may be off, in its own units; 0 where every bit counts."""
        share = self.manifest["tensors"][key]["tolerance"]
        return share * float(np.abs(self.tensors[key]).max(initial=0)) if share else 0.0


def write_golden(
    folder: Path,
    entries: Mapping[str, Entry],
    constants: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
) -> int:
    """Write a golden folder.

    Args:
        folder: a new one, or one that holds golden files already.
        entries: tensors by key, in execution order.
        constants: of an integer scheme, by name; empty for floats.
        about: what else the manifest says: tier, scheme, configuration, ...

    Returns:
        Bytes that were written.

    Raises:
        InputError: the folder holds other things.
    """
    check_golden_folder(folder)
    folder.mkdir(exist_ok=True)
    new = [name for name in (MANIFEST, TENSORS, CONSTANTS) if not (folder / name).exists()]
    try:
        return _write(folder, entries, constants, about)
    except Exception:  # a full disk: what this run has begun is of no use
        for name in new:
            (folder / name).unlink(missing_ok=True)
        raise


def _write(
    folder: Path,
    entries: Mapping[str, Entry],
    constants: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
) -> int:
    if not (folder / MANIFEST).exists():  # says whose the folder is, should this run be killed
        write_text(folder / MANIFEST, json.dumps({"schema": SCHEMA}) + "\n")
    write_safetensors(folder / TENSORS, {k: e.array for k, e in entries.items()}, {})
    files = [TENSORS]
    if constants:
        write_safetensors(folder / CONSTANTS, constants, {})
        files.append(CONSTANTS)
    manifest = {
        "schema": SCHEMA,
        "mu_ref": __version__,
        "numpy": np.__version__,
        **about,
        "shapes": "row-major; [batch, n_tok, d], heads [batch, n_heads, n_tok, d_head]",
        "sha256": {name: file_digest(folder / name) for name in files},
        "tensors": {key: _described(entry) for key, entry in entries.items()},
    }
    write_text(folder / MANIFEST, _lines(manifest))
    return sum((folder / name).stat().st_size for name in (*files, MANIFEST))


def _lines(manifest: Mapping[str, Any]) -> str:
    """JSON with a line for each tensor, so that a search finds all of it."""
    tensors = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in manifest["tensors"].items()]
    rest = {key: value for key, value in manifest.items() if key != "tensors"}
    head = json.dumps(rest, indent=1).removesuffix("\n}")
    return head + ',\n "tensors": {\n' + ",\n".join(tensors) + "\n }\n}\n"


def check_golden_folder(folder: Path) -> None:
    """Refuse, before any work, a folder for golden files that holds other things."""
    names, marked = (MANIFEST, TENSORS, CONSTANTS), _is_golden(folder / MANIFEST)
    check_folder(folder, "golden files", lambda path: marked and path.name in names)


def _is_golden(manifest: Path) -> bool:
    """Say whether a manifest is one of golden files, of whichever schema."""
    try:
        read = read_json(manifest, "a manifest of golden files")
    except InputError:
        return False
    return isinstance(read, dict) and str(read.get("schema")).startswith("mu-ref golden ")


def _described(entry: Entry) -> dict[str, Any]:
    kind = str(entry.array.dtype)
    tolerance = TOLERANCES.get(kind, 0.0)
    described: dict[str, Any] = {
        "op": entry.op,
        "dtype": kind,
        "shape": list(entry.array.shape),
        "contract": "close" if tolerance else "exact",
        "tolerance": tolerance,
    }
    if entry.inputs:
        described["inputs"] = list(entry.inputs)
    if entry.encoding is not None:
        e = entry.encoding
        described["encoding"] = {"bits": e.bits, "scale": e.scale, "zero_point": e.zero_point}
    return described


def read_golden(folder: Path) -> Golden:
    """Read a golden folder.

    Args:
        folder: written by `write_golden`.

    Returns:
        Its content.

    Raises:
        InputError: not a golden folder, of another schema, or not whole.
    """
    path = folder / MANIFEST
    if not folder.is_dir() or not path.is_file():
        raise InputError(
            f"{folder} must be a folder of `mu-ref golden write`; there is no {MANIFEST} in it"
        )
    manifest = read_json(path, "a manifest of golden files")
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path} must have the schema {SCHEMA!r}, got {schema!r}; write it again with this "
            f"mu-ref, {__version__}"
        )
    try:
        digests, described = dict(manifest["sha256"]), dict(manifest["tensors"])
        for name, digest in digests.items():
            if name not in (TENSORS, CONSTANTS) or file_digest(folder / name) != digest:
                raise InputError(
                    f"{folder / name} must be as its manifest says; it is not: write it again"
                )
        tensors, _ = read_safetensors(folder / TENSORS)
        constants = read_safetensors(folder / CONSTANTS)[0] if CONSTANTS in digests else {}
        return Golden(manifest, {key: tensors[key] for key in described}, constants)
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be whole; {type(error).__name__}: {error}") from error
