// Which keys make a character. A screen is told of keys by their places on the keyboard, and what they make is the guest's
// affair: so text that is to be typed is taken apart by the layout that the guest has.

// Places as browsers name them (UI Events, KeyboardEvent.code), row by row from the upper left.
const CODES = [
  "Backquote",
  ...["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"].map((digit) => `Digit${digit}`),
  "Minus",
  "Equal",
  ...[..."QWERTYUIOP"].map((letter) => `Key${letter}`),
  "BracketLeft",
  "BracketRight",
  ...[..."ASDFGHJKL"].map((letter) => `Key${letter}`),
  "Semicolon",
  "Quote",
  "Backslash",
  "IntlBackslash",
  ...[..."ZXCVBNM"].map((letter) => `Key${letter}`),
  "Comma",
  "Period",
  "Slash",
];
const SPACE = { keysym: 0x20, code: "Space" };
const ENTER = { keysym: 0xff0d, code: "Enter" };
const TAB = { keysym: 0xff09, code: "Tab" };
const SHIFT = { keysym: 0xffe1, code: "ShiftLeft" };
const ALT_GR = { keysym: 0xfe03, code: "AltRight" };
const HELD = [[], [SHIFT], [ALT_GR]];

// What each of these places makes alone, with Shift and with AltGr; a space: nothing, or what waits for the next key (^ and ` on
// some). From QEMU's keymaps.
export const LAYOUTS = {
  us: [
    "English (US)",
    "`1234567890-=qwertyuiop[]asdfghjkl;'\\ zxcvbnm,./",
    '~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"| ZXCVBNM<>?',
    "                                                ",
  ],
  gb: [
    "English (UK)",
    "`1234567890-=qwertyuiop[]asdfghjkl;'#\\zxcvbnm,./",
    '¬!"£$%^&*()_+QWERTYUIOP{}ASDFGHJKL:@~|ZXCVBNM<>?',
    "    €                                           ",
  ],
  de: [
    "Deutsch",
    " 1234567890ß qwertzuiopü+asdfghjklöä#<yxcvbnm,.-",
    "°!\"§$%&/()=? QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_",
    "  ²³   {[]}\\ @ €        ~            |      µ   ",
  ],
  es: [
    "Español",
    "º1234567890'¡qwertyuiop +asdfghjklñ ç<zxcvbnm,.-",
    'ª!"·$%&/()=?¿QWERTYUIOP *ASDFGHJKLÑ Ç>ZXCVBNM;:_',
    "\\|@#~          €       []          {}           ",
  ],
  fr: [
    "Français",
    "²&é\"'(-è_çà)=azertyuiop $qsdfghjklmù*<wxcvbn,;:!",
    " 1234567890°+AZERTYUIOP £QSDFGHJKLM%µ>WXCVBN?./§",
    "  ~#{[|`\\^@]}  €                                ",
  ],
  it: [
    "Italiano",
    "\\1234567890'ìqwertyuiopè+asdfghjklòàù<zxcvbnm,.-",
    '|!"£$%&/()=?^QWERTYUIOPé*ASDFGHJKLç°§>ZXCVBNM;:_',
    "       {  }`~  €       []         @#            ",
  ],
};

// Keys as X11 names them: Latin-1 as it is, the rest of Unicode above 0x01000000.
function keysymOf(character) {
  const code = character.codePointAt(0);
  return code < 0x100 ? code : 0x01000000 + code;
}

// The key that makes a character, and those that are held meanwhile; null where none does.
export function keysOf(layout, character) {
  if (character === " ") return { ...SPACE, held: [] };
  if (character === "\n") return { ...ENTER, held: [] };
  if (character === "\t") return { ...TAB, held: [] };
  for (const [level, held] of HELD.entries()) {
    const place = LAYOUTS[layout][level + 1].indexOf(character);
    if (place >= 0) return { keysym: keysymOf(character), code: CODES[place], held };
  }
  return null;
}

// Presses what makes the text, one character after the other: `press(keysym, code, down)`. As fast as guests take it, which is
// slower than a page can: QEMU throws away what it has no room for. Answers with the characters that no key makes.
export async function typeText(text, layout, press, pause = () => new Promise((done) => setTimeout(done, 30))) {
  const left = [];
  for (const character of text.replaceAll("\r\n", "\n")) {
    const keys = keysOf(layout, character);
    if (keys === null) {
      left.push(character);
      continue;
    }
    for (const { keysym, code } of keys.held) press(keysym, code, true);
    press(keys.keysym, keys.code, true);
    press(keys.keysym, keys.code, false);
    for (const { keysym, code } of keys.held) press(keysym, code, false);
    await pause();
  }
  return left;
}
