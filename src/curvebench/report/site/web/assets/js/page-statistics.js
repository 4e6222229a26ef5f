// Statistics: the order of a task's rows, every pair, profiles over all tasks, best of k.
"use strict";
(() => {
  const { h, need, href, AXES, number, swatch, table, radios, tick, figure, legend, notes, ranks, profiles, bestOfK } = curvebench;

  /** The part of a task's page that says which order its rows have, and how little of it may be said. */
  curvebench.rankingParts = (task, ranking) => {
    const names = (row) => task.rows[row];
    const byId = new Map(ranking.axes.map((axis) => [axis.id, axis]));
    const pairsPlace = h("div");
    const said = h("p");
    let axis = null;
    const choice = radios("Order by", "by", ranking.axes.map((one) => [one.id, one.label]), (id) => change(id), ranking.axes.at(-1).id);
    const drawn = figure((width) => ranks(axis, names, width), {
      caption: "Rank by the mean; the line holds 95 % of the ranks when seed blocks are drawn again, paired.",
      label: () => `Ranks by ${axis.label}, best first: ${axis.places.map((p) => `${names(p.row).label} (${names(p.row).framework}) ${p.low} to ${p.high}`).join("; ")}`,
      name: `${task.id}-ranks`,
    });

    function change(id) {
      axis = byId.get(id);
      const tau = axis.tau === null ? "" : ` Kendall's tau between seeds ${number(axis.tau)} (least ${number(axis.tau_least)}).`;
      const least = axis.detectable === null ? "" : ` Smallest detectable difference (power 0.8): ${axis.geometric ? `a factor of ${number(10 ** axis.detectable)}` : number(axis.detectable)}.`;
      said.textContent = `${axis.n} complete seed blocks.${tau}${least}`;
      pairsPlace.replaceChildren(pairs(task, axis, names));
      drawn.refresh();
    }
    change(choice.value);
    return [
      h("h2", { id: "order" }, ranking.title),
      choice.element,
      said,
      drawn.element,
      notes(ranking.notes, "How to read it"),
      h("h2", { id: "pairs" }, "Every pair"),
      pairsPlace,
    ];
  };

  /** Paired comparisons of every two rows on one axis. */
  function pairs(task, axis, names) {
    const called = (row) => `${names(row).label} (${names(row).framework})`;
    const [first, second, n, difference, low, high, , holm, improvement] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    const columns = [
      { id: "a", header: "a", value: (p) => called(p[first]), cell: (p) => [swatch(names(p[first]).method), called(p[first])] },
      { id: "b", header: "b", value: (p) => called(p[second]), cell: (p) => [swatch(names(p[second]).method), called(p[second])] },
      { id: "n", header: "n", numeric: true, value: (p) => p[n] },
      { id: "difference", header: axis.geometric ? "a / b" : "a − b", numeric: true, value: (p) => p[difference], cell: (p) => `${number(p[difference])} [${number(p[low])}, ${number(p[high])}]` },
      { id: "p_holm", header: "p (Holm)", numeric: true, value: (p) => p[holm], cell: (p) => (p[holm] < 0.05 ? h("strong", null, number(p[holm])) : number(p[holm])) },
      { id: "improvement", header: "P(a better)", numeric: true, title: "probability that a run of a is better than one of b", value: (p) => p[improvement], cell: (p) => number(p[improvement]) },
      { id: "logrank_p", header: "log-rank p", numeric: true, value: (p) => p[11], cell: (p) => number(p[11]) },
      { id: "detectable", header: "detectable", numeric: true, title: "smallest difference that these seeds detect", value: (p) => p[12], cell: (p) => number(p[12]) },
      { id: "larger", header: "larger than that", value: (p) => (p[13] ? "yes" : "no"), filter: true },
    ];
    return table(columns, axis.pairs, { caption: `Pairs on ${task.title} by ${axis.label}`, name: `${task.id}-pairs-${axis.id}`, prefix: "pairs.", sort: ["p_holm", false] }).element;
  }

  curvebench.pages.across = {
    title: "Across tasks",
    async draw() {
      const found = await need("profiles");
      if (!found.length) return [h("h1", null, "Across tasks"), h("p.empty", null, "No task of this report has a target that a method could reach: there is nothing to score.")];
      const byAxis = new Map(found.map((one) => [one.axis, one]));
      const hidden = new Set();
      const legendPlace = h("div");
      const tablePlace = h("div");
      let profile = null;
      const choice = radios("Cost in", "axis", found.map((one) => [one.axis, AXES[one.axis]]), (axis) => change(axis));
      const bands = tick("bands", "bands", () => drawn.refresh(), found[0].methods.length <= 12);
      const drawn = figure((width) => profiles(profile, hidden, bands.element.querySelector("input").checked, width), {
        caption: "On which share of the tasks a method reaches the target within a factor τ of the best; misses are censored, the band is a bootstrap over tasks, tuning and seeds.",
        label: () => `Performance profiles by ${AXES[profile.axis]}; the table below has the scores.`,
        name: "profiles",
      });
      function change(axis) {
        profile = byAxis.get(axis);
        legendPlace.replaceChildren(legend(profile.methods.map((one) => ({ key: `${one.method} ${one.framework}`, sample: swatch(one.method, one.framework), text: `${one.label} (${one.framework})` })), hidden, drawn.refresh));
        tablePlace.replaceChildren(scores(profile), notes(profile.notes));
        drawn.refresh();
      }
      change(choice.value);
      return [h("h1", null, "Across tasks"),
        h("p.lead", null, `Performance profiles over ${found[0].tasks.length} tasks with a target: one score per method, with its doubt.`),
        h("div.controls", null, choice.element, bands.element), h("div.beside", null, drawn.element, legendPlace), h("h2", null, "Scores"), tablePlace];
    },
  };

  /** One line per method: area under its profile. Bold: its rank interval holds 1. */
  function scores(profile) {
    const columns = [
      { id: "method", header: "method", value: (m) => m.label, text: (m) => `${m.label} ${m.method}`, cell: (m) => [swatch(m.method, m.framework), h("a", { href: href("method", m.method) }, m.label)] },
      { id: "framework", header: "framework", value: (m) => m.framework, filter: true },
      { id: "score", header: "score", numeric: true, value: (m) => m.score, cell: (m) => (m.rank_low === 1 ? h("strong", null, m.score.toFixed(3)) : m.score.toFixed(3)) },
      { id: "low", header: "95 %", numeric: true, value: (m) => m.low, cell: (m) => `[${m.low.toFixed(2)}, ${m.high.toFixed(2)}]` },
      { id: "rank", header: "ranks", numeric: true, value: (m) => m.rank, cell: (m) => `${m.rank_low}–${m.rank_high}` },
      { id: "first", header: "first", numeric: true, title: "probability of the highest score", value: (m) => m.first, cell: (m) => m.first.toFixed(2) },
      { id: "plain", header: "AlgoPerf's", numeric: true, title: "score of medians over seeds, a miss infinite", value: (m) => m.plain, cell: (m) => m.plain.toFixed(3) },
    ];
    return table(columns, profile.methods, { caption: `Scores by ${AXES[profile.axis]}`, name: `scores-${profile.axis}` }).element;
  }

  curvebench.pages.tuning = {
    title: "Tuning",
    async draw() {
      const found = await need("tuning");
      if (!found.length) return [h("h1", null, "Tuning"), h("p.empty", null, "No tuning pool is stored for these tasks.")];
      const byTask = new Map(found.map((one) => [one.task, one]));
      const legendPlace = h("div");
      const said = h("p.quiet");
      const hidden = new Set();
      let tuning = null;
      let against = "k";
      const drawn = figure((width) => bestOfK(tuning, against, hidden, bands.element.querySelector("input").checked, width), {
        caption: "Expected best of k trials drawn from the stored pool without replacement, exact; the band draws the pool again.",
        label: () => `Expected best ${tuning.metric_label} of k trials on ${tuning.title}`,
        name: "best-of-k",
      });
      const change = (task) => {
        tuning = byTask.get(task);
        said.textContent = `A trial that failed leaves one with ${number(tuning.worst)}, the worst end of any pool here.`;
        legendPlace.replaceChildren(legend(tuning.pools.map((pool) => ({ key: `${pool.method} ${pool.framework}`, sample: swatch(pool.method), text: `${curvebench.method(pool.method)?.title ?? pool.method}: ${pool.trials} trials in ${pool.framework}, ${pool.failed} failed` })), hidden, drawn.refresh));
        drawn.refresh();
      };
      const bands = tick("bands", "bands", () => drawn.refresh(), found[0].pools.length <= 5);
      const tasks = radios("Task", "task", found.map((one) => [one.task, one.title]), change);
      const axis = radios("Against", "axis", [["k", "trials"], ["seconds", "seconds of tuning"]], (value) => {
        against = value;
        drawn.refresh();
      });
      against = axis.value;
      change(tasks.value);
      return [h("h1", null, "Best of k"), h("p.lead", null, "What tuning with k trials buys each method."), h("div.controls", null, tasks.element, axis.element, bands.element), h("div.beside", null, drawn.element, legendPlace), said];
    },
  };
})();
