// Asks every two seconds, while somebody looks, and draws what changed.

import { age, byId, el, name, plural, prose, reconcile, setClock, shown, span, tick } from "./dom.js";
import { host } from "./hosts.js";
import { stop, whenOpened } from "./stops.js";

const EVERY = 2000; // milliseconds
const EVERY_CHOICE = 10000; // the same for what a filter chose, which costs the database more
const FEW = 12; // hosts that are shown at first
const LIMIT = 40; // orders in one answer

let older = []; // orders below the newest ones, asked for with a click
let chosen = []; // the orders that the filter chose
let chosenAt = 0;
let noMore = false; // there are no older ones
let run = new URLSearchParams(); // the one run that the address names: #dag_id=...&run_id=... or &date=...
let latest = null;
let allHosts = false;
let failures = 0;
let lastAnswer = 0;
let timer = 0;

async function ask(path) {
  // from the origin: a URL with a user and a password in it may not be fetched
  const response = await fetch(location.origin + path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  const facts = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  if (!response.ok) throw new Error(facts.error ?? `${response.status}`);
  return facts;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const before = latest?.orders ?? [];
    latest = await ask("/api/overview");
    if (older.length) older = below(latest.orders, [...before, ...older]);
    failures = 0;
    lastAnswer = Date.now();
    setClock(latest.now);
    if (filter() && Date.now() - chosenAt > EVERY_CHOICE) {
      const { orders } = await ask(`/api/orders?${filter()}`);
      chosen = [...orders, ...below(orders, chosen)];
      chosenAt = Date.now();
    }
    draw();
  } catch (error) {
    failures += 1;
    drawTrouble(error);
  }
  drawLive();
  if (!document.hidden) timer = setTimeout(refresh, EVERY * Math.min(5, 1 + failures));
}

// Those of `more` that are older than all of `orders`.
function below(orders, more) {
  const last = Math.min(...orders.map((order) => order.id));
  return more.filter((order) => order.id < last);
}

function choose() {
  older = chosen = [];
  chosenAt = 0;
  noMore = false;
  refresh();
}

function filter() {
  const query = new URLSearchParams(run);
  const only = document.querySelector("#only [aria-pressed=true]").dataset.only;
  if (only) query.set("only", only);
  if (byId("words").value.trim()) query.set("words", byId("words").value.trim());
  return query.toString();
}

function draw() {
  const { here, able, findings, numbers, listeners, uncovered } = latest;
  byId("where").replaceChildren(name(here.host), " · ", name(here.database.replace(/^.*@/, "")));
  byId("version").textContent = `dagstop ${shown(here.version)}, served by ${shown(here.host)}`;
  document.title = able ? "dagstop" : "✕ dagstop";
  drawVerdict(able, findings, listeners);
  drawTiles(numbers);
  drawHosts(listeners, uncovered);
  const known = new Map(latest.orders.map((order) => [order.id, order]));
  const open = new Map(latest.open.filter(({ id }) => known.has(id)).map((order) => [order.id, { ...known.get(order.id), waiting_for: order.waiting_for }]));
  const orders = filter() ? chosen : [...latest.orders, ...older];
  drawOpen(open, numbers.open_orders);
  drawStops(filter() ? orders : orders.filter((order) => !open.has(order.id)), open);
  byId("older").hidden = noMore || orders.length < LIMIT;
  tick();
}

function drawVerdict(able, findings, listeners) {
  const red = findings.filter((finding) => !finding.ok);
  const urgent = [...red, ...findings.filter((finding) => finding.ok && finding.do)];
  const alive = listeners.filter((listener) => listener.live).length;
  const facts = { able, findings: findings.map(({ said, ...rest }) => (rest.ok ? rest : { ...rest, said: said.replace(/\d+ (ms|s|min)\b/, "") })), alive };
  const make = (_, old) => {
    const wasOpen = old?.querySelector("details")?.open ?? false;
    const title = able ? "Everything can be stopped" : red.length === 1 ? "One thing needs fixing" : `${red.length} things need fixing`;
    return el("div", { className: able ? "good" : "bad" },
      el("h2", null, el("span", { className: "mark", "aria-hidden": "true" }, able ? "✓" : "✕"), title),
      el("p", { className: "under" }, able
        ? `A run that is marked failed stops on ${plural(alive, "host")}: triggers in place, listeners alive, no faults.`
        : "Until this is fixed, a run that is marked failed may not stop everywhere."),
      urgent.length ? el("ul", { className: "findings" }, urgent.map(finding)) : "",
      el("details", { open: wasOpen },
        el("summary", null, `all ${plural(findings.length, "check")}`),
        el("ul", { className: "findings" }, findings.map(finding))));
  };
  reconcile(byId("verdict"), [{ key: "verdict", facts, make }]);
}

function finding(item) {
  const [mood, word, mark] = !item.ok ? ["bad", "failed", "✕"] : item.do ? ["fair", "warning", "!"] : ["good", "ok", "✓"];
  return el("li", { className: mood },
    el("span", { className: "mark", "aria-label": word }, mark),
    el("div", null, name(item.name, "what"), " ", name(item.said, "said"),
      item.do ? el("p", { className: "do" }, "→ ", prose(item.do)) : ""));
}

function drawTiles(numbers) {
  const stops = Number(numbers.run_orders) + Number(numbers.task_orders);
  const tiles = [
    ["orders in 24 hours", stops.toLocaleString("en"), `${plural(numbers.run_orders, "run")}, ${plural(numbers.task_orders, "task")}; ${Number(numbers.open_orders) || "none"} open`, ""],
    ["median to last death", numbers.median_seconds === null ? "–" : span(numbers.median_seconds),
      numbers.slowest_seconds === null ? "nothing died" : `slowest ${span(numbers.slowest_seconds)}`, ""],
    ["refused writes", Number(numbers.refused_writes).toLocaleString("en"), "of dying tasks", ""],
    ["faults in triggers", Number(numbers.faults).toLocaleString("en"), "none failed Airflow", numbers.faults > 0 ? "bad" : ""],
  ];
  reconcile(byId("tiles"), tiles.map((tile) => ({
    key: tile[0],
    facts: tile,
    make: ([title, value, under, mood]) => el("div", { className: `tile ${mood}` },
      el("p", { className: "title" }, title), el("p", { className: "value" }, value), el("p", { className: "under" }, under)),
  })));
}

function drawOpen(open, count) {
  byId("open").hidden = open.size === 0;
  const more = Number(count) > open.size && Number(count) > 40;
  byId("open-title").textContent = more ? `Open orders, the newest ${open.size} of ${Number(count).toLocaleString("en")}` : "Open orders";
  reconcile(byId("open-list"), [...open.values()].map((order) => card({ ...order, open: true })));
}

function drawStops(orders, open) {
  const once = [...new Map(orders.map((order) => [order.id, order])).values()];
  const items = once.map((order) => card({ ...order, ...open.get(order.id), open: open.has(order.id) }));
  if (!items.length) {
    const none = String(run) ? "dagstop has stopped nothing of this run." : "No stop matches.";
    const words = filter() ? none : "Nothing has been stopped yet. Mark a DAG run failed, and it shows here.";
    items.push({ key: "none", facts: words, make: () => el("p", { className: "none" }, words) });
  }
  reconcile(byId("stops"), items);
}

function card(order) {
  return { key: `order-${order.id}`, facts: order, make: (facts, old) => stop(facts, old, ask) };
}

function drawHosts(listeners, uncovered) {
  const rows = [
    ...uncovered.map((row) => ({ host: row.hostname, tasks: row.tasks })),
    ...listeners.filter((row) => !row.live && !row.gone),
    ...listeners.filter((row) => row.live),
    ...listeners.filter((row) => row.gone),
  ];
  const some = allHosts ? rows : rows.slice(0, FEW);
  const items = some.map((row) => ({ key: `host-${row.host}-${row.tasks ?? ""}`, facts: visible(row), make: host }));
  if (!items.length) {
    const words = "No listener has ever reported: run `dagstop listen` on each host that runs tasks.";
    items.push({ key: "none", facts: words, make: () => el("p", { className: "none" }, prose(words)) });
  }
  reconcile(byId("hosts"), items);
  byId("all-hosts").hidden = rows.length <= FEW || allHosts;
  byId("all-hosts").textContent = `all ${rows.length} hosts`;
}

function visible({ db_now, detail, ...row }) {
  const { tally, looked_ago, ...rest } = detail ?? {};
  return { ...row, detail: rest, hangs: looked_ago > 30 };
}

function drawTrouble(error) {
  const make = () => el("div", { className: "bad" },
    el("h2", null, el("span", { className: "mark", "aria-hidden": "true" }, "✕"), "The page cannot say"),
    el("p", { className: "under" }, shown(error.message)),
    el("p", { className: "under" }, latest ? "What is shown below is from the last answer." : "The page keeps retrying."));
  reconcile(byId("verdict"), [{ key: "trouble", facts: error.message, make }]);
  document.title = "✕ dagstop";
}

function drawLive() {
  const live = byId("live");
  const silent = (Date.now() - lastAnswer) / 1000;
  const good = failures === 0;
  live.className = `live ${good ? "good" : "bad"}`;
  live.textContent = good ? "live" : lastAnswer ? `no answer for ${span(silent)}` : "no answer";
}

byId("only").addEventListener("click", (event) => {
  if (event.target.dataset.only === undefined) return;
  for (const button of byId("only").children) button.setAttribute("aria-pressed", String(button === event.target));
  choose();
});

// Airflow's pages link to one run's stops (dagstop/plugin); what comes after the # never reaches a server's log.
function chooseRun() {
  const given = new URLSearchParams(location.hash.slice(1));
  run = new URLSearchParams(["dag_id", "run_id", "date"].filter((key) => given.has(key)).map((key) => [key, given.get(key)]));
  const named = String(run) !== "";
  byId("run").hidden = !named;
  byId("run").replaceChildren();
  if (named) {
    byId("run").append("only ", name(run.get("dag_id")), " / ", name(run.get("run_id") ?? run.get("date")), " ", el("a", { href: "#" }, "show all"));
    byId("stops-title").scrollIntoView();
  }
  choose();
}

window.addEventListener("hashchange", chooseRun);

let typing = 0;
byId("words").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(choose, 250);
});

byId("older").addEventListener("click", async () => {
  const shownNow = filter() ? chosen : [...latest.orders, ...older];
  const query = new URLSearchParams(filter());
  query.set("before", Math.min(...shownNow.map((order) => order.id)));
  try {
    const { orders } = await ask(`/api/orders?${query}`);
    if (filter()) chosen = [...chosen, ...orders];
    else older = [...older, ...orders];
    noMore = orders.length < LIMIT;
    draw();
  } catch (error) {
    drawTrouble(error);
  }
});

byId("all-hosts").addEventListener("click", () => {
  allHosts = true;
  draw();
});

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
setInterval(tick, 1000);
whenOpened(draw);
chooseRun();
