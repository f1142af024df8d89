"""The forward pass restated token by token and head by head, and where dropout stands."""

import math
from dataclasses import replace

import numpy as np
import pytest
from strategies import random_weights

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache, LayerCache, Placement
from mu_ref.model.decoder import decode
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny

Arrays = dict[str, np.ndarray]
EVERY_SWITCH = {
    "norm_kind": "layer", "gated": True, "activation": "silu", "attention_softcap": 1.5,
    "kv_head_map": "cyclic", "embed_norm": True, "embed_scale": 3.0, "rope_ntk_factor": 2.0,
    "rope_base_len": 3, "window": 2, "windowed_layers": (True, False), "attention_scale": 0.7,
    "rope_factor": 2.5, "window_inclusive": False,
}  # fmt: skip
MODELS = {
    "as Mu": tiny(),
    "every switch": replace(tiny(**EVERY_SWITCH), final_softcap=2.0, tied_head=False,
                            head_bias=True),
    "plus one, before only": tiny(norm_kind="rms_plus_one", norm_placement="pre", activation="relu",
                                  windowed_layers=(False, True), window=1),
    "gated, padded": replace(
        tiny(gated=True, activation="gelu", rope_length="padded", mlp_bias=False), head_bias=True,
        shared_embedding=False, encoder_vocab_size=50),
}  # fmt: skip


def norm(x: np.ndarray, weights: Arrays, site: str, stack: StackConfig) -> np.ndarray:
    gain = weights[f"{site}.weight"] + (stack.norm_kind == "rms_plus_one")
    if stack.norm_kind == "layer":
        x = x - x.mean()
    y = x / math.sqrt((x * x).mean() + stack.norm_eps) * gain
    return y + weights[f"{site}.bias"] if stack.norm_kind == "layer" else y


def linear(x: np.ndarray, weights: Arrays, site: str) -> np.ndarray:
    return weights[f"{site}.weight"] @ x + weights.get(f"{site}.bias", 0)


ACTIVATIONS = {
    "silu": lambda v: v / (1 + math.exp(-v)),
    "relu": lambda v: max(v, 0.0),
    "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "gelu_tanh": lambda v: v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2,
}


def turned(x: np.ndarray, position: float, theta: float) -> np.ndarray:
    """Turn the pair (i, i + d/2) by position * theta^(-2i/d)."""
    half, y = len(x) // 2, x.copy()
    for i in range(half):
        angle = position * theta ** (-2 * i / len(x))
        y[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        y[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return y


def attention(q, keys, values, sees, stack: StackConfig) -> np.ndarray:
    """Each of q [n_heads * d_head] reads those keys and values [n_kv_heads * d_head] it sees."""
    d, out = stack.d_head, []
    for head in range(stack.n_heads):
        shared = stack.n_heads // stack.n_kv_heads
        kv = head % stack.n_kv_heads if stack.kv_head_map == "cyclic" else head // shared
        of_head, of_kv = slice(head * d, head * d + d), slice(kv * d, kv * d + d)
        scores = np.array([q[of_head] @ key[of_kv] for key in keys]) * stack.attention_scale
        if stack.attention_softcap:
            scores = stack.attention_softcap * np.tanh(scores / stack.attention_softcap)
        e = np.exp(scores) * sees
        out.append(e / e.sum() @ np.array([value[of_kv] for value in values]))
    return np.concatenate(out)


def by_head(x: np.ndarray, d: int, position: float, theta: float) -> np.ndarray:
    return np.concatenate([turned(x[i : i + d], position, theta) for i in range(0, len(x), d)])


def stack_by_formula(
    model: ModelConfig, weights: Arrays, name: str, tokens: list[int], length: int, memory: list
) -> list[np.ndarray]:
    """Run one stack on one row without padding; `length` is what RoPE takes it for."""
    stack, n = model.stacks[name], len(tokens)
    table = weights[f"{model.embedding_site(name)}.weight"]
    xs = [table[token] * stack.embed_scale for token in tokens]
    if stack.embed_norm:
        xs = [norm(x, weights, f"{name}.embed_norm", stack) for x in xs]
    theta, s = stack.rope_theta, stack.rope_ntk_factor
    if s > 1:
        stretch = s * max(length, stack.rope_base_len) / stack.rope_base_len - (s - 1)
        theta *= stretch ** (stack.d_head / (stack.d_head - 2))
    start = -((length - 1) // 2) if stack.rope_origin == "centre" else 0

    def added(x, update, site):
        if stack.norm_placement == "dual":
            update = norm(update, weights, f"{site}.post_norm", stack)
        return x + update

    for layer in range(stack.n_layers):
        at = f"{name}.{layer}.self_attention"
        hs = [norm(x, weights, f"{at}.pre_norm", stack) for x in xs]
        places = [(start + i) / stack.rope_factor for i in range(n)]
        q, k = ([by_head(linear(h, weights, f"{at}.{part}"), stack.d_head, place, theta)
                 for h, place in zip(hs, places, strict=True)] for part in "qk")  # fmt: skip
        v = [linear(h, weights, f"{at}.v") for h in hs]
        window = stack.window if stack.windowed_layers[layer] else None
        for i in range(n):
            apart = i - np.arange(n)
            sees = apart >= 0 if name == "decoder" else np.full(n, True)
            if window is not None:
                last = window if name == "encoder" and stack.window_inclusive else window - 1
                sees &= (apart if name == "decoder" else abs(apart)) <= last
            mixed = attention(q[i], k, v, sees, stack)
            xs[i] = added(xs[i], linear(mixed, weights, f"{at}.o"), at)
        if memory:
            at = f"{name}.{layer}.cross_attention"
            keys, values = ([linear(m, weights, f"{at}.{part}") for m in memory] for part in "kv")
            for i in range(n):
                h = norm(xs[i], weights, f"{at}.pre_norm", stack)
                q_i = linear(h, weights, f"{at}.q")
                mixed = attention(q_i, keys, values, np.full(len(memory), True), stack)
                xs[i] = added(xs[i], linear(mixed, weights, f"{at}.o"), at)
        at = f"{name}.{layer}.mlp"
        for i in range(n):
            h = norm(xs[i], weights, f"{at}.pre_norm", stack)
            up, act = linear(h, weights, f"{at}.up"), np.vectorize(ACTIVATIONS[stack.activation])
            inner = act(linear(h, weights, f"{at}.gate")) * up if stack.gated else act(up)
            xs[i] = added(xs[i], linear(inner, weights, f"{at}.down"), at)
    return [norm(x, weights, f"{name}.final_norm", stack) for x in xs]


def logits_by_formula(model: ModelConfig, weights: Arrays, hidden: np.ndarray) -> np.ndarray:
    scores = weights[f"{model.head_site}.weight"] @ hidden + weights.get("head.bias", 0)
    cap = model.final_softcap
    return scores if cap is None else cap * np.tanh(scores / cap)


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_pass_restated(name: str) -> None:
    model = MODELS[name]
    weights = {n: w.astype(np.float64) for n, w in random_weights(model, 3).items()}
    source = np.array([[9, 4, 7, 3, 5, 8], [6, 5, 30, 0, 0, 0]])
    target = np.array([[1, 8, 20, 33, 4, 9, 11], [1, 44, 3, 7, 0, 0, 0]])
    valid = source != 0
    got = mu.forward(ReferenceOps(weights, np.float64), model, source, valid, target)
    for row, (n_src, n_tgt) in enumerate(((6, 7), (3, 4))):
        padded = model.stacks["decoder"].rope_length == "padded"
        lengths = (6, 7) if padded else (n_src, n_tgt)
        memory = stack_by_formula(
            model, weights, "encoder", source[row, :n_src].tolist(), lengths[0], []
        )
        hidden = stack_by_formula(
            model, weights, "decoder", target[row, :n_tgt].tolist(), lengths[1], memory
        )
        expected = [logits_by_formula(model, weights, h) for h in hidden]
        np.testing.assert_allclose(got[row, :n_tgt], expected, rtol=1e-9, atol=1e-9)


def test_dropout_stands_behind_embeddings_and_behind_every_sublayer(monkeypatch) -> None:
    sites = []

    def noted(self, x, site):
        sites.append(site)
        return x

    monkeypatch.setattr(ReferenceOps, "dropout", noted)
    model = tiny()
    source = target = np.array([[1, 5, 9]])
    mu.forward(ReferenceOps(random_weights(model, 0)), model, source, source > 0, target)
    layers = [f"encoder.{i}.{part}" for i in (0, 1) for part in ("self_attention", "mlp")]
    later = [f"decoder.{i}.{part}" for i in (0, 1)
             for part in ("self_attention", "cross_attention", "mlp")]  # fmt: skip
    assert sites == [
        "encoder.embed_dropout", *(f"{site}.dropout" for site in layers), "decoder.embed_dropout",
        *(f"{site}.dropout" for site in later),
    ]  # fmt: skip


def test_what_dropout_drops_is_dropped_for_good(monkeypatch) -> None:
    """Where everything is dropped, the stream is zero: logits are those of the final norm of 0."""
    monkeypatch.setattr(ReferenceOps, "dropout", lambda self, x, site: 0 * x)
    model = tiny()
    source = target = np.array([[1, 5, 9]])
    weights = random_weights(model, 0)
    logits = mu.forward(ReferenceOps(weights), model, source, source > 0, target)
    assert not logits.any()


# -- positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "valid", "positions"),
    [
        ("row", [1, 1, 1, 1, 0], [-1, 0, 1, 2, 2]),  # four tokens; a pad stays with the last one
        ("row", [1, 1, 0, 1, 0], [-1, 0, 0, 1, 1]),
        ("padded", [1, 1, 1, 1, 0], [-2, -1, 0, 1, 2]),
    ],
)
def test_positions_around_the_centre(length: str, valid: list[int], positions: list[int]) -> None:
    stack = replace(tiny(rope_length=length).stacks["encoder"], rope_origin="centre")
    assert positions_of(stack, np.array([valid], bool)).tolist() == [positions]


def test_the_base_of_angles_by_hand() -> None:
    stack = tiny(rope_ntk_factor=3.0, rope_base_len=4, rope_theta=100.0).stacks["decoder"]
    # 3 x 8 / 4 - 2 = 4, and 4 / (4 - 2) for heads of four; below the base length the stretch is 1
    assert rope_theta(stack, np.array([2, 4, 8])) == pytest.approx([100, 100, 100 * 4**2])
    assert rope_lengths(stack, np.array([[True, False, True]])).tolist() == [2]


# -- the cache -------------------------------------------------------------------------------------


def test_a_cache_keeps_its_first_slots_and_the_chosen_ones() -> None:
    keys = np.arange(2 * 1 * 5 * 2, dtype=np.float64).reshape(2, 1, 5, 2)
    cache = Cache([LayerCache(keys, -keys)], np.array([[5, 6, 7, 8, 9], [4, 3, 2, 1, 0]]),
                  np.ones((2, 5), bool))  # fmt: skip
    cache.positions = np.array([[0, 1, 2, 2, 3], [0, 1, 2, 3, 3]])
    index, kept = np.array([[3, 4], [3, 4]]), np.array([[True, True], [True, False]])
    cache.keep(ReferenceOps({}, np.float64), 2, index, kept)
    assert cache.tokens.tolist() == [[5, 6, 8, 9], [4, 3, 1, 0]]
    assert cache.positions.tolist() == [[0, 1, 2, 3], [0, 1, 3, 3]]
    assert cache.valid.tolist() == [[True] * 4, [True, True, True, False]]
    np.testing.assert_array_equal(cache.layers[0].k, keys[:, :, [0, 1, 3, 4]])
    np.testing.assert_array_equal(cache.layers[0].v, -keys[:, :, [0, 1, 3, 4]])


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_drafts_that_are_placed_score_as_the_texts_that_they_continue(factor: float) -> None:
    """Two continuations of one token, side by side, then one row against another of its length."""
    model = replace(tiny(rope_ntk_factor=factor, rope_base_len=2), encoder=None)
    weights = random_weights(model, 1)
    ops = ReferenceOps(weights, np.float64)
    cache = Cache.empty(1, 2)
    start = np.array([[1, 7, 9]])
    # the row is counted as long as its longest text from the beginning: angles do not change
    whole = Placement(np.arange(3)[None], np.array([5]), np.tri(3, dtype=bool)[None])
    decode(ops, model, start, start > 0, None, cache, whole)
    drafts = np.array([[20, 30, 31]])  # 20; 30, 31 in its place
    sees = np.array([[[1, 0, 0], [0, 1, 0], [0, 1, 1]]], bool)
    placement = Placement(np.array([[3, 3, 4]]), np.array([5]), sees)
    got = decode(ops, model, drafts, drafts > 0, None, cache, placement)
    for text, at in (([1, 7, 9, 20], 0), ([1, 7, 9, 30], 1), ([1, 7, 9, 30, 31], 2)):
        hidden = stack_by_formula(model, weights, "decoder", text, 5, [])[-1]
        np.testing.assert_allclose(got[0, at], hidden, rtol=1e-9, atol=1e-9)


def test_a_row_that_grows_is_turned_anew_and_a_row_that_ends_is_not() -> None:
    """NTK: with its fourth token a row passes the base length of three; the other stays at two."""
    model = replace(tiny(rope_ntk_factor=2.0, rope_base_len=3), encoder=None)
    weights = random_weights(model, 1)
    ops, cache = ReferenceOps(weights, np.float64), Cache.empty(2, 2)
    tokens = np.array([[1, 7, 9, 20], [1, 8, 30, 40]])
    valid = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    first = decode(ops, model, tokens[:, :3], valid[:, :3], None, cache)
    then = decode(ops, model, tokens[:, 3:], valid[:, 3:], None, cache)
    assert (first.shape, then.shape) == ((2, 3, 16), (2, 1, 16))
    for got, row, text in ((first[0], 0, [1, 7, 9]), (first[1, :2], 1, [1, 8])):
        expected = stack_by_formula(model, weights, "decoder", text, len(text), [])
        np.testing.assert_allclose(got[: len(text)], expected, rtol=1e-9, atol=1e-9)
        assert cache.theta[row] == pytest.approx([1e4 * (2 * 4 / 3 - 1) ** 2, 1e4][row])
    last = stack_by_formula(model, weights, "decoder", [1, 7, 9, 20], 4, [])[-1]
    np.testing.assert_allclose(then[0, 0], last, rtol=1e-9, atol=1e-9)
