// What the pages of consoles do by themselves, without a browser: `node --test tests/consoles/pages.test.mjs`.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

// As a module of its own, whatever is next to it.
async function load(name) {
  const source = await readFile(new URL(`../../web/${name}`, import.meta.url), "utf8");
  return import(`data:text/javascript,${encodeURIComponent(`${source}\n// ${Math.random()}`)}`);
}

class Element extends EventTarget {
  dataset = {};
  hidden = true;
}

// Time that passes when it is told to.
function clock() {
  const real = { now: Date.now, setTimeout: globalThis.setTimeout };
  let now = 0;
  let waiting = [];
  Date.now = () => now;
  globalThis.setTimeout = (then, after) => waiting.push([now + after, then]);
  const tick = (time) => {
    now += time;
    const due = waiting.filter(([at]) => at <= now);
    waiting = waiting.filter(([at]) => at > now);
    for (const [, then] of due) then();
  };
  const back = () => {
    Date.now = real.now;
    globalThis.setTimeout = real.setTimeout;
  };
  return { tick, back };
}

// The page around link.js, with sockets that end when they are told to.
async function page() {
  const elements = Object.fromEntries(["state", "again", "close", "full"].map((id) => [id, new Element()]));
  const sockets = [];
  globalThis.document = { getElementById: (id) => elements[id] };
  globalThis.location = { search: "?path=%3Ftoken%3Dt", protocol: "https:", host: "consoles.example" };
  const { keepOpen } = await load("link.js");
  keepOpen(
    () => () => {},
    (address) => {
      const socket = Object.assign(new EventTarget(), { address, close() {} });
      sockets.push(socket);
      return socket;
    },
  );
  const ends = (code, reason = "") => sockets.at(-1).dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  return { elements, sockets, ends, opens: () => sockets.at(-1).dispatchEvent(new Event("open")) };
}

test("a page asks its own host alone", async () => {
  const { sockets } = await page();
  assert.deepEqual(sockets.map((socket) => socket.address), ["wss://consoles.example/websockify?token=t"]);
});

test("a session that was lost is tried for two minutes, and once more when its user says so", async () => {
  const { tick, back } = clock();
  const { elements, sockets, ends, opens } = await page();
  const fails = (until) => {
    const began = Date.now();
    while (elements.state.dataset.state !== until) {
      ends(1006);
      tick(5000);
      assert.ok(Date.now() - began < 1000_000);
    }
    return Date.now() - began;
  };
  opens();
  const took = fails("closed");
  assert.ok(took >= 120_000 && took <= 130_000, `${took} ms`);
  assert.equal(elements.again.hidden, false);
  const before = sockets.length;
  elements.again.dispatchEvent(new Event("click"));
  assert.equal(sockets.length, before + 1);
  // The first try of these may fail, too.
  ends(1006);
  assert.equal(elements.state.dataset.state, "lost");
  tick(5000);
  opens();
  ends(1008, "The server has stopped.");
  assert.deepEqual([elements.state.dataset.state, elements.state.textContent], ["closed", "The server has stopped."]);
  // What has ended so is tried once.
  elements.again.dispatchEvent(new Event("click"));
  ends(1006);
  assert.equal(elements.state.dataset.state, "closed");
  back();
});

test("an address that opens nothing is not tried again", async () => {
  const { elements, sockets, ends } = await page();
  ends(1006);
  assert.deepEqual([elements.state.dataset.state, elements.again.hidden, sockets.length], ["closed", true, 1]);
});

test("text is typed by the keys of the guest's keyboard", async () => {
  const { LAYOUTS, keysOf, typeText } = await load("keys.js");
  for (const [name, [, ...levels]] of Object.entries(LAYOUTS)) {
    assert.deepEqual(levels.map((level) => [...level].length), [48, 48, 48], name);
    const ascii = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at));
    // Where ^ and ` wait for the next key.
    const none = ["de", "es"].includes(name) ? ["^", "`"] : [];
    assert.deepEqual(ascii.filter((character) => keysOf(name, character) === null), none, name);
  }
  const places = (name, text) => [...text].map((one) => [...keysOf(name, one).held.map((key) => key.code), keysOf(name, one).code].join("+"));
  assert.deepEqual(places("us", "aA!z/\n"), ["KeyA", "ShiftLeft+KeyA", "ShiftLeft+Digit1", "KeyZ", "Slash", "Enter"]);
  assert.deepEqual(places("de", "z/@{"), ["KeyY", "ShiftLeft+Digit7", "AltRight+KeyQ", "AltRight+Digit7"]);
  assert.deepEqual(places("fr", "a1"), ["KeyQ", "ShiftLeft+Digit1"]);
  const pressed = [];
  const left = await typeText("é$", "us", (keysym, code, down) => pressed.push([keysym, code, down]), () => {});
  assert.deepEqual(left, ["é"]);
  assert.deepEqual(pressed, [
    [0xffe1, "ShiftLeft", true],
    [0x24, "Digit4", true],
    [0x24, "Digit4", false],
    [0xffe1, "ShiftLeft", false],
  ]);
});
