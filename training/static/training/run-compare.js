/* Loss curves of several runs in one chart, and a switch that leaves out what is the same. */
(() => {
  "use strict";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const block = document.getElementById("run-curves");
  const canvas = document.getElementById("compare-chart");
  if (block && canvas && window.Chart) {
    const colours = ["--tr-loss", "--tr-valid", "--tr-good", "--tr-rate"].map(css);
    const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
    const datasets = [];
    JSON.parse(block.textContent).runs.forEach((run, i) => {
      const line = { borderColor: colours[i], backgroundColor: colours[i], borderWidth: 2, borderDash: dashes[i], spanGaps: true };
      datasets.push({ ...line, label: run.name, pointRadius: 0, data: run.points.filter((p) => p[1] !== null).map((p) => ({ x: p[0], y: p[1] })) });
      const held = run.points.filter((p) => p[2] !== null).map((p) => ({ x: p[0], y: p[2] }));
      if (held.length) datasets.push({ ...line, label: `${run.name}, validation`, showLine: false, pointRadius: 4, pointStyle: "rectRot", data: held });
    });
    const ink = css("--tr-quiet");
    new Chart(canvas, {
      type: "line",
      data: { datasets },
      options: {
        animation: false, parsing: false, maintainAspectRatio: false, interaction: { mode: "nearest", intersect: false },
        plugins: { legend: { labels: { color: ink, usePointStyle: true } } },
        scales: {
          x: { type: "linear", title: { display: true, text: "Step", color: ink }, ticks: { color: ink, precision: 0 }, grid: { display: false } },
          y: { title: { display: true, text: "Loss", color: ink }, ticks: { color: ink }, grid: { color: css("--tr-line") } },
        },
      },
    });
  }
  const only = document.getElementById("only-differences");
  if (only) only.addEventListener("change", () => document.querySelectorAll("#compare-table [data-same]").forEach((row) => { row.hidden = only.checked; }));
})();
