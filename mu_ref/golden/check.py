"""Compare a port's tensors with golden ones: where do they differ first, and which operation is it?

The port writes tensors under the golden keys, or under names that a TOML file maps to them:

    [names]
    "decode/{n}/decoder.{layer}.mlp.up" = "step{n}.blk{layer}.ffn_up"
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.arrays import read_npz
from mu_ref.border.reading import read_toml
from mu_ref.border.text import short
from mu_ref.errors import InputError
from mu_ref.golden.folder import Golden
from mu_ref.weights import read_safetensors

__all__ = ["Difference", "Outcome", "compare", "read_names", "read_port"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where and how far one tensor of a port is off."""

    key: str
    op: str
    n_wrong: int  # elements; of another shape: all
    n: int
    index: tuple[int, ...]  # of the first wrong element
    golden: float
    port: float
    distance: float  # in steps of integers, or ulp of floats
    unit: str  # "steps" or "ulp"
    shape: tuple[int, ...] | None = None  # of the port's, where it is another

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints, numbers that do not exist as NaN."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole comparison."""

    n_compared: int
    missing: tuple[str, ...]  # golden keys that the port does not give
    differences: tuple[Difference, ...]  # in execution order
    inputs_agree: bool | None  # of the first difference; None: the port gives none of them

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "compared": self.n_compared,
            "not_given": len(self.missing),
            "differ": len(self.differences),
            "first": self.differences[0].to_json() if self.differences else None,
            "inputs_agree": self.inputs_agree,
            "differences": [d.to_json() for d in self.differences],
        }


def compare(golden: Golden, port: Mapping[str, np.ndarray], *, partial: bool = False) -> Outcome:
    """Compare every tensor of a port, in execution order.

    Args:
        golden: from `read_golden`.
        port: {golden key: array}.
        partial: the port may give some of the tensors only.

    Returns:
        The outcome.

    Raises:
        InputError: floats where integers belong, or the other way round; numbers that are not
            finite; tensors that are unknown, or missing, before any that differs.
    """
    keys = golden.tensors
    found = [
        difference
        for key in keys
        if key in port and (difference := _difference(golden, key, port[key])) is not None
    ]
    unknown = sorted(set(port) - set(keys))
    # what calls are given need not come back; what they compute must
    wanted = [key for key in keys if golden.manifest["tensors"][key]["op"] != "input"]
    missing = tuple(key for key in wanted if key not in port)
    # a port that has gone wrong may write other tokens, and so more calls or fewer
    order = {key: i for i, key in enumerate(keys)}
    known_wrong = bool(found) and not (missing and order[missing[0]] < order[found[0].key])
    if unknown and not known_wrong:
        raise InputError(
            f"a port must give tensors of the golden folder only, got {unknown[0]} "
            f"({len(unknown)} such); map its names with --names FILE.toml"
        )
    if missing and not known_wrong and (not partial or len(missing) == len(wanted)):
        raise InputError(
            f"a port must give every tensor, {len(missing)} of {len(wanted)} are missing, first "
            f"{missing[0]}; give --partial to compare the others"
        )
    agree = _inputs_agree(golden, port, found) if found else None
    return Outcome(sum(key in port for key in keys), missing, tuple(found), agree)


def _inputs_agree(
    golden: Golden, port: Mapping[str, np.ndarray], found: list[Difference]
) -> bool | None:
    inputs = golden.manifest["tensors"][found[0].key].get("inputs", [])
    given = [key for key in inputs if key in port]
    return not {d.key for d in found} & set(given) if given else None


def _difference(golden: Golden, key: str, array: np.ndarray) -> Difference | None:
    """Compare one tensor."""
    right = golden.tensors[key]
    op = golden.manifest["tensors"][key]["op"]
    whole = right.dtype.kind in "iu"
    if whole != (array.dtype.kind in "iub"):
        kinds = ("integers", "floats") if whole else ("floats", "integers")
        raise InputError(f"{key} must hold {kinds[0]}, the port gives {array.dtype}")
    unit = "steps" if whole else "ulp"
    if array.shape != right.shape:
        nothing = (float("nan"),) * 3
        return Difference(key, op, right.size, right.size, (), *nothing, unit, array.shape)
    if not whole and not np.isfinite(array).all():
        raise InputError(f"{key} must hold finite numbers, the port gives NaN or infinity")
    wide = np.int64 if whole else np.float64
    off = np.abs(array.astype(wide) - right.astype(wide))
    wrong = off > golden.tolerance(key)
    if not wrong.any():
        return None
    index = tuple(int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape))
    distance = float(off[index])
    if not whole:
        distance /= float(np.spacing(np.abs(right[index])))
    n = int(wrong.sum())
    values = float(right[index]), float(array[index])
    return Difference(key, op, n, right.size, index, *values, distance, unit)


# -- what a port gives -----------------------------------------------------------------------------


def read_port(folder: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read every tensor of a port's folder, .safetensors and .npz; a manifest is not looked at.

    Args:
        folder: of the port.
        names: {pattern of golden keys: pattern of the port's names}, from `read_names`.

    Returns:
        {golden key, or a name that no pattern knows: array}.

    Raises:
        InputError: no such folder, no tensors in it, a name twice, a pattern that no name fits, or
            a damaged file.
    """
    if not folder.is_dir():
        raise InputError(f"PORT_DIR must be a folder with a port's tensors, got {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".npz"))
    files = [p for p in files if p.name != "constants.safetensors"]
    found: dict[str, np.ndarray] = {}
    unused = dict(names)
    for path in files:
        read = read_npz(path) if path.suffix == ".npz" else read_safetensors(path)[0]
        for name, array in read.items():
            pattern, key = _golden_key(name, names)
            unused.pop(pattern, None)
            if key in found:
                raise InputError(f"{path} must name each tensor once, got {key} again")
            found[key] = array
    if not found:
        raise InputError(f"PORT_DIR must hold .safetensors or .npz files, {folder} holds none")
    if unused:
        raise InputError(
            f"names must be those of the port, got {short(next(iter(unused.values())))}, which no "
            "tensor has"
        )
    return found


def read_names(path: Path | None) -> dict[str, str]:
    """Read the table [names] of a TOML file; see the module.

    Raises:
        InputError: another table, or a pattern whose {fields} are not the same on both sides.
    """
    if path is None:
        return {}
    data = read_toml(path, "a TOML file with a table [names]")
    table = data.get("names")
    if set(data) != {"names"} or not isinstance(table, dict):
        raise InputError(f"{path} must hold one table [names], got {', '.join(data) or 'nothing'}")
    for golden, port in table.items():
        fields = [sorted(re.findall(r"{(\w+)}", str(t))) for t in (golden, port)]
        if not isinstance(port, str) or fields[0] != fields[1]:
            raise InputError(
                f"{path}: {golden!r} must be a text with the same {{fields}}, got {port!r}"
            )
    return table


def _golden_key(name: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return the pattern that knows a name, and what it makes of it."""
    for golden, port in names.items():
        parts = re.split(r"{(\w+)}", port)
        pattern = "".join(
            f"(?P<{part}>[^/]+?)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
        )
        match = re.fullmatch(pattern, name)
        if match:
            return golden, golden.format(**match.groupdict())
    return "", name
