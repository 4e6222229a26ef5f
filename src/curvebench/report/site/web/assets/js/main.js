// Shows the page that the address names, keeps the navigation, says where one is.
"use strict";
(() => {
  const { h, get, parse, href, announce, pages } = curvebench;
  const main = document.getElementById("main");
  const MENU = [
    ["overview", "Overview", []], ["tasks", "Tasks", ["task"]], ["methods", "Methods", ["method"]], ["across", "Across tasks", []],
    ["tuning", "Tuning", []], ["papers", "Papers", ["paper"]], ["runs", "Runs", ["run"]],
  ];
  let turn = 0;

  function menu(page) {
    document.getElementById("nav").replaceChildren(h("ul", null, ...MENU.map(([id, text, below]) =>
      h("li", null, h("a", { href: href(id), "aria-current": id === page ? "page" : below.includes(page) ? "true" : null }, text)))));
  }

  async function show(first) {
    turn += 1;
    const mine = turn;
    const { page, name } = parse();
    menu(page);
    const found = pages[page] ?? { title: "No such page", draw: () => [h("h1", null, "No such page"), h("p", null, h("a", { href: href("overview") }, "Go to the overview"))] };
    const title = typeof found.title === "function" ? found.title(name) : found.title;
    main.setAttribute("aria-busy", "true");
    let content;
    try {
      content = await found.draw(name);
    } catch (error) {
      console.error(error);
      content = [h("h1", null, "This page could not be drawn"), h("p.warning", null, String(error.message ?? error))];
    }
    if (mine !== turn) return; // the reader went on meanwhile
    main.replaceChildren(h("div.page", null, ...content.filter(Boolean)));
    main.removeAttribute("aria-busy");
    document.title = `${title} · curvebench`;
    performance.mark("drawn");
    if (first) return;
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
    announce(`${title}, page`);
  }

  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address belongs to the pages
    main.focus();
    main.scrollIntoView();
  });
  const report = get("report");
  document.getElementById("foot").append(
    h("p", null, `Made by curvebench ${report.curvebench} from ${report.summary.runs} records; the same content for programs: `, h("a", { href: "report.json" }, "report.json"), "."),
    h("p", null, "Figures: D3 and Observable Plot (ISC). Tables: TanStack Table (MIT). Their licences are in assets/vendor."));
  addEventListener("hashchange", () => show(false));
  show(true);
})();
