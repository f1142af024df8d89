"""Mu in one file: from a sentence to a call that changes a Windows setting, in plain NumPy.

    python docs/mu_in_one_file.py "my eyes hurt at night, make the screen warmer"

It reads the tokenizer and the weights of mu-nano, a Mu of 5 million parameters. A comment [n, d] is
the shape that its line makes. `mu_ref/model` is the same over a vocabulary of operations, equal bit
for bit (`tests/test_one_file.py`); `docs/mu_int8_in_one_file.py` is this program in integers.
"""

import json
import re
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

DATA = Path(__file__).resolve().parents[1] / "mu_ref/settings/data"
N_ENCODER, N_DECODER = 8, 3  # layers
D, N_HEADS, N_KV_HEADS, D_HEAD = 192, 6, 3, 32  # two query heads read one key head
BOS, EOS, LIMIT = 1, 2, 32  # first token of the answer, end of a text, tokens written at most
EPS, THETA = np.float32(1e-6), 10_000.0
W = {name: w.astype(np.float32) for name, w in load_file(DATA / "mu-nano.safetensors").items()}

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


# -- what a layer is made of -------------------------------------------------------------------
def embed(tokens: list[int]) -> np.ndarray:
    """Look up a row for each token; sqrt(D) brings it to the size of what layers add."""
    return W["embedding.weight"][tokens] * np.float32(D**0.5)  # [n, D]


def linear(x: np.ndarray, site: str) -> np.ndarray:
    """Apply y = x W^T + b; einsum sums each output alone: a row's bits do not depend on n."""
    return np.einsum("nk,mk->nm", x, W[f"{site}.weight"]) + W[f"{site}.bias"]  # [n, d_out]


def norm(x: np.ndarray, site: str) -> np.ndarray:
    """Bring each row to unit root mean square, then scale every feature by its learned gain."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS) * W[f"{site}.weight"]


def gelu(x: np.ndarray) -> np.ndarray:
    """Let large numbers through, and hold negative ones back."""
    inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def rope(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Turn pair (i, i + d/2) of a head by position times speed, the first pair fastest."""
    angles = positions[:, None] * THETA ** -(np.arange(0, D_HEAD, 2) / D_HEAD)  # [n, d_head / 2]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    x1, x2 = np.split(x, 2, axis=-1)  # each [heads, n, d_head / 2]
    return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)  # [heads, n, d_head]


def ordered_sum(x: np.ndarray, axis: int) -> np.ndarray:
    """Sum from the first key to the last: a key more, weighing 0, then changes no bit."""
    return np.take(np.add.accumulate(x, axis=axis), [-1], axis=axis)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores into weights that sum to 1; a score of -inf weighs nothing."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / ordered_sum(e, axis=-1)


# -- attention and the MLP ---------------------------------------------------------------------
def heads(x: np.ndarray, n_heads: int) -> np.ndarray:
    """Give every head its D_HEAD features of each token."""
    return x.reshape(len(x), n_heads, D_HEAD).transpose(1, 0, 2)  # [n_heads, n, d_head]


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, site: str) -> np.ndarray:
    """Let each query read a mean of the values, weighted by how well the keys fit."""
    k, v = (np.repeat(x, N_HEADS // N_KV_HEADS, axis=0) for x in (k, v))  # [n_heads, n_key, d_head]
    scores = np.einsum("hnd,hkd->hnk", q, k) * np.float32(D_HEAD**-0.5)  # [n_heads, n, n_key]
    weights = softmax(np.where(mask, scores, np.float32(-np.inf)))  # [n_heads, n, n_key]
    mixed = ordered_sum(weights[..., None] * v[:, None], axis=2)[:, :, 0]  # [n_heads, n, d_head]
    return linear(mixed.transpose(1, 0, 2).reshape(len(mixed[0]), D), f"{site}.o")  # [n, D]


def self_attention(x: np.ndarray, at: np.ndarray, cache: list, causal: bool, site: str):
    """Let tokens read each other and, through the cache, those of earlier steps."""
    q = rope(heads(linear(x, f"{site}.q"), N_HEADS), at)  # [n_heads, n, d_head]
    k = rope(heads(linear(x, f"{site}.k"), N_KV_HEADS), at)  # [n_kv_heads, n, d_head]
    v = heads(linear(x, f"{site}.v"), N_KV_HEADS)  # [n_kv_heads, n, d_head]
    cache.append((k, v))
    k, v = (np.concatenate(past, axis=1) for past in zip(*cache, strict=True))  # n becomes n_key
    seen = np.tri(len(x), k.shape[1], k.shape[1] - len(x), dtype=bool)  # [n, n_key]: none ahead
    return attend(q, k, v, seen if causal else np.ones_like(seen), site)


def cross_attention(x: np.ndarray, memory: tuple, site: str) -> np.ndarray:
    """Let the decoder read the encoder's output, of which memory holds the keys and values."""
    k, v = memory  # [n_kv_heads, n_src, d_head]
    q = heads(linear(x, f"{site}.q"), N_HEADS)  # [n_heads, n, d_head], not turned, as k is not
    return attend(q, k, v, np.ones((len(x), k.shape[1]), bool), site)


def mlp(x: np.ndarray, site: str) -> np.ndarray:
    """Think about each token alone, in four times the width."""
    return linear(gelu(linear(x, f"{site}.up")), f"{site}.down")  # [n, 4 D], then [n, D]


def residual(x: np.ndarray, sublayer, site: str) -> np.ndarray:
    """Add what a sub-layer makes of the normed stream, itself normed: Mu's dual norm."""
    return x + norm(sublayer(norm(x, f"{site}.pre_norm"), site), f"{site}.post_norm")


# -- the whole model ---------------------------------------------------------------------------
def encode(tokens: list[int]) -> np.ndarray:
    """Read the whole query at once, every token seeing every other."""
    x, at = embed(tokens), np.arange(len(tokens)) - (len(tokens) - 1) // 2  # [n_src, D], [n_src]
    for layer in (f"encoder.{i}" for i in range(N_ENCODER)):
        x = residual(x, lambda h, s: self_attention(h, at, [], False, s), f"{layer}.self_attention")
        x = residual(x, mlp, f"{layer}.mlp")
    return norm(x, "encoder.final_norm")  # [n_src, D]


def remember(hidden: np.ndarray) -> list[tuple]:
    """Compute once what each decoder layer will read of the encoder: keys and values."""
    sites = [f"decoder.{i}.cross_attention" for i in range(N_DECODER)]
    return [tuple(heads(linear(hidden, f"{s}.{w}"), N_KV_HEADS) for w in "kv") for s in sites]


def decode(tokens: list[int], start: int, memory: list[tuple], caches: list[list]) -> np.ndarray:
    """Score what may follow each new token; the first of them stands at position start."""
    x, at = embed(tokens), start + np.arange(len(tokens))  # [n, D], [n]
    for i in range(N_DECODER):
        own, cross = f"decoder.{i}.self_attention", f"decoder.{i}.cross_attention"
        x = residual(x, lambda h, s, i=i: self_attention(h, at, caches[i], True, s), own)
        x = residual(x, lambda h, s, i=i: cross_attention(h, memory[i], s), cross)
        x = residual(x, mlp, f"decoder.{i}.mlp")
    x = norm(x, "decoder.final_norm")  # [n, D]
    return np.einsum("nk,mk->nm", x, W["embedding.weight"])  # [n, vocabulary]: logits, tied head


def write(query: str) -> str:
    """Take the likeliest token again and again, until the text ends."""
    memory, caches, written = remember(encode(tokens_of(query))), [[] for _ in range(N_DECODER)], []
    while len(written) < LIMIT and written[-1:] != [EOS]:
        logits = decode((written or [BOS])[-1:], len(written), memory, caches)  # [1, vocabulary]
        written.append(int(np.argmax(logits[0])))
    return text_of(written)


if __name__ == "__main__":
    print(write(" ".join(sys.argv[1:]) or "my eyes hurt at night, make the screen warmer"))
