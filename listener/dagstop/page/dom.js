// Elements and times. All text becomes text nodes, never HTML: the server's policy forbids anything else.

const SVG = "http://www.w3.org/2000/svg";
const AS_PROPERTY = new Set(["className", "textContent", "hidden", "open", "onclick", "ontoggle"]);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (AS_PROPERTY.has(name) && !(element instanceof SVGElement)) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Text from elsewhere: what cannot be seen, or turns the reading direction, is written as its number.
export function shown(value) {
  return String(value ?? "").replace(
    /[\p{C}\p{Zl}\p{Zp}]/gu,
    (c) => `\\u{${c.codePointAt(0).toString(16)}}`,
  );
}

// A name from elsewhere.
export function name(value, className = "") {
  return el("bdi", { className: `name ${className}` }, shown(value));
}

// The same, with what stands between backticks as code.
export function prose(text) {
  return shown(text).split("`").map((part, i) => (i % 2 ? el("code", null, part) : part));
}

export const byId = (id) => document.getElementById(id);

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 0.00995) return `${Math.round(s * 10000) / 10} ms`;
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  for (const [size, unit] of UNITS) if (s >= 2 * size) return `${Math.floor(s / size)} ${unit}`;
  return `${Math.round(s)} s`;
}

let clockOffset = 0; // seconds that the database's clock is ahead of this browser's

export function setClock(now) {
  clockOffset = Date.parse(now) / 1000 - Date.now() / 1000;
}

export function age(moment) {
  return Date.now() / 1000 + clockOffset - Date.parse(moment) / 1000;
}

export function between(from, to) {
  return from && to ? (microseconds(to) - microseconds(from)) / 1e6 : null;
}

// Date.parse knows milliseconds only, and the first signal is often sent within one.
function microseconds(moment) {
  const digits = /\.(\d{1,6})/.exec(moment)?.[1] ?? "";
  const whole = Math.floor(Date.parse(moment) / 1000) * 1e6;
  return whole + Number(digits.padEnd(6, "0"));
}

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

// A moment, as its age; the age is brought up to date by `tick`.
export function when(moment, suffix = " ago") {
  const full = WHEN.format(new Date(moment));
  const text = `${span(age(moment))}${suffix}`;
  return el("time", { datetime: moment, title: `${full} (your time)`, "data-suffix": suffix }, text);
}

export function tick() {
  for (const time of document.querySelectorAll("time[data-suffix]")) {
    const text = `${span(age(time.dateTime))}${time.dataset.suffix}`;
    if (time.textContent !== text) time.textContent = text;
  }
}

export function plural(count, one, many = `${one}s`) {
  return `${Number(count).toLocaleString("en")} ${Number(count) === 1 ? one : many}`;
}

// Bring the children of `parent` into the form of `items`, touching only what changed, so that what a
// reader has selected, focused or opened stays so. items: [{key, facts, make(facts)}]
export function reconcile(parent, items) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const { key, facts, make } of items) {
    const print = JSON.stringify(facts);
    let child = old.get(key);
    if (!child || child.print !== print) {
      const fresh = make(facts, child);
      fresh.dataset.key = key;
      fresh.print = print;
      if (child) child.replaceWith(fresh);
      if (place === child) place = fresh;
      child = fresh;
    }
    old.delete(key);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}
