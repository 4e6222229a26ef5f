// The one global: data that scripts hand over, elements, announcements.
"use strict";
const curvebench = (() => {
  const values = new Map();
  const waiting = new Map();

  /** A data script calls this with its name and its value. */
  function put(name, value) {
    values.set(name, value);
    waiting.get(name)?.resolve(value);
  }

  /** The value of data/NAME.js; the script is loaded the first time that it is asked for. */
  function need(name) {
    if (values.has(name)) return Promise.resolve(values.get(name));
    if (!waiting.has(name)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      waiting.set(name, entry);
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onerror = () => {
        waiting.delete(name);
        entry.reject(new Error(`data/${name}.js is missing beside index.html`));
      };
      document.head.append(script);
    }
    return waiting.get(name).promise;
  }

  const get = (name) => values.get(name);

  /** An element: h("a.button", {href: "#/"}, "text", otherElement). Functions become listeners, null is left out. */
  function h(name, properties, ...children) {
    const [tag, ...classes] = name.split(".");
    const element = document.createElement(tag);
    if (classes.length) element.className = classes.join(" ");
    for (const [key, value] of Object.entries(properties ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(key, value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }

  /** Say something to those who cannot see that the page changed. */
  function announce(text) {
    document.getElementById("live").textContent = text;
  }

  /** Hand a file to the reader. */
  function save(name, type, text) {
    const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  return { put, need, get, h, announce, save, pages: {} };
})();
