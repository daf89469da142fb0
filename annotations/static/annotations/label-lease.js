/* The lease: renewed while somebody works, given back when the page goes; and the time on the page. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.lease = (core) => {
  const RENEW_MS = 60_000;
  const AGAIN_MS = 5_000;
  const { root, state } = core;
  let asked = 0;

  async function renew() {
    if (!state.form || state.gone || state.busy || !state.active) return;
    state.active = false;
    const form = state.form;
    try {
      const answer = await core.post(root.dataset.renew, core.payload());
      if (state.form !== form) return; // another item is on the screen by now
      if (answer.expires) {
        form.dataset.expires = answer.expires;
        if (core.messages.shows("away")) core.say("");
      } else if (answer.gone) {
        state.gone = true;
        core.say(answer.message, "warning", core.sending.toNext);
      }
    } catch {
      /* said when something is sent; the draft is kept */
    }
  }

  function release() {
    if (!state.form) return;
    core.drafts.flush();
    const waiting = core.ahead.lease();
    if (waiting) navigator.sendBeacon(root.dataset.release, core.payload(waiting));
    if (!state.gone && !state.busy) {
      navigator.sendBeacon(root.dataset.release, core.payload({ expires: state.form.dataset.expires }));
    }
  }

  function check() {
    if (!state.form || state.gone || !state.form.dataset.expires) return;
    if (Date.parse(state.form.dataset.expires) >= Date.now() || core.messages.shows("warning")) return;
    const said = "You were away for a while, so others may get this item now. Go on: it is still yours if nobody took it.";
    core.say(said, "warning away");
  }

  window.addEventListener("pagehide", release);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) renew();
  });
  for (const name of ["mousemove", "keydown", "scroll", "touchstart"]) {
    const work = () => {
      state.active = true;
      if (!core.messages.shows("away") || Date.now() - asked < AGAIN_MS) return;
      asked = Date.now();
      renew(); // back from a pause: who goes on learns now, and not behind their work, whether the item is still theirs
    };
    document.addEventListener(name, work, { passive: true, capture: true });
  }
  setInterval(() => {
    if (document.visibilityState === "visible") state.seconds += 1;
    check();
  }, 1000);
  setInterval(renew, RENEW_MS);

  return { renew };
};
