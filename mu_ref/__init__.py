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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mu_ref.config import ModelConfig
    from mu_ref.errors import MuRefError
    from mu_ref.executors import load_model
    from mu_ref.generate import generate, greedy
    from mu_ref.model.mu import forward
    from mu_ref.ops.reference import ReferenceOps
    from mu_ref.presets import preset
    from mu_ref.quantize.model import quantize_model
    from mu_ref.redrafter.generate import speculate
    from mu_ref.settings.agent import load_agent
    from mu_ref.tokenizer import Tokenizer

__version__ = "0.2.0"

HOMES = {
    "ModelConfig": "mu_ref.config",
    "MuRefError": "mu_ref.errors",
    "ReferenceOps": "mu_ref.ops.reference",
    "Tokenizer": "mu_ref.tokenizer",
    "forward": "mu_ref.model.mu",
    "generate": "mu_ref.generate",
    "greedy": "mu_ref.generate",
    "load_agent": "mu_ref.settings.agent",
    "load_model": "mu_ref.executors",
    "preset": "mu_ref.presets",
    "quantize_model": "mu_ref.quantize.model",
    "speculate": "mu_ref.redrafter.generate",
}
__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
