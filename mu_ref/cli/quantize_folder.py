"""`mu-ref quantize FOLDER`: integers of another project's checkpoint, calibrated on token ids."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mu_ref.border.files import check_outputs
from mu_ref.cli.options import check_unused
from mu_ref.errors import InputError

if TYPE_CHECKING:
    from mu_ref.ops import Ops
    from mu_ref.quantize.calibrate import Options
    from mu_ref.quantize.model import Example
    from mu_ref.quantize.report import SiteReport

__all__ = ["is_folder", "quantize_folder"]

MOST_EXAMPLES = 256
REPORT_EXAMPLES = 16  # compared site by site


def is_folder(name: str) -> bool:
    """Say whether PRESET is a folder; a preset's name comes first."""
    from mu_ref.presets import PRESETS

    return bool(name) and name not in PRESETS and Path(name).is_dir()


def quantize_folder(
    folder: Path, options: "Options", out: Path | None, given: dict[str, Any]
) -> "tuple[list[SiteReport], str]":
    """Quantize a checkpoint, and count the next tokens that stay the same.

    Args:
        folder: a checkpoint of a family that `readers/` knows.
        options: how.
        out: weight file to write, at the end.
        given: options of `mu-ref quantize` by name; those that need queries are refused.

    Returns:
        What each site loses, and the count in words.

    Raises:
        InputError: an option that needs queries or a tokenizer, or no file of token ids.
        MuRefError: the folder or the ids cannot be read, or a scale cannot be found.
    """
    from mu_ref.integers.store import save_integers
    from mu_ref.ops.integer import IntegerOps
    from mu_ref.ops.reference import ReferenceOps
    from mu_ref.quantize.calibrate import calibrate
    from mu_ref.quantize.model import watch
    from mu_ref.quantize.report import site_reports
    from mu_ref.readers import read_checkpoint
    from mu_ref.readers.token_file import read_inputs

    ids = _ids(folder, out, given)
    model, weights = read_checkpoint(folder)
    inputs = read_inputs(ids, model)
    rows: list[Example] = [
        (source[valid], target[target_valid])
        for source, valid, target, target_valid in zip(
            inputs.source, inputs.source_valid, inputs.target, inputs.target_valid, strict=True
        )
        if target_valid.any()
    ]
    n = given["--examples"] or MOST_EXAMPLES
    seen, spare = rows[:n], rows[n:]
    floats, observed = watch(model, weights, lambda: seen, options)
    integers = calibrate(model, floats, observed, options)
    reports = site_reports(model, floats, integers, seen[:REPORT_EXAMPLES])
    judged = spare or seen
    before = _next_tokens(ReferenceOps(floats), model, judged)
    after = _next_tokens(IntegerOps(integers), model, judged)
    same = sum(a == b for a, b in zip(before, after, strict=True))
    if out is not None:
        save_integers(out, integers)
    where = "in the rows that were calibrated on; to judge by others, give more than --examples"
    if spare:
        where = f"rows that were not calibrated on: {len(spare)}"
    return reports, f"{same} of {len(before)} next tokens stay the same ({where})"


def _ids(folder: Path, out: Path | None, given: dict[str, Any]) -> Path:
    """Check the options before any work; return the file of token ids."""
    from mu_ref.readers import files_of

    usable = ("--calibration", "--examples", "--observer", "--rounding", "--smooth", "--bits",
              "--worst")  # fmt: skip
    why = "with a folder, which has no tokenizer here"
    check_unused(why, {name: value for name, value in given.items() if name not in usable})
    ids = given["--calibration"]
    if ids is None or ids.suffix != ".npz":
        raise InputError(f"--calibration must be an npz file of token ids, as `mu-ref forward` "
                         f"reads it, for the folder {folder}; got {ids}")  # fmt: skip
    check_outputs({"--out": out}, [ids, *files_of(folder)])
    return ids


def _next_tokens(ops: "Ops", model: Any, rows: "list[Example]") -> list[int]:
    """The likeliest token after each token of each row."""
    from mu_ref.quantize.observe import run_unpadded

    tokens: list[int] = []
    for source, target in rows:
        given = None if source is None else source[None]
        scores = run_unpadded(ops, model, given, target[None])
        tokens += np.asarray(ops.argmax(scores, "head.argmax"))[0].tolist()
    return tokens
