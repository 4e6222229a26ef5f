// The address: #/task/digits-cnn?axis=step&q=adam. Every choice on a page stands in it, so a link shows the same again.
"use strict";
(() => {
  function parse() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
    return { page: parts[0] ?? "overview", name: parts.slice(1).join("/"), params: new URLSearchParams(query ?? "") };
  }

  /** The address of a page; parameters that are empty are left out. */
  function href(page, name, params) {
    const query = new URLSearchParams(Object.entries(params ?? {}).filter(([, value]) => value)).toString();
    const path = [page === "overview" ? "" : page, ...(name ? [name] : [])].map(encodeURIComponent).join("/");
    return `#/${path}${query ? `?${query}` : ""}`;
  }

  const param = (key) => parse().params.get(key);

  /** Change one choice without leaving the page. */
  function choose(key, value) {
    const { page, name, params } = parse();
    if (value === null || value === undefined || value === "") params.delete(key);
    else params.set(key, value);
    history.replaceState(null, "", href(page, name, Object.fromEntries(params)));
  }

  Object.assign(curvebench, { parse, href, param, choose });
})();
