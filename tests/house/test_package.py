"""Built as for a release, installed into an empty environment, and asked what it can do there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagstop import __version__, plugin, policy
from dagstop.install import install_script
from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.distribution import build, install_wheel, look, run
from tests.support.marks import one_server, shape_2
from tests.testbed.postgres import Server


def without_index(error: BaseException) -> bool:
    said = (
        "NameResolutionError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
    )
    return any(words in str(error) for words in said)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made of the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    try:
        build(source, out)
    except AssertionError as error:
        if without_index(error):
            missing(error)
        raise
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new virtual environment with nothing but the wheel and what it needs."""
    return install_wheel(built, tmp_path_factory.mktemp("venv"))


@pytest.mark.server  # of packages
def test_every_file_of_the_source_is_in_both(built: Path) -> None:
    look(built)


@one_server
@shape_2
def test_what_is_installed_works(installed: Path, server: Server, bare_db: AirflowDatabase) -> None:
    program = installed / "dagstop"
    assert run(program, "--version") == f"dagstop {__version__}\n"
    assert run(program, "install", "--sql").strip() == install_script().strip()
    assert run(program, "policy").strip() == policy.text().strip()
    assert run(program, "plugin").strip() == plugin.text().strip()
    unit = run(program, "systemd")
    assert f"ExecStart={program} listen\n" in unit and "EnvironmentFile=/etc/dagstop/" in unit
    for shell in ("bash", "zsh", "fish"):
        assert "_DAGSTOP_COMPLETE" in run(program, "completion", shell)
    assert "is installed in" in run(program, "install", "--database-url", bare_db.url)
    assert "no open orders" in run(program, "status", "--database-url", bare_db.url)
    assert "is gone from" in run(program, "uninstall", "--database-url", bare_db.url)
    for module in ("dagstop.page.server", "dagstop.daemon", "dagstop.host.engine"):
        run(installed / "python", "-c", f"import {module}")
