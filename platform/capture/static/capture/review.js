// Keys of the review: a accept, r release, l allow always, d deny always (each pressed twice: no decision can be taken
// back), v show the value, m mask the selection, j and k to the next and the previous, Escape to decide later. The value is fetched only when it is asked for, and set as plain text.
(() => {
  "use strict";
  const root = document.querySelector("[data-review]");
  if (!root) return;
  const valueForm = root.querySelector("[data-value]");
  const maskForm = root.querySelector("[data-mask]");
  const field = maskForm.querySelector("[name=selected]");
  const asks = root.querySelector("[data-asks]");
  let busy = false;
  let armed = null; // the button whose key was pressed once

  /* The first press of a key names what the second one does; any other key lets go of it. */
  function arm(button) {
    armed?.classList.remove("rv-armed");
    armed = button;
    if (!asks) return;
    asks.textContent = button ? `${button.title}. Press ${button.dataset.key} again to do it, Esc to leave it.` : "";
    button?.classList.add("rv-armed");
  }

  function decide(event) {
    const button = root.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!button || busy || event.repeat) return; // a key that is held down decides nothing
    event.preventDefault();
    if (button !== armed) return arm(button);
    busy = true; // one decision a page
    button.click();
  }

  valueForm?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const shown = valueForm.querySelector("[data-shown]");
    try {
      const answer = await fetch(valueForm.action, { method: "POST", body: new FormData(valueForm) });
      const said = await answer.json();
      shown.textContent = said.problem || said.forms.join(" · ");
    } catch {
      shown.textContent = "The value could not be fetched. Is the connection there?";
    }
  });

  document.addEventListener("selectionchange", () => {
    const selection = document.getSelection();
    if (!selection || selection.isCollapsed || !selection.anchorNode) return;
    const holder = selection.anchorNode.parentElement?.closest(".rv-text");
    if (!holder || !holder.contains(selection.focusNode)) return;
    field.value = selection.toString().replace(/\s+/g, " ").trim().slice(0, 200);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const press = (target) => {
      if (!target || busy) return;
      event.preventDefault();
      target.click();
    };
    if (event.key !== armed?.dataset.key) arm(null);
    if (event.key === "j") press(root.querySelector("a[rel=next]"));
    else if (event.key === "k") press(root.querySelector("a[rel=prev]"));
    else if (event.key === "v") press(valueForm?.querySelector("button"));
    else if (event.key === "m") press(field.value ? maskForm.querySelector("button") : null);
    else decide(event);
  });
})();
