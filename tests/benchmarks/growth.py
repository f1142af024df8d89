"""How cost grows, measured: `python -m tests.benchmarks.growth`, from the root of the project.

It times one thread against input tokens, batch, layers, widths, beams of a drafter and points of a
sweep, and renews what the pages show of it: `docs/figures/growth.csv`, the picture, and the table
in `docs/17_fast.md`. Some five minutes on an idle core; `--show` measures nothing and renews the
picture and the table from the CSV. Milliseconds are of the processor's time, so that another
program on the machine does not count; each is a median of up to seven runs, of one run where that
takes more than a second.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from docs.figures import draw, picture
from docs.figures.drawn import write
from docs.figures.growth import COLUMNS, FILE, PAGE, laws, with_table
from mu_ref.config import ModelConfig, with_model_fields
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.presets import preset
from mu_ref.settings.agent import Agent, load_agent
from npu_sim.whatif.sweep import run_sweep
from npu_sim.whatif.varied.sweep_toml import spec_from
from tests.benchmarks.engines import SCHEMES, Ours
from tests.benchmarks.simulator import SWEEP

INPUTS = (16, 32, 64, 128, 256, 512, 1024, 2048)  # tokens read
BATCHES = (1, 2, 4, 8, 16)  # requests of 64 tokens
LAYERS = (2, 4, 8, 16)  # of each stack
WIDTHS = (192, 384, 768, 1536)  # d_model; d_ff is four times that
BEAMS = (1, 2, 4, 8, 16)  # of a drafter, 6 tokens each
POINTS = (1_000, 10_000, 100_000)
FEW = ("float32", "w8a8")  # executors where all would show the same
N_STEPS = 16
MOST_RUNS, ENOUGH_S = 7, 1.0
QUERIES = ("make the screen warmer", "turn bluetooth off", "set the volume to 40 percent")
SMALL = {"vocab_size": "4096", "encoder_vocab_size": "4096", "eos_id": "2"}

Row = tuple[str, str, int, str, float]  # what grows, who computes, how large, what is timed, ms
clock = time.process_time


def median_ms(run: Callable[[], np.ndarray]) -> np.ndarray:
    """Return medians of what `run` times, in milliseconds."""
    found: list[np.ndarray] = []
    started = clock()
    while not found or (len(found) < MOST_RUNS and clock() - started < ENOUGH_S):
        found.append(run())
    return 1000 * np.median(found, axis=0)


def request(engine: Ours, batch: int, n_input: int, n_steps: int) -> np.ndarray:
    """Return the seconds of [encode, first token, one more step] of a batch of requests."""
    engine.ops.n_threads = 1
    source = np.tile(np.arange(100, 100 + n_input) % 4000, (batch, 1))
    start = clock()
    memory = mu.remember(engine.ops, engine.model, source, np.ones(source.shape, bool))
    engine.ops.flush()
    moments = [clock()]
    begin = np.full((batch, 1), engine.model.bos_id), np.ones((batch, 1), bool)
    steps = stream(engine.ops, engine.model, memory, *begin, n_steps, stop_at_eos=False)
    moments += [clock() for _ in steps]
    step = (moments[-1] - moments[1]) / max(1, n_steps - 1)
    return np.array([moments[0] - start, moments[1] - start, step])


def by_input_and_batch() -> Iterator[Row]:
    for scheme in SCHEMES:
        engine = Ours(preset("mu-330m"), scheme, 1)
        request(engine, 1, INPUTS[0], N_STEPS)  # memory is allocated, steps are captured
        for n in INPUTS:
            encode, first, _ = median_ms(lambda e=engine, n=n: request(e, 1, n, 1))
            yield "input", scheme, n, "encode", encode
            yield "input", scheme, n, "first token", first
        for n in BATCHES if scheme in FEW else ():
            encode, _, step = median_ms(lambda e=engine, n=n: request(e, n, 64, N_STEPS))
            yield "batch", scheme, n, "encode", encode
            yield "batch", scheme, n, "step", step


def by_shape() -> Iterator[Row]:
    models: list[tuple[str, int, ModelConfig]] = []
    for n in LAYERS:
        fields = {"encoder.n_layers": str(n), "decoder.n_layers": str(n)}
        models.append(("layers", n, with_model_fields(preset("mu-330m"), SMALL | fields)))
    for n in WIDTHS:
        widths = {"d_model": n, "d_ff": 4 * n, "n_heads": n // 48, "n_kv_heads": n // 96}
        fields = {f"{s}.{k}": str(v) for s in ("encoder", "decoder") for k, v in widths.items()}
        fields |= {"encoder.n_layers": "4", "decoder.n_layers": "4"}
        models.append(("width", n, with_model_fields(preset("mu-330m"), SMALL | fields)))
    for what, n, model in models:
        for scheme in FEW:
            engine = Ours(model, scheme, 1)
            request(engine, 1, 64, N_STEPS)
            encode, _, step = median_ms(lambda e=engine: request(e, 1, 64, N_STEPS))
            yield what, scheme, n, "encode", encode
            yield what, scheme, n, "step", step


def by_beams() -> Iterator[Row]:
    """A step drafts, and verifies the tree of its drafts in one pass."""
    from mu_ref.executors import shipped_drafter
    from mu_ref.redrafter.beams import Search
    from mu_ref.redrafter.steps import Statistics

    for scheme in FEW:
        for n in BEAMS:
            search = Search(beam_width=n, draft_len=6)
            agent = load_agent(None, scheme, "fast", shipped_drafter(scheme), search)
            memories = [agent.remember(query) for query in QUERIES]

            def once(agent: Agent = agent, memories: list = memories) -> np.ndarray:  # type: ignore[type-arg]
                seen, start = Statistics(), clock()
                for memory in memories:
                    agent.write(memory, 1, seen)
                return np.array([(clock() - start) / seen.n_steps])

            once()
            yield "beams", scheme, n, "step", median_ms(once)[0]


def by_points() -> Iterator[Row]:
    """A sweep in this process, written to a file; its recordings are there."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sweep.csv"

        def once(n: int) -> np.ndarray:
            start = clock()
            run_sweep(spec_from(SWEEP.format(n // 100)), out)
            return np.array([clock() - start])

        once(POINTS[0])
        for n in POINTS:
            yield "points", "npu_sim", n, "sweep", median_ms(lambda n=n: once(n))[0]


def measure() -> None:
    """Write the CSV."""
    rows = []
    started = time.monotonic()
    for part in (by_input_and_batch, by_shape, by_beams, by_points):
        for row in part():
            rows.append((*row[:4], f"{row[4]:.4g}"))
            print(*rows[-1], sep=",", flush=True)
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(f"{time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="renew picture and table alone")
    if not parser.parse_args().show:
        measure()
    write(draw("growth"), picture("growth"))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(laws())


if __name__ == "__main__":
    main()
