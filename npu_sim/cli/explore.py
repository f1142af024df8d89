"""`npu-sim explore`: the what-if page in a browser, served on this machine alone."""

from typing import Annotated

import typer

from mu_ref.border.ranges import PORT
from mu_ref.command_line import in_range

__all__ = ["explore"]


def explore(
    port: Annotated[int, in_range(PORT, "--port", help="Where it listens on 127.0.0.1")] = 8045,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Play with what-ifs in a browser: figures, pictures, two sides.

    A server on 127.0.0.1 answers until Ctrl-C ends it; no internet is needed.

    Example: npu-sim explore --port 8046 --no-browser
    """
    from npu_sim.explore.server import open_server  # loads what speaks HTTP

    with open_server(port) as server:
        typer.echo(f"npu-sim explore: {server.url} (Ctrl-C ends it)")
        if browser:
            import webbrowser

            webbrowser.open(server.url)
        server.serve_forever()
