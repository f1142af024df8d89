"""NPUs as TOML files: every value with its unit, if not the one in its name, and its source.

    [dma]
    bytes_per_s = { value = 46, unit = "GB/s", source = "third party: DDR to VTCM 37-55 GB/s" }

A bare number, or a text with a unit such as "46 GB/s", is allowed where somebody plays with
what-ifs; its source is then `assumed`. A file that begins with `like = "hexagon-x-elite"` gives
only what differs from that preset.
"""

from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from mu_ref.border.files import write_text
from mu_ref.border.reading import parse_toml, read_text
from mu_ref.border.text import short
from mu_ref.errors import check_choice, located, nearest
from npu_sim.errors import HardwareError
from npu_sim.hardware.chip import PARTS, FieldValue, Npu, build_npu
from npu_sim.hardware.units import convert_unit, npu_value

__all__ = ["NPUS", "npu", "npu_to_toml", "quoted", "read_npu", "read_preset", "write_npu"]


NPUS: tuple[str, ...] = (
    "hexagon-x-elite", "hexagon-x2-elite", "hexagon-8-elite", "hexagon-8-elite-gen5",
    "hexagon-8-gen3", "hexagon-qcs8550", "hexagon-qcs9075", "hexagon-qcs8275",
    "hexagon-x-elite-2026-08", "hexagon-x2-elite-2026-08", "intel-npu4",
    "amd-xdna2", "ethos-u85", "a100", "h100", "m1-max", "m2-ultra", "tpu-v6e", "teaching-npu",
)  # fmt: skip

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
    lines = [f"name = {quoted(chip.name)}", f"title = {quoted(chip.title)}"]
    section = ""
    in_order = sorted(chip.values().items(), key=lambda item: "." in item[0])
    for path, value in in_order:
        part, _, name = path.rpartition(".")
        if part != section:
            section = part
            lines += ["", f"[{part}]"]
        source = quoted(chip.sources[path])
        lines.append(f"{name} = {{ value = {_literal(value)}, source = {source} }}")
    return "\n".join(lines) + "\n"


def _literal(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    return f"{value:_}" if isinstance(value, int) else repr(value)


def quoted(text: str) -> str:
    """A basic string of TOML; what no reader or terminal takes as it is, as an escape."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _parse(text: str, where: str) -> Npu:
    data = parse_toml(text, where, "a TOML file of an NPU", HardwareError)
    base = None
    if "like" in data:
        with located(f"{where}: "):
            base = read_preset(check_choice("like", data.pop("like"), NPUS, HardwareError))
        data = {"name": Path(where).stem, "title": f"like {base.name}, changed"} | data
    entries: dict[str, Any] = {}
    for key, value in data.items():
        if key in PARTS and isinstance(value, dict):
            entries |= {f"{key}.{inner}": entry for inner, entry in value.items()}
        elif key not in ("name", "title"):  # a quoted key may hold a dot, and is no path
            entries[repr(key) if "." in key else key] = value
    _check_paths(entries, data, where, whole=base is None)
    name, title = (_text(data[key], key, where) for key in ("name", "title"))
    pairs = {path: _entry(path, entry, where) for path, entry in entries.items()}
    values = {path: value for path, (value, _) in pairs.items()}
    sources = {path: source for path, (_, source) in pairs.items()}
    with located(f"{where}: "):
        if base is not None:
            values, sources = {**base.values(), **values}, {**base.sources, **sources}
        chip: Npu = build_npu(name, title, {path: values[path] for path in _paths()}, sources)
    return chip


def _check_paths(entries: dict[str, Any], data: dict[str, Any], where: str, *, whole: bool) -> None:
    """Refuse keys that no NPU has, and those that a file which is like no other must have."""
    expected = _paths()
    unknown = [path[:60] for path in entries if path not in expected]
    if unknown:
        near = nearest(unknown[0], expected)
        hint = f"perhaps {near[0]}" if near else "`npu-sim hardware show teaching-npu` lists them"
        raise HardwareError(
            f"{where}: every key must be a hardware field, got {unknown[0]}; {hint}"
        )
    missing = [key for key in ("name", "title", *expected) if key not in (entries | data)]
    if whole and missing:
        raise HardwareError(
            f"{where} must give {missing[0]}; {len(missing)} missing in all, which the line "
            f'like = "{NPUS[0]}" takes from a preset'
        )


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise HardwareError(f"{where} must give {key} as a text, got {short(value)}")
    return value


def _paths() -> list[str]:
    """Every path of an NPU, in order."""
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
        return npu_value(path, entry, where), ASSUMED
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
        return convert_unit(path, value, entry["unit"], where), source
    return npu_value(path, value, where), source


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
