// Takes files that are dropped or chosen, says at once what the server would refuse, and shows how much has been sent.
// Browsers leave the paths of a folder out of a form, so they go beside the files.
(() => {
  "use strict";
  const form = document.querySelector("form[data-max-files]");
  if (!form) return;
  const at = (name) => form.querySelector(`[data-${name}]`);
  const [files, tree, submit] = [form.elements.documents, form.elements.tree, form.querySelector("button[type=submit]")];
  const LISTED = 60;
  let dropped = []; // [path, file]
  let request = null;

  // The folder that was chosen is not part of the paths; one that was dropped beside others is.
  const below = (path) => path.split("/").slice(1).join("/") || path;
  const chosen = () => [
    ...[...files.files].map((file) => [file.name, file]),
    ...[...tree.files].map((file) => [below(file.webkitRelativePath || file.name), file]),
    ...dropped,
  ];
  const amount = (bytes) => (bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
  const complain = (sentence) => {
    at("problem").textContent = sentence ? `✗ ${sentence}` : "";
    at("problem").hidden = !sentence;
  };
  const check = () => {
    const all = chosen();
    const bytes = all.reduce((sum, [, file]) => sum + file.size, 0);
    let problem = "";
    if (all.length > +form.dataset.maxFiles) problem = `At most ${form.dataset.maxFiles} files at a time, not ${all.length}.`;
    else if (bytes > +form.dataset.maxTotal) problem = `Together the files are larger than ${form.dataset.together}.`;
    complain(problem);
    submit.disabled = Boolean(problem);
    at("chosen-box").hidden = !all.length;
    const large = all.filter(([path, file]) => file.size > +form.dataset.maxEach && !/\.zip$/i.test(path)).length;
    const refused = large ? `; ${large} larger than ${form.dataset.each}, which will be refused` : "";
    at("chosen").textContent = `${all.length} file${all.length === 1 ? "" : "s"}, ${amount(bytes)}${refused}`;
    const items = all.slice(0, LISTED).map(([path]) => Object.assign(document.createElement("li"), { textContent: path }));
    if (all.length > LISTED) items.push(Object.assign(document.createElement("li"), { textContent: `and ${all.length - LISTED} more` }));
    at("list").replaceChildren(...items);
  };
  files.addEventListener("change", check);
  tree.addEventListener("change", check);
  at("clear").addEventListener("click", () => {
    files.value = tree.value = "";
    dropped = [];
    check();
  });

  const read = async (entry, folder, into) => {
    const path = folder + entry.name;
    if (entry.isFile) into.push([path, await new Promise((done, failed) => entry.file(done, failed))]);
    else {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((done, failed) => reader.readEntries(done, failed)); // a hundred at a time
        if (!part.length || into.length > +form.dataset.maxFiles) break;
        for (const one of part) await read(one, `${path}/`, into);
      }
    }
  };
  const zone = at("drop");
  zone.hidden = false;
  let inside = 0;
  const carries = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (carries(event)) zone.classList.toggle("rt-over", ++inside > 0);
  });
  document.addEventListener("dragleave", (event) => {
    if (carries(event)) zone.classList.toggle("rt-over", --inside > 0);
  });
  document.addEventListener("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  document.addEventListener("drop", async (event) => {
    if (!carries(event) || request) return;
    event.preventDefault();
    inside = 0;
    zone.classList.remove("rt-over");
    const loose = [...event.dataTransfer.files];
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const found = [];
    try {
      if (entries.every(Boolean) && entries.length) for (const entry of entries) await read(entry, "", found);
      else found.push(...loose.map((file) => [file.name, file]));
    } catch (error) {
      complain(`Some of it cannot be read: ${error.name}.`);
    }
    dropped.push(...found);
    check();
  });

  const sending = (on) => {
    at("sending").hidden = at("stop").hidden = !on;
    submit.disabled = on;
    submit.textContent = on ? "Uploading…" : "Upload";
  };
  at("stop").addEventListener("click", () => request && request.abort());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const all = chosen();
    if (!all.length) return complain("Choose at least one file.");
    const body = new FormData();
    for (const [name, value] of new FormData(form)) if (!(value instanceof File)) body.append(name, value);
    for (const [path, file] of all) {
      body.append("tree", file, file.name);
      body.append("tree_path", path);
    }
    complain("");
    sending(true);
    request = new XMLHttpRequest();
    request.open("POST", form.action || location.href);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", (now) => {
      const share = now.lengthComputable ? Math.round((100 * now.loaded) / now.total) : 0;
      at("bar").style.width = `${share}%`;
      at("bar").parentElement.setAttribute("aria-valuenow", share);
      at("sent").textContent = share === 100 ? "Sent; being stored." : `${share} % sent`;
    });
    request.addEventListener("load", () => {
      const answer = request.response || {};
      if (answer.url) return location.assign(answer.url);
      complain(answer.problem || (request.status === 413 ? "The server takes no request of this size." : `It was not taken (${request.status}).`));
      return undefined;
    });
    request.addEventListener("error", () => complain("The connection broke off. Nothing was taken; try again."));
    request.addEventListener("abort", () => complain("Stopped. Nothing was taken."));
    request.addEventListener("loadend", () => {
      const taken = request.response && request.response.url;
      request = null;
      if (!taken) sending(false);
    });
    request.send(body);
    return undefined;
  });
})();
