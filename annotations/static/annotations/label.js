/* The labelling page: the item on the screen and its verdict. Each other subject (messages, passages, the better answer,
   drafts, what the label becomes, the item ahead, search, suggestions, sending, the lease, skipping, keys) is a part in a
   file of its own, loaded before this one. The page works without scripts too (forms and redirects); they make it fast. */
"use strict";

(() => {
  const root = document.getElementById("lb");
  const work = document.getElementById("lb-work");
  const parts = window.RatchetLabel;
  const state = {
    form: null, // the item on the page; null when there is none
    busy: false,
    armed: false, // the next digit is a reason
    active: true, // somebody has worked since the lease was renewed
    seconds: 0,
    gone: false, // others have done this item: nothing to give back
    touched: false, // something was changed since the item appeared
    sending: null, // the answer to a label that was sent while the next item is on the screen already
  };

  const $ = (selector) => state.form.querySelector(selector);
  const choice = () => $("[name=choice]:checked")?.value || "";

  function choose(value) {
    const radio = [...state.form.querySelectorAll("[name=choice]")].find((box) => box.value === value);
    if (!radio) return;
    radio.checked = true;
    changed();
  }

  function changed() {
    const bad = choice() === "bad" || choice() === "decline";
    const opens = bad && $("#lb-why").hidden;
    $("#lb-why").hidden = !bad;
    if (opens && window.matchMedia("(max-width: 899px)").matches) $("#lb-why").scrollIntoView({ block: "end" });
    if (choice() === "decline") $("[name=reasons][value=should_have_declined]").checked = true;
    if (!bad) arm(false);
    core.messages.showErrors({});
    core.correction.check();
    state.active = state.touched = true;
    core.drafts.save();
    core.effects.tell();
    if (choice()) core.suggestions.ask();
  }

  function arm(on) {
    state.armed = on;
    $("#lb-why").classList.toggle("armed", on);
  }

  function show(what) {
    if (typeof what === "string") work.innerHTML = what;
    else work.replaceChildren(...what);
    start();
    const heading = work.querySelector(".lb-talk, .lb-nothing");
    if (heading) heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  function start() {
    state.form = work.querySelector(".lb-form");
    state.armed = state.gone = state.touched = false;
    state.active = true;
    state.seconds = 0;
    const progress = work.querySelector("#lb-progress-new");
    if (progress) document.getElementById("lb-progress").replaceChildren(progress.content.cloneNode(true));
    if (!state.form) return;
    core.drafts.restore();
    $("#lb-why").hidden = !["bad", "decline"].includes(choice());
    core.correction.check();
    core.effects.tell();
    core.ahead.leave(state.form.dataset.item);
    if (!state.sending) core.ahead.fetch();
  }

  function inField(target) {
    return target.matches("textarea, select, input:not([type=radio]):not([type=checkbox])");
  }

  function press(event, run) {
    event.preventDefault();
    if (!event.repeat) run();
  }

  // ---- parts: they find each other through `core` when they are called --------------------------------------------------
  const core = {
    root, work, state, choice, choose, changed, arm, show, inField, press,
    form: () => state.form,
    gone: () => state.gone,
    editor: () => core.correction.box(),
    say: (...what) => core.messages.say(...what),
    setMark: (rank, mark) => core.passages.setMark(rank, mark),
    payload: (extra) => core.sending.payload(extra),
    post: (...what) => core.sending.post(...what),
  };
  for (const name of [
    "messages", "passages", "correction", "drafts", "effects", "ahead", "search", "suggestions", "sending", "lease", "skip",
    "keys",
  ]) {
    core[name] = parts[name](core);
  }

  // ---- buttons and fields ------------------------------------------------------------------------------------------------
  const PRESSES = {
    help: () => document.getElementById("lb-help").showModal(),
    skip: () => core.skip.open(),
    undo: () => core.sending.undo(),
    search: () => core.search.open(),
    suggest: () => core.suggestions.ask(),
    take: () => core.suggestions.take(),
    restore: () => core.correction.replace(state.form.dataset.response),
    "decline-text": (button) => core.correction.replace(button.dataset.text),
  };

  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.press) PRESSES[button.dataset.press](button);
    if (button?.dataset.cite) core.correction.cite(Number(button.dataset.cite));
    if (button?.id === "lb-guide-button") {
      const guide = document.getElementById("lb-guide");
      guide.hidden = !guide.hidden;
      button.setAttribute("aria-expanded", String(!guide.hidden));
    }
    // A click with the mouse leaves no focus behind, so that Enter still submits.
    if (event.detail > 0 && button && !button.closest("dialog")) button.blur();
  });
  work.addEventListener("change", (event) => {
    if (!state.form || !event.target.name) return;
    const context = event.target.closest(".lb-context");
    if (context) context.dataset.mark = event.target.value;
    if (event.target.name === "choice" && event.target.value === "bad") arm(true);
    changed();
    if (event.target.matches("[type=radio], [type=checkbox]")) event.target.blur();
  });
  work.addEventListener("input", (event) => {
    if (state.form && inField(event.target)) changed();
  });
  work.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.target.matches("[data-undo-form]")) core.sending.undo();
    else core.sending.submit();
  });

  core.drafts.dropOld();
  start();
})();
