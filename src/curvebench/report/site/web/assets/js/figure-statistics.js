// Ranks with their intervals, performance profiles with bands, expected best of k.
"use strict";
(() => {
  const { h, colour, marker, dash, plotStyle, number, AXES, tickText } = curvebench;
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  /** A dot per row at its rank and the interval that holds 95 % of its ranks. `names`: row -> {method, label, ...}. */
  function ranks(axis, names, width) {
    const room = Math.min(260, Math.max(130, width * 0.36));
    const key = (place) => String(place.row);
    const called = new Map(axis.places.map((p) => [key(p), short(`${names(p.row).label} (${names(p.row).framework})`, Math.floor(room / 7.2))]));
    const paint = (place) => colour(names(place.row).method);
    return Plot.plot({
      ...plotStyle(width, 56 + 21 * axis.places.length, room),
      x: { label: "rank, 1 the best →", domain: [0.5, axis.places.length + 0.5], ticks: Math.min(axis.places.length, 12, Math.floor((width - room) / 32)), tickFormat: "d", grid: true },
      y: { type: "point", label: null, domain: axis.places.map(key), tickFormat: (row) => called.get(row), tickSize: 0, padding: 0.6 },
      marks: [
        Plot.ruleY(axis.places, { y: key, x1: "low", x2: "high", stroke: paint, strokeWidth: 3, strokeOpacity: 0.45, strokeLinecap: "round" }),
        Plot.dot(axis.places, { y: key, x: "rank", fill: paint, symbol: (place) => marker(names(place.row).method), r: 4.5, stroke: "var(--page)", strokeWidth: 0.8 }),
        Plot.tip(axis.places, Plot.pointerY({
          y: key, x: "rank", fill: "var(--page)", stroke: "var(--line)",
          title: (p) => `${names(p.row).label} (${names(p.row).framework})\nrank ${p.rank}, 95 %: ${p.low} to ${p.high}\nfirst with probability ${number(p.first)}`,
        })),
      ],
    });
  }

  /** The share of tasks within a factor tau of the best, with bands. */
  function profiles(profile, hidden, bands, width) {
    const shown = profile.methods.filter((one) => !hidden.has(`${one.method} ${one.framework}`));
    const points = shown.flatMap((one) =>
      profile.tau.map((tau, k) => ({ one, key: `${one.method} ${one.framework}`, tau, rho: one.rho[k], low: one.rho_low[k], high: one.rho_high[k] })),
    );
    if (!points.length) return h("p.empty", null, "Every method is hidden.");
    const paint = (point) => colour(point.one.method);
    const each = Math.max(1, Math.floor(profile.tau.length / 6));
    return Plot.plot({
      ...plotStyle(width, Math.max(300, Math.min(440, width * 0.5))),
      clip: true,
      x: { label: `factor τ of the best ${AXES[profile.axis]} →`, domain: d3.extent(profile.tau) },
      y: { label: "↑ share of tasks solved within it", domain: [0, 1], grid: true },
      marks: [
        bands ? Plot.areaY(points, { x: "tau", y1: "low", y2: "high", z: "key", fill: paint, fillOpacity: 0.1, curve: "step-after" }) : null,
        ...["torch", "jax"].map((framework) =>
          Plot.line(
            points.filter((point) => point.one.framework === framework),
            { x: "tau", y: "rho", z: "key", stroke: paint, strokeWidth: 1.8, curve: "step-after", strokeDasharray: dash(framework) ?? undefined },
          ),
        ),
        Plot.dot(points.filter((_, k) => (k % profile.tau.length) % each === 0), { x: "tau", y: "rho", fill: paint, symbol: (p) => marker(p.one.method), r: 3.4, stroke: "var(--page)", strokeWidth: 0.7 }),
        Plot.tip(points, Plot.pointer({
          x: "tau", y: "rho", fill: "var(--page)", stroke: "var(--line)",
          title: (p) => `${p.one.label} (${p.one.framework})\nwithin ${number(p.tau)}x on ${number(100 * p.rho)} % of tasks\n95 %: ${number(100 * p.low)} to ${number(100 * p.high)} %`,
        })),
      ],
    });
  }

  /** Expected best metric of k trials against k, or against the seconds that they cost. */
  function bestOfK(tuning, against, hidden, bands, width) {
    const points = tuning.pools
      .filter((pool) => !hidden.has(`${pool.method} ${pool.framework}`))
      .flatMap((pool) =>
        pool.expected.map((value, k) => ({ pool, key: `${pool.method} ${pool.framework}`, k: k + 1, seconds: pool.seconds[k], value, low: pool.low[k], high: pool.high[k] })),
      )
      .filter((point) => point.value !== null && point[against] !== null);
    if (!points.length) return h("p.empty", null, "Every pool is hidden, or none says what its trials cost.");
    const paint = (point) => colour(point.pool.method);
    return Plot.plot({
      ...plotStyle(width, Math.max(280, Math.min(400, width * 0.45))),
      x: { type: against === "seconds" ? "log" : "linear", label: against === "k" ? "trials k →" : "expected seconds of tuning →", tickFormat: tickText("k", against === "seconds"), ...(against === "k" ? { interval: 1, ticks: 10 } : {}) },
      y: { type: tuning.geometric ? "log" : "linear", label: `↑ expected best ${tuning.metric_label}`, grid: true, tickFormat: tickText("metric", tuning.geometric) },
      marks: [
        bands ? Plot.areaY(points, { x: against, y1: "low", y2: "high", z: "key", fill: paint, fillOpacity: 0.1 }) : null,
        Plot.line(points, { x: against, y: "value", z: "key", stroke: paint, strokeWidth: 1.6 }),
        Plot.dot(points, { x: against, y: "value", fill: paint, symbol: (p) => marker(p.pool.method), r: 3.4, stroke: "var(--page)", strokeWidth: 0.7 }),
        Plot.tip(points, Plot.pointer({
          x: against, y: "value", fill: "var(--page)", stroke: "var(--line)",
          title: (p) => `${curvebench.method(p.pool.method)?.title ?? p.pool.method}, tuned in ${p.pool.framework}\nbest of ${p.k}: ${number(p.value)}\n95 %: ${number(p.low)} to ${number(p.high)}`,
        })),
      ],
    });
  }

  Object.assign(curvebench, { ranks, profiles, bestOfK });
})();
