"""The house rules that a program can check: who imports whom, what is public, what a light import costs, and that the README is true."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tunescope

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tunescope"
MODULES = sorted(SOURCE.rglob("*.py"))

# Top to bottom; a part imports itself and what stands below its row. The bottom row may import itself.
ROWS = [
    {"__main__"},
    {"cli"},
    {"study", "gate", "advice", "demo"},
    {"comparison"},
    {"training", "dictionaries"},
    {"outcome"},
    {"geometry"},
    {"activations"},
    {"models", "texts"},
    {"records", "identity", "stats", "chance", "folders", "ranks", "errors", "version", "reference"},
]
RANK = {part: rank for rank, row in enumerate(ROWS) for part in row}
BOTTOM = len(ROWS) - 1
REPORT_IMPORTS = {"records", "stats", "chance", "errors", "version", "reference", "report"}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of everything a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    here = part_of(path)
    for name in (name for name in imports(path) if name.split(".")[0] == "tunescope"):
        assert "." in name, "import a part of the package, not the package"
        there = name.split(".")[1]
        if here == "__init__":
            assert there in {"version", "_HOME"}, f"the package imports {name} at once; name it in _HOME instead"
        elif here == "report":
            assert there in REPORT_IMPORTS, f"report imports {name}; it reads payloads only"
        elif there == "report":
            assert RANK[here] <= RANK["comparison"], f"{here} imports {name}; only comparison and what is above it may"
        elif there not in {here, "__version__"}:
            below = RANK[here] < RANK[there] or RANK[here] == RANK[there] == BOTTOM
            assert below, f"{here} imports {name}, which stands above or beside it"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_benchmarks_import_what_is_there(path):
    for name in (name for name in imports(path) if name.startswith("tunescope.")):
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member) or importlib.util.find_spec(name), f"{path.name}: there is no {name}"



@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_has_a_subject_and_does_not_print(path):
    assert path.stem not in {"utils", "util", "misc", "common", "helpers", "helper", "tools"}
    if part_of(path) != "cli":
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_report_never_names_torch():
    assert not [path for path in MODULES if part_of(path) == "report" and any(name.split(".")[0] == "torch" for name in imports(path))]


def test_public_names_are_sorted_and_resolve():
    assert tunescope.__all__ == sorted(tunescope.__all__)
    assert [name for name in tunescope.__all__ if getattr(tunescope, name) is None] == []


@pytest.mark.parametrize(
    "program",
    ["import tunescope", "import tunescope.report", "import tunescope.cli", "import tunescope.stats", "import tunescope.errors",
     "import tunescope.reference", "import tunescope.models.families, tunescope.models.pretraining",
     "import tunescope.study.plan, tunescope.study.expand, tunescope.study.judged"],
)
def test_light_imports_leave_torch_alone(program):
    assert heavy_after(program) == "[]"


@pytest.mark.parametrize(
    "command",
    [["--help"], *([name, "--help"] for name in ("diff", "capture", "perturb", "distance", "doctor", "features", "power"))],
    ids=" ".join,
)
def test_help_leaves_torch_alone(command):
    program = f"""
import contextlib, io
from tunescope.cli import main
sys.argv = {["tunescope", *command]!r}
with contextlib.redirect_stdout(io.StringIO()) as page, contextlib.suppress(SystemExit):
    main()
assert "Usage" in page.getvalue(), page.getvalue()
"""
    assert heavy_after(program) == "[]"


def heavy_after(program: str) -> str:
    """Which of the heavy libraries are loaded after `program`, by a fresh interpreter."""
    check = "print(sorted({'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{program}\n{check}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_version_is_told_once_and_the_same():
    assert f"version: {tunescope.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {tunescope.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_everything_make_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = {plain(line) for line in [*project["dependencies"], *extras["demo"], *extras["dev"], *extras["bench"]]} - {"tunescope"}
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert asked - {plain(line) for line in lines} == set()


def plain(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


# ```python and ```console blocks, with the HTML comment on the line before them if it says why they are not run.
BLOCK = re.compile(r"(?P<skip><!-- not run: .+? -->\s*\n)?^```(?P<kind>python|console)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def readme_blocks(kind: str) -> list[tuple[int, str]]:
    """(line number, code) of the README's blocks of one kind that are meant to run."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if match["kind"] == kind and not match["skip"]]
    return [(text.count("\n", 0, match.start("code")) + 1, match["code"]) for match in found]


def test_readme_python_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, object] = {"__name__": "__readme__"}
    for line, code in readme_blocks("python"):
        exec(compile("\n" * (line - 1) + code, "README.md", "exec"), names)  # the padding makes a traceback name the README's line


def test_readme_commands_run(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line, code in readme_blocks("console"):
        commands = [command[2:] for command in code.splitlines() if command.startswith("$ ")]
        # What `make` would do is only printed: the tests are one of its targets.
        script = "\n".join(re.sub(r"^make ", f"make --dry-run -C '{ROOT}' ", command) for command in commands)
        environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
        shell = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"README.md line {line}:\n{script}\n{done.stderr}"
