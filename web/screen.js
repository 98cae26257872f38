// A guest's screen, by noVNC.

import RFB from "/novnc/core/rfb.js";
import { LAYOUTS, typeText } from "/console/keys.js";
import { keepOpen, say } from "/console/link.js";

const screen = document.getElementById("screen");
const clip = document.getElementById("clip");
const fit = document.getElementById("fit");
const panel = document.getElementById("panel");
let rfb = null;

function show() {
  if (rfb === null) return;
  const fits = fit.getAttribute("aria-pressed") === "true";
  rfb.scaleViewport = fits;
  rfb.clipViewport = !fits;
  rfb.dragViewport = !fits && matchMedia("(pointer: coarse)").matches;
}

keepOpen((socket) => {
  const own = new RFB(screen, socket, { shared: true });
  rfb = own;
  own.showDotCursor = true;
  own.focusOnClick = true;
  show();
  own.addEventListener("connect", () => {
    say("connected", "Connected");
    own.focus();
  });
  own.addEventListener("desktopname", (event) => {
    document.title = `${event.detail.name} - console`;
  });
  own.addEventListener("clipboard", (event) => {
    clip.value = event.detail.text;
  });
  return () => {
    if (rfb === own) rfb = null;
    screen.replaceChildren();
  };
});

const layout = document.getElementById("layout");
const untyped = document.getElementById("untyped");
for (const [name, [title]] of Object.entries(LAYOUTS)) layout.add(new Option(title, name));

document.getElementById("keys").addEventListener("click", () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
document.getElementById("copy").addEventListener("click", () => rfb?.clipboardPasteFrom(clip.value));
document.getElementById("type").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  button.disabled = true;
  const left = await typeText(clip.value, layout.value, (keysym, code, down) => rfb?.sendKey(keysym, code, down));
  button.disabled = false;
  untyped.textContent = left.length === 0 ? "" : `No key makes these: ${left.join(" ")}`;
  rfb?.focus();
});
fit.addEventListener("click", () => {
  fit.setAttribute("aria-pressed", fit.getAttribute("aria-pressed") !== "true");
  show();
});
document.getElementById("text").addEventListener("click", (event) => {
  panel.hidden = !panel.hidden;
  event.currentTarget.setAttribute("aria-expanded", !panel.hidden);
  if (!panel.hidden) clip.focus();
});
