/* What the page says: one line above the work, and what is wrong beside each field. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.messages = (core) => {
  const note = document.getElementById("lb-message");

  /* ``action``: {label, run}, a button at the end of the line, or {label, href}, a link. */
  function say(text, kind = "", action = null) {
    note.replaceChildren();
    if (!text) return;
    const line = document.createElement("p");
    line.className = kind;
    line.append(text);
    if (action) line.append(leading(action));
    note.append(line);
    // One key leads on; who is writing in a field just now is left there.
    if (action && !core.inField(document.activeElement)) line.lastChild.focus({ preventScroll: true });
  }

  function leading({ label, run, href }) {
    const lead = document.createElement(href ? "a" : "button");
    if (href) lead.href = href;
    else lead.type = "button";
    lead.className = "lb-button";
    lead.textContent = label;
    if (run) lead.addEventListener("click", run);
    return lead;
  }

  /* ``errors``: {field: [sentences]}; fields that it does not name are right. */
  function showErrors(errors) {
    const places = [...core.form().querySelectorAll("[data-error]")];
    places.forEach((place) => (place.textContent = (errors[place.dataset.error] || []).join(" ")));
    places.find((place) => place.textContent)?.scrollIntoView({ block: "nearest" });
    if (errors.reasons) core.arm(true);
  }

  const shows = (kind) => note.querySelector(`.${kind}`) !== null;

  return { say, showErrors, shows };
};
