/* What programs, judges and the live model say of the turn: after a verdict has been chosen, or when asked for. The server
   keeps that it was seen. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.suggestions = (core) => {
  const asked = new WeakSet(); // forms

  async function ask() {
    const form = core.form();
    const place = form?.querySelector("#lb-suggestions");
    if (!place || asked.has(form)) return;
    asked.add(form);
    try {
      const answer = await core.post(core.root.dataset.suggestions, core.payload());
      if (answer.html !== undefined) place.innerHTML = answer.html;
    } catch {
      asked.delete(form); // no connection: it may be asked for again
    }
  }

  /* The better answer starts from what the live model says, once that is shown. */
  function take() {
    const said = core.form()?.querySelector("#lb-suggestions [data-live]")?.dataset.live;
    if (said) core.correction.replace(said);
  }

  return { ask, take };
};
