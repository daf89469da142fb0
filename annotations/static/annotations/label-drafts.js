/* Drafts: what is typed stays in this browser until it is stored, and goes to the server (encrypted there) so that it
   can be gone on with on another machine. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.drafts = (core) => {
  const { root } = core;
  const DAYS = 14;
  const SAVE_MS = 2_000;
  const ALL = "ratchet-draft:";
  const MINE = `${ALL}${root.dataset.account}:${root.dataset.queue}:`;
  const $$ = (selector) => [...core.form().querySelectorAll(selector)];
  const key = () => MINE + core.form().dataset.item;
  let timer = 0;

  function save() {
    const draft = {
      at: Date.now(),
      choice: core.choice(),
      reasons: $$("[name=reasons]:checked").map((box) => box.value),
      marks: Object.fromEntries($$(".lb-context").map((c) => [c.dataset.rank, c.dataset.mark])),
      missed: $$(".lb-added-one").map((one) => ({ ...one.dataset, text: one.querySelector("p").textContent })),
      correction: core.editor().value,
      note: core.form().querySelector("[name=note]").value,
    };
    try {
      localStorage.setItem(key(), JSON.stringify(draft));
    } catch {
      core.say("This browser keeps no drafts: submit before you leave the page.", "warning");
    }
    clearTimeout(timer);
    timer = setTimeout(send, SAVE_MS);
  }

  function send() {
    timer = 0;
    if (!core.form() || core.gone()) return;
    core.post(root.dataset.draft, core.payload({ at: String(Date.now()) })).catch(() => {}); // this browser has it
  }

  /* Before the page goes: what was typed in the last moment. */
  function flush() {
    if (!timer) return;
    clearTimeout(timer);
    timer = 0;
    navigator.sendBeacon(root.dataset.draft, core.payload({ at: String(Date.now()) }));
  }

  /* The server's draft stands in the form already; a newer one of this browser replaces it. */
  function restore() {
    const saved = Number(core.form().dataset.saved) || 0;
    let draft = null;
    try {
      draft = JSON.parse(localStorage.getItem(key()));
    } catch {
      /* nothing was kept */
    }
    if (draft && draft.at >= saved) fill(draft);
    if (draft || saved) core.say("Your unfinished work on this item is back.", "");
  }

  function fill(draft) {
    const box = $$("[name=choice]").find((radio) => radio.value === draft.choice);
    if (box) box.checked = true;
    $$("[name=reasons]").forEach((reason) => (reason.checked = (draft.reasons || []).includes(reason.value)));
    Object.entries(draft.marks || {}).forEach(([rank, mark]) => core.setMark(Number(rank), mark));
    core.editor().value = draft.correction || "";
    core.form().querySelector("[name=note]").value = draft.note || "";
    window.RatchetLabel.showAdded(core.form(), draft.missed || []);
  }

  /* Nothing more goes to the server: the item is being submitted. */
  function hold() {
    clearTimeout(timer);
    timer = 0;
  }

  function drop(name) {
    try {
      localStorage.removeItem(name);
    } catch {
      /* nothing was kept */
    }
  }

  function dropOld() {
    const limit = Date.now() - DAYS * 86_400_000;
    try {
      for (const name of Object.keys(localStorage).filter((each) => each.startsWith(ALL))) {
        if ((JSON.parse(localStorage.getItem(name))?.at || 0) < limit) localStorage.removeItem(name);
      }
    } catch {
      /* a browser without storage */
    }
  }

  window.addEventListener("storage", (event) => {
    if (core.form() && event.key === key() && event.newValue) {
      core.say("This item is open in another tab too. Both may be submitted: the later label replaces the earlier.", "warning");
    }
  });

  return { key, save, hold, flush, restore, drop, dropOld };
};
