"""Special tokens of another project's checkpoint: which ids start, end and fill a text.

The order is that of transformers 5.24, `generation/configuration_utils.py` and `utils.py`: a
`generation_config.json` is asked alone; without one, the configuration, then its decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mu_ref.border.ranges import token_range
from mu_ref.border.text import short
from mu_ref.errors import ConfigError
from mu_ref.readers.fields import Fields

__all__ = ["FIELDS", "SpecialIds", "check_ids", "special_ids"]

START, BOS, EOS, PAD = "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"
FIELDS = (START, BOS, EOS, PAD)


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """What the decoder writes with."""

    start: int  # the first token
    eos: tuple[int, ...]  # each ends a text; none: nothing does
    pad: int  # fills rows that have ended


def check_ids(fields: Fields, vocab_size: int, where: str) -> None:
    """Check the special ids that an object holds; null is none.

    Args:
        fields: of one object.
        vocab_size: ids lie below it.
        where: stands before a field in messages.

    Raises:
        ConfigError: an id is no token of the vocabulary.
    """
    for name in FIELDS:
        given = fields.get(name)
        if name == EOS and given == []:
            raise ConfigError(f"{where}{name} must be a token or several, got {short(given)}")
        for token in given if name == EOS and isinstance(given, list) else [given]:
            if token is not None or isinstance(given, list):
                token_range(vocab_size).check(f"{where}{name}", token, ConfigError)


def special_ids(objects: Sequence[Fields], where: str) -> SpecialIds:
    """Choose the special ids; where an object has none, or null, the next is asked.

    Args:
        objects: in their order, all checked.
        where: the first is from, for the message.

    Returns:
        The ids. The start is decoder_start_token_id or else bos_token_id; rows that have ended are
        filled with the first end token where there is no pad.

    Raises:
        ConfigError: no token starts a text.
    """

    def first(name: str) -> Any:
        return next((f[name] for f in objects if f.get(name) is not None), None)

    start = first(BOS) if first(START) is None else first(START)
    if start is None:
        raise ConfigError(f"{where}{START} or {BOS} must be the token that starts a text, got null "
                          "for both; set one of them")  # fmt: skip
    given = first(EOS)
    eos = () if given is None else tuple(given) if isinstance(given, list) else (given,)
    pad = first(PAD)
    if pad is None:
        pad = eos[0] if eos else 0
    return SpecialIds(start, tuple(dict.fromkeys(eos)), pad)
