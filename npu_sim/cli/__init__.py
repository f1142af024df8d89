"""The `npu-sim` command line: options in, a report or a file out; all work is done elsewhere.

It may import every room of both packages. Read `app.py` first, the table of commands.
"""

from npu_sim.cli.app import app, main

__all__ = ["app", "main"]
