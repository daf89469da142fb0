// Says at once what the server would refuse, and sends the paths of a chosen folder, which browsers leave out.
(() => {
  "use strict";
  const form = document.querySelector("form[data-max-files]");
  if (!form) return;
  const [files, tree] = [form.elements.documents, form.elements.tree];
  const chosen = () => [...files.files, ...tree.files];
  const summary = form.querySelector("[data-chosen]");
  const check = () => {
    const all = chosen();
    const bytes = all.reduce((sum, file) => sum + file.size, 0);
    let problem = "";
    if (all.length > +form.dataset.maxFiles) problem = `At most ${form.dataset.maxFiles} files at a time, not ${all.length}.`;
    else if (bytes > +form.dataset.maxTotal * 1e6) problem = `Together the files are larger than ${form.dataset.maxTotal} MB.`;
    files.setCustomValidity(problem);
    summary.textContent = all.length ? `${all.length} file${all.length === 1 ? "" : "s"}, ${(bytes / 1e6).toFixed(2)} MB` : "";
  };
  files.addEventListener("change", check);
  tree.addEventListener("change", check);
  form.addEventListener("submit", () => {
    form.querySelectorAll("input[name=tree_path]").forEach((old) => old.remove());
    for (const file of tree.files) {
      const path = Object.assign(document.createElement("input"), { type: "hidden", name: "tree_path" });
      // The chosen folder itself is not part of the paths.
      path.value = (file.webkitRelativePath || file.name).split("/").slice(1).join("/") || file.name;
      form.append(path);
    }
    form.querySelector("button[type=submit]").textContent = "Uploading…";
  });
})();
