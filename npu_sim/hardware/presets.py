"""NPUs as TOML files: every value with its unit, if not the one in its name, and its source.

    [dma]
    bytes_per_s = { value = 46, unit = "GB/s", source = "third party: DDR to VTCM 37-55 GB/s" }

A bare number is allowed where somebody plays with what-ifs; its source is then `assumed`.
"""

from collections.abc import Mapping
from importlib.resources import files
from math import isclose
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_ref.border.files import write_text
from mu_ref.border.ranges import Range
from mu_ref.border.reading import parse_toml, read_text
from mu_ref.border.text import short
from mu_ref.errors import check_choice
from npu_sim.errors import HardwareError
from npu_sim.hardware.chip import PARTS, FieldValue, Npu, build_npu
from npu_sim.units import GB, GIB, KIB, MB, MIB

__all__ = ["NPUS", "convert_unit", "npu", "npu_to_toml", "read_npu", "read_preset", "write_npu"]


NPUS: tuple[str, ...] = (
    "hexagon-x-elite", "hexagon-x2-elite", "intel-npu4", "amd-xdna2", "ethos-u85", "a100", "h100",
    "m1-max", "m2-ultra", "tpu-v6e", "teaching-npu",
)  # fmt: skip

UNITS: Mapping[str, Mapping[str, float]] = MappingProxyType({
    "_hz": {"Hz": 1, "kHz": 1000, "MHz": MB, "GHz": GB},
    "bytes_per_s": {"B/s": 1, "kB/s": 1000, "MB/s": MB, "GB/s": GB, "TB/s": 1000 * GB},
    "_bytes": {"B": 1, "kB": 1000, "MB": MB, "GB": GB, "KiB": KIB, "MiB": MIB, "GiB": GIB},
    "_cycles": {"cycles": 1},
    "_us": {"us": 1, "ms": 1000, "s": MB},
    "_pj": {"pJ": 1, "nJ": 1000},
    "_watts": {"W": 1, "mW": 1e-3},
})  # fmt: skip

AMOUNT = Range(low=-1e18, high=1e18, whole=False, why="no unit is so small")  # before conversion

ASSUMED = "assumed: no source given"


def read_preset(name: str) -> Npu:
    """Read an NPU that comes with the package."""
    text = files("npu_sim").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
    return _parse(text, f"preset {name}")


def read_npu(path: str | Path) -> Npu:
    """Read an NPU from a TOML file.

    Args:
        path: of the file.

    Returns:
        The NPU.

    Raises:
        HardwareError: not TOML, a key that is missing or unknown, a unit that does not fit, or a
            value that is not allowed; names the file and the key.
    """
    return _parse(read_text(Path(path), "a TOML file of an NPU", HardwareError), str(path))


def write_npu(chip: Npu, path: Path) -> None:
    """Write an NPU so that `read_npu` gives the same one.

    Args:
        chip: the NPU.
        path: of the file; appears whole or not at all.
    """
    write_text(path, npu_to_toml(chip))


def npu_to_toml(chip: Npu) -> str:
    """Return an NPU as the text of a TOML file."""
    lines = [f"name = {_quoted(chip.name)}", f"title = {_quoted(chip.title)}"]
    section = ""
    in_order = sorted(chip.values().items(), key=lambda item: "." in item[0])
    for path, value in in_order:
        part, _, name = path.rpartition(".")
        if part != section:
            section = part
            lines += ["", f"[{part}]"]
        source = _quoted(chip.sources[path])
        lines.append(f"{name} = {{ value = {_literal(value)}, source = {source} }}")
    return "\n".join(lines) + "\n"


def _literal(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    return f"{value:_}" if isinstance(value, int) else repr(value)


def _quoted(text: str) -> str:
    """A basic string of TOML; what no reader or terminal takes as it is, as an escape."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _parse(text: str, where: str) -> Npu:
    data = parse_toml(text, where, "a TOML file of an NPU", HardwareError)
    name, title = (_text(data.pop(key, None), key, where) for key in ("name", "title"))
    entries: dict[str, Any] = {}
    for key, value in data.items():
        if key in PARTS and isinstance(value, dict):
            entries |= {f"{key}.{inner}": entry for inner, entry in value.items()}
        else:  # a quoted key may hold a dot, and is no path
            entries[repr(key) if "." in key else key] = value
    expected = _paths()
    unknown = [path[:60] for path in entries if path not in expected]
    missing = [path for path in expected if path not in entries]
    if unknown:
        raise HardwareError(
            f"{where}: every key must be a hardware field, got {unknown[0]}; "
            f"`npu-sim hardware show teaching-npu` lists them"
        )
    if missing:
        raise HardwareError(f"{where} must give {missing[0]}; {len(missing)} missing in all")
    pairs = {path: _entry(path, entries[path], where) for path in expected}
    try:
        values = {path: value for path, (value, _) in pairs.items()}
        chip: Npu = build_npu(name, title, values, {at: s for at, (_, s) in pairs.items()})
    except HardwareError as error:
        raise HardwareError(f"{where}: {error}") from error
    return chip


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise HardwareError(f"{where} must give {key} as a text, got {short(value)}")
    return value


def _paths() -> list[str]:
    """Every path of an NPU, in order."""
    from dataclasses import fields

    paths = []
    for top in fields(Npu):
        if top.name in PARTS:
            paths += [f"{top.name}.{inner.name}" for inner in fields(PARTS[top.name])]
        elif top.name not in ("name", "title", "sources"):
            paths.append(top.name)
    return paths


def _entry(path: str, entry: Any, where: str) -> tuple[FieldValue, str]:
    """Turn one entry into a value in the unit of its name, and its source."""
    if not isinstance(entry, dict):
        return entry, ASSUMED
    unknown = set(entry) - {"value", "unit", "source"}
    if "value" not in entry or unknown:
        raise HardwareError(
            f"{where}: {path} must have value, source and perhaps unit, "
            f"got {', '.join(entry)[:60] or 'nothing'}"
        )
    source = entry.get("source", ASSUMED)
    if not isinstance(source, str):
        raise HardwareError(f"{where}: the source of {path} must be a text, got {short(source)}")
    value = entry["value"]
    if "unit" in entry:
        value = convert_unit(path, value, entry["unit"], where)
    return value, source


def convert_unit(path: str, value: Any, unit: Any, where: str) -> FieldValue:
    """Convert a number to the unit at the end of its path.

    Args:
        path: for example "dma.bytes_per_s".
        value: the number.
        unit: for example "GB/s".
        where: the file or key, for messages.

    Returns:
        The number in bytes per second, or whatever the path says.

    Raises:
        HardwareError: not a number, or a unit that does not fit the path.
    """
    known = next((units for end, units in UNITS.items() if path.endswith(end)), {})
    if not isinstance(unit, str) or unit not in known:
        allowed = ", ".join(known) or "none: it is a plain number"
        raise HardwareError(
            f"{where}: the unit of {path} must be one of {allowed}; got {short(unit)}"
        )
    AMOUNT.check(f"{where}: {path}", value, HardwareError)
    converted = value * known[unit]
    # 1.07 GHz are 1_070_000_000.0000001 Hz in binary64, and mean a whole number
    near = isclose(converted, round(converted), rel_tol=1e-12)
    whole = near and not path.endswith(("_us", "_pj", "_watts"))
    return round(converted) if whole else converted


def npu(name: str) -> Npu:
    """Return a named NPU, or one described by a TOML file.

        >>> import npu_sim
        >>> chip = npu_sim.npu("teaching-npu")
        >>> chip.clock_hz, chip.with_value("clock_hz", 2_000_000_000).clock_hz
        (1000000000, 2000000000)

    Args:
        name: one of `NPUS`, or a path that ends in ".toml".

    Returns:
        The NPU.

    Raises:
        HardwareError: no such preset (the message lists those that exist), or a wrong file.
    """
    if name.endswith(".toml"):
        return read_npu(name)
    check_choice("NPU", name, NPUS, HardwareError)
    return read_preset(name)
