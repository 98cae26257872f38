// A guest's serial port, by xterm.js.

import { Terminal } from "/xterm/xterm.js";
import { FitAddon } from "/xterm/addon-fit.js";
import { keepOpen, say } from "/console/link.js";

const terminal = new Terminal({ scrollback: 5000, convertEol: false, fontSize: 15, theme: { background: "#1b1d21" } });
const fit = new FitAddon();
const encoder = new TextEncoder();
let socket = null;

terminal.loadAddon(fit);
terminal.open(document.getElementById("terminal"));
fit.fit();
addEventListener("resize", () => fit.fit());
terminal.onData((text) => {
  if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
});
terminal.onBinary((text) => {
  if (socket?.readyState === WebSocket.OPEN) socket.send(Uint8Array.from(text, (c) => c.charCodeAt(0)));
});

keepOpen((own) => {
  socket = own;
  own.addEventListener("open", () => {
    say("connected", "Connected");
    terminal.focus();
  });
  own.addEventListener("message", (event) => terminal.write(new Uint8Array(event.data)));
  return () => {
    if (socket === own) socket = null;
  };
});
