// What the JavaScript engine of a plugin lacks: UTF-8, Base64, and one form for 64-bit integers.
//
// QuickJS has no TextEncoder, TextDecoder, atob or btoa. This file knows nothing of payments and imports nothing, so
// that it runs under Node too. Copy it together with oms.js; there is nothing in it to change.

/** A text as UTF-8. Half a surrogate pair becomes U+FFFD, as the standard wants it. */
export function encodeUtf8(text) {
  const bytes = [];
  for (const character of String(text)) {
    let code = character.codePointAt(0);
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), tail(code));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), tail(code >> 6), tail(code));
    else bytes.push(0xf0 | (code >> 18), tail(code >> 12), tail(code >> 6), tail(code));
  }
  return Uint8Array.from(bytes);
}

const tail = (code) => 0x80 | (code & 0x3f);

/** UTF-8 as a text; undefined for what is not UTF-8. Use it for whatever a signature vouches for. */
export function decodeUtf8(bytes) {
  return decode(bytes, () => undefined);
}

/** UTF-8 as a text with U+FFFD for each byte that does not fit. For texts that people read. */
export function decodeUtf8Lossy(bytes) {
  return decode(bytes, () => '\ufffd');
}

// Strings are put together in pieces: one character at a time takes quadratic time in some engines.
function decode(bytes, replacement) {
  const pieces = [];
  let codes = [];
  for (let at = 0; at < bytes.length; ) {
    const { code, length } = readCode(bytes, at);
    if (code === undefined) {
      const instead = replacement();
      if (instead === undefined) return undefined;
      codes.push(instead.codePointAt(0));
      at += 1;
    } else {
      codes.push(code);
      at += length;
    }
    if (codes.length >= 4096) {
      pieces.push(String.fromCodePoint(...codes));
      codes = [];
    }
  }
  pieces.push(String.fromCodePoint(...codes));
  return pieces.join('');
}

/** One character. Refuses what has a shorter form, surrogates and codes that do not exist. */
function readCode(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return { code: first, length: 1 };
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  let code = first & (0x7f >> length);
  for (let i = 1; i < length; i++) {
    const next = bytes[at + i];
    if (next === undefined || (next & 0xc0) !== 0x80) return {};
    code = (code << 6) | (next & 0x3f);
  }
  const least = [0x80, 0x800, 0x10000][length - 2];
  const exists = first >= 0xc2 && first <= 0xf4 && code >= least && code <= 0x10ffff;
  return exists && (code < 0xd800 || code > 0xdfff) ? { code, length } : {};
}

// Libraries that an author brings along look for these names.
globalThis.TextEncoder ??= class TextEncoder {
  encode(text = '') {
    return encodeUtf8(text);
  }
};
globalThis.TextDecoder ??= class TextDecoder {
  constructor(label = 'utf-8', { fatal = false } = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`only UTF-8 can be decoded, not ${label}`);
    this.fatal = fatal;
  }
  decode(bytes = new Uint8Array()) {
    const text = this.fatal ? decodeUtf8(bytes) : decodeUtf8Lossy(bytes);
    if (text === undefined) throw new TypeError('not UTF-8');
    return text;
  }
};

const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** Bytes as Base64 with padding. */
export function encodeBase64(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; at += 3) {
    const [a, b = 0, c = 0] = bytes.subarray(at, at + 3);
    const group = (a << 16) | (b << 8) | c;
    for (const shift of [18, 12, 6, 0]) text += BASE64[(group >> shift) & 0x3f];
  }
  const padding = (3 - (bytes.length % 3)) % 3;
  return text.slice(0, text.length - padding) + '='.repeat(padding);
}

/** Base64 with padding as bytes; undefined for anything else. */
export function decodeBase64(text) {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  const digits = text.replace(/=+$/, '');
  const bytes = new Uint8Array(Math.floor((digits.length * 3) / 4));
  let [bits, count, at] = [0, 0, 0];
  for (const digit of digits) {
    bits = ((bits << 6) | BASE64.indexOf(digit)) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes[at++] = (bits >> count) & 0xff;
    }
  }
  // What is left over must be zero: otherwise two texts would stand for the same bytes.
  return (bits & ((1 << count) - 1)) === 0 ? bytes : undefined;
}

// The 64-bit integers of the contract. componentize-qjs hands them over as Number and wants Number back, engines that
// follow the JavaScript API of components use BigInt. A plugin sees Number alone.
const WIDE = new Set([
  'minor', 'authorized', 'captured', 'refunded', 'canceled', 'nowMs', 'receivedAtMs', 'expiresAtMs', 'occurredAtMs', 'signedAtMs',
]);

/** A value from the host with each BigInt as a Number. Refuses what a Number cannot hold exactly. */
export function narrow(value) {
  if (typeof value === 'bigint') {
    const number = Number(value);
    if (!Number.isSafeInteger(number)) throw new RangeError(`${value} is larger than JavaScript can count`);
    return number;
  }
  return each(value, narrow);
}

/** A value for a host that wants BigInt: the fields of the contract that have 64 bits. */
export function widen(value) {
  return each(value, (inner, name) => (WIDE.has(name) && typeof inner === 'number' ? BigInt(inner) : widen(inner)));
}

function each(value, change) {
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map((inner) => change(inner));
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, change(inner, name)]));
}
