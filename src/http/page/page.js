"use strict";
// Shows what /status/events sends. Everything that comes from outside (names, ids, reasons) is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/* What the daemon's reasons mean on the line. */
const REASONS = {
  CODE_REFUSED: "the vending code is not good for this", CODE_UNKNOWN: "there is no such vending code",
  CSR_MALFORMED: "what was sent is no CSR", CSR_SIGNATURE_UNSUPPORTED: "the CSR is signed in an unknown way",
  DEVICE_HAS_CERTIFICATE: "the device has a certificate with another key", DEVICE_NOT_ON_ORDER: "the device is not on the order's list",
  HSM_UNAVAILABLE: "the HSM does not sign", ISSUER_EXPIRING: "the issuing CA expires too soon",
  KEY_BLOCKED: "this key is known to be bad", KEY_REUSED: "another device has this key", KEY_UNSUPPORTED: "a kind of key that is not allowed",
  KEY_WEAK: "the key is too weak", ORDER_CLOSED: "the order is closed", ORDER_DAY_EXHAUSTED: "the order's number for today is used up",
  ORDER_EXHAUSTED: "the order is used up", ORDER_LIST_INCOMPLETE: "the order's list of devices is not complete",
  ORDER_OUTSIDE_WINDOW: "the order does not run at this time", ORDER_PAUSED: "the order is paused", ORDER_UNKNOWN: "there is no such order",
  POP_INVALID: "the CSR is not signed with its own key", PROFILE_REFUSED: "the station may not use this profile",
  PROFILE_UNKNOWN: "there is no such profile", REISSUE_REFUSED: "the device may have no new certificate",
  REISSUE_REQUIRED: "the device's certificate was scrapped or revoked", REQUEST_INVALID: "the request is not as the protocol wants it",
  STATION_REFUSED: "the station may not use this order", STORAGE_LOW: "the daemon's disk is nearly full",
  STORAGE_UNAVAILABLE: "the daemon cannot write", SUBJECT_REFUSED: "the device's name is not as the profile wants it",
};

let snapshot = null; // the newest
let offset = 0; // the daemon's clock minus this one's, in milliseconds
let received = 0; // when the newest came, by performance.now()
let samples = [];
let lostSince = null;

/* Words and numbers. */

const plain = new Intl.NumberFormat();
const count = (number) => plain.format(number);
const fixed = (number, digits) => number.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const now = () => Date.now() + offset;
const time = (text) => (text === null ? null : Date.parse(text));
const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

function rate(perSecond) {
  if (perSecond === 0) return ["0", "a minute"];
  if (perSecond >= 100) return [count(Math.round(perSecond)), "a second"];
  if (perSecond >= 1) return [fixed(perSecond, 1), "a second"];
  const perMinute = perSecond * 60;
  if (perMinute >= 1) return [fixed(perMinute, 1), "a minute"];
  return [fixed(perMinute * 60, 1), "an hour"];
}
const rateText = (perSecond) => rate(perSecond).join(" ").replace(" a second", "/s").replace(" a minute", "/min").replace(" an hour", "/h");

function duration(seconds) {
  if (seconds === null) return ["–", ""];
  if (seconds < 0.01) return [fixed(seconds * 1000, 1), "ms"];
  if (seconds < 1) return [count(Math.round(seconds * 1000)), "ms"];
  return [fixed(seconds, 1), "s"];
}

/* How long something is, roughly, in one unit. */
function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 90) return plural(seconds, "second", "seconds");
  if (seconds < 90 * 60) return plural(Math.round(seconds / 60), "minute", "minutes");
  if (seconds < 36 * 3600) return plural(Math.round(seconds / 3600), "hour", "hours");
  return plural(Math.round(seconds / 86400), "day", "days");
}
/* The same for a narrow column. */
const brief = (milliseconds) => span(milliseconds).replace(/ second.*/, " s").replace(/ minute.*/, " min").replace(/ hour.*/, " h").replace(/ day.*/, " d");
const ago = (moment) => (now() - moment < 2000 ? "now" : `${brief(now() - moment)} ago`);

function clock(moment, withSeconds) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (withSeconds) options.second = "2-digit";
  return new Date(moment).toLocaleTimeString(undefined, options);
}
const day = (moment) => new Date(moment).toLocaleDateString("sv-SE"); // 2026-11-26
const sameDay = (left, right) => day(left) === day(right);
function when(moment) {
  if (sameDay(moment, now())) return `today ${clock(moment)}`;
  if (sameDay(moment, now() + 86400000)) return `tomorrow ${clock(moment)}`;
  return day(moment);
}
function bytes(number) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) [number, unit] = [number / 1024, unit + 1];
  return `${fixed(number, unit === 0 || number >= 100 ? 0 : 1)} ${units[unit]}`;
}

/* Elements. */

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  for (const child of children) if (child !== null) node.append(child);
  return node;
}
function drawn(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  node.append(...children);
  return node;
}
/* Replaces what a node holds only if that differs, so that nothing flickers and a selection stays. */
function fill(node, ...children) {
  const [before, next] = [node.childNodes, children.filter((child) => child !== null)];
  const same = before.length === next.length && next.every((child, index) => before[index].isEqualNode(child));
  if (!same) node.replaceChildren(...next);
}
/* One child for each item, kept as long as its key is there, in the order of the items. */
function keyed(parent, items, key, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = null;
  for (const item of items) {
    const id = key(item);
    let child = before.get(id);
    if (child) before.delete(id);
    else (child = make(item)).dataset.key = id;
    const wanted = place ? place.nextElementSibling : parent.firstElementChild;
    if (wanted !== child) parent.insertBefore(child, wanted);
    update(child, item);
    place = child;
  }
  for (const child of before.values()) child.remove();
}

function row(labels, classes) {
  const cells = labels.map((label, index) => {
    const cell = element("td", classes[index], element("div"));
    cell.setAttribute("role", "cell");
    cell.dataset.label = label;
    return cell;
  });
  const node = element("tr", "", ...cells);
  node.setAttribute("role", "row");
  return node;
}
const cell = (node, index) => node.children[index].firstElementChild;
/* Text of a cell, or a dash, which a narrow page leaves out with its label. */
function setCell(node, index, text) {
  set(cell(node, index), text === null ? "–" : text);
  node.children[index].classList.toggle("blank", text === null);
}

function listed(parent, items, none) {
  keyed(parent, items.length ? items : [null], (item) => (item ? item.key : ""), () => element("li"), (node, item) => {
    if (!item) return fill(node, element("span", "none", none));
    fill(node, element("span", "what", item.what), element("span", `value ${item.mood || ""}`, ...[].concat(item.value)),
      item.more.length ? element("span", `more ${item.mood || ""}`, ...[].concat(item.more)) : null);
  });
}

/* Parts of the page. */

const HOUR = 3600000;

function showState() {
  if (lostSince !== null) return showLost();
  const { ready, obstacles, warnings } = snapshot;
  const word = ready ? (warnings.length ? "Ready, with a warning" : "Ready") : "Not ready";
  document.body.className = `live-now ${ready ? (warnings.length ? "degraded" : "ready") : "refusing"}`;
  set($("state"), word);
  document.title = `${word} – Birthmark`;
  const icon = ready ? "/status/ready.svg" : "/status/not-ready.svg";
  if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
  const lines = [...obstacles, ...warnings].map(({ component, cause }) => element("li", "", element("b", "", component), `: ${cause}`));
  fill($("causes"), ...lines);
  set($("version"), snapshot.version);
  say([word, ...obstacles.map(({ component }) => component), ...warnings.map(({ component }) => component)].join(": "));
}
let spoken = null;
/* For who cannot see the page: what has changed, once, and not the figures in it. */
function say(words) {
  if (spoken !== null && spoken !== words) set($("said"), words);
  spoken = words;
}
function showLost() {
  document.body.className = "away";
  set($("state"), "No connection to the daemon");
  document.title = "No connection – Birthmark";
  say("No connection to the daemon");
  const last = snapshot ? `since ${clock(lostSince, true)}, when it was ${snapshot.ready ? "ready" : "not ready"}. What is shown is of that moment.` : "";
  fill($("causes"), element("li", "", `${last} Trying again.`.trim()));
}

function showTiles() {
  const { issuing, stations, certificates, ledger } = snapshot;
  const [number, unit] = rate(issuing.rate);
  set($("rate"), number);
  set($("rate-unit"), unit);
  set($("rate-sub"), `${count(ledger.certificates)} in the ledger`);
  const [p99, p99Unit] = duration(issuing.p99_seconds);
  set($("p99"), p99);
  set($("p99-unit"), p99Unit);
  const median = duration(issuing.median_seconds).join(" ");
  set($("p99-sub"), issuing.p99_seconds === null ? "none in the last minute" : `half of them within ${median}`);
  set($("refused"), count(issuing.refused));
  const newest = stations.listed.flatMap((station) => station.refusals.map((refusal) => [time(refusal.last), station.name]));
  newest.sort((left, right) => right[0] - left[0]);
  set($("refused-sub"), newest.length ? `${newest[0][1]}, ${ago(newest[0][0])}` : "since the start");
  const connected = stations.listed.filter((station) => station.connected).length + stations.others.connected;
  set($("connected"), count(connected));
  set($("connected-of"), `of ${count(stations.listed.length + stations.left_out)}`);
  set($("connected-sub"), "connected");
  const first = certificates[0];
  const days = first ? Math.floor(first.left / 86400) : null;
  set($("expiry"), first ? count(Math.max(0, days)) : "–");
  set($("expiry-unit"), days === 1 ? "day" : "days");
  set($("expiry-sub"), first ? first.of : "");
  $("expiry-tile").className = `tile ${days !== null && days < 0 ? "over" : days !== null && days < 30 ? "soon" : ""}`;
}

const ORDER = ["Order", "Progress", "Left", "Rate", "Expected end", "First-pass yield"];
const ORDER_CLASSES = ["first", "progress", "number", "number", "number", "number"];

function showOrders() {
  const { listed: orders, left_out, others } = snapshot.orders;
  const rest = left_out ? `; ${plural(left_out, "more is", "more are")} not shown (${count(others.left)} left)` : "";
  set($("orders-note"), orders.length ? `${plural(orders.length, "order", "orders")}${rest}` : "There is no open order. An operator makes one with birthmark order create.");
  $("order-rows").parentElement.hidden = orders.length === 0;
  keyed($("order-rows"), orders, (order) => order.id, () => row(ORDER, ORDER_CLASSES), (node, order) => {
    const tag = order.state === "open" ? null : element("span", order.state === "complete" ? "tag done" : "tag", order.state);
    fill(cell(node, 0), element("div", "id", order.id), element("div", "small", `${order.profile} `, tag),
      order.paused_for ? element("div", "small", order.paused_for) : null);
    const part = order.quantity ? Math.min(1, order.issued / order.quantity) : 1;
    showProgress(cell(node, 1), part, `${count(order.issued)} of ${count(order.quantity)}`, extras(order));
    setCell(node, 2, count(order.left));
    setCell(node, 3, order.rate > 0 ? rateText(order.rate) : null);
    setCell(node, 4, order.expected_end ? when(time(order.expected_end)) : null);
    setCell(node, 5, order.first_pass_yield === null ? null : `${fixed(order.first_pass_yield * 100, 1)} %`);
  });
}
function extras({ reserved, confirmed, scrapped, revoked }) {
  const parts = [[reserved, "being made"], [confirmed, "confirmed"], [scrapped, "scrapped"], [revoked, "revoked"]];
  return parts.filter(([number]) => number > 0).map(([number, word]) => `${count(number)} ${word}`).join(", ");
}
function showProgress(node, part, words, more) {
  if (!node.firstElementChild) {
    node.append(element("span", ""), element("span", "track", element("span", "fill")), element("span", "small"));
    node.children[1].setAttribute("aria-hidden", "true");
  }
  set(node.children[0], `${words} (${fixed(Math.floor(part * 1000) / 10, 1)} %)`);
  node.children[1].firstElementChild.style.width = `${part * 100}%`;
  set(node.children[2], more);
}

const STATION = ["Station", "State", "Last call", "Issued", "Rate", "Refusals"];
const STATION_CLASSES = ["first", "", "number", "number", "number", ""];
const RECENT = 600000;

function shape(kind) {
  const node = drawn("svg", { class: "shape", viewBox: "0 0 10 10", "aria-hidden": "true" });
  if (kind === "here") node.append(drawn("circle", { cx: 5, cy: 5, r: 4.5 }));
  else if (kind === "gone") node.append(drawn("circle", { cx: 5, cy: 5, r: 3.8, fill: "none", "stroke-width": 1.6 }));
  else node.append(drawn("path", { d: "M1 1L9 9M9 1L1 9", "stroke-width": 2 }));
  return node;
}
function presence(station) {
  const seen = time(station.last_seen);
  const end = time(station.certificate_expires);
  const days = end === null ? null : Math.floor((end - now()) / 86400000);
  if (station.revoked) return ["bad", "out", "revoked", ""];
  if (end !== null && end < now()) return ["bad", "out", "certificate expired", ""];
  const more = days !== null && days < 14 ? `certificate expires in ${plural(days, "day", "days")}` : "";
  if (station.connected) return ["here", "here", "connected", more];
  return ["gone", "gone", seen === null ? "not here yet" : "away", more];
}
function showStations() {
  const { listed: stations, left_out, others } = snapshot.stations;
  const recent = (station) => station.refusals.some((refusal) => now() - time(refusal.last) < RECENT);
  const refusing = stations.filter(recent).length;
  const parts = [];
  if (refusing) parts.push(`${plural(refusing, "station was", "stations were")} refused something in the last 10 minutes and ${refusing === 1 ? "is" : "are"} first`);
  if (left_out) parts.push(`${plural(left_out, "more is", "more are")} not shown (${count(others.issued)} issued, ${count(others.refused)} refused)`);
  set($("stations-note"), stations.length ? parts.join("; ") : "No station has been here yet. An operator enrols one with birthmark station enroll.");
  $("station-rows").parentElement.hidden = stations.length === 0;
  const sorted = [...stations.filter(recent), ...stations.filter((station) => !recent(station))];
  keyed($("station-rows"), sorted, (station) => station.name, () => row(STATION, STATION_CLASSES), (node, station) => {
    fill(cell(node, 0), element("div", "id", station.name));
    const [mood, kind, word, more] = presence(station);
    fill(cell(node, 1), element("span", `presence ${mood}`, shape(kind), word), more ? element("div", "small", more) : null);
    setCell(node, 2, station.last_seen === null ? null : ago(time(station.last_seen)));
    setCell(node, 3, count(station.issued));
    setCell(node, 4, station.rate > 0 ? rateText(station.rate) : null);
    node.children[5].classList.toggle("blank", station.refusals.length === 0);
    const reasons = station.refusals.slice(0, 3).map(({ reason, number, last }) => {
      const fresh = now() - time(last) < RECENT;
      const words = REASONS[reason] ? `${REASONS[reason]} (${reason})` : reason;
      return element("span", fresh ? "reason recent" : "reason", `${count(number)} × ${words}`, element("span", "small", `, ${ago(time(last))}`));
    });
    if (station.refusals.length > 3) reasons.push(element("span", "small", `and ${plural(station.refusals.length - 3, "other reason", "other reasons")}`));
    fill(cell(node, 5), ...(reasons.length ? reasons : [element("span", "none", "none")]));
  });
}

function showHsm() {
  const items = snapshot.hsm.map((token) => {
    const pips = element("span", "pips");
    pips.setAttribute("aria-hidden", "true");
    for (let at = 0; at < Math.min(token.wanted, 16); at += 1) {
      pips.append(element("span", `pip ${at < token.busy ? "on" : at < token.working ? "" : "out"}`));
    }
    const states = [token.busy ? `${token.busy} signing` : "idle"];
    if (token.hung) states.push(plural(token.hung, "call hangs", "calls hang"));
    if (token.queued) states.push(plural(token.queued, "request waits", "requests wait"));
    const out = token.outage !== null;
    return {
      key: `${token.issuer}\n${token.token}`, what: `${token.issuer} · ${token.token}`, value: out ? "does not sign" : `${token.working} of ${token.wanted}`,
      more: [pips, out ? `${token.outage}${token.needs_operator ? " A person has to see to it: birthmark hsm retry." : ""}` : states.join(", ")],
      mood: out ? "bad" : "",
    };
  });
  listed($("hsm"), items, "No issuer.");
}

/* From when on a person has to look: as the alerts in packaging/prometheus have it. */
const OLD = { waiting: 26 * HOUR, checkpoint: 3 * HOUR, backup: 8 * 24 * HOUR };

function showExports() {
  const items = snapshot.destinations.map((waiting) => {
    const parts = [];
    if (waiting.certificates) parts.push(`the oldest for ${span(now() - time(waiting.since))}`);
    if (waiting.withdrawals) parts.push(plural(waiting.withdrawals, "withdrawal", "withdrawals"));
    if (waiting.unacknowledged) {
      parts.push(`${plural(waiting.unacknowledged, "batch", "batches")} not acknowledged, the oldest for ${span(now() - time(waiting.unacknowledged_since))}`);
    }
    if (waiting.unfit) parts.push(`${count(waiting.unfit)} left out or refused by the platform`);
    if (waiting.held) parts.unshift(`held: ${waiting.held}`);
    const late = (number, since) => number && now() - time(since) > OLD.waiting;
    const old = late(waiting.certificates, waiting.since) || late(waiting.unacknowledged, waiting.unacknowledged_since);
    return {
      key: waiting.destination, what: waiting.destination, value: waiting.certificates ? count(waiting.certificates) : "none",
      more: parts.join("; "), mood: waiting.held ? "bad" : old ? "warn" : "",
    };
  });
  listed($("exports"), items, "No destination is configured.");
}

function showEnds() {
  const items = snapshot.certificates.map((end) => {
    const days = Math.floor(end.left / 86400);
    const mood = end.left < 0 ? "bad" : days < 30 ? "warn" : "";
    return { key: `${end.of}\n${end.expires}`, what: end.of, value: end.left < 0 ? "expired" : plural(days, "day", "days"), more: day(time(end.expires)), mood };
  });
  listed($("ends"), items, "None.");
}

function showKept() {
  const { checkpoint, backup, revocation_lists, ledger } = snapshot;
  const items = [];
  const add = (what, value, more, mood) => items.push({ key: what, what, value, more, mood });
  if (!checkpoint) add("Last checkpoint", "none", "There is no audit key: nothing shows that the journal was cut short.", "warn");
  else if (!checkpoint.at) add("Last checkpoint", "none yet", "");
  else add("Last checkpoint", ago(time(checkpoint.at)), checkpoint.lag > 0 ? `entries without one for ${span(checkpoint.lag * 1000)}` : "covers every entry", checkpoint.lag * 1000 > OLD.checkpoint ? "warn" : "");
  if (!backup) add("Last backup", "none", "None was made with birthmark backup.", "warn");
  else add("Last backup", ago(time(backup.at)), `${count(ledger.entries - backup.entries)} entries are newer`, now() - time(backup.at) > OLD.backup ? "warn" : "");
  for (const list of revocation_lists) {
    add(`Revocation list of ${list.issuer}`, ago(time(list.made)), `${plural(list.entries, "certificate", "certificates")}; expires in ${span(time(list.expires) - now())}`);
  }
  const { disk_free: free, disk_needed: needed } = ledger;
  const room = free < needed ? "bad" : free < 2 * needed ? "warn" : "";
  if (free !== null) add("Disk free", bytes(free), `at least ${bytes(needed)} are needed`, room);
  if (ledger.as_of) add("As of", clock(time(ledger.as_of), true), "What other daemons have written since cannot be seen: the database is away.", "warn");
  add("Journal", bytes(ledger.bytes), `${plural(ledger.entries, "entry", "entries")}; ${count(ledger.index_lag)} not in the index yet`);
  if (ledger.mirrored !== null) add("Mirror of the journal", ledger.mirrored ? "complete" : "behind", "", ledger.mirrored ? "" : "warn");
  const wrong = snapshot.clock.implausible;
  add("Clock of the daemon", clock(now(), true), wrong || `${day(now())}, this browser's time zone`, wrong ? "bad" : "");
  add("Running for", span(now() - time(snapshot.started_at)), `version ${snapshot.version}`);
  listed($("kept"), items, "");
}

/* Charts. */

function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= value);
}
function chart(node, series, label) {
  const { width, height } = node.getBoundingClientRect();
  if (width < 10) return;
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const left = 4.2 * rem, right = width - 4, top = 0.7 * rem, bottom = height - 1.4 * rem;
  const end = samples.length ? time(samples[samples.length - 1].at) : now();
  const x = (moment) => right - ((end - moment) / HOUR) * (right - left);
  const known = series.some(({ values }) => values.some((value) => value !== null));
  const most = niceTop(Math.max(...series.flatMap(({ values }) => values.filter((value) => value !== null)), 0));
  const y = (value) => bottom - (value / most) * (bottom - top);
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    const at = y(most * part);
    parts.push(drawn("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    if (known || part === 0) parts.push(drawn("text", { x: left - 0.5 * rem, y: at + 0.28 * rem, "text-anchor": "end" }, label(most * part)));
  }
  for (const [minutes, anchor] of [[60, "start"], [45, "middle"], [30, "middle"], [15, "middle"], [0, "end"]]) {
    const moment = end - minutes * 60000;
    parts.push(drawn("text", { x: x(moment), y: height - 0.25 * rem, "text-anchor": anchor }, clock(moment)));
  }
  const step = (right - left) / 360;
  samples.forEach((sample) => {
    if (!sample.ready) parts.push(drawn("rect", { class: "out", x: x(time(sample.at)) - step, width: step + 0.5, y: top, height: bottom - top }),
      drawn("line", { class: "outline", x1: x(time(sample.at)) - step, x2: x(time(sample.at)), y1: bottom, y2: bottom }));
  });
  series.forEach(({ values, area, className }) => {
    let line = "", under = "", open = null;
    values.forEach((value, index) => {
      const at = x(time(samples[index].at));
      if (value === null || at < left) {
        if (open !== null) under += `L${x(time(samples[index - 1].at))} ${bottom}Z`;
        open = null;
        return;
      }
      line += `${open === null ? "M" : "L"}${at.toFixed(1)} ${y(value).toFixed(1)}`;
      under += open === null ? `M${at.toFixed(1)} ${bottom}L${at.toFixed(1)} ${y(value).toFixed(1)}` : `L${at.toFixed(1)} ${y(value).toFixed(1)}`;
      open = at;
    });
    if (open !== null) under += `L${open} ${bottom}Z`;
    if (area) parts.push(drawn("path", { class: "area", d: under }));
    parts.push(drawn("path", { class: `curve ${className || ""}`, d: line }));
  });
  node.setAttribute("viewBox", `0 0 ${width} ${height}`);
  node.replaceChildren(...parts);
}
function showCharts() {
  const rates = samples.map((sample) => sample.rate);
  const median = samples.map((sample) => sample.median_seconds), slow = samples.map((sample) => sample.p99_seconds);
  const most = Math.max(...rates, 0);
  const perMinute = most < 1;
  chart($("rate-chart"), [{ values: rates, area: true }], (value) => (perMinute ? `${plain.format(+(value * 60).toPrecision(3))}/min` : `${plain.format(+value.toPrecision(3))}/s`));
  chart($("latency-chart"), [{ values: median, area: true }, { values: slow, className: "second" }], (value) => `${plain.format(+(value * 1000).toPrecision(3))} ms`);
  const out = samples.filter((sample) => !sample.ready).length * 10;
  const outage = out ? ` Not ready for ${span(out * 1000)} (shaded).` : "";
  if (!samples.length) {
    set($("rate-words"), "The first point comes ten seconds after the start.");
    set($("latency-words"), "");
    return;
  }
  const average = rates.reduce((sum, value) => sum + value, 0) / rates.length;
  const peak = rates.lastIndexOf(most);
  set($("rate-words"), `Average ${rateText(average)}; most ${rateText(most)} at ${clock(time(samples[peak].at))}.${outage}`);
  const known = slow.filter((value) => value !== null);
  set($("latency-words"), known.length ? `Line: half of the certificates; dashes: 99 in 100. Slowest ten seconds: ${duration(Math.max(...known)).join(" ")}.` : "No certificate in this hour.");
}

/* Life. */

function show() {
  const first = $("live-part").hidden;
  $("live-part").hidden = false;
  showState();
  showTiles();
  showOrders();
  showStations();
  showHsm();
  showExports();
  showEnds();
  showKept();
  if (first) showCharts();
}
function showLife() {
  if (snapshot && performance.now() - received > 4000) lose();
  if (lostSince !== null) showLost();
  set($("live-text"), lostSince !== null ? "not live" : snapshot ? `live, ${clock(now(), true)}` : "connecting");
}
function lose() {
  if (lostSince === null) lostSince = snapshot ? now() - (performance.now() - received) : Date.now();
}

let source = null;
let pause = 1000;
function connect() {
  source = new EventSource("/status/events");
  source.addEventListener("history", (event) => {
    samples = JSON.parse(event.data).samples;
    showCharts();
  });
  source.addEventListener("samples", (event) => {
    samples = [...samples, ...JSON.parse(event.data)].slice(-360);
    showCharts();
  });
  source.addEventListener("status", (event) => {
    const next = JSON.parse(event.data);
    // Another program may have another page.
    if (snapshot && snapshot.version !== next.version) return location.reload();
    snapshot = next;
    [received, lostSince, pause] = [performance.now(), null, 1000];
    offset = time(next.at) - Date.now();
    show();
    showLife();
  });
  source.addEventListener("error", () => {
    source.close();
    lose();
    showLife();
    setTimeout(connect, pause);
    pause = Math.min(pause * 1.5, 5000);
  });
}

connect();
setInterval(showLife, 1000);
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(showCharts, 100);
});
