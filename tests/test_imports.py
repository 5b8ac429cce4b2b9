"""The floors of the house: an import goes down, never up, and no two files or folders import each other.

Read from the sources (ast): imports inside functions count. And no line of a source is too long."""

import ast
import collections
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).parent.parent

# From the roof to the ground; what stands on one floor may not import its neighbours there either.
FLOORS = (
    ("cli",),
    ("experiments", "launch"),
    ("inspection",),
    ("report",),
    ("paper",),
    ("fits",),
    ("plots",),
    ("results",),
    ("science",),
    ("sweep",),
    ("run",),
    ("compile",),
    ("convert",),
    ("evaluation",),
    ("api",),
    ("training",),
    ("generation",),
    ("formats",),
    ("entropy",),
    ("data",),
    ("tokenizers",),
    ("flops",),
    ("flops_paper",),
    ("models",),
    ("models.kernels",),
    ("parallel",),
    ("patching",),
    ("storage",),
    ("config",),
    ("errors", "counts"),
    ("exit_codes",),
)
LEVEL = {name: len(FLOORS) - i for i, names in enumerate(FLOORS) for name in names}
OUTSIDE = {"hashing"}  # only gives another name to what is in patching, for those who script


def sources():
    """{module without bltjax.: path}."""
    found = {}
    for path in sorted(ROOT.glob("bltjax/**/*.py")):
        found[".".join(path.relative_to(ROOT / "bltjax").with_suffix("").parts)] = path
    for folder in ("experiments", "launch"):
        for path in sorted((ROOT / folder).glob("*.py")):
            found[f"{folder}.{path.stem}"] = path
    return {name.removesuffix(".__init__"): path for name, path in found.items() if name != "__init__"}


def imports(name: str, path: pathlib.Path, modules) -> set[str]:
    """The modules of this project that a file imports, the innermost that there is of each."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path}: imports are absolute here"
            continue
        for one in wanted:
            parts = one.removeprefix("bltjax.").split(".")
            if one.split(".")[0] not in ("bltjax", "experiments", "launch"):
                continue
            while parts and ".".join(parts) not in modules:
                parts.pop()
            if parts and ".".join(parts) != name:
                found.add(".".join(parts))
    return found


def floor(module: str) -> str:
    """The folder or file of FLOORS that a module belongs to."""
    if module.startswith("models.kernels"):
        return "models.kernels"
    return module.split(".")[0]


def graph() -> dict[str, set[str]]:
    modules = sources()
    return {name: imports(name, path, modules) for name, path in modules.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle; [] where there is none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def folders(edges):
    found = collections.defaultdict(set)
    for name, to in edges.items():
        found[floor(name)] |= {floor(other) for other in to} - {floor(name)}
    return found


def test_every_folder_has_a_floor():
    assert {floor(name) for name in sources()} - set(LEVEL) == OUTSIDE


def test_imports_go_down():
    up = [
        (name, other)
        for name, to in graph().items()
        for other in to
        if floor(name) not in OUTSIDE
        and floor(other) != floor(name)
        and LEVEL[floor(other)] >= LEVEL[floor(name)]
    ]
    assert not up, f"these imports go up: {sorted(up)}"


def test_nothing_imports_in_a_circle():
    edges = graph()
    assert not circle(edges) and not circle(folders(edges))


def test_every_module_and_folder_says_what_it_is():
    silent = [name for name, path in sources().items() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent, f"without a docstring: {', '.join(silent)}"


def test_lines_are_at_most_110_columns():
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("bltjax", "experiments", "launch", "tests", "benchmarks")
        for path in sorted((ROOT / folder).glob("**/*.py"))
        for number, line in enumerate(path.read_text().split("\n"), 1)
        if len(line) > 110
    ]
    assert not long, f"these lines are longer than 110 columns: {', '.join(long)}"


def test_the_reader_of_imports_sees_late_ones(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from bltjax.run import execute\n    import bltjax.api\n    import numpy\n")
    assert imports("models.x", file, {"run", "run.execute", "api"}) == {"run.execute", "api"}
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
