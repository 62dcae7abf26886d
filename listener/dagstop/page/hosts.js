// One host: its listener, and the containers of its machine in which an Airflow runs.

import { el, name, plural, shown, when } from "./dom.js";

const OURS = ["good", "✓", "ours"];
const REFUSED = ["fair", "!", "refused"];
const UNREADABLE = ["bad", "✕", "unreadable"];
const NOT_NAMED = ["quiet", "–", "not named"];
const OTHERS = ["quiet", "–", "without Airflow"];

export function host(row, old) {
  if (row.tasks !== undefined) {
    return el("article", { className: "host bad" },
      el("h3", null, el("span", { className: "dot" }), name(row.host)),
      el("p", { className: "state" }, "no listener"),
      el("p", { className: "under" }, `Airflow runs ${plural(row.tasks, "task")} there`));
  }
  const { detail } = row;
  const good = row.live && !row.hangs;
  const polling = detail.notices === "polling";
  return el("article", { className: `host ${good ? (polling ? "fair" : "good") : row.gone ? "fair" : "bad"}` },
    el("h3", null, el("span", { className: "dot" }), name(row.host)),
    el("p", { className: "state" }, good ? [polling ? "polling" : "listening", ", up ", when(row.started_at, "")]
      : row.live ? "sends heartbeats, but hangs" : [row.gone ? "gone, seen " : "silent, seen ", when(row.seen_at)]),
    el("p", { className: "under" },
      `version ${shown(row.version)} · ${detail.uid === 0 ? "root" : `uid ${shown(detail.uid)}`} · `,
      `${(detail.docker ?? []).length ? "Docker" : "no Docker"} · knows ${plural(detail.watched ?? 0, "process", "processes")}`,
      detail.process_events?.told ? " · the kernel tells of each fork" : detail.process_events ? ` · looks every ${detail.process_events.every} s` : "",
      detail.process_events?.lost ? ` · ${plural(detail.process_events.lost, "event")} lost` : "",
      detail.under_way ? ` · ${plural(detail.under_way, "order")} under way` : "",
      detail.reconnects ? ` · reconnected ${detail.reconnects}\u00a0×` : ""),
    containers(detail.places ?? [], old?.querySelector("details")));
}

// Closed only while nothing that the operator named is refused, or as the reader left it.
function containers(places, old) {
  if (!places.length) return "";
  const kinds = places.map(kind);
  const counts = [OURS, REFUSED, UNREADABLE, NOT_NAMED, OTHERS].map((one) => [kinds.filter((other) => other === one).length, one[2]]);
  const words = counts.filter(([count]) => count).map(([count, word]) => `${count} ${word}`).join(", ");
  const trouble = kinds.some((one) => one === REFUSED || one === UNREADABLE);
  return el("details", { className: "places", open: old ? old.open : trouble },
    el("summary", null, `containers: ${words}`),
    el("ul", null, places.map((place, i) => container(place, kinds[i]))));
}

function kind(place) {
  if (!place.refused) return OURS;
  if (!place.named_by) return NOT_NAMED;
  if (place.airflow === false) return OTHERS;
  return place.unread ? UNREADABLE : REFUSED;
}

function container(place, [mood, mark, word]) {
  const kept = place.kept_by ? `, a listener inside keeps it (pid ${shown(place.kept_by)})` : "";
  const host = place.container && place.hostname && !place.container.startsWith(place.hostname) ? [", host name ", name(place.hostname)] : "";
  return el("li", { className: mood },
    el("span", { className: "mark", "aria-label": word }, mark),
    el("div", null, name(place.container ?? place.hostname ?? "without an id", "what"), host,
      place.named_by ? [" by ", name(place.named_by)] : "", kept,
      place.refused ? el("p", { className: "said" }, name(place.refused)) : ""));
}
