// Asks for the samples of the run and shows them: totals, a table and charts, which are Vega-Lite's where it is there.
"use strict";

const RATE_MS = 5000; // a rate is over so long
const POINTS = 600; // a chart has at most twice as many; then every second one goes
const ASK_MS = 1000;
const ABSENT = "-";

const SAID = {
  off: "Runs are not kept, since --results is empty: there is nothing to show.",
  idle: "There was no run yet: start one on the page Load.",
  starting: "The run begins ...",
  ramp: "Messages are being sent, at a rate that changes.",
  hold: "Messages are being sent.",
  drain: "Nothing is sent any more: waiting until the queues are empty, then the books are closed.",
  closed: "The books are closed.",
  broken: "The books of this run were not closed: Locust's log says why.",
  silent: "Locust does not answer; asking again.",
};

// What every arm has: name in the table, member of a sample, digits, factor.
const COLUMNS = [
  ["visible", "visible"],
  ["in flight", "in_flight"],
  ["oldest, s (estimate)", "oldest_ms", 1, 1 / 1000],
  ["invocations", "invocations"],
  ["concurrency", "concurrency"],
  ["throttles", "throttles"],
  ["errors", "errors"],
  ["dead letters", "dead_letters"],
];
const INK = "var(--ink)", MUTED = "var(--muted)";
const colour = (i) => `var(--arm-${i % 7})`;
const SOLID = [1, 0], DASHED = [6, 3], DOTTED = [2, 2];

const get = (id) => document.getElementById(id);
const shown = (value, digits = 0) =>
  value === null || value === undefined || Number.isNaN(value)
    ? ABSENT
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const money = (usd) => (usd === null ? ABSENT : usd.toPrecision(3));

function element(tag, content = "", attributes = {}) {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The sum over arms, or null where one is not known.
const sum = (arms, member) =>
  Object.values(arms).reduce((all, one) => (all === null || one[member] === null ? null : all + one[member]), 0);

// The charts. A line: name, colour, dashes, digits, and its value of a sample; `per` is its change a second.
function charts(arms) {
  const of = (member, factor = 1) =>
    arms.map((arm, i) => ({
      name: arm, colour: colour(i), dash: i ? DASHED : SOLID,
      value: (s) => (s.arms[arm][member] === null ? null : s.arms[arm][member] * factor),
    }));
  return [
    { title: "Offered and achieved", unit: "messages/s", digits: 1, lines: [
      { name: "offered", colour: MUTED, dash: DASHED, value: (s, per) => per((one) => one.intended) },
      { name: "achieved", colour: colour(2), dash: SOLID, value: (s, per) => per((one) => one.done) },
    ] },
    { title: "In the queues", unit: "messages", lines: arms.flatMap((arm, i) => [
      { name: `${arm}, visible`, colour: colour(i), dash: SOLID, value: (s) => s.arms[arm].visible },
      { name: "in flight", colour: colour(i), dash: DOTTED, value: (s) => s.arms[arm].in_flight },
    ]) },
    { title: "Oldest message", unit: "seconds, estimate", digits: 1, lines: of("oldest_ms", 1 / 1000) },
    { title: "Invocations", unit: "per second", digits: 1, lines: of("invocations").map((line, i) => ({
      ...line, value: (s, per) => per((one) => one.arms[arms[i]].invocations),
    })) },
    { title: "Concurrency", unit: "invocations at once", steps: true, lines: of("concurrency") },
    { title: "End to end", unit: "ms since due", digits: 0, lines: [
      ["p50", colour(0), SOLID], ["p95", colour(1), DASHED], ["p99", colour(3), DOTTED],
    ].map(([name, stroke, dash]) => ({
      name, colour: stroke, dash, value: (s) => (s.end_to_end_ms === null ? null : s.end_to_end_ms[name]),
    })) },
    { title: "What went wrong", unit: "so far", lines: [
      ["throttles", "throttles", colour(4), SOLID], ["errors", "errors", "var(--bad)", DASHED],
      ["dead letters", "dead_letters", colour(3), DOTTED],
    ].map(([name, member, stroke, dash]) => ({ name, colour: stroke, dash, value: (s) => sum(s.arms, member) })) },
    { title: "Cost", unit: "USD so far", text: money, smallest: 1e-9, lines: [
      { name: "all", colour: colour(2), dash: SOLID, value: (s) => s.cost_usd },
    ] },
    { title: "CPU of the local stack", unit: "cores", digits: 2, lines: [
      ["emulator", "emulator_cpu_s", colour(5), SOLID], ["plane", "plane_cpu_s", colour(3), DASHED],
    ].map(([name, member, stroke, dash]) => ({
      name, colour: stroke, dash, value: (s, per) => per((one) => one[member]),
    })) },
  ];
}

function specification(chart) {
  const names = chart.lines.map((_, i) => i);
  return {
    config: JSON.parse(get("config").textContent),
    width: "container", height: "container", autosize: { type: "fit", contains: "padding" },
    padding: { left: 0, right: 6, top: 6, bottom: 0 },
    params: [{ name: "end", value: 10 }, { name: "top", value: 1 }],
    layer: [
      {
        data: { name: "steps" },
        mark: { type: "rule", color: MUTED, aria: false },
        encoding: {
          x: { field: "at_s", type: "quantitative" },
          strokeWidth: { field: "drain", type: "ordinal", legend: null, scale: { domain: [false, true], range: [0.6, 1.8] } },
        },
      },
      {
        data: { name: "points" },
        mark: { type: "line", aria: false, strokeWidth: 2, clip: true, interpolate: chart.steps ? "step-after" : "linear" },
        encoding: {
          x: {
            field: "at_s", type: "quantitative", title: null, scale: { domainMin: 0, domainMax: { expr: "end" }, nice: false },
            axis: { tickCount: 5, grid: false, labelExpr: "floor(datum.value / 60) + ':' + pad(floor(datum.value % 60), 2, '0', 'left')" },
          },
          y: {
            field: "value", type: "quantitative", title: null, scale: { domainMin: 0, domainMax: { expr: "top" }, nice: 4 },
            axis: { tickCount: 4, minExtent: 34, format: chart.text ? ".3~g" : "~s", tickMinStep: chart.digits || chart.text ? 0 : 1, domain: false, ticks: false },
          },
          color: { field: "line", type: "nominal", legend: null, scale: { domain: names, range: chart.lines.map((line) => line.colour) } },
          strokeDash: { field: "line", type: "nominal", legend: null, scale: { domain: names, range: chart.lines.map((line) => line.dash) } },
        },
      },
    ],
  };
}

class Run {
  constructor(id, plan) {
    this.id = id;
    this.position = 0;
    this.samples = []; // of the last seconds, for rates
    this.steps = [];
    this.stride = 1;
    this.count = 0;
    const { shape, arrivals, languages } = plan ?? {};
    get("run").textContent = `Run ${id}: ${shape}, ${arrivals} arrivals, ${Object.keys(languages ?? {}).join(" and ")}`;
    get("live").hidden = false;
    get("panels").replaceChildren();
    document.querySelector("thead").replaceChildren();
  }

  begin(sample) {
    this.began_ms = sample.at_ms;
    this.charts = charts(Object.keys(sample.arms));
    for (const chart of this.charts) {
      chart.points = [];
      chart.now = chart.lines.map(() => element("b", ABSENT));
      const legend = chart.lines.map((line, i) => {
        const mark = element("i", "", { "aria-hidden": "true" });
        mark.style.borderTop = `3px ${line.dash === SOLID ? "solid" : line.dash === DASHED ? "dashed" : "dotted"} ${line.colour}`;
        return element("li", [mark, `${line.name} `, chart.now[i]]);
      });
      chart.drawing = element("div", "", { class: "drawing", role: "img", "aria-label": `${chart.title} over time; its values now are above` });
      const caption = element("figcaption", [`${chart.title} `, element("span", chart.unit)]);
      chart.figure = element("figure", [caption, element("ul", legend, { class: "now" }), chart.drawing]);
      get("panels").append(chart.figure);
      if (window.vegaEmbed) {
        const options = { actions: false, renderer: "svg", ast: true, tooltip: false, hover: false, defaultStyle: false, logLevel: 1 };
        window.vegaEmbed(chart.drawing, specification(chart), options).then(({ view }) => { chart.view = view; this.draw(); });
      }
    }
    const heads = COLUMNS.map(([name]) => element("th", name, { scope: "col", class: "n" }));
    document.querySelector("thead").append(element("tr", [element("th", "arm", { scope: "col" }), ...heads]));
  }

  add(sample) {
    if (!this.charts) this.begin(sample);
    sample.cost_usd = sample.cost_usd === null ? null : Number(sample.cost_usd);
    const at_s = (sample.at_ms - this.began_ms) / 1000;
    const before = this.samples.at(-1);
    if (before && (before.step !== sample.step || (before.phase !== "drain" && sample.phase === "drain")))
      this.steps.push({ at_s, drain: sample.phase === "drain" });
    this.samples.push(sample);
    while (this.samples.length > 2 && this.samples[1].at_ms <= sample.at_ms - RATE_MS) this.samples.shift();
    const first = this.samples[0];
    const per = (member) => {
      const seconds = (sample.at_ms - first.at_ms) / 1000;
      return seconds && member(sample) !== null && member(first) !== null ? (member(sample) - member(first)) / seconds : null;
    };
    this.count += 1;
    for (const chart of this.charts) {
      chart.values = chart.lines.map((line) => line.value(sample, per) ?? null);
      if (this.count % this.stride) continue;
      chart.values.forEach((value, line) => chart.points.push({ at_s, line, value }));
      if (chart.points.length > 2 * POINTS * chart.lines.length)
        chart.points = chart.points.filter((_, i) => Math.floor(i / chart.lines.length) % 2);
    }
    if (this.count > 2 * POINTS * this.stride) this.stride *= 2;
    this.last = sample;
    this.seconds = at_s;
  }

  show() {
    if (!this.charts) return;
    const s = this.last;
    const totals = {
      time: clock(this.seconds), step: `${s.step}, ${s.phase}`, offered: shown(s.intended), "taken by SQS": shown(s.sent),
      "given up": shown(s.given_up), done: shown(s.done), "cost, USD": money(s.cost_usd),
    };
    get("totals").replaceChildren(
      ...Object.entries(totals).map(([name, value]) => element("div", [element("dt", name), element("dd", value)])),
    );
    get("limit").hidden = s.limit === null;
    get("limit").querySelector("span").textContent = s.limit?.sentence ?? "";
    get("arms").replaceChildren(
      ...Object.entries(s.arms).map(([arm, queue]) =>
        element("tr", [
          element("th", arm, { scope: "row" }),
          ...COLUMNS.map(([, member, digits, factor = 1]) =>
            element("td", queue[member] === null ? ABSENT : shown(queue[member] * factor, digits), { class: "n" })),
        ])),
    );
    for (const chart of this.charts)
      chart.values.forEach((value, i) => { chart.now[i].textContent = chart.text ? chart.text(value) : shown(value, chart.digits); });
    this.draw();
  }

  draw() {
    const copies = (rows) => rows.map((row) => ({ ...row })); // Vega keeps notes in what it is given
    for (const { view, points, digits, smallest } of this.charts) {
      if (!view) continue;
      const top = points.reduce((most, { value }) => Math.max(most, value ?? 0), smallest ?? (digits === undefined ? 4 : 1));
      view.signal("end", Math.max(this.seconds, 10)).signal("top", top);
      view.data("points", copies(points)).data("steps", copies(this.steps)).runAsync();
    }
  }
}

function say(state) {
  const status = get("status");
  const text = SAID[state];
  if (status.textContent !== text) status.textContent = text; // else a screen reader would say it every second
  status.dataset.state = state;
  get("links").hidden = state !== "closed";
}

async function ask(run) {
  const asked = run ? `?run=${encodeURIComponent(run.id)}&position=${run.position}` : "";
  try {
    return await (await fetch(`./pipeline/samples${asked}`)).json();
  } catch {
    return null;
  }
}

async function follow() {
  let run = null;
  for (;;) {
    const found = await ask(run);
    if (found && found.run_id !== null && found.run_id !== run?.id) run = new Run(found.run_id, found.plan);
    if (found && run) {
      found.samples.forEach((sample) => run.add(sample));
      run.position = found.position;
      if (found.samples.length) run.show();
    }
    say(!found ? "silent" : found.state === "open" ? run.last?.phase ?? "starting" : found.state);
    const behind = found && found.samples.length > 100;
    if (!behind) await new Promise((go) => setTimeout(go, ASK_MS));
  }
}

follow();
