// Choices on a page: a row of radio buttons, a tick box, each kept in the address.
"use strict";
(() => {
  const { h, param, choose, announce } = curvebench;
  let count = 0;

  /** Radio buttons in a row. `options` are [value, text]; `change` is called with the value, once at the start too. */
  function radios(legend, key, options, change, preset) {
    count += 1;
    const known = options.map(([value]) => value);
    const start = known.includes(param(key)) ? param(key) : known.includes(preset) ? preset : known[0];
    const field = h("fieldset.radios", null, h("legend", null, legend));
    for (const [value, text] of options) {
      const input = h("input", {
        type: "radio",
        name: `choice-${count}`,
        value,
        checked: value === start,
        change: () => {
          choose(key, value);
          change(value);
          announce(`${legend}: ${text}`);
        },
      });
      field.append(h("label", null, input, h("span", null, text)));
    }
    return { element: field, value: start };
  }

  /** A tick box; `preset` is what it is where the address says nothing. */
  function tick(text, key, change, preset = false) {
    const given = param(key);
    const start = given === null ? preset : given === "1";
    const input = h("input", {
      type: "checkbox",
      checked: start,
      change: () => {
        choose(key, input.checked === preset ? "" : input.checked ? "1" : "0");
        change(input.checked);
      },
    });
    return { element: h("label.tick", null, input, text), value: start };
  }

  Object.assign(curvebench, { radios, tick });
})();
