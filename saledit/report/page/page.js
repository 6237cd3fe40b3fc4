"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const STEP = 50;
  const PARTS = { fail: "failures", adapt: "rewordings", pass: "pass samples" };
  const STATES = ["fixed", "still wrong", "broken", "kept"];
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  };

  for (const box of document.querySelectorAll(".answers")) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const at = Object.fromEntries(data.columns.map((name, i) => [name, i]));
    const get = (row, name) => row[at[name]];
    const text = data.rows.map(row =>
      [...get(row, "inputs"), get(row, "target"), get(row, "before"), get(row, "after"), get(row, "kind")].join("\n").toLowerCase());
    const search = box.querySelector("input"), select = box.querySelector("select");
    const body = box.querySelector("tbody"), more = box.querySelector(".more"), found = box.querySelector(".found");
    let state = "", shown = STEP;

    for (const part of Object.keys(PARTS))
      if (data.rows.some(row => get(row, "part") === part)) select.append(Object.assign(make("option", PARTS[part]), { value: part }));
    const buttons = STATES.filter(name => data.rows.some(row => get(row, "state") === name)).map(name => {
      const button = make("button", "");
      button.type = "button";
      button.dataset.state = name;
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        state = state === name ? "" : name;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other.dataset.state === state));
        begin();
      });
      return button;
    });
    box.querySelector(".states").append(...buttons);

    const line = row => {
      const out = make("tr");
      out.append(Object.assign(make("td", get(row, "state")), { className: "state " + get(row, "state").split(" ")[0] }));
      const sample = make("td");
      for (const field of get(row, "inputs")) sample.append(make("div", field, "field"));
      const about = [PARTS[get(row, "part")].replace(/s$/, ""), get(row, "kind")].filter(Boolean).join(", ");
      sample.append(make("div", about, "about"));
      out.append(sample);
      for (const name of ["target", "before", "after"]) out.append(make("td", get(row, name)));
      out.append(make("td", String(get(row, "edit")), "number"));
      return out;
    };
    const draw = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = data.rows.filter((row, i) =>
        (!select.value || get(row, "part") === select.value) && words.every(word => text[i].includes(word)));
      for (const button of buttons) {
        const n = chosen.filter(row => get(row, "state") === button.dataset.state).length;
        button.textContent = `${button.dataset.state} ${n.toLocaleString("en")}`;
      }
      const rows = chosen.filter(row => !state || get(row, "state") === state);
      body.replaceChildren(...rows.slice(0, shown).map(line));
      found.textContent = `${rows.length.toLocaleString("en")} of ${data.total.toLocaleString("en")}`;
      more.hidden = rows.length <= shown;
    };
    const begin = () => { shown = STEP; draw(); };
    search.addEventListener("input", begin);
    select.addEventListener("change", begin);
    more.addEventListener("click", () => { shown += 4 * STEP; draw(); });
    draw();
  }
})();
