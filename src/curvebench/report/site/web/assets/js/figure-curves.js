// Learning curves: the metric against any axis, a line per row with the range over its seeds.
"use strict";
(() => {
  const { h, AXES, colour, marker, dash, plotStyle, onAxis, number, tickText } = curvebench;

  /** Six positions of a line, spread evenly as seen and shifted from line to line. */
  function marks(points, at, place) {
    if (points.length <= 2) return points.slice(0, 1);
    const from = at(points[0].x);
    const span = at(points.at(-1).x) - from;
    const chosen = new Set();
    for (let k = 0; k < 6; k += 1) {
      const wanted = from + (span * (k + (place % 5) / 5)) / 6;
      let best = 0;
      points.forEach((point, index) => {
        if (Math.abs(at(point.x) - wanted) < Math.abs(at(points[best].x) - wanted)) best = index;
      });
      chosen.add(best);
    }
    return [...chosen].map((index) => points[index]);
  }

  /** Limits of the metric that a diverging seed cannot stretch. */
  function domain(points, target, logarithmic) {
    const values = points.flatMap((point) => [point.low, point.high]);
    if (target !== null) values.push(target);
    const usable = values.filter((value) => Number.isFinite(value) && (!logarithmic || value > 0));
    const [low, high] = d3.extent(usable);
    if (low === undefined) return undefined;
    if (logarithmic) {
      const room = Math.max(high / low, 10) ** 0.05;
      return [low / room, high * room];
    }
    const room = 0.05 * (high - low || 1);
    return [low - room, high + room];
  }

  /**
   * Draw lines {row, x, mean, low, high, lost} of a task.
   * options: width, axis, logX, logY, bands, target, yLabel, names (row -> {method, framework, label}).
   */
  function curves(lines, options) {
    const { width, axis, logX, logY, bands, target, yLabel, names } = options;
    const at = logX ? Math.log : (x) => x;
    const fits = (x, y) => (!logX || x > 0) && (!logY || y > 0);
    const points = [];
    const markers = [];
    const lost = [];
    const ends = [];
    lines.forEach((line, place) => {
      const own = line.x
        .map((x, k) => ({ row: line.row, x, mean: line.mean[k], low: line.low[k], high: line.high[k] }))
        .filter((point) => fits(point.x, point.mean));
      points.push(...own);
      markers.push(...marks(own, at, place));
      line.lost.forEach(([x, y], seed) => {
        const kept = x.map((value, k) => ({ row: line.row, seed: `${line.row}-${seed}`, x: value, y: y[k] }));
        const usable = kept.filter((point) => fits(point.x, point.y));
        lost.push(...usable);
        if (usable.length) ends.push(usable.at(-1));
      });
    });
    if (!points.length && !lost.length) return h("p.empty", null, "Nothing to draw with these choices.");
    const y = domain(points.length ? points : lost.map((p) => ({ low: p.y, high: p.y })), target, logY);
    const clamp = (value) => Math.min(Math.max(value, y[0]), y[1]);
    const paint = (point) => colour(names(point.row).method);
    const dashes = [...new Set(lines.map((line) => names(line.row).framework))];
    const tip = (point) => {
      const { label, framework } = names(point.row);
      return `${label} (${framework})\n${onAxis(axis, point.x)} ${AXES[axis]}: ${number(point.mean, 4)}`;
    };
    return Plot.plot({
      ...plotStyle(width, Math.max(300, Math.min(460, width * 0.56))),
      clip: true,
      x: { type: logX ? "log" : "linear", label: `${AXES[axis]} →`, ticks: Math.max(3, Math.round(width / 110)), tickFormat: tickText(axis, logX) },
      y: { type: logY ? "log" : "linear", label: `↑ ${yLabel}`, domain: y, grid: true, ticks: 6, tickFormat: tickText("metric", logY && y[1] / y[0] > 30) },
      marks: [
        target === null || (logY && target <= 0) ? null : Plot.ruleY([target], { strokeDasharray: "1,3", strokeWidth: 1.4 }),
        bands ? Plot.areaY(points, { x: "x", y1: (p) => clamp(p.low), y2: (p) => clamp(p.high), z: "row", fill: paint, fillOpacity: 0.13 }) : null,
        Plot.line(lost, { x: "x", y: (p) => clamp(p.y), z: "seed", stroke: paint, strokeWidth: 0.9, strokeOpacity: 0.7 }),
        ...dashes.map((framework) =>
          Plot.line(
            points.filter((point) => names(point.row).framework === framework),
            { x: "x", y: (p) => clamp(p.mean), z: "row", stroke: paint, strokeWidth: 1.8, strokeDasharray: dash(framework) ?? undefined },
          ),
        ),
        Plot.dot(markers, { x: "x", y: (p) => clamp(p.mean), fill: paint, symbol: (p) => marker(names(p.row).method), r: 3.6, stroke: "var(--page)", strokeWidth: 0.7 }),
        Plot.text(ends, { x: "x", y: (p) => clamp(p.y), text: () => "×", fill: paint, fontSize: 18, fontWeight: 700 }),
        Plot.tip(points, Plot.pointer({ x: "x", y: (p) => clamp(p.mean), title: tip, fill: "var(--page)", stroke: "var(--line)" })),
      ],
    });
  }

  /** A task's curves on a card: no axes, only shapes. Rows of the best within noise stand out. */
  function sketch(found, task, width) {
    const points = found.lines.flatMap((line) => line.x.map((x, k) => ({ row: line.row, x, y: line.y[k] })));
    const ends = found.lines.map((line) => line.x.at(-1)).filter((x) => x > 0);
    const logX = ends.length > 0 && d3.max(ends) / d3.min(ends) >= 8;
    const usable = points.filter((p) => (!logX || p.x > 0) && (!task.logarithmic || p.y > 0));
    const best = (p) => task.rows[p.row].best;
    const paint = (p) => colour(task.rows[p.row].method);
    return Plot.plot({
      width, height: 118, margin: 6,
      style: { background: "none", color: "inherit" },
      x: { type: logX ? "log" : "linear", axis: null },
      y: { type: task.logarithmic ? "log" : "linear", axis: null },
      marks: [
        task.target === null ? null : Plot.ruleY([task.target], { strokeDasharray: "1,3", strokeOpacity: 0.7 }),
        Plot.line(usable.filter((p) => !best(p)), { x: "x", y: "y", z: "row", stroke: paint, strokeWidth: 1.1, strokeOpacity: 0.6 }),
        Plot.line(usable.filter(best), { x: "x", y: "y", z: "row", stroke: paint, strokeWidth: 2 }),
      ],
    });
  }

  /** Whether an axis wants logarithms: the ends of the lines differ eightfold. */
  function decades(lines) {
    const ends = lines.map((line) => line.x.at(-1)).filter((x) => x > 0);
    return ends.length > 0 && d3.max(ends) / d3.min(ends) >= 8;
  }

  Object.assign(curvebench, { curves, decades, sketch });
})();
