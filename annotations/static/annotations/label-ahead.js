/* The item ahead: fetched and leased while somebody works on the one before, so that it appears without waiting. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.ahead = (core) => {
  const WAIT_MS = 100;
  let held = null; // {nodes, item, expires}
  let timer = 0;
  let asking = null;

  function hold(nodes) {
    const form = nodes.find((node) => node.nodeType === Node.ELEMENT_NODE && node.matches(".lb-form"));
    set(form ? { nodes, item: form.dataset.item, expires: form.dataset.expires } : null);
  }

  function set(what) {
    held = what;
    core.root.toggleAttribute("data-next-ready", held !== null);
  }

  function fetch() {
    clearTimeout(timer);
    if (!held) timer = setTimeout(() => (asking = ask().finally(() => (asking = null))), WAIT_MS);
  }

  /* Nothing more is asked for; what is on its way is waited for. */
  async function coming() {
    clearTimeout(timer);
    await asking;
  }

  async function ask() {
    const form = core.form();
    if (!form || core.gone() || held) return;
    let answer = {};
    try {
      answer = await core.post(core.root.dataset.ahead, core.payload());
    } catch {
      return; // then the next item comes with the answer to this one
    }
    if (!answer.html || held || core.form() !== form || answer.item === Number(form.dataset.item)) return;
    const box = document.createElement("template");
    box.innerHTML = answer.html;
    box.content.querySelector("#lb-progress-new")?.remove(); // as it was before this one is done
    hold([...box.content.childNodes]);
  }

  function take() {
    const { nodes } = held;
    set(null);
    return nodes;
  }

  /* The server has sent this very item with an answer: it is on the screen now. */
  function leave(item) {
    if (held?.item === item) set(null);
  }

  return {
    fetch,
    take,
    leave,
    coming,
    put: hold,
    ready: () => held?.item || "",
    lease: () => held && { item: held.item, expires: held.expires },
  };
};
