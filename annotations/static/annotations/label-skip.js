/* Skipping: a reason by number or in one's own words. */
"use strict";

window.RatchetLabel = window.RatchetLabel || {};
window.RatchetLabel.skip = (core) => {
  const dialog = document.getElementById("lb-skip");
  const words = dialog.querySelector("[name=reason]");

  function open() {
    if (!core.form()) return;
    dialog.querySelector("[name=item]").value = core.form().dataset.item;
    words.value = "";
    dialog.showModal();
  }

  function send(reason) {
    dialog.close();
    core.sending.skip(reason);
  }

  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.reason) send(button.dataset.reason);
    if (button && "close" in button.dataset) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    const presets = [...dialog.querySelectorAll("[data-reason]")];
    const preset = /^[1-9]$/.test(event.key) ? presets[Number(event.key) - 1] : null;
    if (preset && !words.value) core.press(event, () => send(preset.dataset.reason));
  });
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (words.value.trim()) send(words.value.trim());
  });

  return { open };
};
