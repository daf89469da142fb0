// A page whose work goes on: asks every second or two what has changed, and loads again when the work has ended.
// Parts of the page marked with data-fresh are brought up to date each time something more is done.
(() => {
  "use strict";
  const panel = document.querySelector("[data-work]");
  const state = document.getElementById("work-state");
  if (!panel || !state) return;
  const show = (name, text) => {
    const place = panel.querySelector(`[data-show="${name}"]`);
    if (place) place.textContent = text;
  };
  const words = (seconds) => {
    const s = Math.round(seconds);
    if (s < 60) return `${s} s`;
    return s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  };
  const draw = (now) => {
    show("label", now.cancelling ? "Stopping" : now.label);
    show("stage", now.stage);
    if (now.total) {
      panel.querySelector('[data-show="bar"]').style.width = `${Math.min(100, (100 * now.done) / now.total)}%`;
      show("counted", `${now.done} of ${now.total}.`);
    } else if (now.state === "running") show("counted", "At work.");
    show("left", now.eta_seconds === null ? "" : `About ${words(now.eta_seconds)} left.`);
    if (now.log) show("log", now.log);
  };
  const refresh = async () => {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const now = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-fresh]")) {
      const newer = now.getElementById(part.id);
      if (newer) part.replaceWith(document.adoptNode(newer));
    }
  };
  const first = JSON.parse(state.textContent);
  let seen = `${first.state} ${first.done}`;
  const ask = async () => {
    try {
      const answer = await fetch(panel.dataset.work, { headers: { Accept: "application/json" } });
      if (answer.ok) {
        const now = await answer.json();
        if (!now.active) return location.reload();
        draw(now);
        if (seen !== `${now.state} ${now.done}`) {
          seen = `${now.state} ${now.done}`;
          await refresh();
        }
      }
    } catch (_) {
      // the server restarts: ask again
    }
    setTimeout(ask, 1500);
  };
  draw(first);
  setTimeout(ask, 1000);
})();
