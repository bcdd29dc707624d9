// Memory by owner as one bar against the capacity, and the same as a list.

import { ledger } from "./server.js";

const EVERY_MS = 1000;
const element = (id) => document.getElementById(id);

/** Draw the ledger each second while the page is in view. Where the server refuses, stop and call
 * `refused` with the error. */
export function follow(token, refused) {
  let timer;
  const look = async () => {
    if (!document.hidden) {
      try {
        draw(await ledger(token));
      } catch (error) {
        element("ledger-note").textContent = "The ledger cannot be read now.";
        if (error.status === 401) return refused(error);
      }
    }
    timer = setTimeout(look, EVERY_MS);
  };
  timer = setTimeout(look);
  return () => clearTimeout(timer);
}

function draw({ owners, capacity, margin }) {
  const used = owners.reduce((sum, [, bytes]) => sum + bytes, 0);
  const rows = [...owners, ["free", Math.max(0, capacity - used)]];
  element("bar").replaceChildren(
    ...owners.map(([owner, bytes]) => {
      const piece = document.createElement("span");
      piece.dataset.owner = owner;
      piece.title = `${owner}: ${size(bytes)}`;
      piece.style.width = `${(100 * bytes) / Math.max(capacity, used)}%`;
      return piece;
    }),
  );
  const told = rows.map(([owner, bytes]) => `${owner} ${size(bytes)}`).join(", ");
  element("bar").setAttribute("aria-label", `${told}, of ${size(capacity)}`);
  element("owners").replaceChildren(...rows.map(([owner, bytes]) => row(owner, size(bytes))));
  element("ledger-note").textContent =
    `${size(used)} of ${size(capacity)} in use; requests may take ${size(margin)} more.`;
}

function row(owner, bytes) {
  const item = document.createElement("li");
  const key = document.createElement("span");
  key.className = "key";
  key.dataset.owner = owner;
  const value = document.createElement("span");
  value.className = "n";
  value.textContent = bytes;
  item.append(key, owner, value);
  return item;
}

function size(bytes) {
  const gib = bytes / 2 ** 30;
  return gib >= 1 ? `${gib.toFixed(2)} GiB` : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
