"""`mu-ref forward`: another project's checkpoint, run on given token ids."""

from pathlib import Path
from typing import Annotated

import typer

from mu_ref.errors import check_choice

__all__ = ["forward"]


def forward(
    folder: Annotated[Path, typer.Argument(help="Holds config.json and model.safetensors.")],
    inputs: Annotated[Path, typer.Option(help="npz with the token ids.")],
    out: Annotated[Path, typer.Option(help="npz to write.")],
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float32",
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Greedy tokens after the start.")] = 12,
) -> None:
    """Run another project's checkpoint (Mu's public code, T5Gemma) on given token ids."""
    import numpy as np

    from mu_ref.golden.forward import forward_file

    kinds = {"float64": np.float64, "float32": np.float32}
    shapes = forward_file(
        folder, inputs, out, kinds[check_choice("dtype", dtype, kinds)], max_new_tokens
    )
    for name, shape in shapes.items():
        typer.echo(f"{name} {list(shape)}")
