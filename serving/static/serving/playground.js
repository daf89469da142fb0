/* Ctrl-Enter asks; the draft of a benchmark stays in this browser until it is frozen. */
(() => {
  "use strict";
  const form = document.getElementById("playground");
  if (!form) return;
  const place = `ratchet-playground-${form.dataset.assistant}`;
  const forget = () => {
    try {
      localStorage.removeItem(place);
    } catch (error) { /* not allowed: then nothing was kept either */ }
  };
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    document.getElementById("ask").click();
  });
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "1";
    const action = event.submitter && event.submitter.value;
    // Refused, the server sends the draft back with the page; else it is a benchmark now.
    if (action === "freeze") forget();
    if (action === "ask") document.getElementById("busy").textContent = "Answering…";
  });
  window.addEventListener("pageshow", () => delete form.dataset.sent);

  const draft = document.getElementById("draft");
  if (!draft) return;
  const lines = () => draft.value.split("\n").filter((line) => line.trim()).length;
  const count = () => {
    document.getElementById("count").textContent = lines();
    document.getElementById("plural").textContent = lines() === 1 ? "" : "s";
  };
  const keep = () => {
    try {
      localStorage.setItem(place, draft.value);
    } catch (error) { /* no room or not allowed: the field itself still holds it */ }
    count();
  };
  if (!draft.value) {
    try {
      draft.value = localStorage.getItem(place) || "";
    } catch (error) { /* as above */ }
  }
  draft.addEventListener("input", keep);
  keep();
})();
