"""Run the whole pipeline as an ARM machine would, under qemu, and compare every output by its bits.

Needs Linux 6.7 or later, its packages qemu-user-static and debootstrap, 10 GB of disk for the
folder and, the first time, access to Debian's and Python's packages. No root rights: the emulator
is registered in a namespace of its own.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src/tools"), str(ROOT / "src")]

import demo  # noqa: E402
from vae import cli  # noqa: E402
from vae.cli import UserError  # noqa: E402
from vae.rebuild.build import MNIST, override_params, run_pipeline  # noqa: E402
from vae.rebuild.compare import first_difference, hashes  # noqa: E402

# A Debian and its Python.
SUITE, PYTHON = "bookworm", "3.11"
# gcc compiles the exact library there, as on a user's machine.
PROGRAMS = "python3,gcc,libc6-dev"
# An ELF file's first bytes, for 64-bit ARM; the mask leaves the kind of file and of system open.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# /sys stays out: there PyTorch looks for details of a real ARM processor, and crashes under qemu.
ENTER = """
set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s ":arm:M::$MAGIC:$MASK:$EMULATOR:F" > /proc/sys/fs/binfmt_misc/register
for name in proc dev; do mount --rbind /$name "$USERLAND/$name"; done
exec /usr/sbin/chroot "$USERLAND" /bin/sh -c "cd /pipeline && exec python -m dvc repro"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="for the userland and both runs; kept")
    parser.add_argument("--mnist", action="store_true", help="MNIST, not scikit-learn's digits")
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    folder = options.folder.resolve()
    emulator = program("qemu-aarch64-static", "qemu-aarch64")
    userland = unpacked(folder)
    here, there = folder / "here", userland / "pipeline"
    for place in (here, there):
        shutil.rmtree(place, ignore_errors=True)
        demo.copy_pipeline(place)
        changes = {"train": {"epochs": options.epochs}, "tracking": {"enabled": False}}
        if options.mnist:
            shutil.copy(ROOT / "params.yaml", place)
            # Of 10,000; all of them take as long as the rest of the pipeline.
            changes["likelihood"] = {"images": 1000}
        override_params(place / "params.yaml", changes)
    if MNIST.is_dir():
        os.environ.setdefault("MNIST_MIRROR", str(MNIST))
    run_pipeline(here)
    if options.mnist:
        shutil.copytree(here / "data/raw/MNIST/raw", userland / "mnist", dirs_exist_ok=True)
    run_emulated(userland, emulator)
    compare(here, there)


def program(*names: str) -> str:
    """The path of the first program that is here. Raises UserError."""
    for name in names:
        if path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
            return path
    raise UserError(f"{names[0]} is not here: install the system's package of this name")


def unpacked(folder: Path) -> Path:
    """Unpack Debian for ARM and the lock's packages below `folder`, unless they are there."""
    userland, debian = folder / "userland", folder / "debian"
    lock = ROOT / "requirements.lock"
    finished = userland / f".{hashlib.md5(lock.read_bytes()).hexdigest()}"
    if finished.exists():
        return userland
    # As root in a namespace, for debootstrap asks who runs it.
    bootstrap = [program("debootstrap"), "--arch=arm64", "--variant=minbase", "--download-only"]
    as_root = ["unshare", "--user", "--map-root-user", *bootstrap]
    run(*as_root, f"--include={PROGRAMS}", SUITE, debian)
    shutil.rmtree(userland, ignore_errors=True)
    userland.mkdir()
    # Nothing is configured: unpacked is enough, but for the names of users and of Python.
    for package in sorted(debian.glob("var/cache/apt/archives/*.deb")):
        run("dpkg-deb", "--extract", package, userland)
    shutil.copy(userland / "usr/share/base-passwd/passwd.master", userland / "etc/passwd")
    local = userland / "usr/local"
    (local / "bin").mkdir(parents=True, exist_ok=True)
    (local / "bin/python").symlink_to("/usr/bin/python3")
    platform = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", PYTHON]
    target = ["--target", local / f"lib/python{PYTHON}/dist-packages"]
    install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--no-deps"]
    run(*install, *platform, *target, "--require-hashes", "--requirement", lock)
    finished.touch()
    return userland


def run(*command: str | Path) -> None:
    """Run a command. Raises UserError when it fails."""
    if subprocess.run(command).returncode:
        raise UserError(f"{Path(command[0]).name} failed; the lines above say why")


def run_emulated(userland: Path, emulator: str) -> None:
    """Run the pipeline in the userland. Raises UserError."""
    variables = {"MAGIC": MAGIC, "MASK": MASK, "EMULATOR": emulator, "USERLAND": str(userland)}
    variables |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    variables |= {"DVC_NO_ANALYTICS": "1", "MNIST_MIRROR": "/mnist"}
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", ENTER]
    if subprocess.run(command, env=variables).returncode:
        raise UserError("the emulated pipeline failed; the lines above say why")


def compare(here: Path, there: Path) -> None:
    """Compare the outputs of two finished pipelines. Raises UserError where any differs."""
    ours, theirs = hashes(here / "dvc.lock"), hashes(there / "dvc.lock")
    for name, value in ours.items():
        print(f"{name:<32} {value}")
    if differing := [name for name in ours if theirs[name] != ours[name]]:
        places = [f"{name} at {first_difference(here / name, there / name)}" for name in differing]
        raise UserError(f"ARM gives other bits: {'; '.join(places)}")
    digest = hashlib.md5(json.dumps(ours, sort_keys=True).encode()).hexdigest()
    print(f"{len(ours)} outputs: the same bits on ARM as here ({digest[:12]})")


if __name__ == "__main__":
    cli.run(main)
