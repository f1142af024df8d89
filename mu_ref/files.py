"""Write files so that nobody ever sees half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DATA", "write_text", "written_whole"]

DATA = Path(__file__).parent / "settings" / "data"  # files that come with the package


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it if all went well, else remove it.

    Args:
        path: where the file ends up; replaced if it exists.

    Yields:
        The path to write to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)  # as `open` would have made it; safetensors allows the owner only
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
