"""`npu-sim hardware`: the NPUs, each number with its source."""

from typing import Annotated

import typer

from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, plain_console
from npu_sim.errors import HardwareError
from npu_sim.hardware.presets import NPUS, npu, npu_to_toml
from npu_sim.show.tables import npu_list, npu_numbers, print_table

__all__ = ["list_hardware", "show_hardware"]


def list_hardware(as_json: JsonOption = False) -> None:
    """List the NPUs."""
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
    """Show every value of an NPU with its source."""
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
