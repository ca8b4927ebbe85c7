const table = document.getElementById("runs"), body = table.tBodies[0], rows = [...body.rows];
const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent.trim();
table.querySelectorAll("th button").forEach((button, i) => button.addEventListener("click", () => {
  const head = button.parentElement, number = head.classList.contains("number");
  const before = head.getAttribute("aria-sort"), first = number ? "descending" : "ascending";
  const order = before !== first ? first : number ? "ascending" : "descending";
  table.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => sign * (number ? key(a, i) - key(b, i) : key(a, i).localeCompare(key(b, i))));
  body.append(...rows);
}));
const filter = document.getElementById("filter"), shown = document.getElementById("shown");
const sets = [...filter.querySelectorAll("fieldset")].map(set => [...set.querySelectorAll("input")]);
const apply = () => {
  rows.forEach(row => {
    row.hidden = !row.dataset.in.split(" ").every((code, i) => sets[i][code].checked);
  });
  shown.textContent = rows.filter(row => !row.hidden).length;
  sets.forEach((boxes, i) => {
    const on = boxes.filter(box => box.checked).length;
    filter.querySelectorAll(".on")[i].textContent = on === boxes.length ? "all" : `${on} of ${boxes.length}`;
  });
};
filter.addEventListener("change", apply);
filter.querySelectorAll("fieldset").forEach((set, i) => set.querySelectorAll("button").forEach(button =>
  button.addEventListener("click", () => {
    sets[i].forEach(box => { box.checked = button.dataset.on === "1"; });
    apply();
  })));
apply();
filter.hidden = false;
