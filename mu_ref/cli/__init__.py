"""The `mu-ref` command line: options in, a report or a file out; all work is done elsewhere.

It may import every room of `mu_ref`, and `npu_sim` inside functions. Read `app.py` first, the
table of commands.
"""

from mu_ref.cli.app import app, main

__all__ = ["app", "main"]
