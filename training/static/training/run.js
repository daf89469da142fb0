/* The live page of a run: follows its events (and asks every 1.5 s where there are none), and draws what is new. */
(() => {
  "use strict";
  const page = document.querySelector("[data-live]");
  if (!page) return;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const at = (name) => page.querySelector(`[data-show="${name}"]`);
  const points = new Map();

  const line = (label, colour, extra) => ({ label, data: [], borderColor: colour, backgroundColor: colour, borderWidth: 2, pointRadius: 0, spanGaps: true, ...extra });
  const chart = (id, name, datasets, format) => {
    const canvas = document.getElementById(id);
    if (!canvas || !window.Chart) return null;
    const ink = css("--tr-quiet");
    return new Chart(canvas, {
      type: "line",
      data: { datasets },
      options: {
        animation: false, parsing: false, normalized: true, maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: { legend: { display: datasets.length > 1, labels: { color: ink, boxWidth: 12 } } },
        scales: {
          x: { type: "linear", title: { display: true, text: "Step", color: ink }, ticks: { color: ink, precision: 0 }, grid: { display: false } },
          y: { title: { display: true, text: name, color: ink }, ticks: { color: ink, callback: format }, grid: { color: css("--tr-line") } },
        },
      },
    });
  };
  const losses = chart("loss-chart", "Loss", [line("Training loss", css("--tr-loss")), line("Validation loss", css("--tr-valid"), { pointRadius: 4 })], (v) => +v.toPrecision(3));
  const rates = chart("rate-chart", "Learning rate", [line("Learning rate", css("--tr-rate"))], (v) => (v ? v.toExponential(1) : "0"));

  const draw = () => {
    const rows = [...points.values()].sort((a, b) => a[0] - b[0]);
    const series = (i) => rows.filter((p) => p[i] !== null).map((p) => ({ x: p[0], y: p[i] }));
    if (losses) { losses.data.datasets[0].data = series(1); losses.data.datasets[1].data = series(3); losses.update(); }
    if (rates) { rates.data.datasets[0].data = series(2); rates.update(); }
  };

  const number = (value, digits) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
  const duration = (s) => (s === null || s === undefined ? "–" : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
  const put = (name, text) => { const spot = at(name); if (spot) spot.textContent = text; };

  const cell = (term, text) => {
    const box = document.createElement("div");
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term; dd.textContent = text; box.append(dt, dd);
    return box;
  };
  const samples = (list) => {
    const spot = at("samples");
    if (!spot || !list.length) return;
    const last = list[list.length - 1];
    put("samples-when", `epoch ${last.epoch}, step ${last.step}`);
    spot.replaceChildren(...last.samples.map((s) => {
      const dl = document.createElement("dl");
      dl.className = "tr-sample";
      dl.append(cell("Question", s.question), cell("Should say", s.wanted), cell("Says", s.answer || "(nothing)"));
      return dl;
    }));
  };

  const show = (live) => {
    live.points.forEach((point) => points.set(point[0], point));
    put("state", live.cancelling ? "Stopping" : live.label);
    put("stage", live.active ? live.stage : "");
    put("loss", number(live.loss, 3));
    put("validation", number(live.validation_loss, 3));
    put("eta", live.active ? duration(live.eta_seconds) : "–");
    ["margin", "accuracy"].forEach((name) => {
      const value = (live.measures || {})[name];
      const box = page.querySelector(`[data-when="${name}"]`);
      if (box) box.hidden = value === undefined;
      put(name, name === "accuracy" && value !== undefined ? `${Math.round(100 * value)} %` : number(value, 3));
    });
    if (live.log) put("log", live.log);
    put("speed", number(live.tokens_per_second, 0));
    put("steps", live.total ? `${live.done} / ${live.total}` : "–");
    if (live.seconds !== undefined) put("took", duration(live.seconds));
    const bar = at("bar");
    if (bar && live.total) bar.style.width = `${(100 * live.done) / live.total}%`;
    samples(live.samples);
    draw();
  };

  const first = JSON.parse(document.getElementById("live-state").textContent);
  show(first);
  const ask = async () => {
    try {
      const after = points.size ? Math.max(...points.keys()) : 0;
      const answer = await fetch(`${page.dataset.live}?after=${after}`, { credentials: "same-origin" });
      if (answer.ok) {
        const live = await answer.json();
        show(live);
        if (!live.active) return location.reload();
      }
    } catch (_) { /* the server is restarting: ask again */ }
    setTimeout(ask, 1500);
  };
  const follow = () => {
    const after = points.size ? Math.max(...points.keys()) : 0;
    const events = new EventSource(`${page.dataset.events}?after=${after}`);
    let heard = false;
    events.onmessage = (event) => { heard = true; show(JSON.parse(event.data)); };
    events.addEventListener("end", () => { events.close(); location.reload(); });
    events.onerror = () => {
      // After a stream that worked the browser connects again by itself; one that never did is given up for asking.
      if (heard && events.readyState !== EventSource.CLOSED) return;
      events.close();
      setTimeout(ask, 1500);
    };
  };
  if (first.active) { if (window.EventSource && page.dataset.events) follow(); else setTimeout(ask, 1000); }
})();
