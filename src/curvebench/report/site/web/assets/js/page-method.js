// Methods: the list, and one page each with what its card says and how it did on every task.
"use strict";
(() => {
  const { h, get, href, swatch, table, facts, status, method } = curvebench;

  const external = (url, text) => h("a", { href: url, rel: "noreferrer" }, text);

  curvebench.pages.methods = {
    title: "Methods",
    draw() {
      const report = get("report");
      const rows = (name) => report.tasks.flatMap((task) => task.rows.filter((row) => row.method === name));
      const columns = [
        { id: "method", header: "method", value: (m) => m.title, text: (m) => `${m.title} ${m.name} ${m.summary ?? ""}`, cell: (m) => [swatch(m.name), h("a", { href: href("method", m.name) }, m.title)] },
        { id: "family", header: "family", value: (m) => m.family, filter: true },
        { id: "summary", header: "what it does", wide: true, value: (m) => m.summary },
        { id: "needs", header: "asks for", value: (m) => m.needs.join(", ").replaceAll("_", " ") },
        { id: "tasks", header: "tasks", numeric: true, value: (m) => new Set(report.tasks.filter((t) => t.rows.some((r) => r.method === m.name)).map((t) => t.task)).size },
        { id: "best", header: "within noise of the best", numeric: true, title: "rows of tables", value: (m) => rows(m.name).filter((r) => r.best).length, cell: (m) => `${rows(m.name).filter((r) => r.best).length} of ${rows(m.name).length}` },
        { id: "runs", header: "runs", numeric: true, value: (m) => rows(m.name).reduce((sum, r) => sum + r.runs, 0) },
      ];
      return [h("h1", null, "Methods"), table(columns, report.methods, { caption: "Methods that have runs", name: "methods" }).element];
    },
  };

  curvebench.pages.method = {
    title: (name) => method(name)?.title ?? name,
    draw(name) {
      const report = get("report");
      const found = method(name);
      if (!found) return [h("h1", null, "No such method"), h("p", null, `This report has no run of ${name}.`)];
      const rows = report.tasks.flatMap((task) => task.rows.map((row, place) => ({ task, row, place })).filter(({ row }) => row.method === name));
      const titles = new Map(report.papers.map((paper) => [paper.id, paper.title]));
      return [
        h("p.crumbs", null, h("a", { href: href("methods") }, "Methods")),
        h("h1", null, swatch(name), found.title),
        found.summary ? h("p.lead", null, found.summary) : null,
        facts([
          ["family", found.family],
          ["asks the oracle for", found.needs.join(", ").replaceAll("_", " ")],
          ["published", found.paper && (found.url ? external(found.url, found.paper) : found.paper)],
          ["papers held next to it", found.papers.length ? h("span", null, ...found.papers.flatMap((id, k) => [k ? "; " : "", h("a", { href: href("paper", id) }, titles.get(id) ?? id)])) : null],
          ["runs", h("a", { href: href("runs", "", { method: name }) }, "list all of them")],
        ]),
        h("h2", null, "On every task"),
        results(found, rows),
        h("h2", null, "Hyperparameters"),
        settings(found, rows),
      ];
    },
  };

  /** What it was run with. */
  function settings(found, rows) {
    const names = [...new Set(rows.flatMap(({ row }) => Object.keys(row.hyperparameters)))];
    const columns = [
      { id: "task", header: "task", value: (e) => e.task.title },
      { id: "framework", header: "framework", value: (e) => e.row.framework },
      { id: "source", header: "from", value: (e) => e.row.source },
      ...names.map((name) => {
        const numeric = rows.every(({ row }) => ["number", "undefined"].includes(typeof row.hyperparameters[name]));
        return { id: name, header: name, numeric, value: (e) => e.row.hyperparameters[name], cell: (e) => String(e.row.hyperparameters[name] ?? "–") };
      }),
    ];
    return table(columns, rows, { caption: `Hyperparameters of ${found.title}`, name: `hyperparameters-${found.name}`, prefix: "settings.", search: false }).element;
  }

  /** A line per task, framework and setting. */
  function results(found, rows) {
    const place = (entry, axis) => {
      const one = entry.task.ranking?.axes.find((a) => a.id === axis)?.places.find((p) => p.row === entry.place);
      return one ? [one.low === one.high ? String(one.low) : `${one.low}–${one.high}`, one.rank] : ["–", null];
    };
    const estimate = (entry, id) => entry.row.estimates[id];
    const cost = (id, header) => ({ id, header, numeric: true, value: (e) => estimate(e, id)?.mean, cell: (e) => estimate(e, id)?.text ?? "–" });
    const columns = [
      { id: "task", header: "task", value: (e) => e.task.title, cell: (e) => h("a", { href: href("task", e.task.id) }, e.task.title) },
      { id: "framework", header: "framework", value: (e) => e.row.framework, filter: true },
      { id: "final", header: "final metric", numeric: true, value: (e) => estimate(e, "final")?.mean, cell: (e) => [e.row.best ? h("strong", null, estimate(e, "final").text) : (estimate(e, "final")?.text ?? "–"), " ", h("span.quiet", null, e.task.metric_label)] },
      { id: "rank", header: "ranks", numeric: true, title: "95 % interval of the rank by final metric", value: (e) => place(e, "final")[1], cell: (e) => `${place(e, "final")[0]} of ${e.task.rows.length}` },
      cost("seconds", "seconds to target"), cost("step", "steps to target"), cost("oracle_calls", "oracle calls to target"),
      cost("gradient_equivalents", "gradient-equivalents to target"), cost("step_ms", "ms per step"), cost("memory_mib", "peak MiB"),
      { id: "status", header: "status", value: (e) => Object.keys(e.row.statuses).join(", "), cell: (e) => Object.entries(e.row.statuses).map(([name, count]) => status(name, count)) },
    ];
    return table(columns, rows, { caption: `${found.title} on every task`, name: `method-${found.name}` }).element;
  }
})();
