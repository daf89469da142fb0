/* What the label would become, and whether each sentence of the better answer is supported: the server says it, shortly
   after each change. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.effects = (core) => {
  const WAIT_MS = 250;
  let timer = 0;
  let asked = null;

  function tell() {
    clearTimeout(timer);
    asked?.abort();
    asked = null;
    if (!core.choice()) return put(core.form(), "", "");
    timer = setTimeout(ask, WAIT_MS);
    return undefined;
  }

  async function ask() {
    const form = core.form();
    if (!form || core.gone()) return;
    asked = new AbortController();
    try {
      const answer = await core.post(core.root.dataset.effect, core.payload(), { signal: asked.signal });
      if (core.form() === form && answer.becomes !== undefined) put(form, answer.becomes, answer.checks);
    } catch {
      /* a newer question is on its way, or there is no connection: what was said last stays */
    }
  }

  function put(form, becomes, checks) {
    form.querySelector("#lb-becomes").innerHTML = becomes;
    form.querySelector("#lb-checks").innerHTML = checks;
  }

  return { tell };
};
