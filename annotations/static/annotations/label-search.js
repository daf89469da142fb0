/* Searching the knowledge base for what retrieval missed, and adding it to the label. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};

/* The added passages of a form, anew. Text only: nothing of it is read as HTML. */
window.RatchetLabel.showAdded = (form, passages) => {
  const list = form.querySelector("#lb-added");
  const pattern = document.getElementById("lb-added-pattern").content.firstElementChild;
  list.replaceChildren(
    ...passages.map(({ chunk, title, source, text }) => {
      const one = pattern.cloneNode(true);
      Object.assign(one.dataset, { chunk, title, source });
      one.querySelector("input").value = chunk;
      one.querySelector("h3").textContent = title;
      one.querySelector(".lb-source").textContent = source;
      one.querySelector("p").textContent = text;
      return one;
    }),
  );
  list.closest(".lb-added").hidden = passages.length === 0;
};

window.RatchetLabel.search = (core) => {
  const dialog = document.getElementById("lb-search");
  const box = dialog.querySelector("[name=query]");
  const found = dialog.querySelector("#lb-hits");
  const told = dialog.querySelector(".lb-error");
  const SHOWN = 400;

  function open() {
    if (!core.form()) return;
    found.replaceChildren();
    told.textContent = "";
    box.value = "";
    dialog.showModal();
    box.focus();
  }

  function added() {
    return [...core.form().querySelectorAll(".lb-added-one")].map((one) => ({
      ...one.dataset,
      text: one.querySelector("p").textContent,
    }));
  }

  async function ask() {
    told.textContent = "";
    found.setAttribute("aria-busy", "true");
    try {
      const answer = await core.post(core.root.dataset.search, core.payload({ query: box.value }));
      if (answer.html === undefined) told.textContent = answer.message || "You are logged out or no longer allowed here.";
      else found.innerHTML = answer.html;
    } catch {
      told.textContent = "No connection to the server.";
    }
    found.removeAttribute("aria-busy");
    const mine = new Set(added().map(({ chunk }) => chunk));
    found.querySelectorAll(".lb-hit").forEach((one) => {
      const button = one.querySelector("[data-add]");
      if (button && mine.has(one.dataset.chunk)) mark(button);
    });
    found.querySelector("[data-add]:not(:disabled)")?.focus();
  }

  function mark(button) {
    button.disabled = true;
    button.textContent = "Added";
  }

  function add(button) {
    const { chunk, title, source } = button.closest(".lb-hit").dataset;
    const text = button.closest(".lb-hit").querySelector(".lb-hit-text").textContent.slice(0, SHOWN);
    window.RatchetLabel.showAdded(core.form(), [...added(), { chunk, title, source, text }]);
    mark(button);
    core.changed();
    (step(button, 1) || box).focus();
  }

  function step(from, by) {
    const buttons = [...found.querySelectorAll("[data-add]:not(:disabled)")];
    if (!buttons.includes(from)) return buttons[0];
    return buttons[buttons.indexOf(from) + by];
  }

  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (box.value.trim()) ask();
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && "add" in button.dataset) add(button);
    if (button && "close" in button.dataset) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const to = step(event.target, event.key === "ArrowDown" ? 1 : -1) || (event.key === "ArrowUp" ? box : null);
      if (to) core.press(event, () => to.focus());
    }
  });
  core.work.addEventListener("click", (event) => {
    const button = event.target.closest("[data-take-away]");
    if (!button) return;
    const gone = button.closest(".lb-added-one").dataset.chunk;
    window.RatchetLabel.showAdded(core.form(), added().filter(({ chunk }) => chunk !== gone));
    core.changed();
  });

  return { open };
};
