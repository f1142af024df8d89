"""The rules of the house, from the code's own imports: `tests/architecture.py` measures them."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator

import pytest
from architecture import ROOMS, ROOT, circles, folder_lines, levels, read_modules, upward_imports

from mu_ref.ops import Ops

MODULES = read_modules()
NAMES = sorted(MODULES)
MAX_FILE, MAX_FUNCTION, MAX_ROOM = 350, 60, 2000

# Files and functions that may be longer, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS = {
    "mu_ref.redrafter.generate.speculate": "part of the face: a runnable example, 12 arguments",
}

# From the first page to the attention formula: at most 4 files and 250 lines.
PATH = (
    ("README.md", "# mu-ref", "## Read next"),
    ("mu_ref/model/mu.py", "def forward(", "def remember("),
    ("mu_ref/model/decoder.py", "def decoder_block(", "def decode("),
    ("mu_ref/model/attention.py", "def attend(", "def self_attention("),
)


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].path.read_text(encoding="utf-8"))


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from outside_functions(child)


def imported_at_import(name: str) -> set[str]:
    found: set[str] = set()
    for node in outside_functions(tree_of(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""}
    return found


# -- who imports whom -------------------------------------------------------------------------


def test_no_module_is_in_an_import_circle() -> None:
    assert circles(MODULES) == []


def test_no_room_imports_a_room_above_it() -> None:
    assert upward_imports(MODULES) == []


def test_circles_and_upward_imports_are_found_where_they_are(tmp_path) -> None:
    for package in ROOMS:
        (tmp_path / package).mkdir()
    ground, shelf = tmp_path / "mu_ref/errors.py", tmp_path / "mu_ref/config.py"
    ground.write_text("def late():\n    from mu_ref.config import X\n    return X\n")
    shelf.write_text("from mu_ref import errors\nimport npu_sim.units\n")
    (tmp_path / "npu_sim/units.py").write_text("import mu_ref.config\n")
    found = read_modules(tmp_path)
    assert circles(found) == [["mu_ref.config", "mu_ref.errors", "npu_sim.units"]]
    assert [line.split(" ", 1)[0] for line in upward_imports(found, tmp_path)] == [
        "mu_ref/config.py:2", "mu_ref/errors.py:2",
    ]  # fmt: skip


def test_every_room_is_in_the_order_and_says_what_it_is_for() -> None:
    for module in MODULES.values():
        assert module.room in levels(module.package), module.name
        if module.path.name == "__init__.py":
            text = ast.get_docstring(tree_of(module.name)) or ""
            assert text.count(".") >= 2, f"{module.name} must say what it holds and imports"


@pytest.mark.parametrize("name", NAMES)
def test_imports_are_absolute(name: str) -> None:
    nodes = [n for n in ast.walk(tree_of(name)) if isinstance(n, ast.ImportFrom)]
    assert not any(node.level for node in nodes)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("mu_ref.")])
def test_only_functions_of_the_command_line_reach_the_simulator(name: str) -> None:
    assert not {n for n in imported_at_import(name) if n.split(".")[0] == "npu_sim"}
    if MODULES[name].room != "cli":
        assert not [n for n in MODULES[name].imports if n.split(".")[0] == "npu_sim"]


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("mu_ref.model")])
def test_the_model_knows_no_executor(name: str) -> None:
    roots = {n.split(".")[0] for n in MODULES[name].imports}
    known = {"numpy", "mu_ref", "dataclasses", "collections", "decimal", "functools", "typing"}
    assert roots <= known
    ops = {n for n in MODULES[name].imports if n.startswith("mu_ref.ops")}
    assert ops <= {"mu_ref.ops", "mu_ref.ops.rotation"}


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("mu_ref.model")])
def test_the_model_knows_nothing_of_steps_that_come_again(name: str) -> None:
    used = {node.attr for node in ast.walk(tree_of(name)) if isinstance(node, ast.Attribute)}
    assert not used & {"repeat", "compiled"}


def test_functions_of_the_model_take_their_arguments_in_one_order() -> None:
    """The executor, the configuration, what is computed on, what is read beside it, the site."""
    rank = {"ops": 0, "model": 1, "stack": 1, "site": 4}
    rank |= dict.fromkeys(("mask", "level", "sight", "memory", "cache", "placement"), 3)
    functions = [
        node
        for name in NAMES
        if name.startswith("mu_ref.model.")
        for node in tree_of(name).body
        if isinstance(node, ast.FunctionDef)
    ]
    assert len(functions) > 15
    for function in functions:
        names = [argument.arg for argument in function.args.args]
        ranks = [rank.get(name, 2) for name in names]
        assert ranks == sorted(ranks), f"{function.name}({', '.join(names)})"


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("mu_ref.ops.")])
def test_an_executor_knows_no_layer_and_only_compiled_ones_know_kernels(name: str) -> None:
    rooms = {n.split(".")[1] for n in MODULES[name].imports if n.startswith("mu_ref.")}
    if not name.startswith("mu_ref.ops.fast"):
        assert "kernels" not in rooms
    assert "model" not in rooms


def executors() -> list[type[Ops]]:
    """Every subclass of `Ops` in both packages, found in their source and then imported."""
    bases: dict[str, set[str]] = {"Ops": set()}  # {class: classes it derives from}
    homes = {}
    for name in NAMES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).split(".")[-1] for base in node.bases}
                homes[node.name] = name
    found = {"Ops"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return [getattr(importlib.import_module(homes[name]), name) for name in sorted(found - {"Ops"})]


def test_an_executor_is_abstract_or_final() -> None:
    """None is derived from to change its meaning: what varies is a part that it is given."""
    of_ours = executors()
    assert len(of_ours) >= 8
    for executor in of_ours:
        derived = [other for other in of_ours if executor in other.__bases__]
        if inspect.isabstract(executor):
            assert derived, f"{executor.__name__} is abstract, and nothing derives from it"
        else:
            assert not derived, f"{derived} must not derive from {executor.__name__}"
            assert "__final__" in vars(executor), f"{executor.__name__} must be marked `@final`"


# -- what an import loads, and keeps ----------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["mu_ref", "mu_ref.cli", "mu_ref.model.mu", "mu_ref.generate", "npu_sim"]
)
def test_importing_loads_neither_numba_nor_matplotlib_nor_the_simulator(module: str) -> None:
    heavy = {"numba", "matplotlib", "npu_sim", "torch"} - {module}
    assert run(f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_importing_mu_ref_takes_less_than_half_a_second() -> None:
    code = "import time; t = time.perf_counter(); import mu_ref; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.5


def targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.AnnAssign | ast.AugAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def may_change(value: ast.expr | None) -> bool:
    """Say whether a module-level value is a container or an object of an unknown class."""
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(value, (*mutable, ast.Call))


def fixed_type(value: ast.expr | None) -> bool:
    """Say whether a call makes a type or a compiled function, which nobody changes."""
    makers = ("TypeVar", "ParamSpec", "namedtuple", "kernel_of")
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") in makers


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("mu_ref")])
def test_modules_hold_constants_and_no_state(name: str) -> None:
    """A name in capitals is a constant; anything else at module level is an alias of a type."""
    tree = tree_of(name)
    allowed = {"__all__"}
    if name == "mu_ref.cli.app":
        allowed |= {"app", "settings_app"}
    state = [
        target
        for node in tree.body
        for target in targets(node)
        if may_change(value := getattr(node, "value", None))
        and not fixed_type(value)
        and target not in allowed
        and target.strip("_").upper() != target.strip("_")
    ]
    assert state == []
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]


# -- sizes ------------------------------------------------------------------------------------


def test_no_file_is_too_long_without_a_reason() -> None:
    long = {n for n, module in MODULES.items() if module.lines > MAX_FILE}
    assert long == set(LONG_FILES)


def test_no_function_is_too_long_without_a_reason() -> None:
    long = {
        f"{name}.{function}"
        for name, module in MODULES.items()
        for function, lines in module.functions.items()
        if lines > MAX_FUNCTION
    }
    assert long == set(LONG_FUNCTIONS)


def test_no_room_is_too_large() -> None:
    sizes = folder_lines(MODULES)
    assert {name: n for name, n in sizes.items() if n > MAX_ROOM} == {}
    top = [p for p in (ROOT / "npu_sim").iterdir() if p.name not in ("__pycache__", "py.typed")]
    assert len([p for p in top if p.name not in ("__init__.py", "data", "presets")]) <= 16


def test_the_attention_formula_is_four_files_from_the_first_page() -> None:
    total = 0
    for name, begin, end in PATH:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith(begin))
        total += (
            next(i for i, line in enumerate(lines) if i > first and line.startswith(end)) - first
        )
    assert len(PATH) <= 4
    assert total <= 250
    assert r"\mathrm{softmax}" in (ROOT / PATH[-1][0]).read_text(encoding="utf-8")
