// One key for each button of the spot check; without this script the buttons do it.
(() => {
  "use strict";
  let sent = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    const button = [...document.querySelectorAll("button[data-key]")].find((b) => b.dataset.key === event.key.toLowerCase());
    if (!button || sent) return;
    event.preventDefault();
    button.click();
  });
  document.addEventListener("submit", () => {
    sent = true;
  });
  // Back from another page, the form is shown as it was left: keys must work again.
  window.addEventListener("pageshow", () => {
    sent = false;
  });
})();
