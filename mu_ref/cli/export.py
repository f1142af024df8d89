"""`mu-ref export onnx`: a model as ONNX graphs, for other engines and tools of chips."""

from pathlib import Path
from typing import Annotated

import typer

from mu_ref.border.text import printable
from mu_ref.cli import options
from mu_ref.command_line import named_folder
from mu_ref.errors import check_choice

__all__ = ["onnx"]


def onnx(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", parser=named_folder, help="Folder for the graphs.")
    ],
    model: Annotated[
        str, typer.Option(help="mu-nano (ships), a weight file, or a checkpoint's folder.")
    ] = "mu-nano",
    scheme: Annotated[str, typer.Option(help="float32, w8a16 or w8a8.")] = "float32",
    drafter: options.DrafterOption = None,
) -> None:
    """Write encoder.onnx, decoder.onnx and, with --drafter, drafter.onnx.

    Example: mu-ref export onnx graphs --scheme w8a16
    """
    from mu_ref.golden.onnx import ONNX_SCHEMES, export_onnx

    check_choice("--scheme", scheme, ONNX_SCHEMES)
    weights = options.model_file(model)
    path = None if drafter is None else options.drafter_file(drafter, scheme)
    for file, n_bytes in export_onnx(folder, weights, scheme, path).items():
        typer.echo(f"wrote {printable(str(file))}, {n_bytes / 1e6:.2f} MB")
