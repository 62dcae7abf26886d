"""tests/setup on a machine that lacks packages: it says which, installs them as root on Debian, or goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SETUP

TOOLS = ("sh", "ls", "ln", "cat", "grep", "dirname", "id")
APT = '#!/bin/sh\necho "$@" >> {log}\n[ "$1" = update ] || ln -sf /bin/true {folder}/chromium\n'


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH on which nothing lies but what every Debian has, and an apt-get that notes what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    (folder / "debian").write_text('NAME="Debian GNU/Linux"\nID=debian\n')
    apt = folder / "apt-get"
    apt.write_text(APT.format(log=tmp_path / "apt", folder=folder))
    apt.chmod(0o755)
    return folder


def become(folder: Path, uid: int) -> None:
    (folder / "id").unlink()
    (folder / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (folder / "id").chmod(0o755)


def setup(folder: Path, *words: str, ci: bool = False) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k != "CI"} | ({"CI": "true"} if ci else {})
    variables |= {
        "PATH": str(folder),
        "BIN": str(folder / "none"),
        "PYTHON": sys.executable,
        "OS_RELEASE": str(folder / "debian"),
    }
    return subprocess.run([SETUP, *words], env=variables, capture_output=True, text=True)


def test_what_is_lacking_is_listed_and_nothing_is_installed(bare: Path) -> None:
    done = setup(bare, "--lacking")
    assert {"docker.io", "redis-server", "chromium", "chromium-driver"} <= set(done.stdout.split())
    assert not (bare.parent / "apt").exists()


def test_without_root_it_prints_the_line_and_goes_on_but_fails_in_ci(bare: Path) -> None:
    become(bare, 1000)
    done = setup(bare)
    assert done.returncode == 0
    assert "only root on Debian" in done.stderr
    assert "    apt-get install --no-install-recommends " in done.stderr
    assert "chromium: the page in a browser" in done.stderr
    assert setup(bare, ci=True).returncode == 1
    assert not (bare.parent / "apt").exists()


def test_as_root_on_debian_it_installs_what_is_lacking_with_one_line_that_it_prints_first(bare: Path) -> None:
    become(bare, 0)
    done = setup(bare)
    update, installed = (bare.parent / "apt").read_text().splitlines()
    assert update.startswith("update")
    assert installed.startswith("install ") and " chromium " in installed and " make" not in installed
    line = done.stderr.splitlines()[0]
    assert line.removeprefix("apt-get install ") in installed
    # the pretended apt-get brought one of them, the others are said to be lacking
    assert done.returncode == 0 and "could not be installed" in done.stderr
    assert "redis-server: " in done.stderr and "chromium: " not in done.stderr
    assert setup(bare, ci=True).returncode == 1


def test_where_all_is_there_nothing_is_asked_or_said(bare: Path) -> None:
    """Python alone is enough for what needs no more."""
    done = setup(bare, "python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (bare.parent / "apt").exists()
