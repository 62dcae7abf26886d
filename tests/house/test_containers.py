"""The files for containers: a Dockerfile, a compose file, a DaemonSet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.reference import PAGE

ROOT = Path(__file__).parents[2]
DAEMONSET = ROOT / "kubernetes" / "dagstop.yaml"
FILES = (ROOT / "containers" / "Dockerfile", ROOT / "containers" / "compose.override.yaml", DAEMONSET)
CAPABILITIES = ["SYS_PTRACE", "KILL", "DAC_OVERRIDE"]


def daemonset() -> dict[str, Any]:
    (found,) = [one for one in objects() if one["kind"] == "DaemonSet"]
    return found


def objects() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(DAEMONSET.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_that_are_set_exist(path: Path) -> None:
    known = PAGE.read_text(encoding="utf-8")
    for variable in re.findall(r"\bDAGSTOP_[A-Z_]+", path.read_text(encoding="utf-8")):
        assert f"`{variable}`" in known, variable


@pytest.mark.parametrize("release", ["1.29", "1.37"])
def test_the_daemonset_fits_the_schema_of_kubernetes(release: str) -> None:
    for one in objects():
        assert kubernetes_validate.validate(one, release, strict=True) == release
    wrong = daemonset()
    wrong["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, release, strict=True)


def test_the_daemonset_has_the_rights_that_it_needs_and_no_others() -> None:
    pod = daemonset()["spec"]["template"]["spec"]
    assert pod["hostPID"] is True and pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostIPC", "serviceAccountName"} & pod.keys()
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert rights["capabilities"] == {"drop": ["ALL"], "add": CAPABILITIES}
    assert rights["privileged"] is False and rights["allowPrivilegeEscalation"] is False
    assert [volume["hostPath"]["path"] for volume in pod["volumes"]] == ["/var/lib/dagstop"]


def test_the_compose_service_has_the_same_rights() -> None:
    service = yaml.safe_load(FILES[1].read_text(encoding="utf-8"))["services"]["dagstop"]
    assert (service["pid"], service["cap_drop"], service["cap_add"]) == ("host", ["ALL"], CAPABILITIES)
    assert "privileged" not in service
