"""Mu in one file, in integers: 8-bit weights, 16-bit activations, no float in the path of a number.

    python docs/mu_int8_in_one_file.py "my eyes hurt at night, make the screen warmer"

The program is `docs/mu_in_one_file.py`, function by function; what differs is the lesson. A value
is integers q and a scale s: it stands for the real numbers s q. Scales are known before the first
token. They only decide by which integer, and by how many binary places, a sum is brought to the
scale of the place it goes to, its site. The rules are those of `docs/integer.md`, whose equations
are named here; every integer is that of `mu_ref`'s executor (`tests/test_one_file.py`).
"""

import json
import re
import sys
import unicodedata
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open

DATA = Path(__file__).resolve().parents[1] / "mu_ref/settings/data"
N_ENCODER, N_DECODER = 8, 3  # layers
D, N_HEADS, N_KV_HEADS, D_HEAD = 192, 6, 3, 32  # two query heads read one key head
BOS, EOS, LIMIT = 1, 2, 32  # first token of the answer, end of a text, tokens written at most
EPS, THETA = 1e-6, 10_000.0
with safe_open(DATA / "mu-nano-w8a16.safetensors", "np") as file:
    W = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    ENCODINGS = json.loads(file.metadata()["activations"])
SCALE = {site: encoding["scale"] for site, encoding in ENCODINGS.items()}  # of 16-bit results
TABLES = json.loads((DATA.parents[1] / "integers/tables.json").read_text(encoding="utf-8"))

# -- text and tokens ---------------------------------------------------------------------------
FILE = json.loads((DATA / "tokenizer.json").read_text(encoding="utf-8"))["model"]
VOCAB, RANK = FILE["vocab"], {tuple(pair): rank for rank, pair in enumerate(FILE["merges"])}
PIECES = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[^\W\d_]+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
OTHERS = [b for b in range(256) if b not in PRINTED]  # the rest is written as U+0100, U+0101, ...
LETTER = {b: chr(b) for b in PRINTED} | {b: chr(256 + i) for i, b in enumerate(OTHERS)}


def tokens_of(query: str) -> list[int]:
    """Cut a text into pieces, start each from its bytes, and merge the pair learned first."""
    text = unicodedata.normalize("NFKC", " " + " ".join(query.split())).lower()
    tokens = []
    for part in re.split(r"(\d)", text):  # a digit is a piece of its own
        for piece in [part] if part.isdigit() else PIECES.findall(part):
            symbols = [LETTER[byte] for byte in piece.encode()]
            while known := [pair for pair in pairwise(symbols) if pair in RANK]:
                pair = min(known, key=RANK.__getitem__)
                i = list(pairwise(symbols)).index(pair)
                symbols[i : i + 2] = ["".join(pair)]
            tokens += [VOCAB[symbol] for symbol in symbols]
    return [*tokens, EOS]


def text_of(tokens: list[int]) -> str:
    """Put the bytes of tokens together."""
    symbols, byte = list(VOCAB), {letter: b for b, letter in LETTER.items()}  # token i is symbol i
    spelled = "".join(symbols[token] for token in tokens if token != EOS)
    return bytes(byte[letter] for letter in spelled).decode("utf-8", "replace")


# -- whole numbers for real ones: the part that floats do not need ------------------------------


class Fixed(NamedTuple):
    """Integers q that stand for the real numbers s q."""

    q: np.ndarray  # int64, within 16 bits
    s: float


def shift_right(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Divide by 2^t and round to the nearest integer, ties up."""
    return np.where(t > 62, 0, (x + (np.int64(1) << np.minimum(t, 62) - 1)) >> np.minimum(t, 62))


def multiplier(d: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Write each factor d as m 2^(shift - 31), m of 31 bits (5.2): the last float there is."""
    fraction, shift = np.frexp(d)  # d = fraction 2^shift, 1/2 <= fraction < 1
    m = np.floor(fraction * 2**31 + 0.5).astype(np.int64)
    m, shift = np.where(m == 2**31, 2**30, m), shift.astype(np.int64) + (m == 2**31)
    return np.where(shift < -31, 0, m), np.where(shift < -31, 0, shift)


def narrow(total: np.ndarray, d: np.ndarray | float) -> np.ndarray:
    """Bring a 32-bit sum to another scale (5.3)."""
    m, shift = multiplier(d)
    return shift_right(total * m, 31 - shift)


def wide(total: np.ndarray, d: np.ndarray | float) -> np.ndarray:
    """Bring a 48-bit sum to another scale, with 15 bits of m, so that 64 bits hold it (5.4)."""
    m, shift = multiplier(d)
    return shift_right(total * np.minimum((m + 2**15) >> 16, 0x7FFF), 15 - shift)


def stored(steps: np.ndarray, site: str) -> Fixed:
    """Clip to 16 bits, and say what they stand for."""
    return Fixed(np.clip(steps, -(2**15), 2**15 - 1), SCALE[site])


def read(table: str, x: np.ndarray, f: int, drop: int = 0) -> np.ndarray:
    """Read a table at x / 2^f, on a straight line between two points, `drop` bits shorter (5.6)."""
    points = np.array(TABLES[table])
    i = np.minimum(x >> f, len(points) - 2)
    low, high = points[i], points[i + 1]
    return shift_right((low << f) + (high - low) * (x - (i << f)), np.int64(f + drop))


def turns() -> np.ndarray:
    """How far a position turns each pair, in units of 2^-64 turns (5.7); a port copies these."""
    pi = Decimal(
        "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899"
    )
    with localcontext(prec=50):
        speeds = [(-Decimal(THETA).ln() * 2 * i / D_HEAD).exp() for i in range(D_HEAD // 2)]
        return np.array([round(s / (2 * pi) * 2**64) for s in speeds], np.uint64)  # [d_head / 2]


TURNS = turns()


def sine(place: np.ndarray) -> np.ndarray:
    """Sine in units of 2^-15 of an angle in units of 2^-32 turns: a quarter of it is tabulated."""
    quarter, within = (place >> 30) & 3, place & (2**30 - 1)
    within = np.where(quarter & 1, 2**30 - within, within)
    size = read("sine", within, 20, drop=15)
    return np.where(quarter >= 2, -size, size)


# -- what a layer is made of -------------------------------------------------------------------


def embed(tokens: list[int]) -> Fixed:
    """Look up a row for each token, each with a scale of its own; sqrt(D) costs nothing here."""
    rows, scales = W["embedding.weight"][tokens], W["embedding.weight_scale"][tokens, None]
    d = scales.astype(np.float64) / SCALE["embedding"]  # [n, 1]
    x = stored(narrow(rows.astype(np.int64), d), "embedding")  # [n, D]
    return Fixed(x.q, x.s * D**0.5)


def linear(x: Fixed, site: str) -> Fixed:
    """Sum integer products, add the bias, bring each feature from its scale to the site's."""
    total = np.einsum("nk,mk->nm", x.q, W[f"{site}.weight"].astype(np.int64)) + W[f"{site}.bias"]
    d = W[f"{site}.weight_scale"].astype(np.float64) * x.s / SCALE[site]  # [d_out]
    return stored(wide(total, d), site)  # [n, d_out]


def norm(x: Fixed, site: str) -> Fixed:
    """Divide by the root of the sum of squares, read from a table of 1 / sqrt on [1, 4)."""
    squares = (x.q * x.q).sum(axis=-1, keepdims=True)  # [n, 1]
    squares = squares + round(EPS * D / x.s**2)
    gain, gain_scale = W[f"{site}.weight"].astype(np.int64), float(W[f"{site}.weight_scale"][0])
    m, shift = multiplier(gain_scale * D**0.5 / SCALE[site])
    bits = np.array([[int(r).bit_length()] for r in squares[:, 0]])  # [n, 1]
    k = (bits - 31) >> 1  # squares / 4^k has 31 or 32 bits
    part = np.where(k > 0, squares >> np.maximum(2 * k, 0), squares << np.maximum(-2 * k, 0))
    m = (read("rsqrt", part - 2**30, 22) * m) >> 30
    return stored(shift_right(x.q * gain * m, 31 - (shift - 15 - k)), site)


def gelu(x: Fixed, site: str) -> Fixed:
    """Multiply x by a gate between 0 and 1, from a table of positive arguments up to 16."""
    at = narrow(x.q, x.s * 2**16)  # the argument in units of 2^-16
    gate = read("gate_gelu_tanh", np.minimum(np.abs(at), 16 << 16), 9, drop=1)
    gate = np.where(at < 0, 2**15 - gate, gate)
    return stored(narrow(x.q * gate, x.s * 2**-15 / SCALE[site]), site)


def rope(x: Fixed, positions: np.ndarray, site: str) -> Fixed:
    """Turn pair (i, i + d/2) of a head: 64 bits of a turn wrap around by themselves."""
    place = ((positions.astype(np.uint64)[:, None] * TURNS) >> np.uint64(32)).astype(np.int64)
    cos, sin = sine(place + 2**30), sine(place)  # each [n, d_head / 2]
    x1, x2 = np.split(x.q, 2, axis=-1)  # each [heads, n, d_head / 2]
    total = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
    return stored(narrow(total, x.s * 2**-15 / SCALE[site]), site)  # [heads, n, d_head]


def softmax(scores: Fixed, mask: np.ndarray, site: str) -> Fixed:
    """Weigh by powers of two, of how far a score is below the largest; divide by their sum."""
    largest = np.where(mask, scores.q, -(2**16)).max(axis=-1, keepdims=True)
    below = np.where(mask, largest - scores.q, 0)
    u = np.minimum(narrow(below, scores.s * float(np.log2(np.e)) * 2**16), 31 << 16)
    e = np.where(mask, read("exp2", u & 0xFFFF, 8) >> (u >> 16), 0)  # 2^-u in units of 2^-30
    total = e.sum(axis=-1, keepdims=True)
    return stored(((e << 15) + (total >> 1)) // total, site)


# -- attention and the MLP ---------------------------------------------------------------------


def heads(x: Fixed, n_heads: int) -> Fixed:
    """Give every head its D_HEAD features of each token."""
    return Fixed(
        x.q.reshape(len(x.q), n_heads, D_HEAD).transpose(1, 0, 2), x.s
    )  # [n_heads, n, d_head]


def attend(q: Fixed, k: Fixed, v: Fixed, mask: np.ndarray, site: str) -> Fixed:
    """Let each query read a mean of the values, weighted by how well the keys fit."""
    kq, vq = (np.repeat(x.q, N_HEADS // N_KV_HEADS, axis=0) for x in (k, v))
    total = np.einsum("hnd,hkd->hnk", q.q, kq)  # [n_heads, n, n_key]
    scores = stored(wide(total, q.s * k.s / SCALE[f"{site}.scores"]), f"{site}.scores")
    scores = Fixed(scores.q, scores.s * D_HEAD**-0.5)  # the same integers, read otherwise
    weights = softmax(scores, mask, f"{site}.softmax")  # [n_heads, n, n_key]
    total = np.einsum("hnk,hkd->hnd", weights.q, vq)  # [n_heads, n, d_head]
    mixed = stored(wide(total, weights.s * v.s / SCALE[f"{site}.mix"]), f"{site}.mix")
    return linear(Fixed(mixed.q.transpose(1, 0, 2).reshape(-1, D), mixed.s), f"{site}.o")  # [n, D]


def self_attention(x: Fixed, at: np.ndarray, cache: list, causal: bool, site: str) -> Fixed:
    """Let tokens read each other and, through the cache, those of earlier steps."""
    q = rope(heads(linear(x, f"{site}.q"), N_HEADS), at, f"{site}.q_rope")  # [n_heads, n, d_head]
    k = rope(heads(linear(x, f"{site}.k"), N_KV_HEADS), at, f"{site}.k_rope")  # [n_kv_heads, ...]
    v = heads(linear(x, f"{site}.v"), N_KV_HEADS)  # [n_kv_heads, n, d_head]
    cache.append((k, v))
    kq, vq = (np.concatenate([x.q for x in past], axis=1) for past in zip(*cache, strict=True))
    seen = np.tri(len(x.q), kq.shape[1], kq.shape[1] - len(x.q), dtype=bool)  # [n, n_key]
    seen = seen if causal else np.ones_like(seen)
    return attend(q, Fixed(kq, k.s), Fixed(vq, v.s), seen, site)


def cross_attention(x: Fixed, memory: tuple, site: str) -> Fixed:
    """Let the decoder read the encoder's output, of which memory holds the keys and values."""
    k, v = memory  # [n_kv_heads, n_src, d_head]
    q = heads(linear(x, f"{site}.q"), N_HEADS)  # [n_heads, n, d_head], not turned, as k is not
    return attend(q, k, v, np.ones((len(x.q), k.q.shape[1]), bool), site)


def mlp(x: Fixed, site: str) -> Fixed:
    """Think about each token alone, in four times the width."""
    return linear(gelu(linear(x, f"{site}.up"), f"{site}.activation"), f"{site}.down")


def residual(x: Fixed, sublayer, site: str) -> Fixed:
    """Add what a sub-layer makes of the normed stream, two scales with one rounding (5.5)."""
    y = norm(sublayer(norm(x, f"{site}.pre_norm"), site), f"{site}.post_norm")
    site = f"{site}.residual"
    d_x, d_y = x.s / SCALE[site], y.s / SCALE[site]
    t = 31 - int(multiplier(max(d_x, d_y))[1])
    m_x, m_y = (int(np.floor(d * 2**t + 0.5)) for d in (d_x, d_y))
    return stored(shift_right(x.q * m_x + y.q * m_y, np.int64(t)), site)


# -- the whole model ---------------------------------------------------------------------------


def encode(tokens: list[int]) -> Fixed:
    """Read the whole query at once, every token seeing every other."""
    x, at = embed(tokens), np.arange(len(tokens)) - (len(tokens) - 1) // 2  # [n_src, D], [n_src]
    for layer in (f"encoder.{i}" for i in range(N_ENCODER)):
        x = residual(x, lambda h, s: self_attention(h, at, [], False, s), f"{layer}.self_attention")
        x = residual(x, mlp, f"{layer}.mlp")
    return norm(x, "encoder.final_norm")  # [n_src, D]


def remember(hidden: Fixed) -> list[tuple]:
    """Compute once what each decoder layer will read of the encoder: keys and values."""
    sites = [f"decoder.{i}.cross_attention" for i in range(N_DECODER)]
    return [tuple(heads(linear(hidden, f"{s}.{w}"), N_KV_HEADS) for w in "kv") for s in sites]


def decode(tokens: list[int], start: int, memory: list[tuple], caches: list[list]) -> Fixed:
    """Score what may follow each new token; the first of them stands at position start."""
    x, at = embed(tokens), start + np.arange(len(tokens))  # [n, D], [n]
    for i in range(N_DECODER):
        own, cross = f"decoder.{i}.self_attention", f"decoder.{i}.cross_attention"
        x = residual(x, lambda h, s, i=i: self_attention(h, at, caches[i], True, s), own)
        x = residual(x, lambda h, s, i=i: cross_attention(h, memory[i], s), cross)
        x = residual(x, mlp, f"decoder.{i}.mlp")
    x = norm(x, "decoder.final_norm")  # [n, D]
    total = np.einsum("nk,mk->nm", x.q, W["embedding.weight"].astype(np.int64))  # [n, vocabulary]
    d = W["embedding.weight_scale"].astype(np.float64) * x.s / SCALE["head"]
    return stored(wide(total, d), "head")  # logits, of the tied head


def write(query: str) -> str:
    """Take the likeliest token again and again, until the text ends; integers decide."""
    memory, caches, written = remember(encode(tokens_of(query))), [[] for _ in range(N_DECODER)], []
    while len(written) < LIMIT and written[-1:] != [EOS]:
        logits = decode((written or [BOS])[-1:], len(written), memory, caches)  # [1, vocabulary]
        written.append(int(np.argmax(logits.q[0])))
    return text_of(written)


if __name__ == "__main__":
    print(write(" ".join(sys.argv[1:]) or "my eyes hurt at night, make the screen warmer"))
