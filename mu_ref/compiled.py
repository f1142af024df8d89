"""How kernels are compiled: once, kept on disk, and compiled again when what is kept is damaged.

Numba notices a changed kernel, but not a changed function that the kernel calls, and it keeps code
by the place of its sources, so that each copy of one text is compiled. Here the folder of compiled
code is named after all that the code depends on: the text of every source of its room, Python,
Numba, the processor. Numba also trusts what it finds there: a file that was emptied, cut or
overwritten ends a program with an error of `pickle`, or worse. So each file gets a checksum, and
one that does not fit is compiled again. Importing this module loads Numba.
"""

import hashlib
import io
import os
import pickle
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Literal

import llvmlite.binding as llvm
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.environment import Environment, lookup_environment
from numba.core.runtime import rtsys

__all__ = ["compiled_folder", "kernel_of", "load_kept"]

CHECK_BYTES = 4  # CRC-32 at the end of every file


def compiled_folder(program: str, sources: Iterable[Path], more: str = "") -> Path:
    """Where compiled kernels are kept: below NUMBA_CACHE_DIR or the user's cache folder.

    Args:
        program: whose kernels, a folder's name: "mu-ref".
        sources: every file whose text the kernels depend on.
        more: what else they depend on.

    Returns:
        A folder named after all of it, and after Python, Numba and this processor; it need not be
        there yet.
    """
    compiler = EXTENSION_SUFFIXES[0], numba.__version__, _processor()
    digest = hashlib.sha256(repr((compiler, more)).encode())
    for source in sorted(sources):
        digest.update(source.read_bytes())
    digest.update(Path(__file__).read_bytes())  # how files are kept
    parent = os.environ.get("NUMBA_CACHE_DIR") or _user_cache() / program
    return Path(parent) / digest.hexdigest()[:16]


@cache
def _processor() -> tuple[str, str]:
    """Name and instructions, as code is compiled for them."""
    config: Any = numba.config
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    return name, config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()


def load_kept(kernel: Any) -> None:
    """Load what is kept of a kernel, before it is called; nothing if nothing is kept.

    Numba keeps beside loaded code what compiling another kernel that calls this one would want, 6
    MB for a machine. It is given up here: calls go to the loaded code all the same.

    Args:
        kernel: one that is called from Python only.
    """
    if not isinstance(kernel._cache, _KernelCache):
        return
    target = kernel.targetctx.codegen().magic_tuple()
    for signature, of_target, *_ in kernel._cache._cache_file._load_index():
        if of_target == target:
            kernel.compile(signature)
    for compiled in kernel.overloads.values():
        if hasattr(compiled.library, "_shared_module"):
            compiled.library._shared_module = None


def _user_cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(given) if given else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir())


def kernel_of(
    folder: Path, *, nogil: bool = False, error_model: Literal["python", "numpy"] = "python"
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at its first call, and keeps the result.

    Args:
        folder: from `compiled_folder`.
        nogil: other Python threads may run beside it.
        error_model: "numpy" divides by 0 as NumPy does; a test for it would keep loops of divisions
            out of vectors.

    Returns:
        The decorator. What it returns has the plain function as `py_func`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compiled: Any = numba.njit(nogil=nogil, error_model=error_model)(function)
        try:
            compiled._cache = _KernelCache(function, folder)
        except OSError:
            _say_unwritable(folder)
        return compiled

    return decorate


class _Place(CompileResultCacheImpl):
    """Where Numba keeps a function, and how its files are named.

    Modules have a folder each, since two may have a function of one name. The folder's name says
    already whether code is of this text.
    """

    def __init__(self, folder: Path, function: Callable[..., Any]) -> None:
        self._locator = self  # Numba asks another object for the folder
        self._py_file = function.__code__.co_filename
        self._lineno = function.__code__.co_firstlineno
        self.path = folder / function.__module__
        self.ensure_cache_path()
        self._filename_base = self.get_filename_base(function.__qualname__, "")

    def ensure_cache_path(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.path).close()  # whether it can be written

    def get_cache_path(self) -> str:
        return str(self.path)

    def get_source_stamp(self) -> None:
        return None

    def get_disambiguator(self) -> str:
        return str(self._lineno)


class _KernelCache(FunctionCache):
    """Numba's cache of one function, on files that are checked."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._impl_class: Any = partial(_Place, folder)
        super().__init__(function)
        self._cache_file = _CheckedFiles(self._cache_path, self._impl.filename_base, None)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, or None if it is to be compiled.

        Numba first fills its tables of what can be compiled (half a second); code that is compiled
        already needs Numba's runtime alone, and a compilation fills the tables by itself.
        """
        try:
            rtsys.initialize(target_context)
            return self._load_overload(sig, target_context)
        except Exception:  # whole, but not what this Numba reads
            _say_damaged(self._cache_path)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; go on without if the disk does not take it."""
        try:
            super().save_overload(sig, data)
        except OSError:
            _say_unwritable(self._cache_path)


class _CheckedFiles(IndexDataCacheFile):
    """An index and its data files, each with a checksum of its name and content behind it."""

    def save(self, key: Any, data: Any) -> None:
        """Keep one compiled signature.

        Numba counts the data files; two processes that compile at once would then write different
        code under one name. Here the name comes from what the code is for.
        """
        overloads = self._load_index()
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        name = f"{self._index_name.removesuffix('.nbi')}.{digest}.nbc"
        self._save_data(name, data)
        self._save_index({**overloads, key: name})

    def _load_index(self) -> dict[Any, str]:
        try:
            whole = _is_whole(Path(self._index_path))
        except FileNotFoundError:
            return {}
        if not whole:
            _say_damaged(self._cache_path)
            return {}
        return super()._load_index()  # what follows the pickled values does not disturb them

    def _load_data(self, name: str) -> Any:
        if not _is_whole(Path(self._data_path(name))):
            _say_damaged(self._cache_path)
            raise FileNotFoundError(name)  # Numba compiles what is not there
        return _Unpickler(io.BytesIO(Path(self._data_path(name)).read_bytes())).load()

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[Any]:
        with super()._open_for_write(filepath) as file:
            summed = _Summed(file, Path(filepath).name)
            yield summed
            file.write(summed.check)


class _Unpickler(pickle.Unpickler):
    """Reads a compiled function without the modules in which Numba describes NumPy's functions.

    Numba imports the module of every function that is compiled in (a third of a second) for its
    globals; compiled code reads none of them.
    """

    def find_class(self, module: str, name: str) -> Any:
        rebuilds = (module, name) == ("numba.core.environment", "_rebuild_env")
        return _environment if rebuilds else super().find_class(module, name)


def _environment(module: str, constants: Any, name: str) -> Environment:
    """Return the constants of one function that is compiled in, once in a process."""
    found = lookup_environment(name)
    if found is None:
        loaded = sys.modules.get(module)
        found = Environment(vars(loaded) if loaded else {"__name__": module})
        found.consts[:] = constants
        found.env_name = name
        Environment._memo[name] = found
    return found


class _Summed:
    """A file that adds up what is written to it."""

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.sum = file, zlib.crc32(name.encode())

    def write(self, data: bytes) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return int(self.file.write(data))

    @property
    def check(self) -> bytes:
        """What stands at the end of a whole file."""
        return self.sum.to_bytes(CHECK_BYTES, "big")


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the checksum of its name and content."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError:  # a folder, or not for this user
        return False
    body, check = content[:-CHECK_BYTES], content[-CHECK_BYTES:]
    right = zlib.crc32(body, zlib.crc32(path.name.encode()))
    return check == right.to_bytes(CHECK_BYTES, "big")


def _say_damaged(folder: Any) -> None:
    _say(f"warning: compiled kernels in {folder} were damaged; they are compiled again")


def _say_unwritable(folder: Any) -> None:
    _say(f"warning: {folder} cannot be written; kernels are compiled anew in every run")


@cache
def _say(line: str) -> None:
    """Print a warning, once in a process."""
    sys.stderr.write(line + "\n")
