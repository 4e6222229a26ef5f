// Numbers, costs and statuses as text.
"use strict";
(() => {
  const { h } = curvebench;

  const AXES = {
    step: "steps",
    seconds: "seconds",
    oracle_calls: "oracle calls",
    gradient_equivalents: "gradient-equivalents",
    bytes: "bytes moved",
  };

  const STATUSES = ["reached", "budget", "timeout", "diverged", "unsupported", "out_of_memory", "crashed"];

  /** Three significant digits, powers of ten where they are shorter. */
  function number(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e6) return value.toExponential(digits - 1).replace("e+", "e");
    if (Number.isInteger(value)) return String(value);
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    return value.toFixed(Math.min(places, 12));
  }

  /** Bytes in the unit that suits them. */
  function bytes(value) {
    if (value === null || value === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    const power = value > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(value) / 10)) : 0;
    return `${number(value / 1024 ** power)} ${units[power]}`;
  }

  /** A number on an axis. */
  const onAxis = (axis, value) => (axis === "bytes" ? bytes(value) : number(value));

  /** The number under a tick, short: 0.001, 20, 1e-6, 64 MiB. On a logarithmic axis powers of ten alone have one. */
  function tickText(axis, logarithmic) {
    return (value) => {
      const power = Math.log10(Math.abs(value));
      if (logarithmic && axis !== "bytes" && Math.abs(power - Math.round(power)) > 1e-6) return "";
      if (axis === "bytes") return bytes(value).replace(/\.0+ /, " ");
      if (value === 0) return "0";
      return power <= -4 || power >= 6 ? value.toExponential().replace("e+", "e") : String(Number(value.toPrecision(6)));
    };
  }

  /** A status with its own sign, so that colour is not the only one. */
  function status(name, count) {
    const words = name.replaceAll("_", " ");
    return h(`span.status.${name}`, null, count === undefined ? words : `${count} ${words}`);
  }

  const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  /** Text with `code` in it. */
  function prose(text) {
    return text.split("`").map((part, place) => (place % 2 ? h("code", null, part) : part));
  }

  /** A list of sentences, or nothing. */
  function notes(sentences, title = "Notes") {
    if (!sentences?.length) return null;
    return h(
      "details.notes",
      { open: sentences.length <= 4 },
      h("summary", null, title),
      h("ul", null, ...sentences.map((sentence) => h("li", null, ...prose(sentence)))),
    );
  }

  /** A list of names and values. */
  function facts(pairs) {
    const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
    return h("dl.facts", null, ...shown.flatMap(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
  }

  Object.assign(curvebench, { AXES, STATUSES, number, bytes, onAxis, tickText, status, plural, prose, notes, facts });
})();
