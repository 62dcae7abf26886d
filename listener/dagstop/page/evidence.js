// All that is known of one stop: what died, why, by which signals; what was spared or could not be killed.

import { between, el, name, plural, shown, span, when } from "./dom.js";
import { badge } from "./stops.js";

export function evidence(order) {
  const nothing = order.reports.filter((report) => report.outcome === "nothing_found" && !(report.detail.not_found ?? []).length);
  const others = order.reports.filter((report) => !nothing.includes(report));
  return [
    others.map((report) => hostReport(order, report)),
    nothing.length ? part("Nothing found", el("p", { className: "under" },
      nothing.slice(0, 30).map((report, i) => [i ? ", " : "", name(report.host)]),
      nothing.length > 30 ? ` and ${nothing.length - 30} more hosts` : "")) : null,
    order.targets.length ? part(plural(order.targets.length, "task instance"), table(
      ["task", "was", "try", "operator", "where, according to Airflow", ""],
      order.targets.map((row) => [
        name(row.map_index > -1 ? `${row.task_id}[${row.map_index}]` : row.task_id),
        name(row.state_before ?? "no state"), row.try_number ?? "", name(row.operator ?? ""),
        [name(row.hostname ?? ""), row.pid ? ` pid ${row.pid}` : ""],
        row.released_at ? [order.state_after === "deleted" ? "deleted " : "released ", when(row.released_at)] : "",
      ]))) : null,
    order.refused.length ? part(plural(order.refused.length, "refused write"), table(
      ["task", "wanted", "by", "when"],
      order.refused.map((row) => [
        row.task_id === null ? "the run itself" : name(row.task_id), name(row.wanted_state ?? "no state"),
        [name(row.session_user_name), row.application_name ? [" with ", name(row.application_name)] : ""],
        after(order, row.at),
      ]))) : null,
    el("p", { className: "under" }, `order ${order.id}, backend ${order.backend_pid}, transaction ${order.txid} · `,
      el("a", { href: `/api/orders/${order.id}` }, "everything as JSON")),
  ].flat().filter(Boolean);
}

function part(title, ...children) {
  return el("section", { className: "part" }, el("h4", null, title), children);
}

function hostReport(order, report) {
  const { processes = [], containers = [], problem } = report.detail;
  const { not_found: missing = [], ended_by_itself: alone = [], could_not_look: blind = [], not_told: gaps = [] } = report.detail;
  const { containers_untold: untold = [], execs_untold: untoldExecs = [] } = report.detail;
  const spared = (report.detail.spared ?? []).filter((item) => !item.whose);
  const others = (report.detail.spared ?? []).filter((item) => item.whose);
  const living = [...processes, ...containers].filter((item) => item.died_at === null);
  return el("section", { className: "part" },
    el("h4", null, name(report.host), " ", badge(report.outcome)),
    problem ? el("p", { className: "bad" }, name(problem)) : "",
    blind.map((why) => el("p", { className: "bad" }, "Could not look: ", name(why))),
    missing.length ? tasks("Ran here according to Airflow, and nothing of it was seen: ", missing, "note") : "",
    living.length && report.outcome ? [el("h5", null, "Could not be killed"), living.map((item) => killed(order, item))] : "",
    spared.length ? [el("h5", null, "Spared"), spared.map(sparedItem)] : "",
    ended(order, [...processes, ...containers].filter((item) => item.died_at !== null || !report.outcome), report.outcome !== null),
    others.length ? [el("h5", null, "Looks similar, but is not this run's"), others.map(sparedItem)] : "",
    alone.length ? tasks("Ended by itself: ", alone, "under") : "",
    gaps.map((gap) => el("p", { className: "under" }, "Nobody was told what it forked ",
      gap.from ? `for ${span(between(gap.from, gap.to))}, ` : "", "until ", when(gap.to), ": ", name(gap.why))),
    untold.length ? chips("Containers created then, which may be this run's:", untold) : "",
    untoldExecs.length ? chips("What docker exec started then, which may be this run's:", untoldExecs) : "");
}

function chips(words, names) {
  return el("p", { className: "under" }, words, names.map((one) => [" ", name(one, "chip")]));
}

function tasks(words, names, className) {
  return el("p", { className }, words, names.map((task, i) => [i ? ", " : "", name(task)]));
}

function ended(order, items, over) {
  if (!items.length) return "";
  const few = items.slice(0, 200);
  return [el("h5", null, over ? "Stopped" : "Being stopped"), few.map((item) => killed(order, item, over)),
    items.length > few.length ? el("p", { className: "under" }, `and ${items.length - few.length} more; all are in the JSON`) : ""];
}

function what(item) {
  const id = item.pid !== undefined ? `pid ${item.pid}` : item.id !== undefined ? `container ${item.id}`
    : item.exec !== undefined ? `docker exec in ${item.container}` : "container";
  return [el("span", { className: "id" }, shown(id)), " ",
    el("code", null, name(item.command ?? item.exec ?? `${item.name ?? item.container ?? ""} ${item.image ? `(${item.image})` : ""}`))];
}

function killed(order, item, over = true) {
  const dead = item.died_at !== null;
  const mood = dead ? "good" : over ? "bad" : "open";
  return el("div", { className: `item ${mood}` },
    el("p", { className: "what" }, what(item)),
    el("p", { className: "fate" },
      item.signals.map(([signal, at]) => [el("span", { className: "signal" }, shown(signal)), " ", after(order, at), " → "]),
      dead ? el("strong", null, "dead ", after(order, item.died_at)) : el("strong", null, `alive: ${shown(item.alive ?? "being stopped")}`),
      item.noticed ? ` (${shown(item.noticed)})` : ""),
    why(item));
}

function sparedItem(item) {
  return el("div", { className: "item fair" }, el("p", { className: "what" }, what(item)), why(item));
}

function why(item) {
  return el("p", { className: "why" }, item.whose ? [name(item.whose), ": "] : "", name(item.why),
    (item.evidence ?? []).map((word) => [" ", name(word, "chip")]));
}

function after(order, moment) {
  const seconds = between(order.created_at, moment);
  return seconds < 0 ? `${span(-seconds)} before` : `+${span(seconds)}`;
}

function table(columns, rows) {
  return el("div", { className: "scroll" }, el("table", null,
    el("thead", null, el("tr", null, columns.map((column) => el("th", null, column)))),
    el("tbody", null, rows.map((row) => el("tr", null, row.map((cell) => el("td", null, cell)))))));
}
