"""Threats of docs/reliability.md that tests can hold; pickle and shells are for lint to find."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from ruamel.yaml import YAML

from conftest import ROOT, call, link_environment, listening
from vae.cli import UserError
from vae.params import Params, check_params
from vae.rebuild.build import scratch_environment


def test_no_command_of_a_stage_is_built_from_parameters():
    for path in (ROOT / "dvc.yaml", ROOT / "studies/dvc.yaml"):
        for name, stage in YAML(typ="safe").load(path)["stages"].items():
            assert "$" not in str(stage["cmd"]), name
            assert not re.search(r"[;&|<>`]", str(stage["cmd"])), name


def test_only_paths_and_the_experiment_are_free_text():
    free = {
        f"{group}.{key}"
        for group, schema in Params.model_json_schema()["$defs"].items()
        for key, value in schema["properties"].items()
        if "'type': 'string'" in str(value) and "enum" not in value and key != "network"
    }
    assert free == {"Download.mirrors", "Download.dataset", "Tracking.experiment"}


@pytest.mark.parametrize(
    ("key", "names", "message"),
    [
        ("train-20d.network", "os.system networks.a networks..a networks.a.b()", "or a class in"),
        ("download.dataset", "/etc data/own/../../x data/own/ data/own/. emnist", "or data/own/"),
    ],
)
def test_networks_and_data_sets_are_those_of_this_checkout(key, names, message):
    for name in names.split():
        with pytest.raises(UserError, match=message):
            check_params(ROOT / "params.yaml", {key: name})


@pytest.mark.parametrize("key", ["core.analytics", "core.check_update"])
def test_dvc_sends_no_analytics_whatever_the_environment(key, monkeypatch):
    monkeypatch.delenv("DVC_NO_ANALYTICS", raising=False)
    assert call(ROOT, sys.executable, "-m", "dvc", "config", key) == "false\n"


@pytest.mark.parametrize("place", ["", "benchmarks", "studies", "tests/services", ".github"])
def test_every_locked_package_has_one_version_and_a_hash(place):
    text = (ROOT / place / "requirements.lock").read_text().strip()
    for entry in re.split(r"\n(?=\S)", text):
        assert re.match(r"[\w.\[\]-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_nothing_is_installed_without_hashes():
    script = ROOT / "src/tools/install.sh"
    options = "".join(re.findall(r"^options=(.*)$", script.read_text(), re.MULTILINE))
    paths = (script, ROOT / "Makefile", *ROOT.glob(".github/workflows/*"), *ROOT.glob(".ci/*"))
    text = "\n".join(path.read_text() for path in paths).replace('"${options[@]}"', options)
    tools = r"pip (?:install|sync)|pipx|uvx|npx|npm|curl|wget|uv tool"
    installs = re.findall(rf".*\b(?:{tools})\b.*", text)
    assert installs
    assert [line for line in installs if "--require-hashes" not in line] == []


def test_make_ui_listens_on_the_loopback_alone(tmp_path):
    link_environment(tmp_path)
    for name in ("src", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    options = {"cwd": tmp_path, "env": scratch_environment(), "start_new_session": True}
    process = subprocess.Popen(["make", "ui", f"PORT={port}"], **options)
    try:
        deadline = time.monotonic() + 300
        while not (found := listening(process.pid)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        assert found == {"127.0.0.1"}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
