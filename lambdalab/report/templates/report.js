// Headings of a sortable table become buttons. Without this script the table is whole, in the order of execution.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction);
      const numeric = heading.classList.contains("n");
      const sign = direction === "ascending" ? 1 : -1;
      const known = (text) => text !== "-"; // what is absent stays last
      const rows = [...body.rows].map((row) => [row.cells[column].textContent, row]);
      rows.sort(([a], [b]) => known(b) - known(a) || sign * (numeric ? a - b : a.localeCompare(b)) || 0);
      body.append(...rows.map(([, row]) => row));
    });
  });
}
