// Texts of models are hostile. They are only ever text nodes; this module also shows what would be invisible.

// Control characters, marks that reverse the direction of what follows, separators, and tags, which no reader sees but
// a model does.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

function sign(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code); // ␛ for ESC
  if (code === 0x7f) return "\u2421";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Return a text in which every unseen character has a sign. Line ends and tabs stay; so does \r before a line end. */
export function visible(text) {
  return String(text).replaceAll("\r\n", "\n").replace(UNSEEN, sign);
}

/** Return a name in one line of at most `most` characters. */
export function inOneLine(text, most = 200) {
  const line = visible(String(text).slice(0, most + 1)).replace(/[\n\t]+/g, " ");
  return text.length > most ? `${line.slice(0, most)}…` : line;
}

/** Return the last characters of a text, without half of a surrogate pair at the cut. */
export function tail(text, most) {
  if (text.length <= most) return text;
  const from = text.length - most;
  const low = text.charCodeAt(from);
  return text.slice(low >= 0xdc00 && low <= 0xdfff ? from + 1 : from);
}

/** Return the first characters of a text, without half of a surrogate pair at the cut. */
export function head(text, most) {
  if (text.length <= most) return text;
  const last = text.charCodeAt(most - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? most - 1 : most);
}

/** Return the address if a link to it is harmless, else null. */
export function safeLink(address) {
  try {
    return ["http:", "https:"].includes(new URL(address).protocol) ? address : null;
  } catch {
    return null;
  }
}
