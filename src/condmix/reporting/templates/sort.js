// Click a column's heading to sort its table; without this script the tables stay in the order of rank.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column], data = cell.querySelector("data");
    const text = (data ? data.value : cell.firstChild?.textContent ?? "").trim().replace("−", "-").replaceAll(",", "");
    return text === "" || isNaN(parseFloat(text)) || column === 0 ? cell.textContent.trim() : parseFloat(text);
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.ariaSort !== "ascending";
      for (const other of headings) other.ariaSort = null;
      heading.ariaSort = up ? "ascending" : "descending";
      const last = [...body.rows].filter((row) => row.matches(".ceiling"));
      const rows = [...body.rows].filter((row) => !row.matches(".ceiling"));
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
        return up ? order : -order;
      });
      body.append(...rows, ...last);
    });
  });
}
