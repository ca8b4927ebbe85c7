document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0], rows = [...body.rows];
  const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent.trim();
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => head.querySelector("button")?.addEventListener("click", () => {
    const number = head.classList.contains("number");
    const before = head.getAttribute("aria-sort"), first = number ? "descending" : "ascending";
    const order = before !== first ? first : first === "ascending" ? "descending" : "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    body.append(...[...rows].sort((a, b) => {
      const [x, y] = [key(a, i), key(b, i)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (number ? x - y : x.localeCompare(y, undefined, { numeric: true }));
    }));
  }));
});
const search = document.getElementById("search");
if (search) {
  const items = [...document.querySelectorAll("[data-name]")], found = document.getElementById("found");
  const flat = text => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const names = items.map(item => flat(item.dataset.name)), query = document.getElementById("query");
  const apply = () => {
    const words = flat(query.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    items.forEach((item, i) => {
      item.hidden = !words.every(word => names[i].includes(word));
      shown += !item.hidden;
    });
    found.textContent = `${shown} of ${items.length} shown`;
  };
  query.addEventListener("input", apply);
  search.hidden = false;
  apply();
}
