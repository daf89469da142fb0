/* Hands out what a page shows: charts as PNG, tables as CSV. On a script with data-add, buttons are put below each. */
(() => {
  "use strict";
  const FORMULA = /^[=+\-@\t\r]/;
  const NUMBER = /^[+-]?[\d.,]+\s?%?$/;
  const adds = "add" in document.currentScript.dataset;
  const dark = () => document.documentElement.classList.contains("dark");
  const named = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "ratchet";

  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  /* On a ground of its own: a transparent chart is unreadable on a dark slide. */
  const picture = (canvas, name) => {
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const pen = copy.getContext("2d");
    pen.fillStyle = dark() ? "#0f172a" : "#ffffff";
    pen.fillRect(0, 0, copy.width, copy.height);
    pen.drawImage(canvas, 0, 0);
    copy.toBlob((blob) => save(blob, `${name}.png`));
  };

  /* A cell that a spreadsheet would take for a formula gets a quote before it; a negative number is none. */
  const quoted = (cell) => {
    const said = cell.innerText.replace(/\s+/g, " ").trim();
    const text = said === "–" ? "" : FORMULA.test(said) && !NUMBER.test(said) ? `'${said}` : said;
    return /[",]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const sheet = (table, name) => {
    /* What stands in a closed <details> has no innerText. */
    const closed = table.closest("details:not([open])");
    if (closed) closed.open = true;
    const rows = [...table.rows].map((row) => [...row.cells].map(quoted).join(","));
    if (closed) closed.open = false;
    save(new Blob([rows.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" }), `${name}.csv`);
  };

  const button = (word, of, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "rt-take";
    made.textContent = word;
    made.setAttribute("aria-label", `${word}: ${of}`);
    made.addEventListener("click", act);
    return made;
  };

  document.querySelectorAll("[data-png]").forEach((given) => {
    const canvas = document.querySelector(`canvas[data-overview="${given.dataset.png}"]`);
    if (!canvas || !window.Chart || !Chart.getChart(canvas)) return;
    given.hidden = false;
    given.addEventListener("click", () => picture(canvas, given.dataset.png.replace(/-data$/, "")));
  });

  if (!adds) return;
  document.querySelectorAll("section.rt-card").forEach((card) => {
    const heading = card.querySelector("h2, h3, h4");
    const title = heading ? heading.textContent.trim() : document.title;
    const made = [];
    card.querySelectorAll("canvas").forEach((canvas) => {
      if (window.Chart && Chart.getChart(canvas)) made.push(button("PNG", title, () => picture(canvas, named(title))));
    });
    const tables = [...card.querySelectorAll("table.rt-table")].filter((table) => table.tHead && table.rows.length > 1);
    tables.forEach((table) => {
      const region = table.closest("[aria-label]");
      const of = tables.length > 1 && region ? region.getAttribute("aria-label") : title;
      made.push(button(tables.length > 1 ? `CSV, ${of}` : "CSV", of, () => sheet(table, named(of))));
    });
    if (!made.length) return;
    const line = document.createElement("p");
    line.className = "rt-quiet rt-takes";
    line.append(...made);
    card.append(line);
  });
})();
