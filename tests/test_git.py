"""What git says of a project: as a repository, as a folder in one, after a merge, in odd clones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import repro
from conftest import ROOT
from vae.cli import UserError
from vae.git import check_merged, check_whole, committed, git
from vae.params import flat, training_params
from vae.rebuild import build as rebuild
from vae.tracking.origin import differences

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")


def run(folder: Path, *arguments: object, check: bool = True) -> None:
    subprocess.run([*GIT, *map(str, arguments)], cwd=folder, check=check, capture_output=True)


def commit(folder: Path, **texts: str) -> None:
    """Write and commit files, by name without suffix."""
    for name, text in texts.items():
        (folder / f"{name}.lock").write_text(text)
    run(folder, "add", ".")
    run(folder, "commit", "--quiet", "--allow-empty", "--message", "a")


@pytest.fixture(params=["", "a project é"])
def project(tmp_path, request, monkeypatch) -> Path:
    """Two commits of a project, which is a repository, or a folder in one with another project."""
    folder = tmp_path / "repository" / request.param
    folder.mkdir(parents=True)
    run(tmp_path / "repository", "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "repository/other.txt").write_text("1")
    commit(folder, dvc="a: 1\n")
    commit(folder, dvc="a: 2\n", more="b\n")
    monkeypatch.chdir(folder)
    return folder


def test_differences_from_the_commit_are_found_in_a_subfolder(project, params):
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    commit(project)
    values = flat(training_params(params, "20d"))
    assert differences(values, "20d") == {}
    assert differences({**values, "train.epochs": "2"}, "20d") == {"train.epochs": "2"}
    (project / "params.yaml").write_text("<<<<<<< a\n")
    commit(project)
    assert differences(values, "20d") == {}


def is_as_committed() -> bool:
    return repro.against_commit() == "git: these results are the committed ones"


def test_the_advice_undoes_the_projects_own_changes(project):
    assert is_as_committed()
    (project / "dvc.lock").write_text("a: 3\n")
    assert (committed("dvc.lock"), committed("none.lock")) == ("a: 2", "")
    (project / "more.lock").write_text("c\n")
    run(project, "add", "more.lock")
    (project.parent / "other.txt").write_text("2")
    changed, _, back = repro.against_commit().splitlines()
    assert changed == "git: changed: dvc.lock, more.lock"
    run(project, *back.partition(": ")[2].partition("&&")[0].split()[1:])
    assert is_as_committed()


def conflict(project: Path) -> None:
    """Merge two branches that have other results."""
    run(project, "checkout", "--quiet", "-b", "theirs", "HEAD~1")
    commit(project, dvc="a: 4\n")
    run(project, "checkout", "--quiet", "main")
    run(project, "merge", "theirs", check=False)


def test_the_advice_to_keep_a_state_also_ends_a_merge(project):
    conflict(project)
    run(project, "checkout", "HEAD", "dvc.lock")
    (project / "dvc.lock").write_text("a: 5\n")
    keep = repro.against_commit().splitlines()[1].partition(":")[2].split(" && ")
    for command in keep:
        run(project, *command.split()[1:], *["--no-edit"] * ("commit" in command))
    assert is_as_committed()
    assert len(git("log", "-1", "--format=%p").split()) == 2


@pytest.mark.parametrize("committed_so", [False, True])
def test_conflicts_are_refused_until_a_side_is_taken(project, monkeypatch, committed_so):
    check_merged()
    conflict(project)
    monkeypatch.setattr(repro, "__file__", project / "src/tools/repro.py")
    monkeypatch.setattr(sys, "argv", ["repro.py"])
    if committed_so:
        run(project, "commit", "--all", "--message", "merged")
    with pytest.raises(UserError, match="a merge left conflicts in") as caught:
        repro.main()
    (command,) = re.findall("git (checkout HEAD.*) metrics;", str(caught.value))
    run(project, *command.split())
    check_merged()
    assert (project / "dvc.lock").read_text() == "a: 2\n"


@pytest.mark.parametrize(
    ("options", "repairs"),
    [("--single-branch", 0), ("--depth=1", 1), ("--depth=1 --filter=blob:none", 2)],
)
def test_the_message_for_a_partial_clone_completes_it(
    project, tmp_path, monkeypatch, options, repairs
):
    top = Path(git("rev-parse", "--show-toplevel"))
    run(top, "config", "uploadpack.allowFilter", "true")
    run(tmp_path, "clone", "--quiet", *options.split(), top.as_uri(), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    for _ in range(repairs):
        with pytest.raises(UserError, match="a clone with all of git's history") as caught:
            check_whole()
        run(Path(), *str(caught.value).partition("run git ")[2].split())
    check_whole()


def test_a_rebuild_is_of_the_projects_folder_once_committed(project, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(rebuild, "ROOT", project)
    monkeypatch.setattr(rebuild, "run_pipeline", lambda folder, *_, **__: ran.append(folder))
    monkeypatch.setattr(rebuild, "override_params", lambda *_: None)
    folder = rebuild.build(tmp_path / "clone", {}, {}, 0o022)
    assert ran == [folder]
    assert (folder / "dvc.lock").read_text() == "a: 2\n"
    run(project, "rm", "dvc.lock")
    commit(project)
    with pytest.raises(UserError, match=r"git has no commit of .*dvc\.lock"):
        rebuild.build(tmp_path / "other", {}, {}, 0o022)
