"""The page in a real browser: what it shows, that it stays live, that hostile names are only names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.plugin.loading import DEFAULT
from tests.plugin.loading import load as plugin_file
from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.browser import DESKTOP, PHONE, Browser, NoBrowser
from tests.support.marks import one_server, shape_2
from tests.support.page import TOKEN, Page

# The contrast of each visible text with what is behind it, by WCAG 2; those below 4.5, at most five of them.
PALE = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
    return rgba(getComputedStyle(document.body).backgroundColor);
  };
  const pale = [];
  for (const e of document.querySelectorAll('body *')) {
    if (e.classList.contains('sep') || !e.checkVisibility()) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) pale.push(`${ratio.toFixed(1)}: ${e.className} ${e.textContent.slice(0, 40)}`);
  }
  return pale.slice(0, 5);
})()
"""
OPEN_ALL = "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
ALL_READ = "![...document.querySelectorAll('details[open] > .evidence')].some((e) => !e.querySelector('a'))"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        started = Browser()
    except NoBrowser as exc:
        missing(exc)
    yield started
    started.quit()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    chromium.look_as()
    chromium.driver.get("about:blank")  # the page of the test before asks no more
    chromium.complaints()
    return chromium


@one_server
@shape_2
def test_a_busy_day_is_readable_on_every_screen(airflow_db: AirflowDatabase, browser: Browser) -> None:
    busy.busy_day(airflow_db)
    with Page(airflow_db) as page:
        for width in (DESKTOP, PHONE):
            grounds = []
            for scheme in ("light", "dark"):
                browser.look_as(width, scheme)
                browser.open(page.url)
                browser.run(OPEN_ALL)
                browser.wait(ALL_READ)
                assert browser.run("document.documentElement.scrollWidth") == width
                assert browser.run(PALE) == []
                grounds.append(browser.run("getComputedStyle(document.body).backgroundColor"))
                browser.shoot(f"busy-{width}-{scheme}")
            assert grounds[0] != grounds[1]
        text = browser.text()
    for said in (
        "One thing needs fixing", "listener worker-7", "if the host is gone for good", "waits for worker-1, worker-3",
        "dba_ines with psql through a local socket", "airflow api-server from 2001:db8::4", "1 not dead",
        "alive: in uninterruptible sleep (state D)", "another AIRFLOW_HOME: /srv/other", "2 refused writes", "up_for_retry",
        "signal 2.1 ms, dead 12 ms", "silent, seen", "polling", "knows 45 processes", "container 3f9ac1d2e4b0",
        "min ago deleted by dba_ines",
    ):  # fmt: skip
        assert said in text, f"{said!r} is not in: {text}"
    assert browser.complaints() == []


@one_server
@shape_2
def test_what_is_drawn_is_what_was_measured(airflow_db: AirflowDatabase, browser: Browser) -> None:
    busy.listener(airflow_db, "worker-1")
    number = busy.order(airflow_db, "dag", "run", ago=60)
    busy.report(airflow_db, number, "worker-1", "stopped", signal=0.1, death=0.2, processes=1)
    busy.report(airflow_db, number, "worker-2", "stopped", signal=0.3, death=0.4, processes=1)
    with Page(airflow_db) as page:
        browser.open(page.url)
        places = browser.run(
            "[...document.querySelectorAll('#stops .drawn')].map((d) => ['.commit', '.signal', '.death'].map((c) => {"
            " const box = d.querySelector(c).getBoundingClientRect(); return box.x + box.width / 2; }))"
        )
    (start, first, early), (start_2, second, late) = places
    assert start == start_2
    whole = late - start
    assert [round((place - start) / whole, 2) for place in (first, early, second)] == [0.25, 0.5, 0.75]


@one_server
@shape_2
def test_what_may_be_a_docker_clients_is_named_with_the_reason(
    airflow_db: AirflowDatabase, browser: Browser
) -> None:
    busy.listener(airflow_db, "worker-1")
    number = busy.order(airflow_db, "dag", "run", ago=60)
    client = "docker client 4711 may have created it, and so may others"
    asked = "docker exec 4712 may have asked for it, and so may others"
    spared = [
        {"container": "brave_curie", "why": client, "evidence": ["environment"]},
        {"container": "busy", "exec": "python job.py", "why": asked, "evidence": ["environment"]},
    ]
    untied = {"containers_untied": ["brave_curie"], "execs_untied": ["busy: python job.py"]}
    untied |= {"containers_untold": ["shy_bohr"], "execs_untold": ["busy: sleep 5"]}
    gap = {"from": "2026-11-30T12:00:01+00:00", "to": "2026-11-30T12:00:05+00:00", "why": "no listener ran"}
    more = {"spared": spared, "not_told": [gap], **untied}
    busy.report(airflow_db, number, "worker-1", "spared", more=more)
    with Page(airflow_db) as page:
        browser.open(page.url)
        browser.run(OPEN_ALL)
        browser.wait(ALL_READ)
        text = browser.text()
    for said in (
        "container brave_curie",
        client,
        "docker exec in busy python job.py",
        asked,
        "2 spared",
        "Nobody was told what it forked for 4.0 s, until",
        "Containers created then, which may be this run's: shy_bohr",
        "What docker exec started then, which may be this run's: busy: sleep 5",
    ):
        assert said in text, f"{said!r} is not in: {text}"
    assert browser.complaints() == []


@one_server
@shape_2
def test_it_is_live_and_keeps_what_somebody_reads(airflow_db: AirflowDatabase, browser: Browser) -> None:
    with Page(airflow_db) as page:
        browser.open(page.url)
        browser.run("window.sameDocument = true")
        browser.wait("document.body.innerText.includes('Nothing has been stopped yet')")
        for scheme in ("light", "dark"):
            browser.look_as(DESKTOP, scheme)
            assert browser.run(PALE) == []
            browser.shoot(f"empty-{scheme}")
        busy.listener(airflow_db, "worker-1")
        first = busy.order(airflow_db, "first_dag", "run", ago=1)
        busy.report(airflow_db, first, "worker-1", "stopped", signal=0.001, death=0.02, processes=1)
        browser.wait("document.querySelector('#stops .dag')?.textContent === 'first_dag'")
        browser.wait(
            "document.querySelector('#verdict h2').textContent.includes('Everything can be stopped')"
        )
        browser.run("document.querySelector('#stops summary').click()")
        browser.wait(
            "document.querySelector('#stops .evidence').innerText.includes('AIRFLOW_CTX_DAG_RUN_ID')"
        )
        second = busy.order(airflow_db, "second_dag", "run", ago=1, closed=False)
        browser.wait("document.querySelector('#open-list')?.innerText.includes('second_dag')")
        assert browser.run(f"document.querySelector('#order-{first}').open")
        busy.report(airflow_db, second, "worker-1", "stopped", signal=0.001, death=0.03, processes=2)
        airflow_db.rows("update dagstop.stop_order set closed_at = now()")
        browser.wait(
            "document.querySelector('#open').hidden && document.querySelectorAll('#stops .order').length === 2"
        )
        airflow_db.rows("drop trigger dagstop_cascade on dag_run")
        browser.wait(
            "document.querySelector('#verdict').innerText.includes('trigger dag_run.dagstop_cascade')"
        )
        browser.run(
            "(() => { const i = document.querySelector('#words'); i.value = 'FIRST'; i.dispatchEvent(new Event('input')); })()"
        )
        browser.wait("document.querySelectorAll('#stops .order').length === 1")
        browser.run("document.querySelector('[data-only=unkillable]').click()")
        browser.wait("document.querySelector('#stops').innerText.includes('No stop matches')")
        assert browser.complaints() == []
        page.stop()
        browser.wait("document.querySelector('#live').textContent.startsWith('no answer')")
        assert browser.run("window.sameDocument")  # never loaded again


@one_server
@shape_2
def test_older_stops_are_a_click_away_and_stay(airflow_db: AirflowDatabase, browser: Browser) -> None:
    airflow_db.rows(
        "insert into dagstop.stop_order (kind, airflow_schema, dag_id, run_id, closed_at)"
        " select 'run', 'public', case n % 2 when 0 then 'even' else 'odd' end, 'run' || n, now()"
        " from generate_series(1, 100) n"
    )
    count = "document.querySelectorAll('#stops .order').length"
    with Page(airflow_db) as page:
        browser.open(page.url)
        assert browser.run(count) == 40
        for expected in (80, 100):
            browser.run("document.querySelector('#older').click()")
            browser.wait(f"{count} === {expected}")
        assert browser.run("document.querySelector('#older').hidden")
        busy.order(airflow_db, "newest", "run", ago=0)
        browser.wait("document.querySelector('#stops .dag').textContent === 'newest'")
        runs = browser.run("[...document.querySelectorAll('#stops .run')].map((e) => e.textContent)")
        assert runs == ["run", *(f"run{number}" for number in range(100, 0, -1))]
        browser.run(
            "(() => { const i = document.querySelector('#words'); i.value = 'odd'; i.dispatchEvent(new Event('input')); })()"
        )
        browser.wait(f"{count} === 40")
        browser.run("document.querySelector('#older').click()")
        browser.wait(f"{count} === 50")
        assert browser.run("document.querySelector('#older').hidden")
    assert set(browser.run("[...document.querySelectorAll('#stops .dag')].map((e) => e.textContent)")) == {
        "odd"
    }


@one_server
@shape_2
def test_hostile_names_are_only_shown(airflow_db: AirflowDatabase, browser: Browser) -> None:
    busy.hostile_day(airflow_db)
    with Page(airflow_db) as page:
        for width in (DESKTOP, PHONE):
            browser.look_as(width)
            browser.open(page.url)
            browser.run(OPEN_ALL)
            browser.wait(ALL_READ)
            browser.shoot(f"hostile-{width}")
            assert browser.run("document.documentElement.scrollWidth") == width
            assert browser.run("document.title") == "✕ dagstop"
            # nothing but what the page itself makes
            tags = browser.run("[...new Set([...document.querySelectorAll('*')].map((e) => e.localName))]")
            assert {"script", "img", "iframe", "object", "form"} & set(tags) == {"script", "img"}
            assert browser.run("document.scripts.length") == 1
            assert browser.run("document.images.length") == 1
            links = browser.run(
                "[...document.links].map((a) => a.pathname.replace(/[0-9]+$/, 'N') + a.protocol)"
            )
            assert set(links) == {
                f"{path}http:"
                for path in ("/metrics", "/healthz", "/grafana.json", "/alerts.yml", "/api/orders/N")
            }
            text = browser.text()
            for name in busy.HOSTILE[:5]:
                assert name in text
            assert "\\u{1b}[31m\\u{d}\\u{a}\\u{202e}gnp.exe\\u{2028}" in text and "\u202e" not in text
        assert browser.complaints() == []
        # the policy holds even if the page's own code failed to
        for attack in (
            "document.body.setAttribute('onclick', \"document.title='hacked'\"); document.body.click();",
            "document.body.innerHTML = '<b>x</b>'; document.title = 'hacked';",
            "document.head.append(Object.assign(document.createElement('script'), {text: \"document.title='hacked'\"}));",
        ):
            browser.run(f"(() => {{ try {{ {attack} }} catch {{}} }})()")
            assert browser.run("document.title") == "✕ dagstop", attack
        assert browser.complaints() != []


@one_server
@shape_2
def test_a_person_with_the_token_gets_in_by_the_browsers_own_question(
    airflow_db: AirflowDatabase, browser: Browser
) -> None:
    busy.listener(airflow_db, "worker-1")
    with Page(airflow_db, token=TOKEN) as page:
        browser.driver.get(page.url)
        assert browser.run("document.querySelector('#stops')") is None
        browser.open(page.url.replace("//", f"//operator:{TOKEN}@"))
        browser.wait("document.querySelector('#live').textContent === 'live'")


@one_server
@shape_2
def test_the_containers_of_a_machine_are_named_with_why_one_is_refused(
    airflow_db: AirflowDatabase, browser: Browser
) -> None:
    busy.listener(airflow_db, "machine-1", places=busy.PLACES)
    busy.listener(airflow_db, "machine-2", places=busy.PLACES[-1:])
    opened = "[...document.querySelectorAll('#hosts .places')].map((e) => e.open).join()"
    with Page(airflow_db) as page:
        for width in (DESKTOP, PHONE):
            browser.look_as(width)
            browser.open(page.url)
            browser.wait(f"{opened} === 'true,false'")  # open where something that was named is refused
            assert browser.run("document.documentElement.scrollWidth") == width
            assert browser.run(PALE) == []
            browser.shoot(f"containers-{width}")
        text = browser.text("#hosts")
        for said in (
            "containers: 2 ours, 1 refused, 1 unreadable, 1 not named, 1 without Airflow",
            "containers: 1 ours",
            "host name worker-1 by compose=shop",
            "a listener inside keeps it (pid 4711)",
            "if that is ours, name it with --same-database",
            "(CAP_SYS_PTRACE is needed)",
            "it lives in a container that no --container names",
        ):
            assert said in text, f"{said!r} is not in: {text}"
        # the next heartbeat leaves it as the reader did
        browser.run("document.querySelectorAll('#hosts .places').forEach((e) => { e.open = !e.open; })")
        airflow_db.rows("update dagstop.listener set detail = detail || '{\"watched\": 77}'")
        browser.wait("document.querySelector('#hosts').innerText.split('knows 77 processes').length === 3")
        assert browser.run(f"{opened} === 'false,true'")
    assert browser.complaints() == []


@one_server
@shape_2
def test_an_address_chooses_one_run(airflow_db: AirflowDatabase, browser: Browser) -> None:
    """As Airflow's pages link to it; run ids of Airflow have colons and plus signs in them."""
    run = "manual__2020-01-02T03:04:05+00:00"
    mine = busy.order(airflow_db, "dag", run, ago=60)
    other = busy.order(airflow_db, "dag", f"{run}_2", ago=30)
    listed = "[...document.querySelectorAll('#stops .order')].map((e) => e.id).join()"
    with Page(airflow_db) as page:
        browser.open(page.url + plugin_file().run_url("dag", run_id=run).removeprefix(DEFAULT))
        browser.wait(f"{listed} === 'order-{mine}'")
        assert f"only dag / {run} show all" in browser.text("#run")
        browser.run("window.sameDocument = true")
        browser.shoot("one-run")
        browser.run("location.hash = 'dag_id=dag&run_id=never'")
        browser.wait(
            "document.querySelector('#stops').innerText === 'dagstop has stopped nothing of this run.'"
        )
        browser.run("document.querySelector('#run a').click()")
        browser.wait(f"{listed} === 'order-{other},order-{mine}'")
        assert browser.run("window.sameDocument && document.querySelector('#run').hidden")
    assert browser.complaints() == []
