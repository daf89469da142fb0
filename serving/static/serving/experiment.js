/* Draws a difference with its interval over time: <canvas data-interval="id"> and a JSON block of that id. */
(() => {
  "use strict";
  const dark = document.documentElement.classList.contains("dark");
  const ink = dark ? "#cbd5e1" : "#334155";
  const line = dark ? "#334155" : "#e2e8f0";
  const bare = { pointRadius: 0, borderWidth: 1, tension: 0 };

  const draw = (canvas, data) =>
    new Chart(canvas, {
      type: "line",
      data: {
        labels: data.labels,
        datasets: [
          { ...bare, label: "Upper end", data: data.high, borderColor: "#ea731788", fill: "+1", backgroundColor: "#ea731726" },
          { ...bare, label: "Lower end", data: data.low, borderColor: "#ea731788", fill: false },
          { ...bare, label: "Difference", data: data.difference, borderColor: "#ea7317", borderWidth: 2.5, pointRadius: data.labels.length === 1 ? 4 : 0 },
          { ...bare, label: "No difference", data: data.labels.map(() => 0), borderColor: ink, borderDash: [4, 4] },
        ],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: { legend: { display: false } },
        scales: {
          y: { title: { display: true, text: data.axis, color: ink }, ticks: { color: ink }, grid: { color: line } },
          x: { ticks: { color: ink, maxRotation: 0, autoSkipPadding: 24 }, grid: { display: false } },
        },
      },
    });

  document.querySelectorAll("canvas[data-interval]").forEach((canvas) => {
    const block = document.getElementById(canvas.dataset.interval);
    if (block && window.Chart) draw(canvas, JSON.parse(block.textContent));
  });
})();
