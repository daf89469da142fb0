/* Draws the panels of an overview page from their data blocks. */
(() => {
  "use strict";
  const NAMED = { good: "#16a34a", bad: "#dc2626", today: "#64809c", candidate: "#ea7317", slate: "#64748b", amber: "#d97706" };
  const PLAIN = ["#3b82f6", "#ea7317", "#14b8a6", "#a855f7", "#eab308", "#64809c", "#ec4899", "#84cc16", "#64748b"];
  const dark = () => document.documentElement.classList.contains("dark");
  const ink = () => (dark() ? "#cbd5e1" : "#334155");
  const line = () => (dark() ? "#334155" : "#e2e8f0");

  /* A dashed line where an adapter went live or came back. */
  const marks = (found) => ({
    id: "marks",
    afterDatasetsDraw: (chart) => {
      const { ctx, chartArea, scales } = chart;
      found.forEach((mark) => {
        const place = chart.data.labels.indexOf(mark.label);
        if (place < 0) return;
        const x = scales.x.getPixelForValue(place);
        ctx.save();
        ctx.setLineDash([4, 4]);
        ctx.strokeStyle = ink();
        ctx.beginPath();
        ctx.moveTo(x, chartArea.top);
        ctx.lineTo(x, chartArea.bottom);
        ctx.stroke();
        ctx.restore();
      });
    },
  });

  const draw = (canvas, data) => {
    const lines = data.kind === "lines";
    const datasets = data.series.map((one, place) => {
      const colour = NAMED[one.colour] || PLAIN[place % PLAIN.length];
      return { label: one.name, data: one.values, backgroundColor: colour, borderColor: colour, borderWidth: lines ? 2 : 0,
        pointRadius: lines && one.values.length > 40 ? 0 : 3, maxBarThickness: 40, tension: 0 };
    });
    const axis = { ticks: { color: ink() }, grid: { color: line() } };
    new Chart(canvas, {
      type: lines ? "line" : "bar",
      data: { labels: data.labels, datasets },
      plugins: [marks(data.marks)],
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: { legend: { display: datasets.length > 1, labels: { color: ink(), boxWidth: 12 } } },
        scales: {
          x: { ...axis, stacked: data.kind === "stacked", grid: { display: false }, ticks: { color: ink(), maxRotation: 0, autoSkipPadding: 14, autoSkip: data.kind !== "bars" || data.labels.length > 8 } },
          y: { ...axis, stacked: data.kind === "stacked", beginAtZero: true, ticks: { color: ink(), precision: 0 }, title: { display: true, text: data.axis, color: ink() } },
        },
      },
    });
  };

  document.querySelectorAll("canvas[data-overview]").forEach((canvas) => {
    const block = document.getElementById(canvas.dataset.overview);
    if (block && window.Chart) draw(canvas, JSON.parse(block.textContent));
  });
})();
