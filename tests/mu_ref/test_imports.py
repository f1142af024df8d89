"""What an import may load, who may import whom, and that modules keep no state."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mu_ref

PACKAGE = Path(mu_ref.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def tree_of(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from outside_functions(child)


@pytest.mark.parametrize("module", ["mu_ref", "mu_ref.cli", "mu_ref.model.mu", "mu_ref.generate"])
def test_importing_loads_neither_numba_nor_matplotlib_nor_the_simulator(module: str) -> None:
    heavy = "{'numba', 'matplotlib', 'npu_sim', 'torch'}"
    assert run(f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_importing_mu_ref_takes_less_than_half_a_second() -> None:
    code = "import time; t = time.perf_counter(); import mu_ref; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_only_functions_of_the_command_line_reach_the_simulator(name: str) -> None:
    nodes = ast.walk(tree_of(name)) if name != "cli.py" else outside_functions(tree_of(name))
    assert not {n for n in imported(nodes) if n.split(".")[0] == "npu_sim"}


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("model")])
def test_the_model_knows_no_executor(name: str) -> None:
    names = imported(ast.walk(tree_of(name)))
    roots = {n.split(".")[0] for n in names}
    assert roots <= {"numpy", "mu_ref", "dataclasses", "collections", "functools", "typing"}
    executors = {f"mu_ref.ops.{p.stem}" for p in (PACKAGE / "ops").glob("*.py")}
    executors.discard("mu_ref.ops.__init__")
    assert {"mu_ref.ops.reference", "mu_ref.ops.tape"} <= executors
    assert not names & executors


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("ops")])
def test_an_executor_knows_no_layer_but_the_rotation_it_is_given(name: str) -> None:
    ours = {n for n in imported(ast.walk(tree_of(name))) if n.startswith("mu_ref")}
    allowed = ("mu_ref.ops", "mu_ref.errors", "mu_ref.model.rope", "mu_ref.quantize")
    if name.startswith(("ops/fast", "ops/recorded", "ops/replay")):
        allowed = (*allowed, "mu_ref.kernels", "mu_ref.memory")  # what they are made of
    assert not {n for n in ours if not n.startswith(allowed)}


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


@pytest.mark.parametrize("name", NAMES)
def test_modules_hold_constants_and_no_state(name: str) -> None:
    """A name in capitals is a constant; anything else at module level is an alias of a type."""
    tree = tree_of(name)
    allowed = {"__all__"} | ({"app", "settings_app"} if name == "cli.py" else set())
    state = [
        target
        for node in tree.body
        for target in targets(node)
        if may_change(getattr(node, "value", None))
        and target not in allowed
        and target.strip("_").upper() != target.strip("_")
    ]
    assert state == []
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
