"""A user's shell, terminal, account and git settings: what programs take from them."""

import ast
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT

SRC = ROOT / "src"
SCRIPTS = {*SRC.glob("*.py"), *SRC.glob("tools/*.py"), *ROOT.glob("studies/*.py")}
SCRIPTS = sorted(SCRIPTS - {SRC / "tools/src_path.py"})
# One or two of each family that vae/environment.mk names.
UNWANTED = "MLFLOW_CONFIGURE_LOGGING MLFLOW_ENABLE_ASYNC_LOGGING _MLFLOW_SERVER_FILE_STORE"
UNWANTED += " NUMPY_MADVISE_HUGEPAGE PANDAS_FUTURE SKLEARN_WORKING_MEMORY SCIPY_ARRAY_API"
UNWANTED += " JOBLIB_START_METHOD TORCH_LOGS PYTORCH_CUDA_ALLOC_CONF TQDM_MININTERVAL GIT_DIR"
UNWANTED += " GIT_PYTHON_GIT_EXECUTABLE PIP_TARGET UV_SYSTEM_PYTHON PYTHONWARNINGS PYTHONPATH"
UNWANTED += " SSLKEYLOGFILE"
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


@pytest.mark.parametrize("program", ["a script", "make"])
def test_libraries_variables_are_fixed_and_places_are_the_users(program, tmp_path):
    if program == "make":
        (tmp_path / "show.mk").write_text(
            f"include Makefile\nshow:\n\t@{sys.executable} -Ic '{PRINT}'\n"
        )
        command, folder = ["make", "-f", tmp_path / "show.mk", "show"], ROOT
    else:
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PRINT!r}])"
        command, folder = [sys.executable, "-c", f"import vae.environment; {child}"], SRC
    wanted = dict.fromkeys(WANTED.split(), "5")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **wanted}
    environment |= dict.fromkeys(UNWANTED.split(), "junk")
    environment |= {name: users for name, (users, _) in FIXED.items()}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    inherited = json.loads(result.stdout)
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
    result = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert result.stdout == "True\n", result.stderr


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
    environment = {"PATH": os.environ["PATH"], **terminal}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=SRC, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(rb"\u2248") == (2 if escaped else 0)


def test_a_user_without_a_name_and_a_home_has_both():
    code = """
import os, pwd
pwd.getpwuid = lambda uid: {}[uid]
import vae.environment, getpass, pathlib
print(getpass.getuser() == str(os.getuid()), pathlib.Path.home())
"""
    command = [sys.executable, "-c", code]
    environment = {"PATH": os.environ["PATH"]}
    result = subprocess.run(command, cwd=SRC, env=environment, capture_output=True, text=True)
    assert result.stdout == f"True {sys.prefix}\n", result.stderr


@pytest.fixture
def clone(tmp_path):
    """A clone made and used by somebody whose own git settings change and ignore all files."""
    (tmp_path / "attributes").write_text("* text=auto eol=crlf filter=loud ident\n")
    (tmp_path / "ignored").write_text("*\n")
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n autocrlf = true\n attributesFile = {tmp_path}/attributes\n"
        f' excludesFile = {tmp_path}/ignored\n[filter "loud"]\n smudge = tr a-z A-Z\n'
    )
    environment = os.environ | {"GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig")}
    command = ["git", "clone", "--quiet", ROOT, tmp_path / "clone"]
    subprocess.run(command, env=environment, check=True)
    return tmp_path / "clone", environment


def test_a_checkout_has_the_committed_bytes(clone):
    folder, _ = clone
    # Without the settings, and by content, since git trusts the times of files.
    found, committed = (
        subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True).stdout
        for command in (
            "git ls-files | git hash-object --no-filters --stdin-paths",
            "git ls-files --stage | cut -d ' ' -f 2",
        )
    )
    assert found == committed


def test_dvc_sees_its_files_where_a_user_ignores_all(clone):
    folder, environment = clone
    command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {"track", "studies/dvc.yaml:study"} <= {*result.stdout.split()}
