// Light, dark or as the system says. Runs before the page is painted, so that nothing flashes.
"use strict";
(() => {
  const KEY = "curvebench-theme";
  const ORDER = ["auto", "light", "dark"];

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // some browsers keep nothing for files
    }
  }

  function apply(theme) {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    document.documentElement.dataset.theme = theme === "auto" ? system : theme;
    document.documentElement.dataset.choice = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
    document.dispatchEvent(new CustomEvent("themechange"));
  }

  const wanted = stored();
  apply(ORDER.includes(wanted) ? wanted : "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (document.documentElement.dataset.choice === "auto") apply("auto");
  });
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    apply(document.documentElement.dataset.choice);
    button.addEventListener("click", () => {
      const next = ORDER[(ORDER.indexOf(document.documentElement.dataset.choice) + 1) % ORDER.length];
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // it holds for this page at least
      }
      apply(next);
    });
  });
})();
