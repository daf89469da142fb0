/* Draws the panels of an overview page from their data blocks. */
(() => {
  "use strict";
  const NAMED = { good: "#16a34a", bad: "#dc2626", base: "#64809c", live: "#0d9488", candidate: "#ea7317", slate: "#64748b", amber: "#d97706" };
  /* Of what is no arm: none of these may look like one. */
  const PLAIN = ["#3b82f6", "#a855f7", "#eab308", "#ec4899", "#84cc16", "#0ea5e9", "#854d0e", "#6366f1"];
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

  /* Words do not fit under upright bars: they stand beside lying ones, each of them, in lines of a few words. */
  const wrapped = (words) =>
    String(words).split(/\s+/).reduce((lines, word) => {
      const last = lines.length - 1;
      if (last >= 0 && lines[last].length + word.length < 20) lines[last] += ` ${word}`;
      else lines.push(word);
      return lines;
    }, []);

  const lying = (canvas, data) => {
    const labels = data.labels.map(wrapped);
    canvas.parentElement.style.height = `${70 + labels.reduce((sum, lines) => sum + 14 * lines.length + 12, 0)}px`;
    const ticks = { color: ink(), autoSkip: false };
    const datasets = data.series.map((one, place) => ({ label: one.name, data: one.values, backgroundColor: NAMED[one.colour] || PLAIN[place % PLAIN.length], maxBarThickness: 24 }));
    new Chart(canvas, {
      type: "bar",
      data: { labels, datasets },
      options: {
        indexAxis: "y",
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", axis: "y", intersect: false },
        plugins: { legend: { display: datasets.length > 1, labels: { color: ink(), boxWidth: 12 } }, tooltip: { callbacks: { title: (items) => data.labels[items[0].dataIndex] } } },
        scales: {
          x: { beginAtZero: true, ticks: { color: ink(), precision: 0, maxRotation: 0 }, grid: { color: line() }, title: { display: true, text: data.axis, color: ink() } },
          y: { ticks, grid: { display: false } },
        },
      },
    });
  };

  const draw = (canvas, data) => {
    if (data.kind === "bars") return lying(canvas, data);
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
          x: { ...axis, stacked: data.kind === "stacked", grid: { display: false }, ticks: { color: ink(), maxRotation: 0, autoSkipPadding: 14 } },
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
