"""Turn text into tokens and back: a byte-level BPE in the file format of `tokenizers`.

Any text can be encoded, since all 256 bytes are in the vocabulary; upper case is folded away. This
file adds no special tokens: the caller puts `bos_id` and `eos_id` where the model wants them.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mu_ref.border.files import DATA, write_text
from mu_ref.border.ranges import SIZE, Range
from mu_ref.border.reading import read_text
from mu_ref.errors import InputError

__all__ = ["BOS", "EOS", "PAD", "Tokenizer", "train_tokenizer"]

PAD, BOS, EOS = "<pad>", "<s>", "</s>"  # ids 0, 1 and 2, in this order

PROBE = " wi-fi at 40 %, caf\u00e9"
_SMALLEST = 3 + 256  # special tokens and bytes
_NONE = -1  # marks a token that no merge made


class Tokenizer:
    """Encode and decode text; immutable, so threads may share one.

    >>> import mu_ref
    >>> tokenizer = mu_ref.Tokenizer.load()
    >>> tokens = tokenizer.encode(" Wi-Fi at 40 %")
    >>> tokenizer.decode(tokens)
    ' wi-fi at 40 %'
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # "</s>" typed by a user is text, not the end of it
        self._backend = backend

    @classmethod
    def load(cls, path: Path = DATA / "tokenizer.json") -> "Tokenizer":
        """Read a `tokenizer.json`; the one that ships with mu-nano by default.

        Args:
            path: file written by `save`, or by `tokenizers` with the same special tokens.

        Returns:
            The tokenizer.

        Raises:
            InputError: the file cannot be read, is not a tokenizer, or is another kind of one.
        """
        text = read_text(path, "a tokenizer.json", InputError)
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        # The library raises a bare Exception for a bad file, and for some a BaseException of Rust.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path} must be a tokenizer.json; it is not: {reason}") from error
        specials = [backend.token_to_id(token) for token in (PAD, BOS, EOS)]
        if specials != [0, 1, 2] or not isinstance(backend.model, models.BPE):
            raise InputError(
                f"tokenizer must be BPE with {PAD}=0, {BOS}=1 and {EOS}=2, got {path} with "
                f"{type(backend.model).__name__} and {specials}; use the file shipped with the "
                "weights"
            )
        tokenizer = cls(backend)
        tokenizer._check(path)
        return tokenizer

    def _check(self, path: Path) -> None:
        """Check that ids have no gap and that a text comes back as it went in."""
        vocabulary = self._backend.get_vocab()
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise InputError(f"{path} must number its tokens from 0, each once; it does not")
        missing = len(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys())
        if missing:
            raise InputError(f"{path} must have a token for each of the 256 bytes; {missing} lack")
        if self.decode(self.encode(PROBE)) != PROBE:
            raise InputError(f"{path} must give back the text that went in, {PROBE!r}; it does not")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._backend.get_vocab_size())

    @property
    def pad_id(self) -> int:
        """Token that fills a batch of unequal lengths."""
        return 0

    @property
    def bos_id(self) -> int:
        """Token that starts the decoder's input."""
        return 1

    @property
    def eos_id(self) -> int:
        """Token that ends a text."""
        return 2

    def encode(self, text: str, max_len: int | None = None) -> list[int]:
        """Turn text into tokens, without special tokens.

        Args:
            text: any text; a lone surrogate becomes a question mark.
            max_len: keep at most this many tokens, from the start; without it, all.

        Returns:
            Tokens, each in [3, vocab_size).
        """
        encoding = self._backend.encode(_clean(text), add_special_tokens=False)
        return list(encoding.ids[:max_len])

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text; special tokens are skipped.

        Args:
            tokens: ids in [0, vocab_size).

        Returns:
            The text; bytes that are no valid UTF-8 become U+FFFD.

        Raises:
            InputError: an id is none.
        """
        known = Range(low=0, high=self.vocab_size - 1, why="the vocabulary ends there")
        for token in tokens:
            known.check("token", token)
        return str(self._backend.decode(list(tokens), skip_special_tokens=True))

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json` that any copy of `tokenizers` reads.

        Args:
            path: file to write; replaced as a whole if it exists.
        """
        write_text(path, self._backend.to_str(pretty=False) + "\n")

    def split_tokens(
        self, tokens: Sequence[int], rate: float, rng: np.random.Generator
    ) -> list[int]:
        """Undo merges at random, so that training sees other spellings of the same text.

        Each token made by a merge is replaced, with probability `rate`, by the two that were
        merged, and so on for those. BPE dropout does the same in spirit, but the one in
        `tokenizers` cannot be seeded, and a resumed training must repeat the same choices.

        Args:
            tokens: ids in [0, vocab_size).
            rate: probability of undoing one merge, 0..1.
            rng: drawn from once for each mergeable token met.

        Returns:
            Tokens that decode to the same text; at least as many.
        """
        parents = self._parents
        todo = list(tokens)[::-1]
        done: list[int] = []
        while todo:
            token = todo.pop()
            left, right = parents[token]
            if left == _NONE or rng.random() >= rate:
                done.append(token)
            else:
                todo += (right, left)  # the left one is popped first
        return done

    @cached_property
    def _parents(self) -> list[tuple[int, int]]:
        # the library offers no view of its merges, only of the whole file
        model = json.loads(self._backend.to_str())["model"]
        vocab: dict[str, int] = model["vocab"]
        parents = [(_NONE, _NONE)] * self.vocab_size
        for merge in model["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            token = vocab[left + right]
            if parents[token][0] == _NONE:
                parents[token] = (vocab[left], vocab[right])
        return parents


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE on texts.

    Args:
        texts: what to learn merges from.
        vocab_size: number of tokens, special ones and the 256 bytes included; fewer come out if
            the texts hold too few pairs.

    Returns:
        The tokenizer.

    Raises:
        InputError: `vocab_size` has no room for the special tokens and the bytes.
    """
    allowed = Range(low=_SMALLEST, high=SIZE.high, why=SIZE.why)
    allowed.check("vocab_size", vocab_size)
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    # one token a digit: a number then reads the same in a query and in a call
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        # sorted: the library lists the bytes in another order in every process
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)
