"""src/exact as a package of its own: installed alone, its README's example gives the hash there."""

import os
import re
import shutil
import subprocess
import sys

from conftest import ROOT

EXACT = ROOT / "src/exact"


def test_the_example_runs_with_the_installed_package_alone(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXACT, source, ignore=shutil.ignore_patterns("__pycache__"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site, source]
    install += ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(install, check=True)
    text = (EXACT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example.py").write_text(script)
    # Compiled there, at the first use.
    (tmp_path / "prefix").mkdir()
    code = f"import sys, runpy; sys.prefix = {str(tmp_path / 'prefix')!r}; "
    code += "runpy.run_path('example.py'); import exact; print(exact.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code]
    printed_there = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert printed_there == f"{printed}{site / 'exact/__init__.py'}\n"
    assert [path.suffix for path in (tmp_path / "prefix/lib").iterdir()] == [".so"]
