"""A readable forward pass of Mu, written once and run by many executors.

>>> import mu_ref
>>> answer = mu_ref.load_agent().ask(["make the screen warmer"])[0]
>>> print(answer.call)
set(display.night_light, on)

Start with `mu_ref/model/mu.py`. The names of `__all__` are imported when somebody asks for them, so
importing this package loads neither Numba nor Matplotlib. All other names are private to the rooms
that hold them.
"""

from importlib import import_module
from typing import Any

from mu_ref.version import __version__ as __version__

HOMES = {
    "ModelConfig": "config",
    "MuRefError": "errors",
    "ReferenceOps": "ops.reference",
    "Tokenizer": "tokenizer",
    "forward": "model.mu",
    "greedy": "generate",
    "load_agent": "settings.agent",
    "load_model": "executors",
    "preset": "presets",
    "quantize_model": "quantize.model",
    "speculate": "redrafter.generate",
}  # where a name of the face lives
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
