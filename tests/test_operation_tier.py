"""The operation tier finds what whole-model runs miss: faults planted in a copy of the integers.

Each fault is a mistake that a port makes. The copy is imported under a name of its own; one of the
tier's tensors must come out otherwise than in the golden ones.
"""

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mu_ref
from mu_ref.golden.edge_cases import edge_cases
from mu_ref.golden.operations import Case, run_case

COPIED = (
    "integers/fixed_point.py", "integers/constants.py", "integers/nonlinear.py",
    "integers/tables.py", "integers/tables.json", "integers/encodings.py", "integers/store.py",
    "ops/integer.py", "golden/operations.py",
)  # fmt: skip
MODULES = ("integers", "ops.integer", "golden.operations")

# What the port does, the file, the code, and the fault.
FAULTS = [
    ("15 bits not cut at 0x7FFF", "integers/fixed_point.py",
     "np.minimum((_wide(by.m) + 2**15) >> 16, 0x7FFF)", "(_wide(by.m) + 2**15) >> 16"),
    ("15 bits cut, not rounded", "integers/fixed_point.py", "(_wide(by.m) + 2**15) >> 16",
     "_wide(by.m) >> 16"),
    ("multipliers half to even", "integers/fixed_point.py", "m = round_half_away(q * 2**31)",
     "m = round_half_even(q * 2**31)"),
    ("2^31 left as it is", "integers/fixed_point.py", "np.where(full, m // 2, m)", "m"),
    ("floor for round", "integers/fixed_point.py", "else rounding_shift(product, t)",
     "else product >> t"),
    ("half even for ties up", "integers/fixed_point.py", 'if rounding == "half_even" else',
     'if rounding != "tflite_double" else'),
    ("ties up for half even", "integers/fixed_point.py", 'if rounding == "half_even" else',
     "if False else"),
    ("double rounding with ties up", "integers/fixed_point.py",
     "return _shift_away(_doubling_high(left, by.m), np.maximum(-_wide(by.shift), 0))",
     "return rounding_shift(_doubling_high(left, by.m), np.maximum(-_wide(by.shift), 0))"),
    ("single rounding for double", "integers/fixed_point.py", 'if rounding == "tflite_double":',
     "if False:"),
    ("lowest integer left out", "integers/fixed_point.py", "np.clip(x, low, high)",
     "np.clip(x, low + 1, high)"),
    ("the shift of the smaller summand", "integers/fixed_point.py",
     "quantize_multiplier(max(x_factor, y_factor)).shift",
     "quantize_multiplier(min(x_factor, y_factor)).shift"),
    ("summands cut, not rounded", "integers/fixed_point.py",
     "return round_half_away(x_factor * 2**t), round_half_away(y_factor * 2**t), t",
     "return int(x_factor * 2**t), int(y_factor * 2**t), t"),
    ("channels' factors in another order", "integers/constants.py",
     "between(site, scales * x_scale, out_scale, wide=wide)",
     "between(site, scales * (x_scale / out_scale), 1.0, wide=wide)"),
    ("a product's factors in another order", "ops/integer.py",
     "by = self._output(site, a.scale * b.scale, wide=wide)",
     ("out = self._encoding(site).scale\n        by = self.constants.multiplier("
     "site, 'output', a.scale * (b.scale / out), 1.0, wide=wide)")),
    ("a norm's factors in another order", "ops/integer.py",
     "static = self._output(site, float(gain_scale[0]) * sqrt(n))",
     ("static = self.constants.multiplier(site, 'output', "
     "float(gain_scale[0]) / self._encoding(site).scale * sqrt(n), 1.0)")),
    ("tables end at 8", "integers/nonlinear.py", "16 << ARGUMENT_BITS", "8 << ARGUMENT_BITS"),
    ("gates odd instead of mirrored", "integers/nonlinear.py",
     '-g if kind == "tanh" else (1 << 15) - g', "-g"),
    ("tanh mirrored instead of odd", "integers/nonlinear.py",
     '-g if kind == "tanh" else (1 << 15) - g', "(1 << 15) - g"),
    ("softmax cut off at 30", "integers/nonlinear.py", "31 << ARGUMENT_BITS",
     "30 << ARGUMENT_BITS"),
    ("masked keys in the maximum", "integers/nonlinear.py",
     "np.where(mask, scores, least).max(axis=-1, keepdims=True)",
     "scores.max(axis=-1, keepdims=True)"),
    ("masked keys weigh", "integers/nonlinear.py", "return np.where(mask, e, 0)", "return e"),
    ("quotients cut, not rounded", "integers/nonlinear.py", "((weights << bits) + (total >> 1))",
     "(weights << bits)"),
    ("log2(e) in float32", "ops/integer.py", "x.scale * log2(euler) * 2**ARGUMENT_BITS",
     "x.scale * float(np.float32(log2(euler))) * 2**ARGUMENT_BITS"),
    ("a root one power of 4 off", "integers/nonlinear.py", "k = (length - 31) >> 1",
     "k = (length - 30) >> 1"),
    ("a root's product rounded", "integers/nonlinear.py", "m = (root * by.m) >> 30",
     "m = (root * by.m + (1 << 29)) >> 30"),
    ("16 bits kept of a difference", "integers/nonlinear.py", "shift_to_bits: int = 15",
     "shift_to_bits: int = 16"),
    ("differences cut, not rounded", "integers/nonlinear.py",
     "return rounding_shift(difference, shift), shift", "return difference >> shift, shift"),
    ("eps without n squared", "ops/integer.py", "            eps_steps *= n * n\n", ""),
    ("eps rounded before n squared", "ops/integer.py", "eps_steps *= n * n",
     "eps_steps = float(round(eps_steps) * n * n)"),
    ("eps not shifted with the squares", "ops/integer.py", "(eps_whole >> (2 * shift))",
     "eps_whole"),
    ("a bias's bits cut, not rounded", "ops/integer.py", "rounding_shift(y, BIAS_BITS)",
     "y >> BIAS_BITS"),
    ("speeds by a power in binary64", "integers/tables.py",
     "speeds = ((-log_theta * 2 * i / d_head).exp() for i in range(d_head // 2))",
     "speeds = (Decimal(theta ** (-2 * i / d_head)) for i in range(d_head // 2))"),
    ("turned the other way", "ops/integer.py", "x1 * cos - x2 * sin, x2 * cos + x1 * sin",
     "x1 * cos + x2 * sin, x2 * cos - x1 * sin"),
    ("quadrants not mirrored", "integers/nonlinear.py", "(quadrant & 1) == 1", "quadrant == 1"),
    ("tables cut, not rounded", "integers/tables.py", "(total + (1 << (shift - 1))) >> shift",
     "total >> shift"),
    ("every row by the first one's scale", "ops/integer.py", "by.m[tokens][..., None]",
     "by.m[0 * tokens][..., None]"),
    ("highest index on ties", "ops/integer.py", "return np.argmax(x.q, axis=-1)",
     "return x.shape[-1] - 1 - np.argmax(x.q[..., ::-1], axis=-1)"),
    ("zero point forgotten", "ops/integer.py", "saturate(steps + encoding.zero_point,",
     "saturate(steps,"),
]  # fmt: skip


@contextmanager
def planted(folder: Path, number: int, file: str, code: str, fault: str) -> Iterator[ModuleType]:
    """Import a copy of the integers, with one fault, under a name of its own."""
    name, source = f"planted_{number}", Path(mu_ref.__file__).parent
    for path in COPIED:
        target = folder / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".json"):
            shutil.copy(source / path, target)
            continue
        text = (source / path).read_text(encoding="utf-8")
        if path == file:
            assert text.count(code) == 1, f"{code!r} must stand once in {file}"
            text = text.replace(code, fault)
        for module in MODULES:
            text = text.replace(f"from mu_ref.{module}", f"from {name}.{module}")
        target.write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(f"{name}.golden.operations")
    finally:
        sys.path.remove(str(folder))
        for module in [m for m in sys.modules if m.split(".")[0] == name]:
            del sys.modules[module]


CASES = list(edge_cases())


@pytest.fixture(scope="module")
def golden() -> list[dict[str, np.ndarray]]:
    return [run_case(case) for case in CASES]


def differs(operations: ModuleType, case: Case, right: dict[str, np.ndarray]) -> bool:
    """Whether a copy computes a case otherwise, or not at all."""
    try:
        found = operations.run_case(case)
    except Exception:
        return True
    return any(not np.array_equal(found[name], array) for name, array in right.items())


def test_a_copy_without_a_fault_agrees(tmp_path: Path, golden: list[dict[str, np.ndarray]]) -> None:
    with planted(tmp_path, 0, "", "", "") as operations:
        assert operations.__file__ is not None
        assert str(tmp_path) in operations.__file__
        assert not any(map(differs, [operations] * len(CASES), CASES, golden))


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[what for what, *_ in FAULTS])
def test_a_fault_is_found(number: int, tmp_path: Path, golden: list[dict[str, np.ndarray]]) -> None:
    _, file, code, fault = FAULTS[number]
    with planted(tmp_path, number + 1, file, code, fault) as operations:
        assert any(map(differs, [operations] * len(CASES), CASES, golden))


def test_there_are_thirty_faults_or_more() -> None:
    assert len({(file, code, fault) for _, file, code, fault in FAULTS}) >= 30
