// Colour, marker and kind of line of a method: the same in every figure and table, here and in the printed figures.
"use strict";
(() => {
  const { h, get } = curvebench;
  const DASHES = { torch: null, jax: "5,3" };
  const byName = new Map(get("report").methods.map((method) => [method.name, method]));

  /** Corners on the unit circle of radius r, the first at an angle in degrees. */
  function corners(count, angle, inner) {
    const points = [];
    for (let k = 0; k < count; k += 1) {
      const turn = ((angle + (360 * k) / count) * Math.PI) / 180;
      const radius = inner !== undefined && k % 2 ? inner : 1;
      points.push([radius * Math.cos(turn), radius * Math.sin(turn)]);
    }
    return points;
  }
  const plus = [
    [-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35],
    [0.35, 1], [-0.35, 1], [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35],
  ];
  const turned = plus.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);

  // matplotlib's letters, drawn in a circle of radius 1; null is the circle itself
  const SHAPES = {
    o: null, s: corners(4, 45), "^": corners(3, -90), D: corners(4, 0), v: corners(3, 90), P: plus, X: turned,
    "<": corners(3, 180), ">": corners(3, 0), h: corners(6, -90), p: corners(5, -90),
  };

  /** A symbol as d3 draws it. */
  const SYMBOLS = Object.fromEntries(
    Object.entries(SHAPES).map(([letter, points]) => [
      letter,
      {
        draw(context, size) {
          const r = Math.sqrt(size / Math.PI) * (points ? 1.15 : 1);
          if (!points) {
            context.moveTo(r, 0);
            context.arc(0, 0, r, 0, 2 * Math.PI);
            return;
          }
          points.forEach(([x, y], k) => (k ? context.lineTo(x * r, y * r) : context.moveTo(x * r, y * r)));
          context.closePath();
        },
      },
    ]),
  );

  /** The method's colour, lightened where it would drown in a dark page. */
  function colour(name) {
    const plain = byName.get(name)?.colour ?? "#777777";
    if (document.documentElement.dataset.theme !== "dark" || matchMedia("print").matches) return plain;
    const found = d3.lab(plain);
    return found.l < 58 ? d3.lab(62, found.a, found.b).formatHex() : plain;
  }

  const marker = (name) => SYMBOLS[byName.get(name)?.marker] ?? SYMBOLS.o;
  const dash = (framework) => (framework in DASHES ? DASHES[framework] : "1,3");

  /** A sample of a method's line and marker. */
  function swatch(name, framework) {
    const found = byName.get(name);
    const span = h("span.swatch", { "aria-hidden": "true" });
    const points = SHAPES[found?.marker] ?? null;
    const at = points?.map(([x, y]) => `${(13 + 4.6 * x).toFixed(1)},${(7 + 4.6 * y).toFixed(1)}`).join(" ");
    const shape = at ? `<polygon points="${at}"/>` : '<circle cx="13" cy="7" r="4"/>';
    const dashes = dash(framework) ? ` stroke-dasharray="${dash(framework)}"` : "";
    const line = framework ? `<path d="M0 7H26" stroke="currentColor" stroke-width="2"${dashes}/>` : "";
    span.innerHTML = `<svg viewBox="0 0 26 14" width="26" height="14">${line}<g fill="currentColor">${shape}</g></svg>`;
    span.dataset.method = name;
    span.style.color = colour(name);
    return span;
  }

  document.addEventListener("themechange", () => {
    for (const span of document.querySelectorAll(".swatch")) span.style.color = colour(span.dataset.method);
  });

  Object.assign(curvebench, { colour, marker, dash, swatch, method: (name) => byName.get(name) });
})();
