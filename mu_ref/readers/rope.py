"""Fields of RoPE in configurations of Hugging Face, of transformers 4 and 5."""

from typing import Any

from mu_ref.border.ranges import FACTOR, STACK_RANGES
from mu_ref.border.text import short
from mu_ref.errors import ConfigError, check_choice
from mu_ref.readers.fields import Fields, check_numbers

__all__ = ["rope_of"]

KINDS = {"default": {"rope_theta"}, "linear": {"rope_theta", "factor"}}
KIND_KEYS = ("rope_type", "type")  # the second in files of transformers 4


def rope_of(f: Fields, where: str) -> tuple[float, float]:
    """Read the base of the rotation and how much closer together positions are read.

    Args:
        f: of a stack; `rope_parameters` (5) or `rope_scaling` and `rope_theta` (4). The second
            object acts where both are there, as in transformers.
        where: stands before a field in messages.

    Returns:
        theta, and the factor of linear scaling; 1 without it.

    Raises:
        ConfigError: another kind of scaling, such as dynamic, yarn, longrope or llama3, a field
            that is not of its kind, or a number out of its range.
    """
    objects = {}
    for name in ("rope_scaling", "rope_parameters"):
        given = f.get(name)
        if given is not None and not isinstance(given, dict):
            raise ConfigError(f"{where}{name} must be an object or null, got {short(given)}")
        if given:
            _check(given, f"{where}{name}")
            objects[name] = given
    used: dict[str, Any] = next(iter(objects.values()), {})
    partial = f.get("partial_rotary_factor")
    if partial not in (None, 1):
        raise ConfigError(f"{where}partial_rotary_factor must be 1, got {short(partial)}; a head "
                          "that turns in part is not supported")  # fmt: skip
    numbers = {
        "rope_theta": used.get("rope_theta", f.get("rope_theta", 10000.0)),
        "factor": used.get("factor", 1.0),
    }
    ranges = {"rope_theta": STACK_RANGES["rope_theta"], "factor": FACTOR}
    check_numbers(numbers, ranges, where)
    return numbers["rope_theta"], numbers["factor"]


def _check(rope: dict[str, Any], where: str) -> None:
    """Check the kind of an object, and that it holds what belongs to the kind."""
    given = [check_choice(f"{where}.{k}", rope[k], KINDS, ConfigError)
             for k in KIND_KEYS if k in rope]  # fmt: skip
    if len(set(given)) > 1:
        raise ConfigError(f"{where} must say one kind, got {given}")
    kind = given[0] if given else "default"
    unknown = sorted(set(rope) - {*KIND_KEYS, *KINDS[kind]})
    if unknown or (kind == "linear" and "factor" not in rope):
        wanted = ["rope_type", *sorted(KINDS[kind], reverse=True)]
        raise ConfigError(f"{where} must hold {' and '.join(wanted)}, got {sorted(rope)[:5]}")
