"""`dagstop listen`: the daemon."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
from collections.abc import Callable

import click
from click.core import ParameterSource

from dagstop import logs
from dagstop.commands.common import (
    Chosen,
    airflow_options,
    database_option,
    homes_of,
    spellings,
    uids,
    url_of,
)
from dagstop.config import DEFAULT_DOCKER, ListenerConfig, default_state_dir
from dagstop.database.asking import open_database
from dagstop.database.url import redact
from dagstop.errors import DagstopError
from dagstop.evidence.consent import selectors
from dagstop.host import process_events
from dagstop.logs import event, log
from dagstop.settings import seconds


@click.command()
@database_option
@airflow_options
@click.option("--host", default="", help="Name of this host in orders and reports. [hostname]")
@click.option("--state-dir", metavar="DIR", help="Where to keep the listener's memory across a restart.")
@click.option(
    "--grace", default=seconds("grace_seconds"), show_default=True, help="Seconds from SIGTERM to SIGKILL."
)
@click.option(
    "--tick", default=seconds("tick"), show_default=True, help="Seconds between looks for new tasks."
)
@click.option(
    "--sweep", default=seconds("sweep"), show_default=True, help="Seconds between looks for orders."
)
@click.option("--dry-run", is_flag=True, help="Say what would die; signal and report nothing.")
@click.option("--once", is_flag=True, help="Carry out the open orders, then exit.")
@click.option("--verbose", "-v", is_flag=True, help="Also log what is looked at.")
def listen(
    database_url: str | None,
    chosen: Chosen,
    host: str,
    state_dir: str | None,
    grace: float,
    tick: float,
    sweep: float,
    dry_run: bool,
    once: bool,
    verbose: bool,
) -> None:
    """Stop what runs on this host when its run is marked failed.

    Runs in the foreground until SIGTERM. Run it as root, or as the user of Airflow's tasks: it can
    stop only what its user may signal, and read the environment only of its user's processes.
    """
    from dagstop.daemon import Daemon

    logs.start(verbose)
    selectors(chosen.containers)  # a bad one ends it here
    homes = homes_of(chosen.airflow_homes, chosen.containers)
    config = ListenerConfig(
        database_url=url_of(database_url, homes),
        airflow_homes=homes,
        airflow_urls=(*spellings(homes), *chosen.same_databases),
        docker_urls=chosen.docker_urls or (DEFAULT_DOCKER,),
        task_users=uids(chosen.task_users),
        host=host,
        state_dir=None if dry_run else _usable(state_dir or default_state_dir()),
        grace=grace,
        tick=tick,
        sweep=sweep,
        containers=chosen.containers,
        dry_run=dry_run,
        once=once,
        sources=_sources(),
    )
    log.info(
        event(
            "start",
            host=config.host_name,
            database=redact(config.database_url),
            homes=",".join(homes),
            containers=",".join(chosen.containers) or "-",
            grace=f"{grace}s",
            state=config.state_dir,
            dry_run=dry_run,
        )
    )
    if once:
        open_database(config.database_url, "listen").close()  # else it would wait for the database
    _many_descriptors()
    events, untold = process_events.subscribe()
    if events is not None:
        log.info(event("forks", known="the kernel tells of each"))
    else:
        log.info(event("forks", known=f"by a look every {tick:g} s", why=untold))
    daemon = Daemon(config, events=events, untold=untold)
    lock = _alone(config, daemon.stand_by)
    daemon.run()
    log.info(event("end"))
    logging.shutdown()
    if lock is not None:
        os.close(lock)


def _sources() -> dict[str, str]:
    """Where each parameter of this command came from, for `dagstop config`."""
    context = click.get_current_context()
    words = {ParameterSource.COMMANDLINE: "option", ParameterSource.ENVIRONMENT: "environment"}
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name: words.get(source, "default") for name, source in sources.items() if source is not None}


def _usable(directory: str) -> str:
    """The state directory, made if need be. Raises DagstopError."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(f"no right to write to {directory}")
    except OSError as exc:
        raise DagstopError(f"--state-dir {directory} cannot be used: {exc}") from exc
    return directory


def _many_descriptors() -> None:
    """One descriptor for each process that is dying: as many as the host allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _alone(config: ListenerConfig, stand_by: Callable[[], None]) -> int | None:
    """Wait until no other listener works with this state directory; `stand_by` is called if it does."""
    if config.state_dir is None:
        return None
    path = os.path.join(config.state_dir, "listener.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        why = "another listener has this state directory"
        do = "wait for its end, or give the listener of another database a --state-dir of its own"
        log.warning(event("waiting", why=why, lock=path, do=do))
        stand_by()
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock
