"""`mu-ref forward`: another project's checkpoint, run on given token ids."""

from pathlib import Path
from typing import Annotated

import typer

from mu_ref.border.files import check_outputs
from mu_ref.border.ranges import NEW_TOKENS
from mu_ref.cli.options import report_console
from mu_ref.command_line import in_range, named_folder
from mu_ref.errors import check_choice

__all__ = ["forward"]


def forward(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            parser=named_folder,
            help="A checkpoint: config.json, model.safetensors.",
        ),
    ],
    inputs: Annotated[Path, typer.Option(help="npz with the token ids.")],
    out: Annotated[Path, typer.Option(help="npz to write.")],
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float32",
    max_new_tokens: Annotated[
        int, in_range(NEW_TOKENS, help="Greedy tokens after the start.")
    ] = 12,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Let greedy tokens go on from decoder_input_ids.")
    ] = False,
) -> None:
    """Run another project's checkpoint (Mu's public code, T5Gemma) on given token ids.

    Example: mu-ref forward checkpoint --inputs ids.npz --out out.npz
    """
    import numpy as np

    from mu_ref.golden.forward import forward_file
    from mu_ref.readers import files_of

    kinds = {"float64": np.float64, "float32": np.float32}
    kind = kinds[check_choice("dtype", dtype, kinds)]
    check_outputs({"--out": out}, [inputs, *files_of(folder)])
    shapes = forward_file(folder, inputs, out, kind, max_new_tokens, from_prompt=prompt)
    console = report_console(out)
    for name, shape in shapes.items():
        console.print(f"{name} {list(shape)}", soft_wrap=True)
