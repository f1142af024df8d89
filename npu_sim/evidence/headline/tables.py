"""How the headline figures look in a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from npu_sim.evidence.headline.figures import (
    MEASURED_TOKENS,
    MU_PUBLISHED,
    TWIN_PUBLISHED,
    Headline,
    twin_json,
)
from npu_sim.evidence.headline.mu import CAUSES, STATIC
from npu_sim.evidence.headline.table3 import BATCHES, WIDTHS
from npu_sim.show.tables import print_table

__all__ = ["print_headline"]

SHOWN = 512  # input tokens of the decomposition


def print_headline(found: Headline, console: Console) -> None:
    """Print every figure with its decomposition.

    Args:
        found: from `headline`.
        console: where to.
    """
    console.print("Everything called simulated is; published figures entered no fit.\n")
    _mu(found, console)
    _twins(found, console)
    _speedups(found, console)
    _table3(found, console)
    _mu_redrafter(found, console)


def _table(
    console: Console, title: str, headers: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> None:
    console.print(title, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for at, header in enumerate(headers):
        table.add_column(header, justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    print_table(console, table)
    console.print()


def _mu(found: Headline, console: Console) -> None:
    speed, total = MU_PUBLISHED["tok_per_s"], MU_PUBLISHED["total_ms"]
    rows = [
        ("decode, tok/s", found.mu["tok_per_s"], f"> {speed:.0f}"),
        ("first token, ms", found.mu["first_token_ms"], "-"),
        ("Settings query (64 in, 32 out), ms", found.mu["total_ms"], f"< {total:.0f}"),
    ]
    headers = ("figure", "simulated", "published")
    _table(console, "Mu 330M, W8A16, hexagon-x-elite (tile fidelity)", headers, rows)


def _twins(found: Headline, console: Console) -> None:
    rows: list[tuple[Any, ...]] = [
        (str(t.n_input), t.decode_ratio_last, t.decode_ratio_static, t.first_token_ratio_last - 1,
         t.first_token_ratio_all - 1, t.first_token_ratio_static - 1)
        for t in found.twins
    ]  # fmt: skip
    first = TWIN_PUBLISHED["first_token_ratio"] - 1
    rows.append(("published", TWIN_PUBLISHED["decode_ratio"], "", first, "", ""))
    headers = ("input", "decode x", f"padded to {STATIC}", "first token", "head on all", "padded")
    title = "Encoder-decoder (32 + 12 layers) against a decoder-only twin (47 layers), as ratios"
    _table(console, title, headers, rows)
    twin = next((t for t in found.twins if t.n_input == SHOWN), found.twins[0])
    data = twin_json(twin)
    for name, key, published in (
        ("decode step", "decode_ms", TWIN_PUBLISHED["decode_ratio"]),
        ("first token", "first_token_ms", 1 / TWIN_PUBLISHED["first_token_ratio"]),
    ):
        parts = data[key]
        totals = {side: sum(parts[c][side] for c in CAUSES) for side in ("mu", "twin")}
        rows = [(c, parts[c]["mu"], parts[c]["twin"], parts[c]["difference"]) for c in CAUSES]
        rows.append(("together", totals["mu"], totals["twin"], totals["twin"] - totals["mu"]))
        ratio = totals["twin"] / totals["mu"]
        title = (
            f"Where the {name} goes at {twin.n_input} input tokens, ms; simulated ratio "
            f"{ratio:.3g}, published {published:.3g}: a factor of {published / ratio:.3g} "
            f"unexplained"
        )
        _table(console, title, ("cause", "Mu", "twin", "twin - Mu"), rows)
    padding = data["static_padding_ms"]
    console.print(
        f"Logits of every prompt position would add {data['head_over_prompt_ms']:.3g} ms to the "
        f"twin's first token; graphs padded to {STATIC} slots add {padding['mu_step']:.3g} ms to a "
        f"step of Mu and {padding['twin_step']:.3g} ms to one of the twin.\n",
        soft_wrap=True,
    )


def _speedups(found: Headline, console: Console) -> None:
    rows = [
        (row.what, row.tokens_per_step, row.plain_ms, row.step_ms, row.simulated, row.published,
         f"{row.simulated / row.published - 1:+.0%}", row.note)
        for row in found.speedups
    ]  # fmt: skip
    headers = ("ReDrafter (roofline)", "tokens/step, given", "plain ms", "step ms", "simulated x",
               "published x", "difference", "note")  # fmt: skip
    title = "ReDrafter's speed-up, from its published tokens per step"
    _table(console, title, headers, rows)


def _table3(found: Headline, console: Console) -> None:
    table = found.table3
    cells = {(c.batch, c.beam_width): c for c in table.cells}
    rows = []
    for batch in BATCHES:
        texts = []
        for width in WIDTHS:
            cell = cells[batch, width]
            texts.append(" / ".join("OOM" if v is None else f"{v:.0f}" for v in
                                    (table.simulated(cell), cell.published)))  # fmt: skip
        error = table.errors.get(batch)
        rows.append((str(batch), *texts, "" if error is None else f"{error:.0%}"))
    title = (
        "Table 3 (H100, PyTorch, 7B): tokens per second of one request, simulated / published; "
        f"rank correlation {table.rank_correlation:.2f}. A framework issues an operation in "
        f"{table.issue_us:.1f} us: fitted to all cells. Last column: error of a batch size with "
        "the constant of all others"
    )
    headers = ("batch", *(f"W {width}" for width in WIDTHS), "left out")
    _table(console, title, headers, rows)


def _mu_redrafter(found: Headline, console: Console) -> None:
    rows = [
        (str(row["beam_width"]), row["tokens_per_step"], row["plain_ms"], row["step_ms"],
         row["speedup"], row["pays_from_tokens_per_step"])
        for row in found.mu_speedups
    ]  # fmt: skip
    used = {row["beam_width"]: row["tokens_per_step"] for row in found.mu_speedups}
    given = "measured with mu-nano" if used == dict(MEASURED_TOKENS) else "given"
    headers = ("beam width", "tokens/step", "plain ms", "step ms", "speed-up", "pays from")
    title = f"ReDrafter for Mu on hexagon-x-elite (roofline); tokens per step {given}"
    _table(console, title, headers, rows)
