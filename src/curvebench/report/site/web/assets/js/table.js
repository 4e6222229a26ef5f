// Tables that sort, filter and export. TanStack Table computes which rows stand where; here they become a real <table>.
"use strict";
(() => {
  const { h, param, choose, announce, save, plural } = curvebench;
  const core = TableCore;

  /**
   * A table with its controls.
   *
   * columns: {id, header, value(row), cell?(row), numeric?, filter?, text?(row), wide?, hidden?}; `value` is what is sorted and
   *   exported, null where there is none; `filter` adds a choice of its values; a `hidden`
   *   column is only chosen by and exported; `cell` is an element or text.
   * options: caption, name (of the exported file), prefix (of its parameters in the address), sort ([id, descending]),
   *   onRows(rows) after every change, label(row) for the row's heading column, search (false: no box).
   */
  function table(columns, rows, options) {
    const prefix = options.prefix ?? "";
    const state = start(columns, prefix, options.sort);
    const model = core.createTable({
      columns: columns.map((column) => ({
        id: column.id,
        accessorFn: (row) => column.value(row) ?? undefined,
        sortingFn: column.numeric ? "basic" : "alphanumeric",
        sortUndefined: "last",
        sortDescFirst: false,
        filterFn: "equalsString",
        enableGlobalFilter: !column.numeric,
      })),
      data: rows,
      state: {},
      onStateChange: () => {},
      renderFallbackValue: null,
      getCoreRowModel: core.getCoreRowModel(),
      getFilteredRowModel: core.getFilteredRowModel(),
      getSortedRowModel: core.getSortedRowModel(),
      globalFilterFn: (row, id, words) => words.every((word) => text(columns, row.original).includes(word)),
      getColumnCanGlobalFilter: () => true,
    });

    const caption = h("caption", null, options.caption);
    const visible = columns.filter((column) => !column.hidden);
    const heads = visible.map((column) => heading(column, () => turn(column.id)));
    const body = h("tbody");
    const element = h("table.data", null, caption, h("thead", null, h("tr", null, ...heads)), body);
    const frame = h("div.frame", { role: "region", tabindex: "0", "aria-label": options.caption }, element);
    const count = h("span.count");
    const view = curvebench.rowWindow(frame, element, body, (row, place) => line(visible, row, place));
    let shown = [];

    function turn(id) {
      const [now] = state.sorting;
      state.sorting = now?.id !== id ? [{ id, desc: false }] : now.desc ? [] : [{ id, desc: true }];
      const [next] = state.sorting;
      choose(`${prefix}sort`, next ? `${next.id}${next.desc ? "~" : ""}` : "");
      update();
      announce(next ? `Sorted by ${id.replaceAll("_", " ")}, ${next.desc ? "descending" : "ascending"}` : "Not sorted");
    }

    function update() {
      const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
      model.setOptions((old) => ({
        ...old,
        state: {
          ...model.initialState,
          sorting: state.sorting,
          columnFilters: Object.entries(state.filters).map(([id, value]) => ({ id, value })),
          globalFilter: words.length ? words : undefined,
        },
      }));
      shown = model.getRowModel().rows.map((row) => row.original);
      visible.forEach((column, k) => {
        const [now] = state.sorting;
        const way = now?.id === column.id ? (now.desc ? "descending" : "ascending") : "none";
        heads[k].setAttribute("aria-sort", way);
      });
      count.textContent = shown.length === rows.length ? plural(rows.length, "row") : `${shown.length} of ${rows.length} rows`;
      view.show(shown);
      options.onRows?.(shown);
    }

    const controls = h("div.controls", null);
    if (options.search !== false && rows.length > 5) {
      const box = h("input", {
        type: "search",
        value: state.search,
        placeholder: "words to look for",
        "aria-label": `Filter: ${options.caption}`,
        input: () => {
          state.search = box.value;
          choose(`${prefix}q`, box.value);
          update();
          announce(count.textContent);
        },
      });
      controls.append(h("label.search", null, h("span", null, "Filter"), box));
    }
    for (const column of columns.filter((one) => one.filter)) {
      const values = [...new Set(rows.map(column.value).filter((value) => value !== null && value !== undefined))].sort();
      if (values.length < 2) continue;
      const select = h(
        "select",
        {
          change: () => {
            if (select.value) state.filters[column.id] = select.value;
            else delete state.filters[column.id];
            choose(prefix + column.id, select.value);
            update();
            announce(count.textContent);
          },
        },
        h("option", { value: "" }, "all"),
        ...values.map((value) => h("option", { value, selected: state.filters[column.id] === value }, String(value))),
      );
      controls.append(h("label", null, h("span", null, column.header), select));
    }
    const csv = h(
      "button.quiet",
      { type: "button", click: () => save(`${options.name}.csv`, "text/csv", exported(columns, shown)) },
      "Export CSV",
    );
    controls.append(count, csv);
    update();
    return { element: h("div.table", null, controls, frame), rows: () => shown, update };
  }

  /** What the address says of sorting, words and choices. */
  function start(columns, prefix, sort) {
    const given = param(`${prefix}sort`);
    const [id, desc] = given ? [given.replace(/~$/, ""), given.endsWith("~")] : (sort ?? []);
    const filters = {};
    for (const column of columns.filter((one) => one.filter)) {
      const value = param(prefix + column.id);
      if (value) filters[column.id] = value;
    }
    const known = columns.some((column) => column.id === id);
    return { sorting: known ? [{ id, desc: Boolean(desc) }] : [], search: param(`${prefix}q`) ?? "", filters };
  }

  const heading = (column, click) =>
    h(
      `th${column.numeric ? ".number" : ""}`,
      { scope: "col", "aria-sort": "none", title: column.title },
      h("button", { type: "button", click }, column.header, h("span.arrow", { "aria-hidden": "true" })),
    );

  /** One row; its first cell is its heading. */
  function line(columns, row, place) {
    const cells = columns.map((column, k) => {
      const tag = k === 0 ? "th" : "td";
      const classes = (column.numeric ? ".number" : "") + (column.wide ? ".wide" : "");
      const content = column.cell ? column.cell(row) : (column.value(row) ?? "–");
      return h(tag + classes, k === 0 ? { scope: "row" } : null, ...[content].flat());
    });
    return h("tr", { "aria-rowindex": place + 2 }, ...cells);
  }

  /** All words of a row, once. */
  const words = new WeakMap();
  function text(columns, row) {
    if (!words.has(row)) {
      const parts = columns.map((column) => (column.text ? column.text(row) : column.numeric ? "" : column.value(row)));
      words.set(row, parts.join(" ").toLowerCase());
    }
    return words.get(row);
  }

  /** RFC 4180, all digits that the page has. */
  function exported(columns, rows) {
    const quoted = (value) => {
      const plain = value === null || value === undefined ? "" : String(value);
      return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const lines = [columns.map((column) => column.id), ...rows.map((row) => columns.map((column) => column.value(row)))];
    return lines.map((cells) => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
  }

  Object.assign(curvebench, { table });
})();
