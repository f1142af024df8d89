"""`npu-sim hardware`: the NPUs, each number with its source."""

from typing import Annotated

import typer

from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, plain_console
from npu_sim.errors import HardwareError
from npu_sim.hardware.presets import NPUS, npu, npu_to_toml
from npu_sim.hardware.units import with_unit
from npu_sim.show.tables import npu_list, npu_numbers, print_table

__all__ = ["compare_hardware", "list_hardware", "show_hardware"]


def list_hardware(as_json: JsonOption = False) -> None:
    """List the NPUs.

    Example: npu-sim hardware list
    """
    if as_json:
        typer.echo(json_text(NPUS))
    else:
        print_table(plain_console(), npu_list())


def show_hardware(
    name: Annotated[str, typer.Argument(help="NPU of `npu-sim hardware list`, or FILE.toml.")],
    as_json: JsonOption = False,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print a file that --npu reads; change what you like.")
    ] = False,
) -> None:
    """Show every value of an NPU with its source.

    Example: npu-sim hardware show h100
    """
    if as_json and as_toml:
        raise HardwareError("--json and --toml must not be given together; leave out one")
    chip = npu(name)
    if as_toml:
        typer.echo(npu_to_toml(chip), nl=False)
    elif as_json:
        numbers = {
            path: {"value": value, "source": chip.sources[path]}
            for path, value in chip.values().items()
        }
        typer.echo(json_text({"name": name, "title": chip.title, "numbers": numbers}, indent=2))
    else:
        console = plain_console()
        console.print(f"{printable(name)}: {printable(chip.title)}\n", soft_wrap=True)
        print_table(console, npu_numbers(chip))


def compare_hardware(
    a: Annotated[str, typer.Argument(help="NPU of `npu-sim hardware list`, or FILE.toml.")],
    b: Annotated[str, typer.Argument(help="The same.")],
    as_json: JsonOption = False,
) -> None:
    """Show the values in which two NPUs differ, each with its source.

    Example: npu-sim hardware compare hexagon-x-elite h100
    """
    sides = {"a": npu(a), "b": npu(b)}
    of_a, of_b = (chip.values() for chip in sides.values())
    differing = [path for path, value in of_a.items() if value != of_b[path]]
    fields = {
        path: {side: {"value": chip.values()[path], "source": chip.sources[path]}
               for side, chip in sides.items()}
        for path in differing
    }  # fmt: skip
    if as_json:
        names = {side: chip.name for side, chip in sides.items()}
        typer.echo(json_text(names | {"fields": fields}, indent=2))
        return
    for side, chip in sides.items():
        typer.echo(printable(f"{side.upper()} = {chip.name}: {chip.title}"))
    typer.echo(f"{len(fields)} of {len(of_a)} values differ")
    for path, found in fields.items():
        typer.echo(f"\n{path}")
        for side, entry in found.items():
            shown = with_unit(path, entry["value"]) or "none"
            typer.echo(printable(f"  {side.upper()}  {shown}  ({entry['source']})"))
