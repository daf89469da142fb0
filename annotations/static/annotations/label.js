/* The labelling page: keys, leases, and the next item without waiting. Its parts (drafts, what the label becomes, the
   item ahead, search, suggestions) are in files of their own and are loaded before this one.
   The page works without scripts too (forms and redirects); they make it fast. */
"use strict";

(() => {
  const root = document.getElementById("lb");
  const work = document.getElementById("lb-work");
  const note = document.getElementById("lb-message");
  const help = document.getElementById("lb-help");
  const skip = document.getElementById("lb-skip");
  const MARKS = ["relevant", "not_relevant", "unsure", ""];
  const RENEW_MS = 60_000;
  const MAX_CORRECTION = 20_000;
  const MAX_NOTE = 4_000;

  let form = null; // the item on the page; null when there is none
  let busy = false;
  let armed = false; // the next digit is a reason
  let active = true; // somebody has worked since the lease was renewed
  let seconds = 0;
  let gone = false; // others have done this item: nothing to give back
  let touched = false; // something was changed since the item appeared
  let sending = null; // the answer to a label that was sent while the next item is on the screen already

  const $ = (selector) => form.querySelector(selector);
  const $$ = (selector) => [...form.querySelectorAll(selector)];
  const choice = () => $("[name=choice]:checked")?.value || "";
  const editor = () => $("#lb-correction");

  // ---- messages --------------------------------------------------------------------------------------------------
  function say(text, kind = "", action = null) {
    note.replaceChildren();
    if (!text) return;
    const line = document.createElement("p");
    line.className = kind;
    line.append(text);
    if (action) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "lb-button";
      button.textContent = action.label;
      button.addEventListener("click", action.run);
      line.append(button);
    }
    note.append(line);
  }

  function showErrors(errors) {
    $$("[data-error]").forEach((place) => (place.textContent = (errors[place.dataset.error] || []).join(" ")));
    const first = $$("[data-error]").find((place) => place.textContent);
    if (first) first.scrollIntoView({ block: "nearest" });
    if (errors.reasons) arm(true);
  }

  // ---- the form ----------------------------------------------------------------------------------------------------
  function choose(value) {
    const radio = $$("[name=choice]").find((box) => box.value === value);
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
    showErrors({});
    checkCorrection();
    active = touched = true;
    drafts.save();
    effects.tell();
    if (choice()) suggestions.ask();
  }

  function arm(on) {
    armed = on;
    $("#lb-why").classList.toggle("armed", on);
  }

  function setMark(rank, mark) {
    const context = form.querySelector(`.lb-context[data-rank="${rank}"]`);
    if (!context) return;
    context.dataset.mark = mark;
    context.querySelectorAll("input").forEach((box) => (box.checked = box.value === mark));
  }

  function cycleMark(rank) {
    const context = form.querySelector(`.lb-context[data-rank="${rank}"]`);
    if (!context) return;
    setMark(rank, MARKS[(MARKS.indexOf(context.dataset.mark) + 1) % MARKS.length]);
    context.scrollIntoView({ block: "nearest" });
    changed();
  }

  function edit() {
    if (choice() !== "bad" && choice() !== "decline") choose("bad");
    arm(false);
    if (!editor().value.trim()) editor().value = form.dataset.response;
    editor().focus();
    editor().setSelectionRange(editor().value.length, editor().value.length);
    editor().scrollIntoView({ block: "nearest" });
  }

  function cite(rank) {
    const box = editor();
    const before = box.value.slice(0, box.selectionStart);
    box.setRangeText(`${before && !/\s$/.test(before) ? " " : ""}[${rank}]`, box.selectionStart, box.selectionEnd, "end");
    box.focus();
    changed();
  }

  function wrongCorrection() {
    const text = editor().value;
    if (text.length > MAX_CORRECTION) {
      return `The better answer has ${text.length.toLocaleString("en")} characters; at most ${MAX_CORRECTION.toLocaleString("en")} are kept.`;
    }
    const ranks = form.dataset.ranks.split(",").filter(Boolean);
    const cited = [...text.matchAll(/\[(\d{1,6})\]/g)].map((match) => match[1]);
    const wrong = cited.find((rank) => !ranks.includes(String(Number(rank))));
    return wrong ? `[${wrong}] is not among the passages.` : "";
  }

  function checkCorrection() {
    $("[data-error=correction]").textContent = wrongCorrection();
  }

  /* Whether the server will surely take the label: only then the next item appears before its answer. */
  function surelyRight() {
    const reasons = $$("[name=reasons]:checked").map((box) => box.value);
    const both = reasons.includes("should_have_declined") && reasons.includes("should_have_answered");
    if ($("[name=note]").value.length > MAX_NOTE) return false;
    return choice() === "good" || (reasons.length > 0 && !both && !wrongCorrection());
  }

  function light(rank, on) {
    form.querySelector(`#passage-${rank}`)?.classList.toggle("lit", on);
  }

  function unfold(all) {
    const folded = all ? $$(".lb-text.folds") : [];
    const open = folded.some((text) => !text.classList.contains("open"));
    folded.forEach((text) => setFold(text, open));
  }

  function setFold(text, open) {
    text.classList.toggle("open", open);
    const button = text.parentElement.querySelector(".lb-unfold");
    button.textContent = open ? "Show less" : "Show all";
    button.setAttribute("aria-expanded", String(open));
  }

  // ---- talking to the server -----------------------------------------------------------------------------------------
  function payload(extra = {}) {
    const data = form ? new FormData(form) : new FormData();
    if (!form) data.set("csrfmiddlewaretoken", document.querySelector("[name=csrfmiddlewaretoken]").value);
    Object.entries(extra).forEach(([name, value]) => data.set(name, value));
    return data;
  }

  async function post(url, data, options = {}) {
    const answer = await fetch(url, { method: "POST", body: data, headers: { "X-Requested-With": "fetch" }, ...options });
    const kind = answer.headers.get("Content-Type") || "";
    if (answer.redirected || answer.status === 403) return { lost: true };
    if (!kind.includes("json")) {
      if (answer.status < 500) return { message: `The server does not take this (error ${answer.status}). Your work is kept in this browser.` };
      throw new Error(`HTTP ${answer.status}`);
    }
    return { status: answer.status, ...(await answer.json()) };
  }

  /* What an answer that stored nothing means, said on the item that is on the screen. */
  function refused(answer, retry) {
    if (answer.offline) {
      say("No connection to the server. Your work is kept in this browser.", "error", { label: "Try again", run: retry });
    } else if (answer.lost) {
      say("You are logged out or no longer allowed here. Your work is kept in this browser: log in again.", "error", {
        label: "Log in",
        run: () => window.location.reload(),
      });
    } else if (answer.gone) {
      gone = true;
      say(answer.message, "warning", { label: "Next item", run: next });
    } else {
      say(answer.errors && form ? "" : answer.message || answer.detail || "The server does not take this.", "error");
      if (answer.errors && form) showErrors(answer.errors);
    }
  }

  function wait(on) {
    busy = on;
    if (on) work.setAttribute("aria-busy", "true");
    else work.removeAttribute("aria-busy");
    work.querySelectorAll("#lb-submit, [data-press]").forEach((button) => (button.disabled = on));
  }

  async function act(url, data, done) {
    if (busy || !(await settled())) return;
    drafts.hold();
    wait(true);
    const answer = await post(url, data).catch(() => ({ offline: true }));
    wait(false);
    if (answer.html === undefined) return refused(answer, () => act(url, data, done));
    done?.();
    show(answer.html);
    say(answer.message, "success");
  }

  /* The next item appears at once and the label is sent behind it. When the server refuses, the label comes back to the
     screen as it was left, and the item that had taken its place waits. */
  async function actBehind(url, extra, key) {
    if (busy || !(await settled())) return;
    if (!ahead.ready()) return act(url, payload(extra), () => drafts.drop(key));
    drafts.hold();
    const left = { nodes: [...work.childNodes], seconds, touched };
    const data = payload({ ...extra, shown: ahead.ready() });
    // It goes on when the page is closed now; browsers do that for 64 kB.
    const keepalive = editor().value.length < 12_000;
    sending = post(url, data, { keepalive }).catch(() => ({ offline: true }));
    say("");
    show(ahead.take());
    const answer = await sending;
    sending = null;
    if (answer.shown) stored(answer, key);
    else if (answer.html !== undefined) takenOver(answer, key);
    else {
      ahead.put([...work.childNodes]);
      show(left.nodes);
      ({ seconds, touched } = left);
      refused(answer, () => actBehind(url, extra, key));
    }
  }

  function stored(answer, key) {
    drafts.drop(key);
    if (form?.dataset.item === String(answer.shown)) form.dataset.expires = answer.expires;
    document.getElementById("lb-progress").innerHTML = answer.progress;
    say(answer.message, "success");
    ahead.fetch();
  }

  /* The label is stored, but somebody else has the item that took its place: another one comes. */
  function takenOver(answer, key) {
    drafts.drop(key);
    if (!touched) return show(answer.html), say(answer.message, "success");
    gone = true;
    say("Saved. Somebody else is at this one by now.", "warning", { label: "Next item", run: next });
  }

  /* Waits for the answer to the label before, and for the item ahead if that is on its way (the server would else give
     out two, out of order); false when the answer brought its item back to the screen. */
  async function settled() {
    const shown = form;
    busy = true;
    if (sending) await sending;
    await ahead.coming();
    busy = false;
    return form === shown;
  }

  function submit() {
    if (!form) return;
    if (!choice()) {
      showErrors({ verdict: ["Choose good (g), bad (b) or should have declined (d) first."] });
      return;
    }
    const key = drafts.key();
    drafts.save();
    const extra = { seconds: String(Math.round(seconds)) };
    if (surelyRight() && !gone) actBehind(root.dataset.submit, extra, key);
    else act(root.dataset.submit, payload(extra), () => drafts.drop(key));
  }

  function next() {
    if (form && gone) drafts.drop(drafts.key());
    form = null;
    window.location.assign(root.dataset.next);
  }

  function undo() {
    act(root.dataset.undo, payload());
  }

  function openSkip() {
    if (!form) return;
    skip.querySelector("[name=item]").value = form.dataset.item;
    skip.querySelector("[name=reason]").value = "";
    skip.showModal();
  }

  function sendSkip(reason) {
    skip.close();
    actBehind(root.dataset.skip, { reason }, drafts.key());
  }

  async function renew() {
    if (!form || gone || busy || !active) return;
    active = false;
    try {
      const answer = await post(root.dataset.renew, payload());
      if (answer.expires) form.dataset.expires = answer.expires;
      else if (answer.gone) {
        gone = true;
        say(answer.message, "warning", { label: "Next item", run: next });
      }
    } catch {
      /* said when something is sent; the draft is kept */
    }
  }

  function release() {
    if (!form) return;
    drafts.flush();
    const waiting = ahead.lease();
    if (waiting) navigator.sendBeacon(root.dataset.release, payload(waiting));
    if (!gone && !busy) navigator.sendBeacon(root.dataset.release, payload({ expires: form.dataset.expires }));
  }

  function checkLease() {
    if (!form || gone || !form.dataset.expires) return;
    if (Date.parse(form.dataset.expires) < Date.now() && !note.querySelector(".warning")) {
      say("You were away for a while, so others may get this item now. Go on: it is still yours if nobody took it.", "warning");
    }
  }

  // ---- an item appears ---------------------------------------------------------------------------------------------
  function show(what) {
    if (typeof what === "string") work.innerHTML = what;
    else work.replaceChildren(...what);
    start();
    const heading = work.querySelector(".lb-talk, .lb-nothing");
    if (heading) heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  function start() {
    form = work.querySelector(".lb-form");
    armed = gone = touched = false;
    active = true;
    seconds = 0;
    const progress = work.querySelector("#lb-progress-new");
    if (progress) document.getElementById("lb-progress").replaceChildren(progress.content.cloneNode(true));
    if (!form) return;
    drafts.restore();
    $("#lb-why").hidden = !["bad", "decline"].includes(choice());
    checkCorrection();
    effects.tell();
    ahead.leave(form.dataset.item);
    if (!sending) ahead.fetch();
  }

  // ---- keys ------------------------------------------------------------------------------------------------------------
  const KEYS = {
    g: () => choose("good"),
    b: () => (choose("bad"), arm(true)),
    d: () => choose("declined" in form.dataset ? "good" : "decline"),
    r: () => (["bad", "decline"].includes(choice()) || choose("bad"), arm(!armed)),
    e: edit,
    n: () => $("[name=note]").focus(),
    s: openSkip,
    u: undo,
    v: () => suggestions.ask(),
    x: () => unfold(true),
    "/": () => search.open(),
    Enter: submit,
    Escape: () => arm(false),
  };

  function inField(target) {
    return target.matches("textarea, select, input:not([type=radio]):not([type=checkbox])");
  }

  function onKey(event) {
    if (document.querySelector("dialog[open]")) return;
    const { key, target } = event;
    if (key === "Enter" && (event.ctrlKey || event.metaKey)) return press(event, submit);
    if (event.altKey && /^Digit[1-9]$/.test(event.code) && form && target === editor()) {
      return press(event, () => cite(Number(event.code.slice(5))));
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
    if (inField(target)) {
      if (key === "Escape" || (key === "Enter" && target.name === "note")) press(event, () => target.blur());
      return undefined;
    }
    if (key === "?") return press(event, () => help.showModal());
    if (key === "Enter" && target.closest("button, a, summary")) return undefined; // the focused one acts
    if (key === "u") return press(event, undo);
    if (!form) return undefined;
    if (/^[1-9]$/.test(key)) return press(event, () => onDigit(Number(key)));
    const action = KEYS[key.length === 1 ? key.toLowerCase() : key];
    if (!action) return undefined;
    return press(event, () => {
      if (key !== "b" && key !== "r") arm(false);
      action();
    });
  }

  function press(event, run) {
    event.preventDefault();
    if (!event.repeat) run();
  }

  function onDigit(digit) {
    if (!armed) return cycleMark(digit);
    const box = $$("[name=reasons]")[digit - 1];
    arm(false);
    if (!box) return undefined;
    box.checked = !box.checked;
    return changed();
  }

  // ---- parts ----------------------------------------------------------------------------------------------------------
  const core = {
    root,
    work,
    form: () => form,
    gone: () => gone,
    choice,
    editor,
    setMark,
    changed,
    payload,
    post,
    say,
    press,
  };
  const drafts = window.RatchetLabel.drafts(core);
  const effects = window.RatchetLabel.effects(core);
  const ahead = window.RatchetLabel.ahead(core);
  const search = window.RatchetLabel.search(core);
  const suggestions = window.RatchetLabel.suggestions(core);

  // ---- wiring ------------------------------------------------------------------------------------------------------------
  const PRESSES = {
    help: () => help.showModal(),
    skip: openSkip,
    undo,
    search: () => search.open(),
    suggest: () => suggestions.ask(),
    restore: () => ((editor().value = form.dataset.response), changed(), editor().focus()),
    "decline-text": (button) => ((editor().value = button.dataset.text), changed(), editor().focus()),
  };

  document.addEventListener("keydown", onKey);
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.press) PRESSES[button.dataset.press](button);
    if (button?.dataset.cite) cite(Number(button.dataset.cite));
    if (button?.matches(".lb-unfold")) {
      const text = button.parentElement.querySelector(".lb-text");
      setFold(text, !text.classList.contains("open"));
    }
    if (button?.id === "lb-guide-button") {
      const guide = document.getElementById("lb-guide");
      guide.hidden = !guide.hidden;
      button.setAttribute("aria-expanded", String(!guide.hidden));
    }
    const mark = event.target.closest(".lb-mark input");
    if (mark && mark.closest(".lb-context").dataset.mark === mark.value) {
      setMark(Number(mark.closest(".lb-context").dataset.rank), ""); // a second click takes the mark away
      changed();
    }
    // A click with the mouse leaves no focus behind, so that Enter still submits.
    if (event.detail > 0 && button && !button.closest("dialog")) button.blur();
  });
  work.addEventListener("change", (event) => {
    if (!form || !event.target.name) return;
    const context = event.target.closest(".lb-context");
    if (context) context.dataset.mark = event.target.value;
    if (event.target.name === "choice" && event.target.value === "bad") arm(true);
    changed();
    if (event.target.matches("[type=radio], [type=checkbox]")) event.target.blur();
  });
  work.addEventListener("input", (event) => {
    if (form && inField(event.target)) changed();
  });
  work.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.target.matches("[data-undo-form]")) undo();
    else submit();
  });
  for (const [name, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    work.addEventListener(name, (event) => {
      const cited = event.target.closest?.("[data-cites]");
      if (form && cited) light(cited.dataset.cites, on);
    });
  }
  skip.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.reason) sendSkip(button.dataset.reason);
    if (button && "close" in button.dataset) skip.close();
  });
  skip.addEventListener("keydown", (event) => {
    const presets = [...skip.querySelectorAll("[data-reason]")];
    const preset = /^[1-9]$/.test(event.key) ? presets[Number(event.key) - 1] : null;
    if (preset && !skip.querySelector("[name=reason]").value) press(event, () => sendSkip(preset.dataset.reason));
  });
  skip.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = skip.querySelector("[name=reason]").value.trim();
    if (reason) sendSkip(reason);
  });
  window.addEventListener("pagehide", release);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) renew();
  });
  window.addEventListener("online", () => note.querySelector(".error") && say("The connection is back.", "success"));
  for (const name of ["mousemove", "keydown", "scroll", "touchstart"]) {
    document.addEventListener(name, () => (active = true), { passive: true, capture: true });
  }
  setInterval(() => {
    if (document.visibilityState === "visible") seconds += 1;
    checkLease();
  }, 1000);
  setInterval(renew, RENEW_MS);

  drafts.dropOld();
  start();
})();
