"""Who may read whom, drawn by hand: rows are queries, columns keys, # may be read."""

import numpy as np
import pytest

from mu_ref.model.attention import attention_mask


def drawn(mask: np.ndarray) -> list[str]:
    assert mask.shape[:2] == (1, 1)
    return ["".join("#" if may else "." for may in row) for row in mask[0, 0]]


def mask_of(n: int, valid: str | None = None, **how) -> list[str]:
    positions = np.arange(n)[None]
    marks = np.array([[c == "#" for c in valid or "#" * n]])
    return drawn(attention_mask(positions, positions, marks, **how))


def test_an_encoder_token_reads_all() -> None:
    assert mask_of(3, causal=False, window=None) == ["###", "###", "###"]


def test_a_causal_token_reads_itself_and_what_precedes_it() -> None:
    assert mask_of(4, causal=True, window=None) == ["#...", "##..", "###.", "####"]


def test_a_causal_window_counts_the_token_itself() -> None:
    assert mask_of(4, causal=True, window=1) == ["#...", ".#..", "..#.", "...#"]
    assert mask_of(4, causal=True, window=2) == ["#...", "##..", ".##.", "..##"]


def test_an_encoder_window_reaches_so_many_tokens_to_each_side() -> None:
    assert mask_of(4, causal=False, window=1) == ["##..", "###.", ".###", "..##"]
    assert mask_of(5, causal=False, window=2) == ["###..", "####.", "#####", ".####", "..###"]


def test_padding_is_read_by_nobody_but_may_read() -> None:
    assert mask_of(3, "##.", causal=False, window=None) == ["##.", "##.", "##."]
    assert mask_of(3, "##.", causal=True, window=None) == ["#..", "##.", "##."]


@pytest.mark.parametrize(("window", "row"), [(None, "####."), (2, "..##."), (4, "####.")])
def test_a_query_in_the_middle_of_a_cache_is_placed_by_its_position(window, row) -> None:
    keys = np.arange(5)[None]
    mask = attention_mask(np.array([[3]]), keys, np.ones((1, 5), bool), causal=True, window=window)
    assert drawn(mask) == [row]


def test_slots_of_padding_between_tokens_take_no_place_in_the_window() -> None:
    """Slots 0, 1 and 4 hold tokens 0, 1 and 2; a window of 2 reads tokens 1 and 2."""
    positions = np.array([[0, 1, 1, 1, 2]])
    valid = np.array([[True, True, False, False, True]])
    assert drawn(attention_mask(positions[:, -1:], positions, valid, causal=True, window=2)) == [
        ".#..#"
    ]


def test_each_row_of_a_batch_has_its_own_mask() -> None:
    positions = np.array([[0, 1], [0, 0]])
    valid = np.array([[True, True], [True, False]])
    mask = attention_mask(positions, positions, valid, causal=False, window=None)
    assert mask.astype(int).tolist() == [[[[1, 1], [1, 1]]], [[[1, 0], [1, 0]]]]
