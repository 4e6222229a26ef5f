// One task: curves against any axis, the table, the order of its rows and how sure it is.
"use strict";
(() => {
  const { h, get, need, href, AXES, swatch, table, radios, tick, figure, legend, notes, status, curves, decades } = curvebench;

  curvebench.pages.task = {
    title: (name) => find(name)?.title ?? name,
    async draw(name) {
      const task = find(name);
      if (!task) return [h("h1", null, "No such task"), h("p", null, `This report has no table called ${name}.`)];
      const { ranking, lines } = await need(`tasks/${name}`);
      const names = (row) => task.rows[row];
      const shown = new Set(task.rows.keys());
      const drawing = curveFigure(task, lines, names, shown);
      const made = results(task, (rows) => {
        shown.clear();
        for (const row of rows) shown.add(row.place);
        drawing.refresh();
      });
      return [
        h("p.crumbs", null, h("a", { href: href("tasks") }, "Tasks")),
        h("h1", null, task.title),
        h("p.lead", null, task.heading),
        task.blank ? h("p.warning", null, `No times are shown: ${task.blank}.`) : null,
        drawing.element,
        h("h2", { id: "results" }, "Results"),
        h("p.quiet", null, "Bold: final metric within noise of the best. ≥: some runs missed the target; >: all did. A filter on the table filters the figure."),
        made.element,
        notes(task.notes),
        ...(ranking ? curvebench.rankingParts(task, ranking) : [h("p", null, "Fewer than two rows have values: there is no order.")]),
      ];
    },
  };

  const find = (name) => get("report").tasks.find((task) => task.id === name);

  /** Curves with their controls. Only rows in `shown` are drawn. */
  function curveFigure(task, lines, names, shown) {
    const axes = Object.keys(AXES).filter((axis) => lines[axis]);
    if (!axes.length) return { element: h("p.empty", null, "No run of this task has a curve."), refresh() {} };
    const hidden = new Set();
    const legendPlace = h("div");
    const choice = { axis: null, logX: null, logY: task.logarithmic, bands: true };
    const logX = h("input", { type: "checkbox", change: () => {
      choice.logX = logX.checked;
      curvebench.choose("logx", logX.checked ? "1" : "0");
      drawn.refresh();
    } });
    const axisRadios = radios("Against", "axis", axes.map((axis) => [axis, AXES[axis]]), (axis) => {
      pick(axis);
      drawn.refresh();
    }, lines.seconds ? "seconds" : "step");
    const logY = tick("log metric", "logy", (on) => {
      choice.logY = on;
      drawn.refresh();
    }, task.logarithmic);
    const bands = tick("ranges over seeds", "bands", (on) => {
      choice.bands = on;
      drawn.refresh();
    }, task.rows.length <= 20);

    function pick(axis) {
      choice.axis = axis;
      const given = curvebench.param("logx");
      choice.logX = given === null ? decades(lines[axis]) : given === "1";
      logX.checked = choice.logX;
    }
    pick(axisRadios.value);
    choice.logY = logY.value;
    choice.bands = bands.value;
    const visible = () => lines[choice.axis].filter((line) => shown.has(line.row));
    const better = task.direction === "min" ? "lower is better" : "higher is better";
    const drawn = figure(
      (width) => curves(visible().filter((line) => !hidden.has(line.row)), { ...choice, width, target: task.target, names, yLabel: `${task.metric_label} (${better})` }),
      {
        caption: `Mean over seeds${task.logarithmic ? " (geometric)" : ""}; the band is their range, × a seed that diverged, dotted the target. Solid: torch, dashed: jax.`,
        label: () => `${task.metric_label} against ${AXES[choice.axis]}, ${visible().length} lines. The table below has the numbers.`,
        name: `${task.id}-curves`,
      },
    );
    const refresh = () => {
      legendPlace.replaceChildren(legend(
        visible().map((line) => ({ key: line.row, sample: swatch(names(line.row).method, names(line.row).framework), text: `${names(line.row).label} (${names(line.row).framework})` })),
        hidden, drawn.refresh));
      drawn.refresh();
    };
    const element = h("section.drawing", { "aria-label": "Learning curves" },
      h("div.controls", null, axisRadios.element, h("label.tick", null, logX, `log axis`), logY.element, bands.element), h("div.beside", null, drawn.element, legendPlace));
    return { element, refresh };
  }

  /** The table of the task. */
  function results(task, onRows) {
    const front = new Map(task.ranking?.axes.map((axis) => [axis.id, new Map(axis.places.map((p) => [p.row, p]))]));
    const rows = task.rows.map((row, place) => ({ ...row, place }));
    const rank = (row) => {
      const found = front.get("final")?.get(row.place);
      return found ? (found.low === found.high ? String(found.low) : `${found.low}–${found.high}`) : "–";
    };
    const columns = [
      { id: "method", header: "method", value: (r) => r.label, text: (r) => `${r.label} ${r.method} ${r.family}`, cell: (r) => [swatch(r.method, r.framework), h("a", { href: href("method", r.method) }, r.label)] },
      { id: "framework", header: "framework", value: (r) => r.framework, filter: true },
      { id: "family", header: "family", value: (r) => r.family, filter: true, hidden: true },
      ...task.columns.map((column) => ({
        id: column.id, header: column.heading, numeric: true,
        value: (r) => r.estimates[column.id]?.mean,
        cell: (r) => {
          const text = r.estimates[column.id]?.text ?? "–";
          const bold = column.id === "final" ? r.best : front.get(column.id)?.get(r.place)?.low === 1;
          return bold ? h("strong", null, text) : text;
        },
      })),
      { id: "rank", header: "ranks (final)", numeric: true, title: "95 % interval of the rank by final metric", value: (r) => front.get("final")?.get(r.place)?.rank, cell: rank },
      { id: "reached", header: "reached", numeric: true, value: (r) => (r.n ? r.reached / r.n : null), cell: (r) => (r.n ? `${r.reached}/${r.n}` : "–") },
      { id: "status", header: "status", value: (r) => Object.entries(r.statuses).map(([name, count]) => `${count} ${name}`).join(", "), cell: (r) => Object.entries(r.statuses).map(([name, count]) => status(name, count)) },
      { id: "runs", header: "runs", numeric: true, value: (r) => r.runs, cell: (r) => h("a", { href: href("runs", "", { task: task.id, method: r.method, framework: r.framework }), "aria-label": `${r.runs} runs of ${r.label}` }, String(r.runs)) },
    ];
    return table(columns, rows, { caption: `Results on ${task.title}`, name: task.id, onRows });
  }
})();
