"""`npu-sim speculate`: what drafting would bring on an NPU, for some beams and lengths."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mu_ref.command_line import JsonOption
from mu_ref.config import ModelConfig
from mu_ref.presets import preset
from npu_sim.cli import options
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import NPUS, npu

if TYPE_CHECKING:
    from mu_ref.redrafter.config import DrafterConfig
    from npu_sim.speculate.acceptance import Acceptance

__all__ = ["read_acceptance", "speculate"]


def speculate(
    model: Annotated[str, typer.Argument(help="Model preset, for example mu-330m.")],
    npu_name: options.NpuOption = NPUS[0],
    beam_widths: Annotated[str, typer.Option("--beam-width", help="W, or several: 1,2,4.")] = "4",
    draft_lens: Annotated[str, typer.Option("--draft-len", help="Drafted tokens: 3,5.")] = "3",
    accept_rate: Annotated[
        float, typer.Option(help="Each drafted token's chance, if those before it are accepted.")
    ] = 0.7,
    acceptance: Annotated[
        Path | None,
        typer.Option(
            help="Recorded steps, JSON lines with n_accepted and nodes; or one line with "
            "probabilities of 0, 1, ... accepted tokens."
        ),
    ] = None,
    nodes_saved: Annotated[
        float, typer.Option(help="Share of drafted nodes that shared prefixes remove, 0 to 1.")
    ] = 0.0,
    exit_dim: Annotated[
        int | None, typer.Option(help="Width of the drafter's blocks; 2 d_model by default.")
    ] = None,
    n_blocks: Annotated[int, typer.Option("--blocks", help="Residual blocks.")] = 2,
    rnn: Annotated[bool, typer.Option("--rnn/--no-rnn", help="Recurrent cell, or a sum.")] = True,
    n_input: Annotated[int, typer.Option("--input", help="Tokens read.")] = 64,
    n_context: Annotated[int, typer.Option("--context", help="Tokens in the cache.")] = 16,
    host_us: Annotated[float, typer.Option(help="One round trip to the host.")] = 500.0,
    weight_bits: options.WeightBitsOption = 8,
    activation_bits: options.ActivationBitsOption = 16,
    kv_bits: options.KvBitsOption = 16,
    head_weight_bits: options.HeadBitsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate drafting, verifying and keeping, in one graph call and with the host between."""
    from npu_sim.speculate.step import speculate as simulate_steps

    drafter = _drafter(preset(model), exit_dim, n_blocks, rnn)
    precision = options.precision_of(weight_bits, activation_bits, kv_bits, head_weight_bits)
    found = []
    for width, length, nodes in _trees(beam_widths, draft_lens, nodes_saved):
        accepted = _accepted(acceptance, accept_rate, length, nodes)
        cost = simulate_steps(
            preset(model), drafter, width, length, accepted, npu(npu_name), precision,
            n_input=n_input, n_context=n_context, host_us=host_us,
        )  # fmt: skip
        found.append({"beam_width": width, "draft_len": length, "nodes": nodes} | cost.to_json())
    if as_json:
        typer.echo(json.dumps({"simulated": True, "model": model, "npu": npu_name, "steps": found}))
        return
    title = f"{model} on {npu_name}, drafter of {drafter.n_parameters / 1e6:.1f} M parameters"
    _print(f"{title}, {precision.label()}", found)


def _drafter(
    model: ModelConfig, exit_dim: int | None, n_blocks: int, rnn: bool
) -> "DrafterConfig":  # fmt: skip
    from mu_ref.redrafter.config import DrafterConfig

    if model.decoder is None:
        raise WorkloadError(f"a model that drafts must have a decoder, {model.name} has none")
    d_model = model.decoder.d_model
    return DrafterConfig(
        d_model=d_model, vocab_size=model.vocab_size,
        d_exit=exit_dim or 2 * d_model,  # [h, s] side by side, which needs no projection
        n_blocks=n_blocks, rnn=rnn,
    )  # fmt: skip


def _trees(
    beam_widths: str, draft_lens: str, nodes_saved: float
) -> Iterator[tuple[int, int, int]]:  # fmt: skip
    """Yield each width and length with the nodes that are left where beams share prefixes."""
    if not 0 <= nodes_saved < 1:
        raise WorkloadError(f"nodes_saved must lie in [0, 1), got {nodes_saved}")
    widths, lengths = _numbers("beam_width", beam_widths), _numbers("draft_len", draft_lens)
    for width, length in product(widths, lengths):
        # a single path cannot share anything with itself
        yield width, length, max(1 + length, 1 + round(width * length * (1 - nodes_saved)))


def _accepted(path: Path | None, accept_rate: float, draft_len: int, nodes: int) -> "Acceptance":
    from npu_sim.speculate.acceptance import Acceptance

    if path is not None:
        return read_acceptance(path, nodes)
    return Acceptance.chain(accept_rate, draft_len, nodes)


def _print(title: str, found: list[dict[str, float]]) -> None:
    console = Console(highlight=False)
    console.print(
        f"{title}; milliseconds, simulated (tile); acceptance is given.\n"
        "gain: one graph call per step against plain decoding; on host: draft and verify are two "
        "calls and the host packs and accepts; pays at: tokens per step where the gain is 1\n",
        soft_wrap=True,
    )
    console.print(_table(found))


def _table(found: list[dict[str, float]]) -> Table:
    table = Table(box=None, pad_edge=False)
    headers = {
        "W": ("beam_width", "d"), "L": ("draft_len", "d"), "nodes": ("nodes", "d"),
        "tok/step": ("tokens_per_step", ".2f"), "plain": ("plain_ms", ".3f"),
        "draft": ("draft_ms", ".3f"), "verify": ("verify_ms", ".3f"),
        "keep": ("compact_ms", ".3f"), "step": ("in_engine_ms", ".3f"),
        "gain": ("speedup_in_engine", ".2f"), "on host": ("speedup_host", ".2f"),
        "pays at": ("break_even_tokens_per_step", ".2f"),
    }  # fmt: skip
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row in found:
        table.add_row(*(format(row[name], form) for name, form in headers.values()))
    return table


def _numbers(what: str, text: str) -> list[int]:
    """Read "1,2,4"."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise WorkloadError(f"{what} must be whole numbers separated by commas, got {text!r}")
    return [int(part) for part in parts]


def read_acceptance(path: Path, nodes: int) -> "Acceptance":
    """Read recorded steps, or a distribution for trees of one size.

    Args:
        path: JSON lines: {"n_accepted": 2, "nodes": 9} per step, or one {"probabilities": [...]}.
        nodes: of the trees, where the file holds a distribution.

    Returns:
        The `Acceptance`.

    Raises:
        WorkloadError: no such fields.
    """
    from npu_sim.speculate.acceptance import Acceptance

    steps = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            if "probabilities" in item:
                return Acceptance.distributed([float(p) for p in item["probabilities"]], nodes)
            steps.append((int(item["n_accepted"]), int(item["nodes"])))
        except (ValueError, KeyError, TypeError) as error:
            raise WorkloadError(
                f"{path}:{number} must hold n_accepted and nodes, or probabilities; got "
                f"{line[:60]!r}"
            ) from error
    return Acceptance.recorded(steps)
