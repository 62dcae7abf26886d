// One stop: who, what, and per host a drawn line from the commit to the last death.

import { between, el, name, plural, shown, span, svg, when } from "./dom.js";
import { evidence } from "./evidence.js";

// the worst first, as in dagstop/model.py
const OUTCOMES = {
  unkillable: ["bad", "not dead"],
  spared: ["fair", "spared"],
  could_not_look: ["bad", "could not look"],
  not_found: ["fair", "not found"],
  stopped: ["good", "stopped"],
  superseded: ["fair", "superseded"],
  nothing_found: ["quiet", "nothing found"],
};

const opened = new Set();
let onOpened = () => {};

export function whenOpened(callback) {
  onOpened = callback;
}

export function who(order) {
  const from = order.client_addr ? ["from ", name(order.client_addr)] : "through a local socket";
  return el("span", { className: "who" }, name(order.session_user_name),
    order.application_name ? [" with ", name(order.application_name)] : "", " ", from);
}

function title(order) {
  return el("h3", null,
    name(order.dag_id, "dag"), el("span", { className: "sep" }, " / "), name(order.run_id ?? order.logical_date ?? "no run", "run"),
    order.task_id !== null ? [el("span", { className: "sep" }, " / "), name(order.task_id, "task")] : "",
    order.map_index !== null && order.map_index > -1 ? name(`[${order.map_index}]`, "task") : "");
}

export function badge(outcome) {
  const [mood, words] = outcome === null ? ["open", "under way"] : OUTCOMES[outcome] ?? ["quiet", shown(outcome)];
  return el("span", { className: `badge ${mood}` }, words);
}

function waits(hosts) {
  const more = hosts.length - 5;
  return el("p", { className: "waits" }, hosts.length
    ? ["waits for ", hosts.slice(0, 5).map((host, i) => [i ? ", " : "", name(host)]), more > 0 ? ` and ${more} more` : ""]
    : "waits for a listener: every running listener has reported");
}

export function stop(order, old, ask) {
  const key = order.id;
  const card = el("details", {
    className: `order ${order.open ? "open" : ""}`,
    id: `order-${order.id}`,
    open: opened.has(key),
  });
  const inside = old?.querySelector(".evidence") ?? el("div", { className: "evidence" });
  card.append(el("summary", null, head(order), order.open ? waits(order.waiting_for ?? []) : "", timeline(order)), inside);
  card.addEventListener("toggle", () => {
    if (card.open) opened.add(key);
    else opened.delete(key);
    if (card.open) load(order, inside, ask);
  });
  return card; // setting `open` fires toggle too
}

async function load(order, inside, ask) {
  if (!inside.hasChildNodes()) inside.append(el("p", { className: "under" }, "reading the evidence …"));
  try {
    inside.replaceChildren(...evidence(await ask(`/api/orders/${order.id}`)));
    onOpened();
  } catch (error) {
    inside.replaceChildren(el("p", { className: "bad" }, shown(error.message)));
  }
}

function head(order) {
  const total = (field) => order.hosts.reduce((sum, host) => sum + Number(host[field]), 0);
  const counts = [
    ["processes", "process", "processes"], ["containers", "container", "containers"],
  ].map(([field, one, many]) => (total(field) ? plural(total(field), one, many) : null)).filter(Boolean);
  const spared = total("spared");
  const alive = total("alive");
  return el("div", { className: "head" },
    el("div", null,
      title(order),
      el("p", { className: "under" }, when(order.created_at),
        order.state_after === "failed" ? "" : [" ", name(order.state_after)], " by ", who(order),
        order.self_reported ? " (perhaps the task itself)" : "",
        order.state_before ? [", was ", name(order.state_before)] : "")),
    el("div", { className: "result" },
      outcomes(order, alive, spared),
      counts.length ? el("span", { className: "count" }, counts.join(", ")) : "",
      order.targets > 0 ? el("span", { className: "count" }, plural(order.targets, "task")) : "",
      alive && !order.open ? el("span", { className: "badge bad" }, `${alive} not dead`) : "",
      spared ? el("span", { className: "badge fair" }, `${spared} spared`) : "",
      Number(order.refused_writes) ? el("span", { className: "badge quiet" }, plural(order.refused_writes, "refused write")) : "",
      order.hosts.some((host) => host.problem) ? el("span", { className: "badge bad" }, "trouble") : ""));
}

// one badge for each different outcome, the worst first; two of them are said by their numbers
function outcomes(order, alive, spared) {
  const found = new Set(order.hosts.map((host) => host.outcome));
  if (order.open) found.add(null);
  if (!found.size) return Number(order.nothing_found) ? badge("nothing_found") : el("span", { className: "badge quiet" }, "no report");
  if (alive && !order.open) found.delete("unkillable");
  if (spared) found.delete("spared");
  const ranks = [null, ...Object.keys(OUTCOMES)];
  return [...found].sort((a, b) => ranks.indexOf(a) - ranks.indexOf(b)).map(badge);
}

// Per host: commit at the left, a thin line until the first signal, a thick one until the last death.
// All hosts of an order have one scale, so that they can be held against each other.
function timeline(order) {
  const rows = order.hosts
    .filter((host) => host.first_signal_at || host.outcome === null)
    .map((host) => ({
      ...host,
      signal: between(order.created_at, host.first_signal_at),
      death: between(order.created_at, host.last_death_at),
    }));
  if (!rows.length) return "";
  const longest = Math.max(0.001, ...rows.map((row) => Math.max(row.signal ?? 0, row.death ?? 0)));
  const some = rows.slice(0, 8);
  return el("div", { className: "timeline" },
    some.map((row) => el("div", { className: "line" },
      name(row.host, "who"), drawn(row, longest), el("span", { className: "took" }, took(row)))),
    rows.length > some.length ? el("p", { className: "under" }, `and ${rows.length - some.length} more hosts`) : "");
}

function took(row) {
  const signal = row.signal === null ? "" : `signal ${span(row.signal)}`;
  if (row.death === null) return signal || "begins";
  return `${signal}, ${Number(row.alive) ? "last death" : "dead"} ${span(row.death)}`;
}

function drawn(row, longest) {
  const at = (seconds) => `${(1.5 + (96 * Math.max(0, seconds)) / longest).toFixed(2)}%`;
  const words = `commit at 0, ${took(row)}`;
  const signal = row.signal ?? 0;
  const end = row.death ?? longest;
  const alive = Number(row.alive) === 0 ? "" : row.outcome === null ? "busy" : "alive";
  return svg("svg", { class: "drawn", role: "img", "aria-label": words, height: "18", width: "100%" },
    svg("title", null, words),
    svg("line", { class: "axis", x1: "1.5%", x2: "97.5%", y1: "9", y2: "9" }),
    svg("line", { class: "until-signal", x1: "1.5%", x2: at(signal), y1: "9", y2: "9" }),
    row.signal === null ? "" : svg("line", { class: `until-death ${alive}`, x1: at(signal), x2: at(Math.max(end, signal)), y1: "9", y2: "9" }),
    svg("line", { class: "commit", x1: "1.5%", x2: "1.5%", y1: "2", y2: "16" }),
    row.signal === null ? "" : svg("circle", { class: "signal", cx: at(signal), cy: "9", r: "3.5" }),
    row.death === null ? "" : svg("circle", { class: `death ${alive}`, cx: at(end), cy: "9", r: "5" }));
}
