// What a user does with consoles, in a real browser. Told what to do by lines of JSON on standard input, one answer each:
//   {"do": "open", "page": "screen", "url": ...}      opens a page, waits until it says that it is connected or is not;
//                                                     with "elsewhere", in a browser without our cookies
//   {"do": "type", "page": "screen", "text": ...}     keys, as a user presses them
//   {"do": "paste", "page": "screen", "text": ...}    text that the page types
//   {"do": "colour", "page": "screen", "rgb": [r, g, b]}  what share of the screen has about this colour, in per mille
//   {"do": "text", "page": "serial"}                  what the terminal shows
//   {"do": "state", "page": ...}                      what the page says of its connection, and in which words
//   {"do": "shot", "page": ..., "path": ...}          a picture
//   {"do": "phone", "page": ...}                      as wide as a phone: is anything wider than the window?

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: 1100, height: 800 } });
const pages = new Map();
const foreign = [];
context.on("request", (request) => {
  if (!["127.0.0.1", "localhost"].includes(new URL(request.url()).hostname)) foreign.push(request.url());
});

async function state(page) {
  return page.locator("#state").evaluate((element) => ({ state: element.dataset.state, text: element.textContent }));
}

const deeds = {
  async open({ page: name, url, elsewhere = false }) {
    const page = await (elsewhere ? await browser.newContext() : context).newPage();
    const problems = [];
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    page.on("pageerror", (error) => problems.push(String(error)));
    pages.set(name, page);
    const answer = await page.goto(url);
    await page.waitForSelector("#state[data-state=connected], #state[data-state=closed]", { timeout: 30000 });
    return { status: answer.status(), ...(await state(page)), problems, foreign };
  },
  async type({ page: name, text }) {
    const page = pages.get(name);
    await page.locator(name === "serial" ? "#terminal" : "#screen canvas").click({ position: { x: 30, y: 30 } });
    // As on a keyboard of the United States: a screen is told of keys, and Shift is one.
    for (const character of text) {
      const shifted = /[A-Z~!@#$%^&*()_{}|:"<>?]/.test(character) ? "Shift+" : "";
      await page.keyboard.press({ "\n": "Enter", " ": "Space" }[character] ?? shifted + character, { delay: 30 });
    }
    return {};
  },
  async paste({ page: name, text }) {
    const page = pages.get(name);
    await page.locator("#text").click();
    await page.locator("#clip").fill(text);
    await page.locator("#type").click();
    await page.waitForSelector("#type:enabled", { timeout: 30000 });
    await page.locator("#text").click();
    return { untyped: await page.locator("#untyped").textContent() };
  },
  async colour({ page: name, rgb }) {
    return pages.get(name).locator("#screen canvas").evaluate((canvas, wanted) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let same = 0;
      for (let at = 0; at < data.length; at += 4) {
        if (wanted.every((value, channel) => Math.abs(data[at + channel] - value) < 40)) same += 1;
      }
      return { share: Math.round((4000 * same) / data.length), width: canvas.width, height: canvas.height };
    }, rgb);
  },
  async text({ page: name }) {
    return { text: await pages.get(name).locator(".xterm-rows").innerText() };
  },
  async state({ page: name }) {
    return { ...(await state(pages.get(name))), foreign };
  },
  async shot({ page: name, path }) {
    await pages.get(name).screenshot({ path });
    return {};
  },
  async phone({ page: name }) {
    const page = pages.get(name);
    await page.setViewportSize({ width: 390, height: 780 });
    await page.waitForTimeout(300);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    await page.setViewportSize({ width: 1100, height: 800 });
    return { wide };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    answer = { ok: true, ...(await deeds[asked.do](asked)) };
  } catch (error) {
    answer = { ok: false, error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
