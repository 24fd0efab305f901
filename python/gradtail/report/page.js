// Sorting and filtering of the tables; without it they are complete, heaviest layers first.
for (const table of document.querySelectorAll(".gradtail table.rows")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort;
      const text = head.dataset.kind === "text";
      const rows = [...body.rows].sort((a, b) => {
        const pinned = b.classList.contains("whole") - a.classList.contains("whole");
        if (pinned) return pinned;
        if (text) return (up ? 1 : -1) * key(a).localeCompare(key(b), undefined, { numeric: true });
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // unknown ones stay last
        return (up ? 1 : -1) * (x - y);
      });
      body.append(...rows);
    });
  });
  const tools = table.closest("section, details").querySelector(".tools");
  if (!tools) continue;
  const search = document.createElement("input");
  const shown = document.createElement("span");
  search.type = "search";
  search.placeholder = search.ariaLabel = "Filter by name";
  shown.className = "quiet";
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    let n = 0;
    for (const row of body.rows) {
      row.hidden = !row.classList.contains("whole") && !row.cells[0].dataset.sort.toLowerCase().includes(wanted);
      n += !row.hidden && !row.classList.contains("whole");
    }
    shown.textContent = wanted ? `${n} shown` : "";
  });
  tools.prepend(search, shown);
}
