// A guest's screen, by noVNC.

import RFB from "/novnc/core/rfb.js";
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

// Keys as X11 names them: Latin-1 as it is, the rest of Unicode above 0x01000000, and a few by themselves.
function keysym(character) {
  const code = character.codePointAt(0);
  if (character === "\n") return 0xff0d;
  if (character === "\t") return 0xff09;
  return code < 0x100 ? code : 0x01000000 + code;
}

document.getElementById("keys").addEventListener("click", () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
document.getElementById("copy").addEventListener("click", () => rfb?.clipboardPasteFrom(clip.value));
document.getElementById("type").addEventListener("click", () => {
  for (const character of clip.value) rfb?.sendKey(keysym(character), null);
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
