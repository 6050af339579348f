"""A user's shell, terminal, account and git settings: what programs take from them."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

SRC = ROOT / "src"
SCRIPTS = {*SRC.glob("*.py"), *SRC.glob("tools/*.py"), *ROOT.glob("studies/*.py")}
SCRIPTS = sorted(SCRIPTS - {SRC / "tools/src_path.py"})
# One or two of each family that vae/environment.mk names, with a value that stops a library or
# changes what it does.
UNWANTED = {
    "MLFLOW_CONFIGURE_LOGGING": "junk",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "_MLFLOW_SERVER_FILE_STORE": "elsewhere",
    "NUMPY_MADVISE_HUGEPAGE": "junk",
    "PANDAS_FUTURE": "junk",
    "SKLEARN_WORKING_MEMORY": "junk",
    "SCIPY_ARRAY_API": "1",
    "JOBLIB_START_METHOD": "junk",
    "TORCH_LOGS": "junk",
    "PYTORCH_CUDA_ALLOC_CONF": "junk",
    "TQDM_MININTERVAL": "junk",
    "GIT_DIR": "/nonexistent",
    "GIT_PYTHON_GIT_EXECUTABLE": "/nonexistent",
    "PIP_TARGET": "elsewhere",
    "UV_SYSTEM_PYTHON": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": "/nonexistent",
    "SSLKEYLOGFILE": "/nonexistent/keys",
}
WANTED = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    "MLFLOW_TRACKING_INSECURE_TLS": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "a",
    "PIP_INDEX_URL": "http://127.0.0.1:1",
    "UV_INDEX_URL": "http://127.0.0.1:1",
    "PYTHONHASHSEED": "5",
    "RAY_ADDRESS": "127.0.0.1:1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "OMP_NUM_THREADS": "1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "REQUESTS_CA_BUNDLE": "/etc/ssl/cert.pem",
    "DVC_STUDIO_OFFLINE": "1",
    "GIT_SSH_COMMAND": "ssh",
}
SET = {
    "MPLBACKEND": "agg",
    "MATPLOTLIBRC": "/dev/null",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
AGAINST = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": "/nonexistent",
    "MLFLOW_DISABLE_TELEMETRY": "junk",
    "MLFLOW_LOGGING_LEVEL": "junk",
    "RAY_USAGE_STATS_ENABLED": "1",
}
PRINT = "import json, os; print(json.dumps(dict(os.environ)))"


def call(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Run a command that prints its environment as JSON; return that."""
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=["a script", "make"])
def inherited(request, tmp_path):
    """The environment that a program gets where a user has set all the above."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **UNWANTED, **WANTED, **AGAINST}
    if request.param == "make":
        makefile = f"include Makefile\nshow:\n\t@{sys.executable} -Ic '{PRINT}'\n"
        (tmp_path / "show.mk").write_text(makefile)
        return call(["make", "-f", str(tmp_path / "show.mk"), "show"], ROOT, variables)
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PRINT!r}])"
    command = [sys.executable, "-c", f"import vae.environment; {child}"]
    return call(command, SRC, variables)


def test_variables_that_change_libraries_do_not_reach_them(inherited):
    assert not {*UNWANTED} & {*inherited}
    assert SET.items() <= inherited.items()


def test_paths_servers_and_threads_are_the_users(inherited):
    assert WANTED.items() <= inherited.items()


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


TERMINALS = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "utf-16"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("terminal", TERMINALS, ids=str)
def test_what_a_terminal_cannot_show_is_escaped(terminal):
    words = "print('= \\u2248 \\u2260 \\U0001f3c3', flush=True)"
    code = f"import vae.environment, subprocess, sys; {words}; "
    code += f"subprocess.run([sys.executable, '-c', {words!r}], check=True)"
    environment = {"PATH": os.environ["PATH"], **terminal}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=SRC, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    shown = {"utf-16": 0}.get(terminal.get("PYTHONIOENCODING"), 2)
    assert result.stdout.count(rb"\u2248") == shown


def test_a_greek_name_is_scored_in_a_notebooks_shell(finished_demo, tmp_path):
    picture, figure = tmp_path / "αβ.png", tmp_path / "scores.png"
    shutil.copy(finished_demo / "plots/noise.png", picture)
    command = [sys.executable, "src/tools/score.py", picture, "--figure", figure]
    environment = os.environ | AGAINST | {"PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(command, cwd=finished_demo, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert rb"\u03b1\u03b2.png" in result.stdout
    assert figure.exists()


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
    folder, environment = clone
    # Without the settings, and by content, since git trusts the times of files.
    command = "git ls-files | git hash-object --no-filters --stdin-paths"
    found = subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True)
    listed = "git ls-files --stage | cut -d ' ' -f 2"
    expected = subprocess.run(listed, shell=True, cwd=folder, capture_output=True, check=True)
    assert found.stdout == expected.stdout
    status = ["git", "status", "--porcelain"]
    assert subprocess.run(status, cwd=folder, env=environment, capture_output=True).stdout == b""


def test_dvc_sees_its_files_where_a_user_ignores_all(clone):
    folder, environment = clone
    command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {"track", "studies/dvc.yaml:study"} <= {*result.stdout.split()}
