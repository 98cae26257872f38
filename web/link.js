// What the pages have in common: the address of the websocket, what is said of the connection, and coming back.

// Codes of closes after which another try can help: the client or its proxy went away (RFC 6455, 7.4.1).
const COMES_BACK = new Set([1001, 1006, 1012, 1013]);
// For how long it is tried, in milliseconds, and the longest pause between two tries.
const PATIENCE = 120_000;
const PAUSE = 5000;

const state = document.getElementById("state");
const again = document.getElementById("again");

export function say(name, text) {
  state.dataset.state = name;
  state.textContent = text;
}

// The token is in the "path" of our own address, as Nova writes it: ?path=%3Ftoken%3D..., or in the address itself for SPICE.
// Only the query of it is taken, and only this host is asked: an address that somebody else has made leads nowhere else.
function websocketAddress() {
  const own = new URLSearchParams(location.search);
  const path = own.get("path") ?? "";
  const query = new URLSearchParams(path.includes("?") ? path.slice(path.indexOf("?") + 1) : "");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const token = query.get("token") ?? own.get("token");
  return token === null ? null : `${scheme}//${location.host}/websockify?token=${encodeURIComponent(token)}`;
}

// Opens the websocket, and again when it was lost: the session's cookie lets the same browser go on with it.
// `attach(socket)` is given each new socket; what it returns is called when that one is over. `connect(address)` makes a
// socket, or what is like one: it has events "open" and "close", and can be closed.
export function keepOpen(attach, connect = (address) => new WebSocket(address, ["binary"])) {
  let tries = 0;
  let lostAt = 0;
  let wanted = true;
  let socket = null;

  function open() {
    const address = websocketAddress();
    again.hidden = true;
    if (address === null) {
      say("closed", "This address has no token: ask for a new one.");
      return;
    }
    say("connecting", tries === 0 ? "Connecting" : "Connecting again");
    let opened = false;
    socket = connect(address);
    socket.binaryType = "arraybuffer";
    const detach = attach(socket);
    socket.addEventListener("open", () => {
      opened = true;
      tries = 0;
    });
    socket.addEventListener("close", (event) => {
      detach();
      const wasThere = opened || tries > 0;
      if (tries === 0) lostAt = Date.now();
      if (COMES_BACK.has(event.code) && wanted && wasThere && Date.now() - lostAt < PATIENCE) {
        tries += 1;
        say("lost", `${event.reason || "The connection is lost."} Trying again`);
        setTimeout(open, Math.min(250 * 2 ** tries, PAUSE));
        return;
      }
      const refused = "The console was not opened: its address is good once, and not for long. Ask for a new one.";
      say("closed", event.reason || (wasThere ? "The connection is lost." : refused));
      again.hidden = !wasThere;
    });
  }

  again.addEventListener("click", () => {
    // Of a session that was lost, as long again; of one that ended otherwise, once.
    tries = Math.min(tries, 1);
    lostAt = Date.now();
    wanted = true;
    open();
  });
  document.getElementById("close").addEventListener("click", () => {
    wanted = false;
    socket?.close(1000);
  });
  document.getElementById("full").addEventListener("click", () => {
    if (document.fullscreenElement) {
      document.exitFullscreen();
    } else {
      document.documentElement.requestFullscreen?.().catch(() => {});
    }
  });
  open();
}
