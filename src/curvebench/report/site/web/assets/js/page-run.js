// Runs: the list of all, and one page each: how to do it again, where it ran, its curve.
"use strict";
(() => {
  const { h, get, need, href, AXES, number, bytes, status, swatch, table, radios, tick, figure, facts, method, announce, save, plotStyle, colour, onAxis } = curvebench;
  const title = (id) => get("report").tasks.find((task) => task.id === id)?.title ?? id;

  curvebench.pages.runs = {
    title: "Runs",
    async draw() {
      const { columns: names, rows: lines } = await need("runs");
      const at = Object.fromEntries(names.map((name, place) => [name, place]));
      const plain = (id, header, show = number) => ({ id, header, numeric: true, value: (r) => r[at[id]], cell: (r) => show(r[at[id]]) });
      const columns = [
        { id: "run", header: "run", value: (r) => r[at.id], cell: (r) => h("a", { href: href("run", `${r[at.task]}.${r[at.row] ?? "older"}/${r[at.id]}`) }, r[at.id].slice(0, 8)) },
        { id: "task", header: "task", filter: true, value: (r) => r[at.task] },
        { id: "method", header: "method", filter: true, value: (r) => r[at.method], cell: (r) => [swatch(r[at.method], r[at.framework]), r[at.method]] },
        { id: "framework", header: "framework", filter: true, value: (r) => r[at.framework] },
        { id: "seed", header: "seed", numeric: true, value: (r) => r[at.seed] },
        { id: "status", header: "status", filter: true, value: (r) => r[at.status], cell: (r) => [status(r[at.status]), r[at.row] === null ? h("span.quiet", null, " older") : null] },
        plain("final", "final"), plain("test", "test"),
        plain("step", "steps to target"), plain("seconds", "seconds to target"), plain("oracle_calls", "oracle calls to target"),
        plain("gradient_equivalents", "gradient-equivalents to target"), plain("bytes", "bytes to target", bytes),
        plain("step_ms", "ms per step"), plain("peak_bytes", "peak", bytes),
        { id: "source", header: "hyperparameters", value: (r) => r[at.source] },
        { id: "started", header: "started", value: (r) => r[at.started].slice(0, 16).replace("T", " ") },
      ];
      return [h("h1", null, "Runs"), h("p.lead", null, "Every run, with a page of its own: the command, the machine, the curve."),
        table(columns, lines, { caption: "Runs", name: "runs" }).element];
    },
  };

  curvebench.pages.run = {
    title: (name) => `Run ${name.split("/").at(-1).slice(0, 8)}`,
    async draw(name) {
      const [chunk, id] = name.split("/");
      let found;
      try {
        found = (await need(`runs/${chunk}`))[id];
      } catch {
        found = undefined;
      }
      if (!found) return [h("h1", null, "No such run"), h("p", null, "This report does not have it: its number changes with the code, the cards and the machine.")];
      const place = get("report").environments[found.environment];
      return [
        h("p.crumbs", null, h("a", { href: href("runs") }, "Runs"), " / ", h("a", { href: href("task", found.task) }, title(found.task)), " / ", h("a", { href: href("method", found.method) }, found.label)),
        h("h1", null, swatch(found.method, found.framework), `${found.label} (${found.framework}), seed ${found.seed}`),
        h("p.lead", null, status(found.status), ` ${found.reason}`),
        found.row === null ? h("p.warning", null, "A run of an older version of the code or the cards, or one that was replaced: it enters no number of this report.") : null,
        found.busy ? h("p.warning", null, `Its times are doubtful: ${found.busy}.`) : null,
        command(found.command),
        drawing(found),
        h("div.columns", null,
          h("section.card", null, h("h2", null, "What it did"), facts([
            ["final metric", number(found.final.metric, 5)], ["test", found.final.test === null ? null : number(found.final.test, 5)], ["loss", number(found.final.loss, 5)],
            ...Object.keys(AXES).filter((axis) => found.crossing?.[axis] !== null && found.crossing?.[axis] !== undefined).map((axis) => [`${AXES[axis]} to target`, number(found.crossing[axis])]),
            ...Object.keys(AXES).filter((axis) => found.consumed[axis] !== null && found.consumed[axis] !== undefined).map((axis) => [`${AXES[axis]} in all`, number(found.consumed[axis])]),
            ...Object.entries(found.ledger).filter(([, n]) => typeof n === "number" && n > 0).map(([query, n]) => [`asked: ${query.replaceAll("_", " ")}`, number(n)]),
          ])),
          h("section.card", null, h("h2", null, "Settings"), facts([
            ["from", found.source], ...Object.entries(found.hyperparameters).map(([key, value]) => [key, String(value)]), ["random numbers", found.draws],
          ])),
          h("section.card", null, h("h2", null, "Time and memory"), facts([
            ["setup", seconds(found.seconds.setup)], ["compilation", seconds(found.seconds.compilation)], ["first step", seconds(found.seconds.first_step)],
            ...["step", "plain", "refresh"].filter((kind) => found.seconds[kind]).map((kind) => [kind === "step" ? "a step" : `a ${kind} step`, spread(found.seconds[kind])]),
            ["evaluation", seconds(found.seconds.evaluation)], ["in all", seconds(found.seconds.total)],
            ["peak memory", bytes(found.memory.peak_bytes)], ["parameters", bytes(found.memory.parameter_bytes)], ["optimiser state", bytes(found.memory.state_bytes)],
            ["flops of a step", found.work ? number(found.work.step.flops) : null], ["bytes of a step", found.work ? bytes(found.work.step.bytes) : null],
          ])),
          h("section.card", null, h("h2", null, "Where it ran"), facts([
            ["started", found.started.replace("T", " ")], ...Object.entries(place.machine).map(([key, value]) => [key.replaceAll("_", " "), words(value)]),
            ["threads", place.threads], ["CPU per wall second", found.cpu_wall_ratio === null ? null : number(found.cpu_wall_ratio)], ["load before", found.load], ["runs at a time", found.concurrent],
            ...Object.entries(place.versions), ["commit", place.commit && h("code", null, place.commit.slice(0, 12) + (place.dirty ? " with changes" : ""))],
          ]))),
        h("details.notes", null, h("summary", null, "Identity"), facts([
          ["file", h("code", null, `${found.id}.json`)], ["code", h("code", null, found.code)],
          ...Object.entries(found.cards).map(([card, digest]) => [card, h("code", null, digest.slice(0, 16))]),
          ...found.notes.map((note) => ["note", note]),
        ])),
        h("button.quiet", { type: "button", click: () => save(`${found.id}.json`, "application/json", JSON.stringify(found, null, 1)) }, "Export this run as JSON"),
      ];
    },
  };

  const seconds = (value) => (value === null ? null : `${number(value)} s`);
  const spread = (step) => `${number(1e3 * step.median)} ms (10 to 90 %: ${number(1e3 * step.p10)} to ${number(1e3 * step.p90)} ms, n = ${step.n})`;
  const words = (value) => (Array.isArray(value) ? value.map(words).join(", ") : value && typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k} ${words(v)}`).join(", ") : String(value));

  function command(text) {
    const button = h("button.quiet", { type: "button", click: async () => {
      try {
        await navigator.clipboard.writeText(text);
        announce("Copied");
        button.textContent = "Copied";
      } catch {
        announce("The browser does not allow it: mark the text and copy it");
      }
    } }, "Copy");
    return h("div.command", null, h("pre", { tabindex: "0", "aria-label": "Command" }, h("code", null, text)), button);
  }

  /** The curve of one run: any of its quantities against any axis. */
  function drawing(run) {
    const { curve } = run;
    const axes = Object.keys(AXES).filter((axis) => curve[axis]?.some((value) => value !== null && value > 0));
    const shown = ["metric", "loss", "test"].filter((what) => curve[what].some((value) => value !== null));
    if (!axes.length || !shown.length) return h("p.empty", null, "It ended before its first evaluation: there is no curve.");
    const state = {};
    const of = get("report").tasks.find((task) => task.id === run.task);
    const axis = radios("Against", "axis", axes.map((id) => [id, AXES[id]]), (id) => redraw("axis", id));
    const what = radios("Show", "show", shown.map((id) => [id, id]), (id) => redraw("what", id));
    const log = tick("log scale", "logy", (on) => redraw("log", on), of.logarithmic);
    Object.assign(state, { axis: axis.value, what: what.value, log: log.value });
    const drawn = figure((width) => {
      const points = curve[state.axis].map((x, k) => ({ x, y: curve[state.what][k] })).filter((p) => p.x !== null && p.y !== null && (!state.log || p.y > 0));
      return Plot.plot({
        ...plotStyle(width, Math.max(260, Math.min(380, width * 0.45))),
        x: { label: `${AXES[state.axis]} →`, tickFormat: curvebench.tickText(state.axis, false), ticks: Math.max(3, Math.round(width / 120)) },
        y: { type: state.log ? "log" : "linear", label: `↑ ${state.what === "metric" ? of.metric_label : state.what}`, grid: true, tickFormat: curvebench.tickText("metric", state.log) },
        marks: [
          Plot.line(points, { x: "x", y: "y", stroke: colour(run.method), strokeWidth: 1.8 }),
          Plot.dot(points, { x: "x", y: "y", fill: colour(run.method), symbol: curvebench.marker(run.method), r: 3 }),
          Plot.tip(points, Plot.pointerX({ x: "x", y: "y", fill: "var(--page)", stroke: "var(--line)", title: (p) => `${onAxis(state.axis, p.x)} ${AXES[state.axis]}: ${number(p.y, 5)}` })),
        ],
      });
    }, { caption: `${plural(curve.step.length)} of this run.`, label: () => `${state.what} against ${AXES[state.axis]}`, name: `${run.id}-curve` });
    const redraw = (key, value) => {
      state[key] = value;
      drawn.refresh();
    };
    return h("section.drawing", { "aria-label": "Curve" }, h("div.controls", null, axis.element, what.element, log.element), drawn.element);
  }
  const plural = (count) => curvebench.plural(count, "evaluation");
})();
