"""One real Airflow, with dagstop at work on it and a mail server beside it, for all that must never break."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.e2e.conftest import FULL, VERSIONS
from tests.e2e.site import Site
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server, free_port

# in CI on one release: each start of an Airflow costs a minute
PLAYED = ("2.11.2",)
if FULL or os.environ.get("AIRFLOW"):
    PLAYED = tuple(version for version in VERSIONS if not version.endswith("-bare"))


class Mailbox:
    """Takes mail slowly, as a busy mail server does: what is cut short arrives nowhere."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        await asyncio.sleep(2)
        self.messages.append(message_from_bytes(envelope.content))
        return "250 OK"


@pytest.fixture(scope="package")
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    """What was sent, and the port on 127.0.0.1 that takes it."""
    mailbox, port = Mailbox(), free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    try:
        yield mailbox, port
    finally:
        controller.stop()


@pytest.fixture(scope="package", params=PLAYED)
def site(
    request: pytest.FixtureRequest,
    docker_engine: Engine,
    airflow_server: Server,
    mailbox: tuple[Mailbox, int],
) -> Iterator[Site]:
    """One Airflow for all."""
    port = str(mailbox[1])
    mail = {
        "AIRFLOW__SMTP__SMTP_HOST": "127.0.0.1",
        "AIRFLOW__SMTP__SMTP_PORT": port,
        "AIRFLOW__SMTP__SMTP_STARTTLS": "False",
        "AIRFLOW__SMTP__SMTP_SSL": "False",
        "AIRFLOW_CONN_SMTP_DEFAULT": f"smtp://127.0.0.1:{port}/?disable_ssl=true&disable_tls=true",
    }
    site = Site(request.param, airflow_server, docker_engine, "again", **mail)
    try:
        site.start()
        yield site
    finally:
        site.stop()
