/* w and l: to the next win or loss on the page; past the last one, to the page that has more of them. */
(() => {
  "use strict";
  const KINDS = { w: "wins", l: "losses" };
  let at = -1;
  document.addEventListener("keydown", (event) => {
    if (!KINDS[event.key] || event.target.closest("input, textarea, select")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const kind = KINDS[event.key];
    const all = [...document.querySelectorAll(".rt-example")];
    const next = all.findIndex((one, place) => place > at && one.dataset.outcome === kind);
    if (next < 0) {
      const params = new URLSearchParams(location.search);
      const shown = params.get("show") || "wins";
      const more = document.getElementById("next-page");
      if ((shown === kind || shown === "all") && more) location.href = more.href;
      else if (shown !== kind) {
        params.set("show", kind);
        params.delete("page");
        location.href = `?${params}#examples`;
      }
      return;
    }
    all.forEach((one) => one.classList.remove("rt-at"));
    at = next;
    all[at].classList.add("rt-at");
    all[at].tabIndex = -1;
    all[at].focus({ preventScroll: true });
    all[at].scrollIntoView({ block: "center" });
  });
})();
