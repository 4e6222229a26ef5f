// Papers: reported, measured with its interval, verdict.
"use strict";
(() => {
  const { h, get, need, href, table, facts, plural, number, method } = curvebench;
  const SOURCES = { paper: "the paper", code: "the authors' code", "model-card": "the authors' model card", rerun: "the authors' code, run by others", "third-party": "a third party" };
  const GOOD = new Set(["reproduced", "consistent (proxy)"]);
  const BAD = new Set(["not reproduced", "inconsistent (proxy)"]);
  const kind = (word) => (GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : word === "partly" || word === "cannot tell" ? "open" : "none");
  const verdict = (outcome) => [h(`span.verdict.${kind(outcome.verdict)}`, null, outcome.verdict), outcome.why ? h("span.quiet", null, ` ${outcome.why}`) : null];

  curvebench.pages.papers = {
    title: "Papers",
    draw() {
      const { papers } = get("report");
      const measured = (paper) => Object.entries(paper.counts).reduce((sum, [word, count]) => sum + (word === "not run" ? 0 : count), 0);
      const total = (paper) => Object.values(paper.counts).reduce((sum, count) => sum + count, 0);
      const count = (paper, group) => Object.entries(paper.counts).reduce((sum, [word, n]) => sum + (kind(word) === group ? n : 0), 0);
      const quietZero = (value) => (value ? String(value) : h("span.quiet", null, "0"));
      const columns = [
        { id: "paper", header: "paper", value: (p) => p.title, text: (p) => `${p.title} ${p.id} ${p.authors ?? ""} ${p.methods.join(" ")}`, wide: true, cell: (p) => h("a", { href: href("paper", p.id) }, p.title) },
        { id: "year", header: "year", numeric: true, value: (p) => p.year },
        { id: "total", header: "numbers and claims", numeric: true, value: total },
        { id: "measured", header: "judged", numeric: true, value: measured, cell: (p) => quietZero(measured(p)) },
        { id: "good", header: "reproduced or consistent", numeric: true, value: (p) => count(p, "good"), cell: (p) => quietZero(count(p, "good")) },
        { id: "bad", header: "not reproduced or inconsistent", numeric: true, value: (p) => count(p, "bad"), cell: (p) => quietZero(count(p, "bad")) },
        { id: "open", header: "open", numeric: true, title: "partly, or cannot tell", value: (p) => count(p, "open"), cell: (p) => quietZero(count(p, "open")) },
      ];
      return [h("h1", null, "Papers"),
        h("p.lead", null, `${plural(papers.length, "paper")}, each number and claim next to what the records say. Verdicts are computed; none is typed by hand.`),
        table(columns, papers, { caption: "Papers", name: "papers", sort: ["measured", true] }).element];
    },
  };

  curvebench.pages.paper = {
    title: (name) => get("report").papers.find((paper) => paper.id === name)?.title ?? name,
    async draw(name) {
      if (!get("report").papers.some((paper) => paper.id === name)) return [h("h1", null, "No such paper"), h("p", null, `This report has no paper called ${name}.`)];
      const paper = await need(`papers/${name.replace(/[^A-Za-z0-9.]+/g, "-").replace(/^[-.]+|[-.]+$/g, "")}`);
      return [
        h("p.crumbs", null, h("a", { href: href("papers") }, "Papers")),
        h("h1", null, paper.title),
        h("p.quiet", null, [paper.authors, paper.venue, paper.year].filter(Boolean).join(", "), paper.url ? [" ", h("a", { href: paper.url, rel: "noreferrer" }, paper.url)] : null),
        facts([
          ["verdicts", Object.entries(paper.counts).map(([word, count]) => `${count} ${word}`).join(", ")],
          ["methods here", paper.methods.length ? h("span", null, ...paper.methods.flatMap((m, k) => [k ? ", " : "", method(m) ? h("a", { href: href("method", m) }, method(m).title) : m])) : null],
          ["authors' code", paper.code],
          ["command", h("code", null, `curvebench reproduce ${paper.id}`)],
        ]),
        ...(paper.claims.length ? [h("h2", null, "Claims"), claims(paper)] : []),
        ...paper.tables.flatMap((one) => part(paper, one)),
        paper.not_found ? h("p.quiet", null, `Not found, and therefore absent: ${paper.not_found}.`) : null,
      ];
    },
  };

  function claims(paper) {
    const columns = [
      { id: "claim", header: "claim", wide: true, value: (c) => c.statement, cell: (c) => [c.evidence ? `Evidence of ${c.evidence}: ${c.note}` : c.statement, h("span.quiet", null, ` (${c.place})`)] },
      { id: "rule", header: "rule", wide: true, value: (c) => c.rule },
      { id: "measured", header: "measured", value: (c) => c.outcome.measured, numeric: true, cell: (c) => [c.outcome.text, c.outcome.framework ? ` ${c.outcome.framework}` : ""] },
      { id: "verdict", header: "verdict", wide: true, filter: true, value: (c) => c.outcome.verdict, cell: (c) => verdict(c.outcome) },
    ];
    return table(columns, paper.claims, { caption: `Claims of ${paper.title}`, name: `${paper.id}-claims`, prefix: "claims." }).element;
  }

  /** One of the paper's tables. While nothing was measured the paper's own grid says more than a list of absences. */
  function part(paper, one) {
    const cells = paper.cells.filter((cell) => cell.table === one.id);
    const better = { min: ", less is better", max: ", more is better", none: "" }[one.direction];
    const about = `${one.unit}${better}${one.n ? `; n = ${one.n}` : ""}; said by ${SOURCES[one.source] ?? one.source}${one.by ? `, ${one.by}` : ""}. ${one.setup}.${one.note ? ` ${one.note}.` : ""}`;
    const words = new Set(cells.map((cell) => `${cell.outcome.verdict}|${cell.outcome.why}`));
    const unmeasured = words.size === 1 && cells.every((cell) => cell.outcome.measured === null);
    return [
      h("h2", null, `${one.place}: ${one.title}`),
      h("p.quiet", null, one.page ? `Page ${one.page}. ${about}` : about),
      ...(unmeasured ? [grid(cells, one), h("p", null, "All: ", ...verdict(cells[0].outcome))] : [lines(paper, cells, one)]),
    ];
  }

  function grid(cells, one) {
    const across = [...new Set(cells.map((cell) => cell.column))];
    const rows = [...new Set(cells.map((cell) => cell.row))];
    const at = new Map(cells.map((cell) => [`${cell.row}\n${cell.column}`, cell.reported_text]));
    return h("div.frame", { role: "region", tabindex: "0", "aria-label": one.title }, h("table.data.narrow", null,
      h("caption", null, `${one.place}, as reported`),
      h("thead", null, h("tr", null, h("td"), ...across.map((column) => h("th.number", { scope: "col" }, column)))),
      h("tbody", null, ...rows.map((row) => h("tr", null, h("th", { scope: "row" }, row), ...across.map((column) => h("td.number", null, at.get(`${row}\n${column}`) ?? "")))))));
  }

  function lines(paper, cells, one) {
    const columns = [
      { id: "row", header: "row", value: (c) => c.row },
      { id: "column", header: "column", value: (c) => c.column },
      { id: "unit", header: "unit", value: (c) => c.unit },
      { id: "reported", header: "reported", numeric: true, value: (c) => c.reported, cell: (c) => c.reported_text },
      { id: "measured", header: "measured, 90 %", numeric: true, value: (c) => c.outcome.measured, cell: (c) => c.outcome.text },
      { id: "framework", header: "framework", value: (c) => c.outcome.framework },
      { id: "margin", header: "margin", numeric: true, value: (c) => c.outcome.margin, cell: (c) => number(c.outcome.margin) },
      { id: "verdict", header: "verdict", wide: true, value: (c) => c.outcome.verdict, cell: (c) => verdict(c.outcome) },
    ];
    return table(columns, cells, { caption: `${one.place}: reported next to measured`, name: `${paper.id}-${one.id}`, prefix: `${one.id}.` }).element;
  }
})();
