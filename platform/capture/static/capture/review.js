// Keys of the review: a accept, r release, l allow always, d deny always, v show the value, m mask the selection,
// j and k to the next and the previous. The value is fetched only when it is asked for, and set as plain text.
(() => {
  "use strict";
  const root = document.querySelector("[data-review]");
  if (!root) return;
  const valueForm = root.querySelector("[data-value]");
  const maskForm = root.querySelector("[data-mask]");
  const field = maskForm.querySelector("[name=selected]");
  let busy = false;

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
      if (target.matches("[data-key]")) busy = true; // one key, one decision
      target.click();
    };
    if (event.key === "j") press(root.querySelector("a[rel=next]"));
    else if (event.key === "k") press(root.querySelector("a[rel=prev]"));
    else if (event.key === "v") press(valueForm?.querySelector("button"));
    else if (event.key === "m") press(field.value ? maskForm.querySelector("button") : null);
    else press(root.querySelector(`[data-key="${CSS.escape(event.key)}"]`));
  });
})();
