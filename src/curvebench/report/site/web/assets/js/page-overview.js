// The first page: what was compared, on what, how often, what may be concluded, and every method on every task.
"use strict";
(() => {
  const { h, get, need, href, sketch, plural, status, swatch, table, radios, notes, STATUSES } = curvebench;

  const CARDS = 8;

  curvebench.pages.overview = {
    title: "Overview",
    draw() {
      const report = get("report");
      const { summary } = report;
      return [
        h("h1", null, report.study ? `Study: ${report.study}` : "What the records show"),
        h("p.lead", null, summary.lead),
        h("p.quiet", null, summary.measured),
        statuses(summary),
        h("div.columns.two", null,
          h("section.card", null, h("h2", null, "What may be concluded"), list(summary.conclusions)),
          h("section.card", null, h("h2", null, "What to keep in mind"),
            list([...summary.caveats, "Bold is everything within noise of the best, not one winner."]), verdicts(report))),
        h("h2", null, "Tasks"),
        tasks(report, CARDS),
        report.tasks.length > CARDS ? h("p", null, h("a", { href: href("tasks") }, `All ${report.tasks.length} tables`)) : null,
        h("h2", { id: "methods" }, "Every method on every task"),
        matrix(report),
      ];
    },
  };

  const list = (sentences) => h("ul", null, ...sentences.map((sentence) => h("li", null, sentence)));

  /** How runs ended: a bar, and the same in words. */
  function statuses(summary) {
    const found = STATUSES.filter((name) => summary.statuses[name]);
    return h("div.ended", null,
      h("div.stack", { "aria-hidden": "true" }, ...found.map((name) => h(`span.${name}`, { style: `flex-grow:${summary.statuses[name]}` }))),
      h("p", null, `${plural(summary.runs, "run")}: `, ...found.map((name) => status(name, summary.statuses[name]))));
  }

  function verdicts(report) {
    const entries = Object.entries(report.summary.verdicts);
    if (!entries.length) return null;
    const said = entries.map(([word, count]) => `${count} ${word}`).join(", ");
    return h("p", null, h("a", { href: href("papers") }, plural(report.papers.length, "paper")), ` held next to the records: ${said}.`);
  }

  const MEASURES = [
    ["final", "final metric"], ["seconds", "seconds"], ["step", "steps"], ["oracle_calls", "oracle calls"], ["gradient_equivalents", "gradient-equivalents"],
  ];

  /** Methods down, tasks across. A method with several settings on a task shows the one that stands first in its table. */
  function matrix(report) {
    const place = h("div");
    const known = MEASURES.filter(([id]) => report.tasks.some((task) => task.columns.some((column) => column.id === id)));
    const entries = new Map();
    for (const task of report.tasks) {
      const front = new Map(task.ranking?.axes.map((axis) => [axis.id, new Set(axis.places.filter((p) => p.low === 1).map((p) => p.row))]));
      task.rows.forEach((row, k) => {
        const key = `${row.method} ${row.framework}`;
        if (!entries.has(key)) entries.set(key, { method: row.method, framework: row.framework, family: row.family, title: curvebench.method(row.method)?.title ?? row.method, at: new Map() });
        const { at } = entries.get(key);
        if (!at.has(task.id)) at.set(task.id, { row, front: (axis) => (axis === "final" ? row.best : Boolean(front.get(axis)?.has(k))) });
      });
    }
    const draw = (measure) => {
      const columns = [
        { id: "method", header: "method", value: (e) => e.title, text: (e) => `${e.title} ${e.method}`, cell: (e) => [swatch(e.method, e.framework), h("a", { href: href("method", e.method) }, e.title)] },
        { id: "framework", header: "framework", value: (e) => e.framework, filter: true },
        { id: "family", header: "family", value: (e) => e.family, filter: true, hidden: true },
        ...report.tasks.map((task) => ({
          id: task.id, header: task.title, numeric: true, title: measure === "final" ? task.metric_label : `${measure} to ${task.metric_label} ${task.target}`,
          value: (e) => e.at.get(task.id)?.row.estimates[measure]?.mean,
          cell: (e) => {
            const found = e.at.get(task.id);
            const text = found?.row.estimates[measure]?.text;
            if (!text) return found ? h("span.quiet", null, Object.keys(found.row.statuses)[0].replaceAll("_", " ")) : "–";
            return found.front(measure) ? h("strong", null, text) : text;
          },
        })),
      ];
      const made = table(columns, [...entries.values()], { caption: "Methods by task", name: `methods-${measure}` });
      place.replaceChildren(made.element);
    };
    const choice = radios("Show", "show", known, draw, "final");
    draw(choice.value);
    return h("div", null, choice.element, place,
      notes(["Final metric: bold is within noise of the best. Costs to the target: bold is a rank interval that holds 1. ≥ means that some runs missed the target, > that all did."], "How to read it"));
  }

  /** A card per table, with its curves small. */
  function tasks(report, most) {
    const shown = report.tasks.slice(0, most);
    const places = new Map(shown.map((task) => [task.id, h("div.sketch", { "aria-hidden": "true" })]));
    const draw = async () => {
      const sketches = await need("sketches");
      for (const task of shown) {
        if (sketches[task.id]) places.get(task.id).replaceChildren(sketch(sketches[task.id], task, 300));
      }
    };
    setTimeout(draw); // after the words are on the page
    document.addEventListener("themechange", () => [...places.values()].some((place) => place.isConnected) && draw());
    return h("ul.cards", null, ...shown.map((task) => {
      const best = task.rows.filter((row) => row.best);
      return h("li.card", null,
        h("h3", null, h("a", { href: href("task", task.id) }, task.title)),
        places.get(task.id),
        h("p.quiet", null, task.heading),
        h("p", null, ...best.slice(0, 4).flatMap((row) => [h("span.chip", null, swatch(row.method, row.framework), `${row.label} (${row.framework})`), " "]),
          best.length > 4 ? `and ${best.length - 4} more within noise of the best` : best.length ? "" : "no row to call best"));
    }));
  }

  curvebench.pages.tasks = {
    title: "Tasks",
    draw: () => [h("h1", null, "Tasks"), tasks(get("report"))],
  };
})();
