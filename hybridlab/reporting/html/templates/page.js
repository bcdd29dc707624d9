// Colours, enlarged figures, and folded parts that open when a link leads into them.
(() => {
  "use strict";
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const choose = (name) => {
    if (name) root.dataset.theme = name; else delete root.dataset.theme;
    theme.value = name;
    document.dispatchEvent(new Event("themechange"));
  };
  const remembered = () => {
    try { return localStorage.getItem("hybridlab-theme") || ""; }
    catch { return ""; }  // a mail reader may forbid storage: the choice then lasts as long as the page
  };
  theme.addEventListener("change", () => {
    choose(theme.value);
    try { localStorage.setItem("hybridlab-theme", theme.value); } catch { /* as above */ }
  });
  choose(remembered());

  const enlarge = (picture) => {
    const dialog = document.createElement("dialog");
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    const copy = picture.cloneNode();
    dialog.setAttribute("aria-label", picture.alt);
    dialog.append(close, copy);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  };
  for (const button of document.querySelectorAll("button.zoom")) {
    button.addEventListener("click", () => enlarge(button.querySelector("img")));
  }

  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    let opened = false;
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      opened = opened || !fold.open;
      fold.open = true;
    }
    if (opened) target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();
})();
