"use strict";

// Tables: a click on a column's name sorts by it, another one the other way round.
const value = (row, column) => {
  const field = row.cells[column];
  return field.dataset.sort ?? field.textContent.trim();
};

const compare = (one, other) => {
  const [a, b] = [Number(one), Number(other)];
  return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other, undefined, { numeric: true }) : a - b;
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => {
        const [a, b] = [value(one, column), value(other, column)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return down ? compare(b, a) : compare(a, b);
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// Pictures: one of a row, large; the arrow keys go through the row.
const viewer = document.getElementById("viewer");
if (viewer) {
  const [picture, caption] = [viewer.querySelector("img"), viewer.querySelector("figcaption")];
  let row = [];
  let index = 0;

  const show = (next) => {
    index = (next + row.length) % row.length;
    const shown = row[index].querySelector("img");
    picture.src = shown.src;
    picture.alt = shown.alt;
    caption.textContent = `${shown.alt} (${index + 1} of ${row.length})`;
  };

  for (const group of document.querySelectorAll(".row")) {
    const buttons = [...group.querySelectorAll("button")];
    buttons.forEach((button, position) => {
      button.addEventListener("click", () => {
        row = buttons;
        show(position);
        viewer.showModal();
        viewer.querySelector("[data-step='1']").focus();
      });
    });
  }

  viewer.addEventListener("click", (event) => {
    const step = event.target.dataset.step;
    if (event.target === viewer || step === "0") viewer.close();
    else if (step) show(index + Number(step));
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(index - 1);
    if (event.key === "ArrowRight") show(index + 1);
  });
}

// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
