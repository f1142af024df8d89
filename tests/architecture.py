"""The house, measured from the code's own imports: rooms, who imports whom, circles, sizes.

    python -m tests.architecture

prints the rooms as text with their sizes and what they import, modules in import circles, imports
from a lower room to a higher one, and lines of code and comment. Imports inside functions count.
`tests/test_architecture.py` holds the rules of `docs/design.md` to what is measured here.
"""

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From the ground up; a room imports only itself and rooms before it. Files of one line are one
# room: the ground, and what a model is made of, are too small to be folders.
ROOMS = {
    "mu_ref": (
        ("errors", "version", "border", "memory", "compiled", "command_line"),
        ("config", "presets", "weights", "tokenizer"),
        ("kernels",),
        ("integers",),
        ("ops",),
        ("model",),
        ("generate",),
        ("quantize",),
        ("training",),
        ("redrafter",),
        ("readers",),
        ("executors",),
        ("golden",),
        ("settings",),
        ("cli",),
    ),
    "npu_sim": (
        ("errors", "units"),
        ("program",),
        ("systolic",),
        ("hardware",),
        ("models",),
        ("roofline",),
        ("tile",),
        ("report",),
        ("speculate",),
        ("show",),
        ("whatif",),
        ("evidence",),
        ("explore",),
        ("cli",),
    ),
}  # fmt: skip
# Closer rules than the order: {(package, room): rooms that it never imports}.
NEVER = {
    ("npu_sim", "systolic"): ("program",),
    ("npu_sim", "tile"): ("roofline",),
    ("npu_sim", "whatif"): ("show.gantt", "show.trace"),
}


@dataclass(slots=True)
class Module:
    """One file: what it imports, and where."""

    name: str
    path: Path
    lines: int
    code_lines: int  # without comments, docstrings and blank lines
    comment_lines: int  # lines that hold a comment
    imports: dict[str, int] = field(default_factory=dict)  # {module: line}, ours and others'
    functions: dict[str, int] = field(default_factory=dict)  # {name: lines}

    @property
    def room(self) -> str:
        """The first name below the package; the package's own `__init__` is its face."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else "__init__"

    @property
    def package(self) -> str:
        """`mu_ref` or `npu_sim`."""
        return self.name.split(".")[0]


def read_modules(root: Path = ROOT) -> dict[str, Module]:
    """Read every module of both packages: {dotted name: module}."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ROOMS
        for path in sorted((root / package).rglob("*.py"))
    }
    modules = {name: _read(name, path) for name, path in paths.items()}
    for module in modules.values():
        tree = ast.parse(module.path.read_text(encoding="utf-8"))
        for target, line in _imports(tree, set(modules)):
            module.imports.setdefault(target, line)
    return modules


def _read(name: str, path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    documented: set[int] = set()
    functions: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            functions[node.name] = node.end_lineno - first + 1
    comments: set[int] = set()
    coded: set[int] = set()
    silent = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            # what a tool reads tells a person nothing
            if not token.string.startswith(("# fmt:", "# type:", "# noqa")):
                comments.add(token.start[0])
        elif token.type not in silent:
            coded |= set(range(token.start[0], token.end[0] + 1))
    n_lines = text.count("\n")
    return Module(name, path, n_lines, len(coded - documented), len(comments), {}, functions)


def _imports(tree: ast.AST, known: set[str]) -> Iterator[tuple[str, int]]:
    """Modules that a file imports, at the top or inside functions, for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in known else node.module), node.lineno


def circles(modules: dict[str, Module]) -> list[list[str]]:
    """Groups of modules of which each reaches every other by imports."""
    reach = {name: _reached(name, modules) for name in modules}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in modules
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def _reached(start: str, modules: dict[str, Module]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for target in modules[todo.pop()].imports:
            if target in modules and target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def levels(package: str) -> dict[str, int]:
    """{room: place from the ground up}; the face of a package may offer all of it."""
    places = {room: i for i, rooms in enumerate(ROOMS[package]) for room in rooms}
    return {**places, "__init__": len(ROOMS[package])}


def upward_imports(modules: dict[str, Module], root: Path = ROOT) -> list[str]:
    """Imports against the order of rooms, or of what a room never imports, as "file:line what"."""
    found = []
    for module in modules.values():
        place = levels(module.package)
        never = NEVER.get((module.package, module.room), ())
        for target, line in module.imports.items():
            package, _, rest = target.partition(".")
            where = f"{module.path.relative_to(root)}:{line} imports {target}"
            if package == module.package:
                room = rest.split(".")[0] or "__init__"
                banned = any(rest == name or rest.startswith(f"{name}.") for name in never)
                if place[room] > place[module.room] or banned:
                    found.append(where)
            elif package == "npu_sim" and module.room != "cli":
                found.append(where)
    return found


def folder_lines(modules: dict[str, Module]) -> dict[str, int]:
    """{folder: lines of the files that lie in it}; `ops/fast` is a folder of its own."""
    found: dict[str, int] = defaultdict(int)
    for module in modules.values():
        found[str(module.path.parent)] += module.lines
    return dict(found)


def room_lines(modules: dict[str, Module]) -> dict[tuple[str, str], int]:
    """{(package, room): lines of all its files}."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for module in modules.values():
        found[module.package, module.room] += module.lines
    return dict(found)


def picture(modules: dict[str, Module]) -> str:
    """The rooms from the top down, each with its size and the rooms it imports."""
    sizes = room_lines(modules)
    imported: dict[tuple[str, str], set[str]] = defaultdict(set)
    files: dict[tuple[str, str], int] = defaultdict(int)
    for module in modules.values():
        files[module.package, module.room] += 1
        for target in module.imports:
            package, _, rest = target.partition(".")
            room = rest.split(".")[0]
            if package in ROOMS and (package, room) != (module.package, module.room):
                name = room if package == module.package else f"{package}.{room}"
                imported[module.package, module.room].add(name)
    lines = []
    for package, rooms in ROOMS.items():
        lines.append(f"{package}: room, files, lines, and what it imports")
        for room in [name for group in reversed(rooms) for name in reversed(group)]:
            place, other = levels(package), len(levels(package))
            names = sorted(imported[package, room], key=lambda n: (-place.get(n, -other), n))
            size = f"{files[package, room]:3} {sizes.get((package, room), 0):5}"
            lines.append(f"  {room:<13} {size}  {' '.join(names)}".rstrip())
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Print what the docstring of this file promises."""
    modules = read_modules()
    print(picture(modules))
    in_circles = circles(modules)
    print(f"modules in import circles: {sum(map(len, in_circles))}")
    for group in in_circles:
        print(f"  {' <-> '.join(group)}")
    upward = upward_imports(modules)
    print(f"imports from a lower room to a higher one: {len(upward)}")
    for line in upward:
        print(f"  {line}")
    for package in ROOMS:
        of = [module for module in modules.values() if module.package == package]
        code, comments = sum(m.code_lines for m in of), sum(m.comment_lines for m in of)
        print(
            f"{package}: {len(of)} files, {code:,} lines of code, {comments:,} with a comment: "
            f"{100 * comments / code:.1f} per 100"
        )


if __name__ == "__main__":
    main()
