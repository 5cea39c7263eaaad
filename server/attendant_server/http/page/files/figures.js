// Live figures of the models, read every two seconds while they are looked at.

import { statistics } from "./api.js";
import { byId, el, number, svg, table } from "./dom.js";

const EVERY_MILLISECONDS = 2000;
const WINDOW_SECONDS = 10;
const NUM_KEPT = 61; // two minutes
let timer = null;
let isPaused = false;
let readings = [];

export function begin() {
  byId("fi-pause").addEventListener("click", () => {
    isPaused = !isPaused;
    byId("fi-pause").setAttribute("aria-pressed", String(isPaused));
    if (!isPaused) read();
  });
  document.addEventListener("visibilitychange", () => timer !== null && !document.hidden && read());
}

export function show() {
  timer = setInterval(() => !isPaused && !document.hidden && read(), EVERY_MILLISECONDS);
  read();
}

export function hide() {
  clearInterval(timer);
  timer = null;
  readings = [];
}

async function read() {
  try {
    const found = await statistics();
    // A server that was started again counts from zero.
    if (readings.length && found.seconds < readings.at(-1).seconds) readings = [];
    readings = [...readings, found].slice(-NUM_KEPT);
    say("");
    draw();
  } catch (error) {
    say(error.words ?? String(error));
  }
}

function say(text) {
  const status = byId("fi-status");
  if (status.textContent !== text) status.textContent = text; // said once, not at each reading
  status.classList.toggle("bad", text !== "");
}

function draw() {
  const last = readings.at(-1);
  const rows = last.models.map((model) => row(model));
  byId("fi-result").replaceChildren(
    table(
      `Calls in progress, of all callers: ${last.num_calls}`,
      ["Model", "Texts/s", "Last two minutes", "Call, ms", "Queue, ms", "Waiting", "Active", "Texts", "Failed calls"],
      rows,
      { class: "figures" },
    ),
  );
}

function row(model) {
  const { name, series } = { name: model.model, series: readings.map((each) => ({ seconds: each.seconds, ...each.models.find((other) => other.model === model.model) })) };
  const past = series.filter((each) => each.calls && each.seconds >= series.at(-1).seconds - WINDOW_SECONDS - 0.5)[0] ?? series.at(-1);
  const now = series.at(-1);
  return [
    model.is_ready ? name : `${name} (loading)`,
    rate(past, now),
    sparkline(series),
    mean(past.calls, now.calls),
    mean(past.queue, now.queue),
    String(model.num_queued_texts),
    String(model.num_active_texts),
    model.num_texts.toLocaleString("en"),
    model.failed_calls.count.toLocaleString("en"),
  ];
}

const rate = (past, now) => (now.seconds > past.seconds ? number((now.num_texts - past.num_texts) / (now.seconds - past.seconds), 1) : "–");
const mean = (past, now) => (now.count > past.count ? number(((now.seconds - past.seconds) * 1000) / (now.count - past.count), 1) : "–");

/** Texts per second between readings, as a line; the highest is named. */
function sparkline(series) {
  const rates = series.slice(1).map((each, i) => Math.max(0, ((each.num_texts ?? 0) - (series[i].num_texts ?? 0)) / (each.seconds - series[i].seconds)) || 0);
  const most = Math.max(...rates, 0);
  const points = rates.map((value, i) => `${(2 + ((NUM_KEPT - 1 - rates.length + i) * 116) / (NUM_KEPT - 2)).toFixed(1)},${(22 - (most ? value / most : 0) * 20).toFixed(1)}`);
  return el(
    "span",
    {},
    svg("svg", { class: "spark", viewBox: "0 0 120 24", width: "120", height: "24", role: "img", "aria-label": `Texts per second, at most ${number(most, 1)}` }, svg("polyline", { points: points.join(" ") })),
  );
}
