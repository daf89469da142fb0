/* Talking to the server: labels go behind the next item, and come back to the screen when they are refused. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.sending = (core) => {
  const { root, state, work } = core;
  const MAX_NOTE = 4_000;
  const KEEPALIVE_CHARS = 12_000; // browsers let 64 kB go on after the page is closed
  const CLOSED = "This queue is not there any more: it was deleted, so nothing can be stored in it.";
  const toNext = { label: "Next item", run: next };

  function payload(extra = {}) {
    const data = state.form ? new FormData(state.form) : new FormData();
    if (!state.form) data.set("csrfmiddlewaretoken", document.querySelector("[name=csrfmiddlewaretoken]").value);
    Object.entries(extra).forEach(([name, value]) => data.set(name, value));
    return data;
  }

  async function post(url, data, options = {}) {
    const answer = await fetch(url, { method: "POST", body: data, headers: { "X-Requested-With": "fetch" }, ...options });
    if (answer.status === 404) return closed();
    const kind = answer.headers.get("Content-Type") || "";
    if (answer.redirected || answer.status === 403) return { lost: true };
    if (!kind.includes("json")) {
      if (answer.status < 500) return { message: `The server does not take this (error ${answer.status}). Your work is kept in this browser.` };
      throw new Error(`HTTP ${answer.status}`);
    }
    return { status: answer.status, ...(await answer.json()) };
  }

  /* All that this page asks belongs to its queue: what is missing is the queue, and only another one leads on. */
  function closed() {
    state.gone = true;
    core.say(CLOSED, "warning", { label: "To the queues", href: document.querySelector(".lb-back").href });
    return { closed: true, message: CLOSED };
  }

  /* What an answer that stored nothing means, said on the item that is on the screen. */
  function refused(answer, retry) {
    if (answer.offline) {
      core.say("No connection to the server. Your work is kept in this browser.", "error", { label: "Try again", run: retry });
    } else if (answer.lost) {
      core.say("You are logged out or no longer allowed here. Your work is kept in this browser: log in again.", "error", {
        label: "Log in",
        run: () => window.location.reload(),
      });
    } else if (answer.closed) {
      closed(); // again: the item that came back to the screen may have said something else
    } else if (answer.gone) {
      state.gone = true;
      core.say(answer.message, "warning", toNext);
    } else {
      const beside = answer.errors && state.form;
      core.say(beside ? "" : answer.message || answer.detail || "The server does not take this.", "error");
      if (beside) core.messages.showErrors(answer.errors);
    }
  }

  function wait(on) {
    state.busy = on;
    if (on) work.setAttribute("aria-busy", "true");
    else work.removeAttribute("aria-busy");
    work.querySelectorAll("#lb-submit, [data-press]").forEach((button) => (button.disabled = on));
  }

  async function act(url, data, done) {
    if (state.busy || !(await settled())) return;
    core.drafts.hold();
    wait(true);
    const answer = await post(url, data).catch(() => ({ offline: true }));
    wait(false);
    if (answer.html === undefined) return refused(answer, () => act(url, data, done));
    done?.();
    core.show(answer.html);
    core.say(answer.message, "success");
  }

  /* The next item appears at once and the label is sent behind it. When the server refuses, the label comes back to the
     screen as it was left, and the item that had taken its place waits. */
  async function actBehind(url, extra, key) {
    if (state.busy || !(await settled())) return;
    if (!core.ahead.ready()) return act(url, payload(extra), () => core.drafts.drop(key));
    core.drafts.hold();
    const left = { nodes: [...work.childNodes], seconds: state.seconds, touched: state.touched };
    const data = payload({ ...extra, shown: core.ahead.ready() });
    const keepalive = core.editor().value.length < KEEPALIVE_CHARS;
    state.sending = post(url, data, { keepalive }).catch(() => ({ offline: true }));
    core.say("");
    core.show(core.ahead.take());
    const answer = await state.sending;
    state.sending = null;
    if (answer.shown) stored(answer, key);
    else if (answer.html !== undefined) takenOver(answer, key);
    else {
      core.ahead.put([...work.childNodes]);
      core.show(left.nodes);
      state.seconds = left.seconds;
      state.touched = left.touched;
      refused(answer, () => actBehind(url, extra, key));
    }
  }

  function stored(answer, key) {
    core.drafts.drop(key);
    if (state.form?.dataset.item === String(answer.shown)) state.form.dataset.expires = answer.expires;
    document.getElementById("lb-progress").innerHTML = answer.progress;
    core.say(answer.message, "success");
    core.ahead.fetch();
  }

  /* The label is stored, but somebody else has the item that took its place: another one comes. */
  function takenOver(answer, key) {
    core.drafts.drop(key);
    if (!state.touched) return core.show(answer.html), core.say(answer.message, "success");
    state.gone = true;
    core.say("Saved. Somebody else is at this one by now.", "warning", toNext);
  }

  /* Waits for the answer to the label before, and for the item ahead if that is on its way (the server would else give
     out two, out of order); false when the answer brought its item back to the screen. */
  async function settled() {
    const shown = state.form;
    state.busy = true;
    if (state.sending) await state.sending;
    await core.ahead.coming();
    state.busy = false;
    return state.form === shown;
  }

  /* Whether the server will surely take the label: only then the next item appears before its answer. */
  function surelyRight() {
    const reasons = [...state.form.querySelectorAll("[name=reasons]:checked")].map((box) => box.value);
    const both = reasons.includes("should_have_declined") && reasons.includes("should_have_answered");
    if (state.form.querySelector("[name=note]").value.length > MAX_NOTE) return false;
    return core.choice() === "good" || (reasons.length > 0 && !both && !core.correction.wrong());
  }

  function submit() {
    if (!state.form) return;
    if (!core.choice()) {
      core.messages.showErrors({ verdict: ["Choose good (g), bad (b) or should have declined (d) first."] });
      return;
    }
    const key = core.drafts.key();
    core.drafts.save();
    const extra = { seconds: String(Math.round(state.seconds)) };
    if (surelyRight() && !state.gone) actBehind(root.dataset.submit, extra, key);
    else act(root.dataset.submit, payload(extra), () => core.drafts.drop(key));
  }

  function next() {
    if (state.form && state.gone) core.drafts.drop(core.drafts.key());
    state.form = null;
    window.location.assign(root.dataset.next);
  }

  const undo = () => act(root.dataset.undo, payload());
  const skip = (reason) => actBehind(root.dataset.skip, { reason }, core.drafts.key());

  window.addEventListener("online", () => core.messages.shows("error") && core.say("The connection is back.", "success"));

  return { payload, post, submit, undo, skip, next, toNext };
};
