"""`mu-ref info`: a preset, field by field."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, SetOption, plain_console

__all__ = ["info"]


def info(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")],
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a preset: its fields, parameters, split and bytes.

    Example: mu-ref info mu-330m --set decoder.n_layers=6
    """
    from mu_ref.border.overrides import assignments
    from mu_ref.config import with_model_fields
    from mu_ref.presets import field_origins, preset
    from mu_ref.weights import count_parameters

    given = {path.removeprefix("model."): text for path, text in assignments(changes or []).items()}
    model = with_model_fields(preset(name), given)
    total = count_parameters(model)
    stacks = {s: count_parameters(model, f"{s}.") for s in model.stacks}
    layers = sum(stacks.values())
    shares = {s: n / layers for s, n in stacks.items()}
    origins = field_origins(name) | {path.rpartition(".")[2]: "--set" for path in given}
    if as_json:
        data = {
            "parameters": total,
            "by_stack": stacks,
            "share": shares,
            "config": json.loads(model.to_json()),
            "origins": origins,
        }
        if given:
            data["set"] = given
        typer.echo(json_text(data))
        return
    console = plain_console()
    title = ", ".join([model.name, *(f"{path} = {text}" for path, text in given.items())])
    console.print(printable(title), style="bold", end="", soft_wrap=True)
    console.print(f": {total:,} parameters")
    for stack, n in stacks.items():
        console.print(f"  {stack}: {n:,} ({100 * shares[stack]:.1f} % of the layers)")
    console.print(f"  embeddings and head: {total - layers:,}")
    widths = {"float32": 4, "float16": 2, "int8": 1, "int4": 0.5}
    sizes = ", ".join(f"{kind} {total * size / 1e6:,.1f} MB" for kind, size in widths.items())
    console.print(f"  bytes: {sizes}\n")
    console.print(_field_table(json.loads(model.to_json()), origins))


def _field_table(data: dict[str, Any], origins: dict[str, str]) -> Table:
    stacks = {name: data[name] for name in ("encoder", "decoder") if data[name] is not None}
    table = Table("field", *stacks, "origin")
    for field, value in data.items():
        if field not in ("encoder", "decoder"):
            table.add_row(field, _shown(value), *[""] * (len(stacks) - 1), origins[field])
    table.add_section()
    for field in next(iter(stacks.values())):
        values = (_shown(stack[field]) for stack in stacks.values())
        table.add_row(field, *values, origins[field])
    return table


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"{sum(value)} of {len(value)}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
