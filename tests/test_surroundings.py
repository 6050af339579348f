"""A user's shell, terminal, account and git settings: what programs take from them."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import ROOT

SRC = ROOT / "src"
SCRIPTS = {*SRC.glob("*.py"), *SRC.glob("tools/*.py"), *ROOT.glob("studies/*.py")}
SCRIPTS = sorted(SCRIPTS - {SRC / "tools/src_path.py"})
# One or two of each family that vae/environment.mk names.
UNWANTED = "MLFLOW_CONFIGURE_LOGGING _MLFLOW_SERVER_FILE_STORE NUMPY_MADVISE_HUGEPAGE PANDAS_FUTURE"
UNWANTED += " SKLEARN_WORKING_MEMORY SCIPY_ARRAY_API JOBLIB_START_METHOD TORCH_LOGS"
UNWANTED += " PYTORCH_CUDA_ALLOC_CONF TQDM_MININTERVAL GIT_DIR GIT_PYTHON_GIT_EXECUTABLE PIP_TARGET"
UNWANTED += " UV_SYSTEM_PYTHON PYTHONWARNINGS PYTHONPATH SSLKEYLOGFILE"
WANTED = "MLFLOW_TRACKING_URI MLFLOW_TRACKING_INSECURE_TLS MLFLOW_HTTP_REQUEST_TIMEOUT"
WANTED += " MLFLOW_SERVER_ALLOWED_HOSTS PIP_INDEX_URL UV_INDEX_URL PYTHONHASHSEED RAY_ADDRESS"
WANTED += " NPY_DISABLE_CPU_FEATURES OMP_NUM_THREADS HTTPS_PROXY REQUESTS_CA_BUNDLE"
WANTED += " DVC_STUDIO_OFFLINE GIT_SSH_COMMAND"
# What a user has set, and what programs get.
FIXED = {
    "MPLBACKEND": ("module://matplotlib_inline.backend_inline", "agg"),
    "MATPLOTLIBRC": ("/nonexistent", "/dev/null"),
    "MLFLOW_DISABLE_TELEMETRY": ("junk", "true"),
    "MLFLOW_LOGGING_LEVEL": ("junk", "ERROR"),
    "DVC_NO_ANALYTICS": ("0", "1"),
    "RAY_USAGE_STATS_ENABLED": ("1", "0"),
}
PRINT = "import json, os; print(json.dumps(dict(os.environ)))"


def run(*command: str | Path, folder: Path = SRC, **variables: str) -> bytes:
    """Return what a command prints, which must succeed, under these variables and PATH."""
    environment = {"PATH": os.environ["PATH"], **variables}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("program", ["a script", "make"])
def test_libraries_variables_are_fixed_and_places_are_the_users(program, tmp_path):
    wanted = dict.fromkeys(WANTED.split(), "5") | {"HOME": str(tmp_path)}
    variables = wanted | dict.fromkeys(UNWANTED.split(), "junk")
    variables |= {name: users for name, (users, _) in FIXED.items()}
    if program == "make":
        rule = f"include Makefile\nshow:\n\t@{sys.executable} -Ic '{PRINT}'\n"
        (tmp_path / "show.mk").write_text(rule)
        shown = run("make", "-f", tmp_path / "show.mk", "show", folder=ROOT, **variables)
    else:
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PRINT!r}])"
        shown = run(sys.executable, "-c", f"import vae.environment; {child}", **variables)
    inherited = json.loads(shown)
    assert not {*UNWANTED.split()} & {*inherited}
    assert wanted.items() <= inherited.items()
    assert {name: inherited[name] for name in FIXED} == {n: ours for n, (_, ours) in FIXED.items()}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_fixes_its_environment_before_importing_a_library(path):
    body = ast.parse(path.read_text()).body
    nodes = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", node.names[0].name) for node in nodes]
    others = [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]
    assert others[0] in ("vae.environment", "src_path")


def test_importing_the_library_leaves_the_environment_as_it_is():
    code = "import os; before = dict(os.environ); import vae.model; print(before == os.environ)"
    assert run(sys.executable, "-c", code, MPLBACKEND="junk") == b"True\n"


@pytest.mark.parametrize(
    ("terminal", "escaped"),
    [
        ({"PYTHONIOENCODING": "latin-1"}, True),
        ({"PYTHONIOENCODING": "ascii:strict"}, True),
        ({"PYTHONIOENCODING": "utf-16"}, False),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, True),
    ],
)
def test_what_a_terminal_cannot_show_is_escaped(terminal, escaped):
    words = "print('= \\u2248 \\u2260 \\U0001f3c3', flush=True)"
    code = f"import vae.environment, subprocess, sys; {words}; "
    code += f"subprocess.run([sys.executable, '-c', {words!r}], check=True)"
    shown = run(sys.executable, "-c", code, **terminal)
    assert shown.count(rb"\u2248") == (2 if escaped else 0)


def test_score_takes_a_notebooks_variable_and_a_greek_name(finished_demo, tmp_path):
    """On a terminal that is Latin-1."""
    Image.new("L", (28, 28)).save(path := tmp_path / "αβ.png")
    command = [sys.executable, SRC / "tools/score.py", path, "--figure", tmp_path / "figure.png"]
    terminal = {"PYTHONIOENCODING": "latin-1", "MPLBACKEND": FIXED["MPLBACKEND"][0]}
    shown = run(*command, folder=finished_demo, **os.environ | terminal)
    assert rb"/\u03b1\u03b2.png" in shown


def test_a_user_without_a_name_and_a_home_has_both():
    code = """
import os, pwd
pwd.getpwuid = lambda uid: {}[uid]
import vae.environment, getpass, pathlib
print(getpass.getuser() == str(os.getuid()), pathlib.Path.home())
"""
    assert run(sys.executable, "-c", code).decode() == f"True {sys.prefix}\n"


@pytest.fixture
def clone(tmp_path):
    """A clone made and used by somebody whose own git settings change and ignore all files."""
    (tmp_path / "attributes").write_text("* text=auto eol=crlf filter=loud ident\n")
    (tmp_path / "ignored").write_text("*\n")
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n autocrlf = true\n attributesFile = {tmp_path}/attributes\n"
        f' excludesFile = {tmp_path}/ignored\n[filter "loud"]\n smudge = tr a-z A-Z\n'
    )
    settings = {"GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"), "HOME": str(tmp_path)}
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone", **settings)
    return tmp_path / "clone", settings


def test_a_checkout_has_the_committed_bytes(clone):
    folder, _ = clone
    # Without the settings, and by content, since git trusts the times of files.
    command = "git ls-files | git hash-object --no-filters --stdin-paths"
    found = run("sh", "-c", command, folder=folder)
    assert found == run("sh", "-c", "git ls-files --stage | cut -d ' ' -f 2", folder=folder)


def test_dvc_sees_its_files_where_a_user_ignores_all(clone):
    folder, settings = clone
    command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
    stages = run(*command, folder=folder, **settings).decode().split()
    assert {"track", "studies/dvc.yaml:study"} <= {*stages}
