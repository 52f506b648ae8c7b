// The contract oms:payment@1 in comfortable JavaScript: requests, refusals, settings, Standard Webhooks.
//
// Copy this file and encoding.js beside your plugin.js; there is nothing in them to change.

import * as hostConfig from 'oms:payment/config@1.0.0';
import * as hostCrypto from 'oms:payment/crypto@1.0.0';
import * as hostHttp from 'oms:payment/http@1.0.0';
import * as hostLog from 'oms:payment/log@1.0.0';
import { decodeBase64, decodeUtf8, decodeUtf8Lossy, encodeUtf8, narrow, widen } from './encoding.js';

// ------------------------------------------------------------------ the plugin

const NO_TOTALS = { currency: null, authorized: null, captured: null, refunded: null, canceled: null };
const NO_RESULT = {
  reference: null, operationReference: null, nextAction: null, expiresAtMs: null, state: null, method: [], raw: null,
};
const NO_REFUND = { refundId: null, reference: null, amount: null, raw: null };
const NO_EVENT = { occurredAtMs: null, reference: null, paymentId: null };
const FEATURES = [
  'manualCapture', 'partialCapture', 'multipleCapture', 'cancel', 'refund', 'partialRefund', 'sync', 'complete',
  'webhooks', 'clientTokens',
];

/**
 * Turns an object with the functions describe, start, complete, capture, cancel, refund, sync and receive into what a
 * component exports: `export const { descriptor, gateway, webhooks } = definePlugin({ .. })`.
 *
 * What a function leaves out of its answer counts as "the gateway does not say"; an operation that is not there answers
 * `unsupported`. Say no with `throw refuse.declined(..)` and the others. Any other exception ends the call as a trap,
 * which is right for a defect: the host knows whether a request had left, and its log shows the exception.
 */
export function definePlugin(plugin) {
  const operation = (name, complete) => (request) => {
    if (!plugin[name]) throw refuse.unsupported(name);
    return call(request, request.call.nowMs, (narrowed) => complete(plugin[name](narrowed)));
  };
  return {
    descriptor: {
      describe() {
        const info = plugin.describe();
        const features = Object.fromEntries(FEATURES.map((name) => [name, info.features.includes(name)]));
        return { currencies: [], ...info, features, configSchema: JSON.stringify(info.configSchema) };
      },
    },
    gateway: {
      start: operation('start', paymentResult),
      complete: operation('complete', paymentResult),
      capture: operation('capture', paymentResult),
      cancel: operation('cancel', paymentResult),
      refund: operation('refund', refundResult),
      sync: operation('sync', ({ payment, refunds = [] }) => ({
        payment: paymentResult(payment),
        refunds: refunds.map(refundResult),
      })),
    },
    webhooks: {
      receive(delivery) {
        if (!plugin.receive) throw refuseWebhook.malformed('this plugin takes no webhooks');
        return call(delivery, delivery.receivedAtMs, plugin.receive);
      },
    },
  };
}

const paymentResult = (result) => ({ ...NO_RESULT, ...result, totals: { ...NO_TOTALS, ...result.totals } });
const refundResult = (result) => ({ ...NO_REFUND, ...result });

/** `example` is a 64-bit number of the request: it shows in which form this engine has them. */
function call(request, example, run) {
  if (typeof example !== 'bigint') return run(request);
  try {
    return widen(run(narrow(request)));
  } catch (thrown) {
    // The one error that carries a 64-bit number by itself.
    throw thrown.tag === 'stale' ? { tag: 'stale', val: BigInt(thrown.val) } : thrown;
  }
}

// ------------------------------------------------------------------ saying no

const detail = (code, message, { httpStatus = null, gatewayCode = null } = {}) => ({ code, message, httpStatus, gatewayCode });

/** Errors of operations: `throw refuse.declined(..)`. Each tells the host what it may do next. */
export const refuse = {
  /** The final "no" of the customer's bank. */
  declined: (code, message, { gatewayCode = null, customerCanRetry = true } = {}) => ({
    tag: 'declined',
    val: { code, message, gatewayCode, customerCanRetry },
  }),
  /** What was sent can never work. */
  invalidRequest: (code, message, more) => ({ tag: 'invalid-request', val: detail(code, message, more) }),
  /** The payment is in another state at the gateway. */
  invalidState: (code, message, more) => ({ tag: 'invalid-state', val: detail(code, message, more) }),
  /** The gateway itself says that it has never seen this. */
  notFound: (what) => ({ tag: 'not-found', val: what }),
  /** The gateway has no such operation. */
  unsupported: (operation) => ({ tag: 'unsupported', val: operation }),
  /** The gateway refuses our credentials. */
  notAuthenticated: (code, message, more) => ({ tag: 'not-authenticated', val: detail(code, message, more) }),
  /** It did not happen; try again after so many seconds, if the gateway said. */
  rateLimited: (seconds = null) => ({ tag: 'rate-limited', val: seconds }),
  /** It certainly did not happen. */
  unavailable: (code, message, more) => ({ tag: 'unavailable', val: detail(code, message, more) }),
  /** It may have happened: the host finds out before it does anything else. */
  indeterminate: (code, message, more) => ({ tag: 'indeterminate', val: detail(code, message, more) }),
  /** A setting is missing or malformed. */
  misconfigured: (message) => ({ tag: 'misconfigured', val: message }),
  /** A defect of the plugin. */
  internal: (message) => ({ tag: 'internal', val: message }),
};

/** Errors of `receive`. */
export const refuseWebhook = {
  missingSignature: (what) => ({ tag: 'missing-signature', val: what }),
  badSignature: () => ({ tag: 'bad-signature' }),
  stale: (signedAtMs) => ({ tag: 'stale', val: signedAtMs }),
  malformed: (what) => ({ tag: 'malformed', val: what }),
  misconfigured: (what) => ({ tag: 'misconfigured', val: what }),
  unavailable: (what) => ({ tag: 'unavailable', val: what }),
};

/** The error that a host function threw: engines wrap it in an exception of their own, or do not. */
const hostError = (thrown) => thrown.payload ?? thrown;

// ------------------------------------------------------------------ settings and log

export const config = {
  /** A setting that may be left out: undefined then. */
  get: (name) => hostConfig.get(name) ?? undefined,
  /** A setting that must be there and not blank. */
  require: (name) => present(name, hostConfig.get(name)),
  /** Reveals a secret, for what must be sent. To compute with one, name it in a key, and it stays in the host. */
  secret: (name) => present(name, hostConfig.revealSecret(name)),
};

function present(name, value) {
  if (!value?.trim()) throw refuse.misconfigured(`the account has no setting \`${name}\``);
  return value;
}

const line = (level) => (message, fields = {}) =>
  hostLog.write(level, message, Object.entries(fields).map(([name, value]) => [name, String(value)]));

/** Lines in the host's log. The message must be readable without the fields. */
export const log = { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') };

// ------------------------------------------------------------------ requests

/**
 * Sends a request that changes something at the gateway. Without an answer it throws `indeterminate`, unless the request
 * certainly did not leave.
 */
export const change = (url, options) => send('POST', url, options, refuse.indeterminate);

/** Sends a request that only asks. Whatever goes wrong, nothing has happened: `unavailable`. */
export const read = (url, options) => send('GET', url, options, refuse.unavailable);

function send(usual, url, { method = usual, headers = {}, query, json, form, timeoutMs = null } = {}, lost) {
  const all = { ...headers };
  let body = new Uint8Array();
  if (json !== undefined) {
    all['content-type'] = 'application/json';
    body = encodeUtf8(JSON.stringify(json));
  } else if (form !== undefined) {
    all['content-type'] = 'application/x-www-form-urlencoded';
    body = encodeUtf8(formEncode(form));
  }
  const request = {
    method,
    url: query ? `${url}${url.includes('?') ? '&' : '?'}${formEncode(query)}` : url,
    headers: Object.entries(all).map(([name, value]) => [name, encodeUtf8(value)]),
    body,
    timeoutMs,
  };
  try {
    return new Answer(hostHttp.send(request), lost);
  } catch (thrown) {
    const { tag, val } = hostError(thrown);
    if (tag === 'denied') throw refuse.misconfigured(`the host does not allow this request: ${val}`);
    if (tag === 'not-sent') throw refuse.unavailable('not_sent', val);
    if (tag === 'outcome-unknown') throw lost('outcome_unknown', val);
    if (tag === 'too-large') throw lost('too_large', `${val} bytes are more than the host lets through`);
    throw thrown;
  }
}

/** Form encoding, for queries and bodies. */
export function formEncode(pairs) {
  const encode = (text) => encodeURIComponent(text).replace(/%20/g, '+').replace(/[!'()~]/g, percent);
  return Object.entries(pairs).map(([name, value]) => `${encode(name)}=${encode(value)}`).join('&');
}

/** A text as one segment of a path. */
export const pathSegment = (text) => encodeURIComponent(text).replace(/[!'()*~]/g, percent);

const percent = (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;

/** A complete answer, with whatever status. */
class Answer {
  constructor({ status, headers, body }, lost) {
    Object.assign(this, { status, headers, body });
    this.lost = lost;
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  /** The first header of this name, in any case. */
  header(name) {
    const found = this.headers.find(([header]) => header.toLowerCase() === name.toLowerCase());
    return found && decodeUtf8(found[1]);
  }

  text() {
    return decodeUtf8Lossy(this.body);
  }

  /** The body as JSON. A success that cannot be read is no failure: a change may have happened. */
  json() {
    const value = parseJson(this.body);
    if (value === undefined) throw this.lost('unreadable_answer', 'the answer is not JSON', { httpStatus: this.status });
    return value;
  }

  /** What a status other than 2xx usually means, to be thrown. `code` and `message` are the gateway's own words. */
  refusal(code, message) {
    const words = message || `the gateway answered with status ${this.status}`;
    const more = { httpStatus: this.status, gatewayCode: code || null };
    const name = code || 'refused';
    switch (this.status) {
      case 401:
      case 403:
        return refuse.notAuthenticated(name, words, more);
      case 402:
        return refuse.declined(name, words, more);
      case 404:
        return refuse.notFound(words);
      case 409:
        return refuse.invalidState(name, words, more);
      case 429: {
        const seconds = this.header('retry-after')?.trim() ?? '';
        return refuse.rateLimited(/^[0-9]{1,9}$/.test(seconds) ? Number(seconds) : null);
      }
      default:
        return this.status >= 500 ? this.lost(name, words, more) : refuse.invalidRequest(name, words, more);
    }
  }
}

/** What is nested deeper is no message of a gateway, and would overflow the stack of the language. */
const MAX_DEPTH = 64;

/** JSON of bytes; undefined for what is not JSON. */
export function parseJson(bytes) {
  const text = decodeUtf8(bytes);
  try {
    return text === undefined || isTooDeep(text) ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isTooDeep(text) {
  let depth = 0;
  for (let at = 0, inString = false; at < text.length; at += 1) {
    const mark = text[at];
    if (inString) {
      if (mark === '\\') at += 1;
      inString = mark !== '"';
    } else if (mark === '"') {
      inString = true;
    } else if (mark === '[' || mark === '{') {
      depth += 1;
      if (depth > MAX_DEPTH) return true;
    } else if (mark === ']' || mark === '}') {
      depth -= 1;
    }
  }
  return false;
}

// ------------------------------------------------------------------ webhooks

/** Whether `expected` is the HMAC of `message`: computed by the host in constant time, with a key that stays there. */
export function verifyHmac(algorithm, key, message, expected) {
  try {
    return hostCrypto.verifyHmac(algorithm, key, message, expected);
  } catch (thrown) {
    // The host refuses to compute only when the named secret is absent or not in the stated encoding.
    const words = hostError(thrown);
    throw typeof words === 'string' ? refuseWebhook.misconfigured(words) : thrown;
  }
}

/** The usual outcome: one event, verified. */
export const event = (signed, fields) => ({
  tag: 'verified',
  val: { events: [{ ...NO_EVENT, id: signed.id, ...fields }], signedAtMs: signed.atMs, replayKey: null, reply: null },
});

/** What an event says of a payment, and of a refund. */
export const paymentChange = (fields) => ({
  tag: 'payment',
  val: { status: null, declineCode: null, operationReference: null, ...fields, totals: { ...NO_TOTALS, ...fields.totals } },
});
export const refundChange = (fields) => ({ tag: 'refund', val: { refundId: null, amount: null, ...fields } });

/** A key as it is named to the host: the account's secret, decoded from Base64 without a leading `whsec_`. */
export const secretBase64 = (name) => ({ tag: 'secret-base64', val: name });

const MAX_SIGNATURES = 16;

/**
 * Checks the signature and the time of a delivery by the Standard Webhooks specification: headers webhook-id,
 * webhook-timestamp and webhook-signature, HMAC-SHA256 over `id.timestamp.body`. Gives the id of the message, the same in
 * every attempt, and when this attempt was signed.
 */
export function verifyStandardWebhook(delivery, key) {
  const id = requiredHeader(delivery, 'webhook-id');
  const timestamp = requiredHeader(delivery, 'webhook-timestamp');
  const signatures = requiredHeader(delivery, 'webhook-signature');
  if (!/^[0-9]{1,12}$/.test(timestamp)) throw refuseWebhook.malformed('`webhook-timestamp` is not a number of seconds');

  // The bytes as they came: a text that was decoded and encoded again may differ.
  const head = encodeUtf8(`${id}.${timestamp}.`);
  const message = new Uint8Array(head.length + delivery.body.length);
  message.set(head);
  message.set(delivery.body, head.length);
  const genuine = signatures.split(' ').slice(0, MAX_SIGNATURES).some((signature) => {
    const expected = signature.startsWith('v1,') ? decodeBase64(signature.slice(3)) : undefined;
    return expected !== undefined && verifyHmac('sha256', key, message, expected);
  });
  if (!genuine) throw refuseWebhook.badSignature();

  // In whole seconds, as the sender has them; in both directions; after the signature, so that only genuine deliveries
  // are called stale.
  const off = Math.abs(Number(timestamp) - Math.floor(delivery.receivedAtMs / 1000));
  if (off > delivery.toleranceSeconds) throw refuseWebhook.stale(Number(timestamp) * 1000);
  return { id, atMs: Number(timestamp) * 1000 };
}

/** Exactly one header of this name: with two, sender and receiver might look at different ones. */
function requiredHeader(delivery, name) {
  const values = delivery.headers.filter(([header]) => header.toLowerCase() === name).map(([, value]) => value);
  if (values.length === 0 || values[0].length === 0) throw refuseWebhook.missingSignature(`no header \`${name}\``);
  const text = decodeUtf8(values[0]);
  if (values.length > 1 || text === undefined) throw refuseWebhook.malformed(`header \`${name}\` is doubled or no text`);
  return text;
}
