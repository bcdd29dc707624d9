// Brushable traces: memory over time, phases in lanes, and who held the bytes. Drawn by Vega-Lite,
// whose expressions are interpreted, so that the page needs no right to evaluate text as code.
(() => {
  "use strict";
  const panel = document.getElementById("traces-panel");
  if (!panel) return;
  const field = (id) => document.getElementById(id);
  const chart = field("chart");
  const OVERVIEW_HEIGHT = 44;
  let data, shown = [], unit = { name: "MiB", size: 1 };

  const unpack = async (id) => {
    const packed = Uint8Array.from(atob(field(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  // ------------------------------------------------------------------------------- what is shown
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const range = (traces) => [0, Math.max(0.001, ...traces.flatMap((trace) => [
    ...Object.values(trace.curves).map(([times]) => times.at(-1)),
    ...trace.spans.map((span) => span[3]),
  ]))];
  const readings = (trace) => Object.entries(trace.curves).flatMap(([source, [times, values]]) =>
    times.map((t, i) => ({ t, held: values[i] / unit.size, source, trace: trace.label })));
  const bands = (trace) => trace.spans.map(([role, phase, start, end]) => ({
    role, phase, start, end, took: end - start,
    strength: data.strengths[phase] ?? 0.6,
  }));
  const held = (trace) => trace.ledger.map(([moment, owner, mib]) => (
    { moment, owner, held: mib / unit.size, place: Object.keys(data.owners).indexOf(owner) }));

  const time = (title) => ({
    field: "t", type: "quantitative", scale: { domain: { param: "brush" }, nice: false }, title,
  });
  const number = { type: "quantitative", format: ".4~g" };

  // Cases side by side share their axes: the higher one is seen to be higher.
  const common = (rows) => (shown.length > 1
    ? { domainMax: Math.max(...shown.flatMap((trace) => rows(trace))) } : {});
  const heights = (trace) => readings(trace).map((row) => row.held);
  const totals = (trace) => [...new Set(trace.ledger.map((row) => row[0]))].map((moment) =>
    held(trace).reduce((sum, row) => sum + (row.moment === moment ? row.held : 0), 0));

  const memoryPanel = (trace, many) => {
    const sources = Object.keys(trace.curves);
    const most = Math.max(0, ...heights(trace));
    const limit = trace.capacity === null ? null : trace.capacity / unit.size;
    const hover = `hover_${trace.id}`.replace(/\W/g, "_");
    const colours = [colour("--ink"), ...data.colours];
    const layer = [
      { mark: { type: "area", opacity: 0.08, clip: true, color: colour("--ink") } },
      { mark: { type: "line", clip: true, strokeWidth: 1.6 } },
      {
        params: [{ name: hover, select: { type: "point", on: "pointerover", clear: "pointerout" } }],
        mark: { type: "point", filled: true, size: 300, clip: true },  // larger than it looks: easy to hit
        encoding: {
          opacity: { condition: { param: hover, empty: false, value: 0.5 }, value: 0 },
          tooltip: [{ field: "t", ...number, title: "s" },
                    { field: "held", ...number, title: unit.name },
                    { field: "source", title: "read by" }],
        },
      },
    ];
    if (limit !== null && limit < 2 * most) {
      layer.push({ data: { values: [{ limit }] }, mark: { type: "rule", strokeDash: [6, 4], color: colour("--soft") },
        encoding: { y: { field: "limit", type: "quantitative" } } });
    }
    return {
      title: (many ? `${trace.label}: ` : "") + `memory in use (${unit.name})`,
      height: many ? 150 : 210,
      data: { values: readings(trace) },
      encoding: {
        x: time(null),
        y: { field: "held", type: "quantitative", title: null, stack: null,
          scale: { zero: true, ...common(heights) } },
        color: { field: "source", type: "nominal", scale: { domain: sources, range: colours },
          legend: sources.length > 1 ? { orient: "bottom", title: null } : null },
      },
      layer,
    };
  };

  const lanesPanel = (trace) => ({
    title: "phases",
    height: { step: 30 },
    data: { values: bands(trace) },
    mark: { type: "rect", clip: true, strokeWidth: 0.6 },
    encoding: {
      x: { ...time("seconds since the case began"), field: "start" },
      x2: { field: "end" },
      y: { field: "role", type: "nominal", title: null, sort: ["llm", "asr"] },
      color: { field: "role", type: "nominal", legend: null, scale: {
        domain: Object.keys(data.roles), range: Object.values(data.roles) } },
      stroke: { field: "role", type: "nominal", legend: null },
      opacity: { field: "strength", type: "quantitative", scale: null, legend: null },
      tooltip: [{ field: "role" }, { field: "phase" },
                { field: "start", ...number, title: "from (s)" },
                { field: "took", ...number, title: "took (s)" }],
    },
  });

  const overviewPanel = (traces, extent) => ({
    title: "the whole time: drag here to zoom",
    height: OVERVIEW_HEIGHT,
    data: { values: traces.flatMap(readings) },
    params: [{ name: "brush", ...(extent ? { value: { x: extent } } : {}), select: { type: "interval", encodings: ["x"],
      mark: { fill: colour("--accent"), fillOpacity: 0.25, stroke: colour("--accent") } } }],
    mark: { type: "line", strokeWidth: 1 },
    encoding: {
      x: { field: "t", type: "quantitative", title: null, scale: { domain: range(traces), nice: false } },
      y: { field: "held", type: "quantitative", title: null, axis: { labels: false, ticks: false, grid: false }, scale: { zero: false } },
      color: { field: "trace", type: "nominal", legend: null,
        scale: { domain: traces.map((trace) => trace.label), range: [colour("--ink"), "#cc3311"] } },
      detail: { field: "source" },
    },
  });

  const ownersPanel = (trace, many) => ({
    title: (many ? `${trace.label}: ` : "") + `who held it, by the ledger (${unit.name})`,
    height: { step: 20 },
    data: { values: held(trace) },
    mark: { type: "bar", stroke: colour("--card"), strokeWidth: 0.5 },
    encoding: {
      y: { field: "moment", type: "nominal", title: null, sort: null },
      x: { field: "held", type: "quantitative", title: null, stack: "zero", scale: common(totals) },
      color: { field: "owner", type: "nominal", title: null,
        scale: { domain: Object.keys(data.owners), range: Object.values(data.owners) },
        legend: { orient: "bottom", columns: Math.max(2, Math.floor(chart.clientWidth / 170)),
          values: [...new Set(trace.ledger.map((row) => row[1]))] } },
      order: { field: "place", type: "quantitative" },
      tooltip: [{ field: "moment" }, { field: "owner" }, { field: "held", ...number, title: unit.name }],
    },
  });

  const specification = (traces, extent) => {
    const many = traces.length > 1;
    const labels = chart.clientWidth < 480 ? 76 : 104;
    const width = Math.max(120, chart.clientWidth - labels - 22);
    const wide = (parts) => parts.map((part) => ({ width, ...part }));
    const details = traces.flatMap((trace) => [
      ...(Object.keys(trace.curves).length ? [memoryPanel(trace, many)] : []),
      ...(trace.spans.length ? [lanesPanel(trace)] : []),
    ]);
    const owners = traces.filter((trace) => trace.ledger.length).map((trace) => ownersPanel(trace, many));
    return {
      description: "Memory and phases of the chosen cases; the words below say the same",
      vconcat: [
        { vconcat: wide(details), resolve: { scale: { x: "shared", color: "independent" } } },
        ...wide([overviewPanel(traces, extent), ...owners]),
      ],
      resolve: { scale: { color: "independent" } },
      background: null,
      padding: { left: 2, right: 2, top: 4, bottom: 4 },
      config: {
        aria: false,  // the panel's own words say what is drawn
        font: getComputedStyle(document.body).fontFamily,
        view: { stroke: colour("--line") },
        title: { anchor: "start", color: colour("--soft"), fontSize: 13, fontWeight: 500 },
        axis: { labelColor: colour("--soft"), titleColor: colour("--soft"), gridColor: colour("--line"),
          domainColor: colour("--line"), tickColor: colour("--line"), labelFontSize: 11, titleFontSize: 12,
          titleFontWeight: 400 },
        axisY: { minExtent: labels, maxExtent: labels, labelLimit: labels - 10 },
        legend: { labelColor: colour("--ink"), labelFontSize: 11, labelLimit: 150 },
      },
    };
  };

  // --------------------------------------------------------------------------------- the readout
  const seconds = (value) => (value < 1 ? `${+(value * 1e3).toPrecision(3)} ms` : `${+value.toPrecision(4)} s`);
  const amount = (mib) => (mib >= 1024 ? `${(mib / 1024).toFixed(2)} GiB` : `${mib.toFixed(mib < 10 ? 1 : 0)} MiB`);
  const element = (tag, text, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.textContent = text;
    return made;
  };

  const memoryWords = (trace, from, to) => Object.entries(trace.curves).map(([source, [times, values]]) => {
    const inside = times.map((t, i) => i).filter((i) => times[i] >= from && times[i] <= to);
    if (!inside.length) return `${source}: no reading in it`;
    const top = inside.reduce((best, i) => (values[i] > values[best] ? i : best));
    const low = Math.min(...inside.map((i) => values[i]));
    return `${source} ${amount(low)} to ${amount(values[top])}, highest at ${seconds(times[top])}`;
  }).join("; ");

  const phaseRows = (trace, from, to) => {
    const sums = new Map();
    for (const [role, phase, start, end] of trace.spans) {
      const inside = Math.min(end, to) - Math.max(start, from);
      if (inside > 0) sums.set(`${role} ${phase}`, (sums.get(`${role} ${phase}`) || 0) + inside);
    }
    return [...sums].sort((a, b) => b[1] - a[1]);
  };

  const phaseTable = (trace, from, to) => {
    const rows = phaseRows(trace, from, to);
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["Phase", "In the window", "Share of it"]) head.append(element("th", name, { scope: "col" }));
    const body = table.createTBody();
    for (const [name, length] of rows) {
      const row = body.insertRow();
      row.append(element("th", name, { scope: "row" }), element("td", seconds(length)),
        element("td", `${((length / (to - from)) * 100).toFixed(0)} %`));
    }
    return rows.length ? table : element("p", "No phase was recorded in it.");
  };

  const tell = (from, to) => {
    const told = shown.flatMap((trace) => [
      element("p", `${trace.label}, ${seconds(from)} to ${seconds(to)}: ${memoryWords(trace, from, to) || "memory was not sampled"}.`),
      phaseTable(trace, from, to),
    ]);
    field("readout").replaceChildren(...told);
    chart.setAttribute("aria-label", told[0].textContent);
    if (document.activeElement !== field("from")) field("from").value = +from.toFixed(3);
    if (document.activeElement !== field("to")) field("to").value = +to.toFixed(3);
  };

  const thinnedWords = (trace) => (trace.shown < trace.readings
    ? [`${trace.label}: the lowest and the highest of each stretch, ${trace.shown} of ${trace.readings} readings`] : []);

  // ------------------------------------------------------------------------------------- actions
  let telling, extent;  // what the brush holds: [from, to] in seconds, or nothing for the whole time
  const draw = async () => {
    const chosen = [field("case").value, field("other").value].filter((value) => value !== "");
    shown = [...new Set(chosen)].map((index) => data.cases[index]);
    const most = Math.max(...shown.flatMap((trace) => Object.values(trace.curves).flatMap(([, v]) => v)), 0);
    unit = most > 4096 ? { name: "GiB", size: 1024 } : { name: "MiB", size: 1 };
    const whole = range(shown);
    const result = await globalThis.vegaEmbed(chart, specification(shown, extent), {
      mode: "vega-lite", actions: false, renderer: "canvas", ast: true, defaultStyle: false });
    tell(...(extent || whole));
    field("thinned").textContent = shown.flatMap(thinnedWords).join("; ");
    result.view.addSignalListener("brush", (_, value) => {
      clearTimeout(telling);
      extent = value.t;
      telling = setTimeout(() => tell(...(extent || whole)), 60);
    });
    chart.dataset.ready = chosen.join(",");
  };
  const drawWhole = () => { extent = undefined; return draw(); };
  const drawFields = () => {
    const [first, last] = range(shown);
    const from = Math.max(first, Number(field("from").value)), to = Math.min(last, Number(field("to").value));
    extent = to > from ? [from, to] : undefined;
    return draw();
  };

  const choices = (select, none) => {
    if (none) select.append(new Option(none, ""));
    const groups = new Map();
    data.cases.forEach((trace, index) => {
      const name = trace.notebook || "cases";
      if (!groups.has(name)) {
        groups.set(name, Object.assign(document.createElement("optgroup"), { label: name }));
        select.append(groups.get(name));
      }
      groups.get(name).append(new Option(trace.label, String(index)));
    });
  };

  const start = async () => {
    const [text, library] = await Promise.all([unpack("traces-data"), unpack("traces-library")]);
    data = JSON.parse(text);
    document.head.append(element("script", library));
    choices(field("case"));
    choices(field("other"), "no other case");
    field("case").value = String(data.start);
    panel.hidden = false;
    await draw();
    for (const id of ["case", "other"]) field(id).addEventListener("change", drawWhole);
    for (const id of ["from", "to"]) field(id).addEventListener("change", drawFields);
    field("whole").addEventListener("click", drawWhole);
    document.addEventListener("themechange", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    let width = chart.clientWidth, resizing;
    new ResizeObserver(() => {
      if (Math.abs(chart.clientWidth - width) < 8) return;
      width = chart.clientWidth;
      clearTimeout(resizing);
      resizing = setTimeout(draw, 150);
    }).observe(chart);
    for (const link of document.querySelectorAll('tr[id] a[href="#traces"]')) {
      link.addEventListener("click", () => {
        const index = data.cases.findIndex((trace) => trace.id === link.closest("tr").id);
        if (index >= 0) { field("case").value = String(index); draw(); }
      });
    }
  };
  const sorry = () => {
    panel.hidden = false;
    panel.textContent = "This browser is too old for the interactive traces (it lacks DecompressionStream); "
      + "the figures below show the same.";
  };
  if (!("DecompressionStream" in globalThis)) sorry();
  else start();
})();
