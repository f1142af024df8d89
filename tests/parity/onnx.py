"""`python -m tests.parity.onnx [N]`: our ONNX graphs in ONNX Runtime, against our executors.

The float32 graphs of mu-nano on N validation queries (200) and of every checkpoint in `data/`: the
largest difference of a logit, and whether greedy ids are equal. The QDQ graphs on N queries: exact
match, ours and theirs, and the share of equal answers. Exit code 1 if a bar is missed.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console

from mu_ref.config import ModelConfig
from mu_ref.executors import load_model
from mu_ref.generate import stream
from mu_ref.golden.onnx import export_onnx
from mu_ref.model import mu
from mu_ref.model.attention import attention_mask
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import place
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops import Ops
from mu_ref.ops.rotation import Rotation
from mu_ref.settings.agent import Agent, answer_all, load_agent
from mu_ref.settings.catalog import DATA as SETTINGS
from mu_ref.settings.queries.labelled import LabelledQuery, evenly_spread, read_queries
from mu_ref.training.datasets import pad

CHECKPOINTS = Path(__file__).parent / "data"
MAX_NEW_TOKENS = 32
LARGEST_DIFFERENCE = 1e-4  # of a logit, in floats
LARGEST_LOSS = 0.01  # of exact match, in integers
Arrays = dict[str, np.ndarray]


def session(path: Path, *, optimized: bool = True) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def zeros_of(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    names = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(int16)": np.int16}
    return np.zeros(shape, names[kind])


@dataclass
class Written:
    """The graphs of a folder, run as a program outside of this project would run them."""

    model: ModelConfig
    encoder: onnxruntime.InferenceSession | None
    decoder: onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path, *, optimized: bool = True) -> "Written":
        decoder = session(folder / "decoder.onnx", optimized=optimized)
        notes = decoder.get_modelmeta().custom_metadata_map
        model = ModelConfig.from_json(notes["config"])
        encoder = None
        if model.encoder is not None:
            encoder = session(folder / "encoder.onnx", optimized=optimized)
        return cls(model, encoder, decoder)

    def remember(self, source: np.ndarray, valid: np.ndarray) -> Arrays:
        stack = self.model.stacks["encoder"]
        positions = positions_of(stack, valid)
        theta = rope_theta(stack, rope_lengths(stack, valid))
        masks = {
            w: attention_mask(positions, positions, valid, causal=False, window=w,
                              inclusive=stack.window_inclusive)
            for w in stack.windows
        }  # fmt: skip
        turn = Rotation(positions, theta, stack.d_head, stack.rope_factor)
        feed = given(source, turn, masks)
        found = run(self.encoder, feed)
        found["memory_mask"] = valid[:, None, None, :]
        return found

    def decode(self, tokens: np.ndarray, memory: Arrays, cache: Cache) -> np.ndarray:
        """Logits of new tokens, [batch, n_new, vocab_size]; the cache grows."""
        stack = self.model.stacks["decoder"]
        placed = place(self.model, tokens, mu.decoder_valid(self.model, tokens), cache)
        feed = given(placed.tokens, placed.turn, placed.masks)
        kinds = {x.name: x.type for x in self.decoder.get_inputs()}
        empty = (len(tokens), stack.n_kv_heads, 0, stack.d_head)
        for i, layer in enumerate(cache.layers):
            for name in "kv":
                key = f"decoder.{i}.self_attention.{name}_cache.past"
                past = getattr(layer, name)
                feed[key] = zeros_of(kinds[key], empty) if past is None else past
        feed |= {name: array for name, array in memory.items() if name in kinds}
        found = run(self.decoder, feed)
        for i, layer in enumerate(cache.layers):
            layer.k = found[f"decoder.{i}.self_attention.k_cache"]
            layer.v = found[f"decoder.{i}.self_attention.v_cache"]
        return found["logits"][:, -placed.n_new :]

    def greedy(
        self, source: np.ndarray, valid: np.ndarray, start: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Logits of one step after another, [batch, vocab_size]."""
        memory = self.remember(source, valid)
        cache = Cache.empty(len(start), self.model.stacks["decoder"].n_layers)
        tokens = start
        while True:
            logits = self.decode(tokens, memory, cache)[:, -1]
            yield logits
            tokens = logits.argmax(axis=-1)[:, None]

    def write(self, source: np.ndarray, valid: np.ndarray) -> list[list[int]]:
        """The greedy tokens of each row, before eos."""
        rows: list[list[int]] = [[] for _ in source]
        alive = np.ones(len(source), bool)
        steps = self.greedy(source, valid, np.full((len(source), 1), self.model.bos_id))
        for _, logits in zip(range(MAX_NEW_TOKENS), steps, strict=False):
            tokens = logits.argmax(axis=-1)
            alive &= ~np.isin(tokens, self.model.eos_ids)
            for row in np.flatnonzero(alive):
                rows[row].append(int(tokens[row]))
            if not alive.any():
                break
        return rows


def given(tokens: np.ndarray, turn: Rotation, masks: dict[int | None, np.ndarray]) -> Arrays:
    """The inputs that both graphs have."""
    feed = {"tokens": tokens.astype(np.int64)}
    for name in ("cos", "sin"):
        angles = getattr(turn, name).astype(np.float32)
        feed[name] = np.broadcast_to(angles, (len(tokens), *angles.shape[1:]))
    names = {w: "mask" if w is None else "mask.window" for w in masks}
    return feed | {names[w]: mask for w, mask in masks.items()}


def run(graph: onnxruntime.InferenceSession, feed: Arrays) -> Arrays:
    feed = {name: np.ascontiguousarray(array) for name, array in feed.items()}
    names = [x.name for x in graph.get_outputs()]
    return dict(zip(names, graph.run(names, feed), strict=True))


# -- floats ----------------------------------------------------------------------------------------


@dataclass
class Difference:
    """Of two runs of one model in float32."""

    logits: float = 0.0  # largest
    n_tokens: int = 0  # compared
    same: bool = True  # are all greedy ids equal?

    def take(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Take in logits, [n, vocab_size]."""
        self.n_tokens += len(ours)
        self.logits = max(self.logits, float(np.abs(ours - theirs).max(initial=0)))
        self.same &= bool((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).all())

    @property
    def passes(self) -> bool:
        return self.same and self.n_tokens > 0 and self.logits <= LARGEST_DIFFERENCE


def compare_greedy(
    written: Written,
    ops: Ops,
    source: np.ndarray,
    valid: np.ndarray,
    steps: int,
    *,
    to_the_end: bool,
) -> Difference:
    """Write greedily with both; a row counts until it has ended, if it may."""
    model, found = written.model, Difference()
    start = np.full((len(source), 1), model.bos_id)
    memory = mu.remember(ops, model, source, valid)
    ours = stream(
        ops, model, memory, start, np.ones(start.shape, bool), steps, stop_at_eos=to_the_end
    )
    alive = np.ones(len(source), bool)
    for step, theirs in zip(ours, written.greedy(source, valid, start), strict=False):
        found.take(step.logits[alive], theirs[alive])
        alive &= ~step.ended if to_the_end else True
        if not found.same:
            break
    return found


def check_queries(n: int, folder: Path, batch_size: int = 50) -> Difference:
    """Compare mu-nano on evenly spread validation queries."""
    agent = load_agent()
    export_onnx(folder, None, "float32")
    written, found = Written.open(folder), Difference()
    for rows in batches_of(agent, queries(n), batch_size):
        source, valid = pad(rows, agent.model.pad_id)
        part = compare_greedy(written, agent.ops, source, valid, MAX_NEW_TOKENS, to_the_end=True)
        found = Difference(
            max(found.logits, part.logits), found.n_tokens + part.n_tokens, found.same & part.same
        )
    return found


def check_checkpoint(name: str, folder: Path) -> Difference:
    """Compare a checkpoint: 12 greedy tokens of both, and what the original project wrote."""
    loaded = load_model(CHECKPOINTS / name)
    export_onnx(folder, CHECKPOINTS / name, "float32")
    arrays: Arrays = {}
    for path in sorted((CHECKPOINTS / name).glob("*.npz")):
        with np.load(path) as file:
            arrays |= {key: file[key] for key in file.files}
    source = arrays["encoder_input_ids"].astype(np.int64)
    valid = arrays.get("encoder_attention_mask", source != loaded.model.pad_id).astype(bool)
    written, wanted = Written.open(folder), arrays["greedy_ids"]
    steps = wanted.shape[1] - 1
    found = compare_greedy(written, loaded.ops, source, valid, steps, to_the_end=False)
    theirs = written.greedy(source, valid, wanted[:, :1])
    ids = np.stack([next(theirs).argmax(axis=-1) for _ in range(steps)], axis=1)
    found.same &= np.array_equal(ids, wanted[:, 1:])
    # All of the original's decoder input at once, without a cache.
    target = arrays["decoder_input_ids"].astype(np.int64)
    cache = Cache.empty(len(target), loaded.model.stacks["decoder"].n_layers)
    logits = written.decode(target, written.remember(source, valid), cache)
    counted = mu.decoder_valid(loaded.model, target)
    found.take(
        mu.forward(loaded.ops, loaded.model, source, valid, target)[counted], logits[counted]
    )
    found.take(arrays["logits"][counted], logits[counted])
    return found


# -- integers --------------------------------------------------------------------------------------


@dataclass
class Agreement:
    """Of the QDQ graphs and our integers, on queries."""

    n: int
    ours: float  # exact match
    theirs: float
    same: float  # share of equal answers

    @property
    def passes(self) -> bool:
        return abs(self.ours - self.theirs) <= LARGEST_LOSS + 1e-9  # a whole point may be it


def check_integers(scheme: str, n: int, folder: Path, *, optimized: bool = True) -> Agreement:
    """Compare the answers of a scheme."""
    agent, items = load_agent(scheme=scheme, executor="fast"), queries(n)
    export_onnx(folder, None, scheme)
    written = Written.open(folder, optimized=optimized)
    theirs: list[str] = []
    for rows in batches_of(agent, items, 50):
        source, valid = pad(rows, agent.model.pad_id)
        theirs += [agent.tokenizer.decode(ids) for ids in written.write(source, valid)]
    ours = [answer.text for answer in answer_all(agent, items, Console(stderr=True))]
    n_right = [
        sum(text == item.call for text, item in zip(texts, items, strict=True))
        for texts in (ours, theirs)
    ]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Agreement(
        len(items), n_right[0] / len(items), n_right[1] / len(items), same / len(items)
    )


def queries(n: int) -> list[LabelledQuery]:
    """n of the validation queries, by length, so that batches have little padding."""
    items = evenly_spread(read_queries(SETTINGS / "validation.jsonl"), n)
    return sorted(items, key=lambda item: len(item.query))


def batches_of(agent: Agent, items: list[LabelledQuery], size: int) -> Iterator[list[list[int]]]:
    rows = [agent.source_tokens(item.query) for item in items]
    yield from (rows[i : i + size] for i in range(0, len(rows), size))


def main(n: int) -> int:
    passed = []
    with tempfile.TemporaryDirectory() as folder:
        place_for = Path(folder).joinpath
        print(f"onnxruntime {onnxruntime.__version__} against ours")
        names = sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))
        for name in ("mu-nano", *names):
            if name == "mu-nano":
                found = check_queries(n, place_for(name))
            else:
                found = check_checkpoint(name, place_for(name))
            ids = "equal" if found.same else "DIFFERENT"
            print(f"{name:20} float32  {found.logits:.1e}  ids {ids} ({found.n_tokens} tokens)")
            passed.append(found.passes)
        for scheme in ("w8a16", "w8a8"):
            for optimized in (True, False):
                at = place_for(f"{scheme}-{optimized}")
                a = check_integers(scheme, n, at, optimized=optimized)
                how = "as it is" if optimized else "no fusion"
                print(
                    f"{'mu-nano':20} {scheme:7} exact match {100 * a.ours:.2f} % ours, "
                    f"{100 * a.theirs:.2f} % theirs, {100 * a.same:.2f} % the same answers, "
                    f"{a.n} queries, optimizer: {how}"
                )
                passed.append(a.passes)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
