// JSON whose whole numbers keep all digits: ids go up to 2^63, and numbers of JavaScript are exact up to 2^53.

const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const WHOLE = /^-?\d{16,}$/;
const MARK = "\u0000whole:";
const IS_MARKED = /^\u0000whole:-?\d+$/;
const MARKED = /"\\u0000whole:(-?\d+)"/g;

/** Return a JSON text as a value. Whole numbers that a number cannot hold are BigInts. */
export function read(text) {
  const marked = text.replace(TOKENS, (token) => (
    WHOLE.test(token) && !Number.isSafeInteger(Number(token)) ? JSON.stringify(MARK + token) : token));
  return JSON.parse(marked, (_, value) => (
    typeof value === "string" && IS_MARKED.test(value) ? BigInt(value.slice(MARK.length)) : value));
}

/** Return a value, with BigInts, as a JSON text. */
export function write(value) {
  return JSON.stringify(value, (_, one) => (typeof one === "bigint" ? `${MARK}${one}` : one))?.replace(MARKED, "$1");
}
