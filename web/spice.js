// A guest's screen over SPICE, by spice-html5.

import { SpiceMainConn, sendCtrlAltDel } from "/spice/src/main.js";
import { keepOpen, say } from "/console/link.js";

const screen = document.getElementById("screen");

// All channels of one session, as one socket: each is a connection of its own to the same address, and the browser's cookie
// says to which session it belongs. With the first that is lost, all of them are.
class Channels extends EventTarget {
  constructor(address) {
    super();
    this.over = false;
    this.main = new SpiceMainConn({
      uri: address,
      screen_id: "screen",
      password: "",
      onerror: (error) => this.end(1006, error.message),
    });
    this.watch(this.main);
    for (const name of ["display", "inputs", "cursor"]) {
      let held;
      Object.defineProperty(this.main, name, {
        get: () => held,
        set: (channel) => {
          held = channel;
          if (channel !== undefined) this.watch(channel);
          // What is typed before that is lost.
          if (channel !== undefined && name === "inputs") whenReady(channel, () => this.dispatchEvent(new Event("open")));
        },
      });
    }
  }

  watch(channel) {
    // Before spice-html5 hears of it: what it tells of a close has no reason.
    channel.ws.addEventListener("close", (event) => this.end(event.code, event.reason), { capture: true });
    channel.onerror = (error) => this.end(1006, error.message);
  }

  end(code, reason) {
    if (this.over) return;
    // An error is often followed by the close that says why.
    setTimeout(() => this.finish(code, reason), code === 1006 ? 200 : 0);
    if (code !== 1006) this.finish(code, reason);
  }

  finish(code, reason) {
    if (this.over) return;
    this.over = true;
    this.main.stop();
    screen.replaceChildren();
    this.dispatchEvent(new CloseEvent("close", { code, reason }));
  }

  close(code) {
    this.main.ws?.close(code);
    this.finish(code, "The console is closed.");
  }
}

// spice-html5 keeps the state of a channel as a property, and tells nobody of it.
function whenReady(channel, then) {
  let { state } = channel;
  Object.defineProperty(channel, "state", {
    get: () => state,
    set: (next) => {
      state = next;
      if (next === "ready") then();
    },
  });
}

let channels = null;

keepOpen(
  (own) => {
    channels = own;
    own.addEventListener("open", () => say("connected", "Connected"));
    return () => {
      if (channels === own) channels = null;
    };
  },
  (address) => new Channels(address),
);

document.getElementById("keys").addEventListener("click", () => {
  // Where sendCtrlAltDel looks for it.
  window.sc = channels?.main ?? null;
  sendCtrlAltDel();
  screen.querySelector("canvas")?.focus();
});
