// The frame of every figure: caption, redraw on a new width or theme, export as SVG.
"use strict";
(() => {
  const { h, save } = curvebench;

  /**
   * A figure that `draw(width)` fills with an element; its `refresh` draws again.
   * options: caption, label (for readers), name (of the exported file).
   */
  function figure(draw, options) {
    const place = h("div.plot");
    const say = h("figcaption", null, options.caption);
    const element = h("figure", null, place, h("div.under", null, say, exportButton()));
    let width = 0;

    function refresh() {
      if (!width) return;
      const drawn = draw(width);
      const svg = drawn instanceof SVGElement ? drawn : drawn.querySelector("svg");
      svg?.setAttribute("role", "img");
      svg?.setAttribute("aria-label", typeof options.label === "function" ? options.label() : options.label);
      place.replaceChildren(drawn);
    }

    function exportButton() {
      const click = () => {
        const svg = place.querySelector("svg").cloneNode(true);
        svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
        svg.style.color = getComputedStyle(place).color;
        save(`${options.name}.svg`, "image/svg+xml", svg.outerHTML);
      };
      return h("button.quiet", { type: "button", click }, "Export SVG");
    }

    new ResizeObserver(([entry]) => {
      const next = Math.floor(entry.contentRect.width);
      if (next && next !== width) {
        width = next;
        refresh();
      }
    }).observe(place);
    document.addEventListener("themechange", () => element.isConnected && refresh());
    return { element, refresh };
  }

  /** What all plots share. */
  const style = (width, height, left = 62) => ({
    width,
    height,
    marginLeft: left,
    marginRight: 18,
    marginTop: 22,
    marginBottom: 46,
    style: { background: "none", color: "inherit", fontSize: "12px", fontFamily: "inherit", overflow: "visible" },
  });

  /** Names with their swatches; those that are pressed are shown. */
  function legend(entries, hidden, change) {
    return h(
      "div.legend",
      { role: "group", "aria-label": "Shown in the figure" },
      ...entries.map(({ key, sample, text }) => {
        const button = h(
          "button",
          {
            type: "button",
            "aria-pressed": String(!hidden.has(key)),
            click: () => {
              if (!hidden.delete(key)) hidden.add(key);
              button.setAttribute("aria-pressed", String(!hidden.has(key)));
              change();
            },
          },
          sample,
          text,
        );
        return button;
      }),
    );
  }

  Object.assign(curvebench, { figure, legend, plotStyle: style });
})();
