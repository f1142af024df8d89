"""Goldens of packing, acceptance, the cache and the training loss."""

from pathlib import Path

import numpy as np

from mu_ref.model.cache import Cache, LayerCache
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.tape import TapeOps
from mu_ref.readers.apple_redrafter import apple_name_of
from mu_ref.redrafter.apple import accept_apple, residual
from mu_ref.redrafter.beams import log_softmax
from mu_ref.redrafter.losses import draft_losses, draft_scores, total, windows
from mu_ref.redrafter.tree import pack, prefix_owner, unpack
from mu_ref.redrafter.verify import accept

from .comparison import Comparison, Golden, read
from .models import drafter_of


def check_trees(path: Path, found: Comparison) -> None:
    golden = read(path)
    for name in golden.prefixes():
        case = golden.under(name)
        beams = case["beams"]
        tree = pack(beams)
        n_packed = tree.nodes.shape[1]
        found.exact(f"{name} owners", prefix_owner(beams), case["prefix_tree"])
        found.exact(f"{name} sizes", tree.n_nodes, case["n_tokens_in_tree"])
        found.exact(f"{name} tokens", tree.packed(beams), case["packed_beams"])
        indices = tree.nodes % beams[0].size
        found.exact(f"{name} indices", indices, case["packed_token_indices"])
        found.exact(f"{name} unpacker", tree.unpacker, case["unpacker"])
        found.exact(f"{name} depths", tree.depths, case["position_offsets"])
        found.exact(f"{name} mask", tree.sees, case["tree_mask_packed_x_packed"])
        context = case["padding_mask"].astype(bool)[:, None]
        seen = np.broadcast_to(context, (len(beams), n_packed, context.shape[2]))
        whole = np.concatenate([seen, tree.sees], axis=2)
        found.exact(
            f"{name} whole mask", whole, case["attention_mask_packed_x_context_plus_packed"]
        )
        found.exact(
            f"{name} unpacked", unpack(case["unpack_demo_input"], tree), case["unpack_demo_output"]
        )


def check_greedy(path: Path, found: Comparison) -> None:
    golden = read(path)
    for name in golden.prefixes():
        case = golden.under(name)
        written = ReferenceOps({}).argmax(case["llm_logits"], "head.argmax")
        ours = accept(case["beams"], written)
        rows = np.arange(len(written))
        hidden = case["llm_last_hidden_states"][rows, ours.best_beam, ours.n_accepted]
        found.exact(f"{name} written", written, case["llm_greedy_tokens"])
        found.exact(f"{name} accepted", ours.n_accepted, case["n_accepted_draft_tokens"])
        found.exact(f"{name} beam", ours.best_beam, case["chosen_beam"])
        found.exact(f"{name} next", ours.next_token, case["next_init_token"])
        found.exact(f"{name} hidden", hidden, case["next_context_hidden_state"])


def check_sampling(path: Path, found: Comparison) -> None:
    golden = read(path)
    for name in golden.prefixes():
        case = golden.under(name)
        logits = case["llm_warped_logits"]
        log_p = log_softmax((logits / case["temperature"]).astype(logits.dtype))
        found.close(f"{name} log p", log_p, case["llm_log_probs_after_temperature"], 2e-5)
        log_q, uniform = case["drafter_log_probs"], case["uniform_random_numbers"]
        ours = accept_apple(case["beams"], log_p, log_q, uniform, np.random.default_rng(0))
        found.exact(f"{name} accepted", ours.n_accepted, case["n_accepted_draft_tokens"])
        found.exact(f"{name} beam", ours.best_beam, case["chosen_beam"])
        theirs = case["next_token_unnormalized_probs"]
        left = theirs.sum(axis=-1) > 0  # where nothing is left we fall back to p
        found.close(f"{name} weights", residual(log_p, log_q, ours)[left], theirs[left], 2e-5)
        rows = np.arange(len(logits))
        hidden = case["llm_last_hidden_states"][rows, ours.best_beam, ours.n_accepted]
        found.exact(f"{name} hidden", hidden, case["next_context_hidden_state"])


def check_cache(path: Path, found: Comparison) -> None:
    golden = read(path)
    for name in golden.prefixes():
        _check_cache_case(name, golden.under(name), found)


def _check_cache_case(name: str, case: Golden, found: Comparison) -> None:
    held = case["cache_after_verification_valid_part"]  # [layer, 2, batch, heads, P + N, d]
    before, beams, n_accepted = (
        case[key] for key in ("input_ids_before", "beams", "n_accepted_draft_tokens")
    )
    tree, n_past, rows = pack(beams), before.shape[1], np.arange(len(beams))
    found.exact(f"{name} unpacker", tree.unpacker, case["unpacker"])
    every = n_past + tree.unpacker.reshape(len(beams), -1)
    spread = np.take_along_axis(held, every[None, None, :, None, :, None], axis=4)
    whole = np.concatenate([held[..., :n_past, :], spread], axis=4)
    found.exact(f"{name} expanded", whole, case["cache_after_unpack_valid_part"])

    cache = Cache.empty(len(beams), len(held))
    cache.layers = [LayerCache(k, v) for k, v in held]
    cache.tokens = np.concatenate([before, tree.packed(beams)], axis=1)
    filled = before != int(case["pad_token"])
    left = np.where(filled.any(axis=1), np.argmax(filled, axis=1), n_past)  # leading pads
    context = np.arange(n_past) >= left[:, None]
    cache.valid = np.concatenate([context, np.ones(tree.nodes.shape, bool)], axis=1)
    cache.positions = np.zeros(cache.tokens.shape, np.int64)
    path = tree.unpacker[rows, case["chosen_beam"], : n_accepted.max() + 1]
    kept = np.arange(path.shape[1]) <= n_accepted[:, None]
    cache.keep(ReferenceOps({}), n_past, n_past + path, kept)
    for row, skip in enumerate(case["left_padding_count_after"]):
        seen = cache.valid[row]
        found.exact(f"{name} ids", cache.tokens[row, seen], case["input_ids_after"][row, skip:])
        theirs = case["cache_after_update_valid_part"][:, :, row, :, skip:]
        ours = np.stack([np.stack([x.k[row], x.v[row]]) for x in cache.layers])[..., seen, :]
        found.exact(f"{name} cache row {row}", ours, theirs)


def check_training(path: Path, found: Comparison) -> None:
    golden = read(path)
    for name in golden.prefixes():
        _check_loss(name, golden.under(name), found)


def _check_loss(name: str, case: Golden, found: Comparison) -> None:
    drafter, weights = drafter_of(case)
    logits_of = case["drafter_logits_next_n_first"]  # [n, batch, n_tok, vocab_size]
    n, batch, n_tok = logits_of.shape[:3]
    ops = TapeOps({key: w.astype(np.float64) for key, w in weights.items()})
    table = case["llm_token_embedding"].astype(np.float64)
    read_tokens = windows(case["input_ids"], n).reshape(-1, n + 1)
    labels = windows(case["labels_with_minus100_ignored"], n).reshape(-1, n + 1)
    place = np.tile(np.arange(n_tok), batch)
    hidden = case["llm_last_hidden_states"].reshape(-1, drafter.d_model).astype(np.float64)
    logits = draft_scores(ops, drafter, hidden, [table[read_tokens[:, i]] for i in range(n)])
    counted = [(labels[:, i + 1] >= 0) & (place + 2 + i < n_tok) for i in range(n)]
    for i, z in enumerate(logits):
        theirs = logits_of[i].reshape(-1, drafter.vocab_size)
        found.close(f"{name} logits {i}", z.value, theirs, 2e-5)
    losses = draft_losses(ops, logits, [labels[:, i + 1] for i in range(n)], counted)
    found.close(f"{name} losses", [x.value for x in losses], case["loss_per_next_n"], 2e-6)
    loss = total(ops, losses)
    found.close(f"{name} loss", loss.value, case["total_loss"], 4e-6)  # float32 near 17: 2e-6 a bit
    for i, k in np.ndindex(n, 3):
        top = ops.top_k(logits[i], k + 1, "drafter.top_k")
        hit = (top == labels[:, i + 1, None]).any(axis=1)[counted[i]].mean()
        theirs = case["top1_top2_top3_accuracy_per_next_n"][i, k]
        found.close(f"{name} accuracy {i} {k}", hit, theirs, 1e-6)
    for key, ours in ops.backward(loss).items():
        apple = _apple_key(key, drafter.n_blocks)
        theirs = case[f"gradient_of_total_loss_wrt__{apple}"]
        found.close(f"{name} gradient {key}", ours, theirs, 1e-6)


def _apple_key(key: str, n_blocks: int) -> str:
    """Apple's name of a weight, with dots as underscores; the map is the reader's."""
    names = ["rnn_u.weight", "rnn_u.bias", "rnn_w.weight", f"lm_head.{n_blocks}.weight"]
    names += [f"lm_head.{i}.linear.{p}" for i in range(n_blocks) for p in ("weight", "bias")]
    (found,) = (name for name in names if apple_name_of(name) == key)
    return found.replace(".", "_")
