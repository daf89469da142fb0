/* Keys: what each does, and when it belongs to the field that is being written in. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.keys = (core) => {
  const help = document.getElementById("lb-help");
  const KEYS = {
    g: () => core.choose("good"),
    b: () => (core.choose("bad"), core.arm(true)),
    d: () => core.choose("declined" in core.form().dataset ? "good" : "decline"),
    r: () => (["bad", "decline"].includes(core.choice()) || core.choose("bad"), core.arm(!core.state.armed)),
    e: () => core.correction.edit(),
    n: () => core.form().querySelector("[name=note]").focus(),
    s: () => core.skip.open(),
    t: () => core.suggestions.take(),
    v: () => core.suggestions.ask(),
    x: () => core.passages.unfoldAll(),
    "/": () => core.search.open(),
    Enter: () => core.sending.submit(),
    Escape: () => core.arm(false),
  };

  function onKey(event) {
    if (document.querySelector("dialog[open]")) return undefined;
    const { key, target } = event;
    if (key === "Enter" && (event.ctrlKey || event.metaKey)) return core.press(event, core.sending.submit);
    if (event.altKey && /^Digit[1-9]$/.test(event.code) && core.form() && target === core.editor()) {
      return core.press(event, () => core.correction.cite(Number(event.code.slice(5))));
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
    if (core.inField(target)) {
      if (key === "Escape" || (key === "Enter" && target.name === "note")) core.press(event, () => target.blur());
      return undefined;
    }
    if (key === "?") return core.press(event, () => help.showModal());
    if (key === "Enter" && target.closest("button, a, summary")) return undefined; // the focused one acts
    if (key === "u") return core.press(event, core.sending.undo);
    if (!core.form()) return undefined;
    if (/^[1-9]$/.test(key)) return core.press(event, () => onDigit(Number(key)));
    const action = KEYS[key.length === 1 ? key.toLowerCase() : key];
    if (!action) return undefined;
    return core.press(event, () => {
      if (key !== "b" && key !== "r") core.arm(false);
      action();
    });
  }

  function onDigit(digit) {
    if (!core.state.armed) return core.passages.cycleMark(digit);
    const box = core.form().querySelectorAll("[name=reasons]")[digit - 1];
    core.arm(false);
    if (!box) return undefined;
    box.checked = !box.checked;
    return core.changed();
  }

  document.addEventListener("keydown", onKey);
};
