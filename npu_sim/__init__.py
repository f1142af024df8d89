"""A simulator of neural processing units that runs what `mu_ref`'s forward pass records.

>>> import npu_sim
>>> report = npu_sim.simulate("mu-330m", "hexagon-x-elite", n_input=64, n_output=32)
>>> print(f"{report.decode_tok_per_s:.0f} tok/s, {report.budget.line()}")
330 tok/s, 500 ms met, 399 ms left

Start with `npu_sim/program/program.py`. The names of `__all__` are imported when somebody asks for
them. All other names are private to the rooms that hold them.
"""

from importlib import import_module
from typing import Any

HOMES = {
    "NpuSimError": "errors",
    "Precision": "program.precision",
    "Scenario": "whatif.scenario",
    "base_scenario": "whatif.scenario_toml",
    "compare": "whatif.compare",
    "evaluate": "whatif.metrics",
    "npu": "hardware.presets",
    "sensitivity": "whatif.sensitivity",
    "simulate": "report.fidelity",
    "solve": "whatif.solve",
    "sweep": "whatif.sweep",
    "validate": "evidence.validate",
}  # where a name of the face lives
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
