// Long tables: only the rows in sight are in the document, between two spacers; readers are told how many there are.
"use strict";
(() => {
  const { h } = curvebench;
  const ALL = 60; // up to so many rows stand there whole
  const SPARE = 12; // rows above and below those in sight
  const PRINTED = 500;

  /** Show rows of a table inside its scrolling frame; `line(row, place)` makes one. */
  function rowWindow(frame, table, body, line) {
    let rows = [];
    let height = 0;
    let range = [-1, -1];

    function show(next) {
      rows = next;
      range = [-1, -1];
      const long = rows.length > ALL;
      frame.classList.toggle("long", long);
      table.setAttribute("aria-rowcount", rows.length + 1);
      if (long) {
        frame.scrollTop = 0;
        draw();
      } else {
        body.replaceChildren(...rows.map(line));
      }
    }

    function draw() {
      if (!height) {
        body.replaceChildren(line(rows[0], 0));
        height = body.firstChild.getBoundingClientRect().height || 33;
      }
      const first = Math.max(0, Math.floor(frame.scrollTop / height) - SPARE);
      const last = Math.min(rows.length, first + Math.ceil((frame.clientHeight || 700) / height) + 2 * SPARE);
      if (first === range[0] && last === range[1]) return;
      range = [first, last];
      const made = [];
      for (let place = first; place < last; place += 1) made.push(line(rows[place], place));
      body.replaceChildren(spacer(first * height), ...made, spacer((rows.length - last) * height));
      hold();
    }

    /** Columns keep the greatest width that they had, so that scrolling does not shift them. */
    function hold() {
      for (const head of table.tHead.rows[0].cells) {
        const width = head.getBoundingClientRect().width;
        if (width > (parseFloat(head.style.minWidth) || 0)) head.style.minWidth = `${width}px`;
      }
    }

    const spacer = (pixels) => h("tr.spacer", { "aria-hidden": "true", style: `height:${pixels}px` }, h("td"));

    let waiting = false;
    frame.addEventListener("scroll", () => {
      if (waiting || rows.length <= ALL) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        draw();
      });
    });
    const whole = () => {
      if (!table.isConnected || rows.length <= ALL) return;
      body.replaceChildren(...rows.slice(0, PRINTED).map(line));
      if (rows.length > PRINTED) {
        const more = `${rows.length - PRINTED} more rows are not printed: export them as CSV`;
        body.append(h("tr", null, h("td", { colspan: table.tHead.rows[0].cells.length }, more)));
      }
    };
    addEventListener("beforeprint", whole);
    addEventListener("afterprint", () => table.isConnected && rows.length > ALL && show(rows));
    return { show };
  }

  Object.assign(curvebench, { rowWindow });
})();
