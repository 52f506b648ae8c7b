// The fake bank of oms-server as a payment plugin in JavaScript: the same gateway as plugins/mock has in Rust.
//
// Account settings: base-url (where the bank is mounted), timeout-ms (optional, how long to wait for an answer).
// Secrets: api-key, webhook-secret (as the bank shows it, with whsec_).

import {
  change, config, definePlugin, event, log, parseJson, pathSegment, paymentChange, read, refundChange, refuse,
  refuseWebhook, secretBase64, verifyStandardWebhook,
} from './oms.js';

export const { descriptor, gateway, webhooks } = definePlugin({ describe, start, complete, capture, cancel, refund, sync, receive });

function describe() {
  return {
    id: 'example-js',
    name: 'Example in JavaScript',
    version: '0.1.0',
    features: [
      'manualCapture', 'partialCapture', 'multipleCapture', 'cancel', 'refund', 'partialRefund', 'sync', 'complete',
      'webhooks',
    ],
    configSchema: {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      required: ['base-url', 'api-key', 'webhook-secret'],
      properties: {
        'base-url': { type: 'string', format: 'uri', description: 'Where the fake bank is mounted' },
        'timeout-ms': { type: 'string', pattern: '^[1-9][0-9]{0,5}$', default: '10000' },
        'api-key': { type: 'string', writeOnly: true },
        'webhook-secret': { type: 'string', pattern: '^whsec_', writeOnly: true },
      },
      additionalProperties: false,
    },
    hosts: ['config:base-url'],
  };
}

// ------------------------------------------------------------------ operations

function start(request) {
  const answer = changeAtBank('/v1/payments', request.call, {
    merchant_payment_id: request.paymentId,
    order_number: request.orderNumber,
    amount: request.amount.minor,
    currency: request.amount.currency,
    exponent: request.amount.exponent,
    capture: request.capture,
    description: request.description,
    return_url: request.returnUrl,
    cancel_url: request.cancelUrl,
    webhook_url: request.webhookUrl,
    off_session: request.offSession,
  });
  return paymentResult(paymentOf(answer), answer);
}

// The query that the customer brought back is unsigned, so it is not looked at.
function complete(request) {
  const answer = readAtBank(paymentPath(request.reference));
  return paymentResult(paymentOf(answer), answer);
}

function capture(request) {
  const answer = changeAtBank(paymentPath(request.reference, '/capture'), request.call, {
    amount: request.amount.minor,
    currency: request.amount.currency,
    final: request.finalCapture,
  });
  const payment = paymentOf(answer);
  // The answer shows the payment as it was right after this capture, so the last one is ours.
  return { ...paymentResult(payment, answer), operationReference: payment.captures?.at(-1)?.id };
}

function cancel(request) {
  const answer = changeAtBank(paymentPath(request.reference, '/cancel'), request.call, { reason: request.reason });
  return paymentResult(paymentOf(answer), answer);
}

function refund(request) {
  const answer = changeAtBank(paymentPath(request.reference, '/refunds'), request.call, {
    merchant_refund_id: request.refundId,
    amount: request.amount.minor,
    currency: request.amount.currency,
    reason: request.reason,
  });
  const made = answer.json();
  if (!isRefund(made)) throw unreadable(answer);
  return refundResult(made, request.amount, answer);
}

function sync(request) {
  const answer = request.reference
    ? readAtBank(paymentPath(request.reference))
    : readAtBank('/v1/payments', { merchant_payment_id: request.paymentId });
  const payment = paymentOf(answer);
  if (payment.merchant_payment_id !== request.paymentId) {
    throw refuse.internal(`the bank answered with payment ${payment.id}, which is not the one that was asked for`);
  }
  return {
    payment: paymentResult(payment, answer),
    refunds: (payment.refunds ?? []).map((refund) => refundResult(refund, payment)),
  };
}

// ------------------------------------------------------------------ webhooks

function receive(delivery) {
  const signed = verifyStandardWebhook(delivery, secretBase64('webhook-secret'));
  const message = parseJson(delivery.body);
  const { payment, refund } = message?.data ?? {};
  if (!isText(message?.type) || !isTime(message.created_at_ms) || !isPayment(payment)) {
    throw refuseWebhook.malformed('not a message of the bank');
  }
  log.debug('webhook verified', { event: signed.id, kind: message.type });
  return event(signed, {
    kind: message.type,
    occurredAtMs: message.created_at_ms,
    reference: payment.id,
    paymentId: payment.merchant_payment_id,
    change: whatChanged(message.type, payment, refund),
  });
}

function whatChanged(kind, payment, refund) {
  if (kind.startsWith('payment.')) {
    return paymentChange({ status: STATUS[payment.status], totals: totals(payment), declineCode: payment.decline_code });
  }
  // The bank may learn to tell more than this plugin understands.
  if (!kind.startsWith('refund.')) return { tag: 'irrelevant' };
  if (!isRefund(refund)) throw refuseWebhook.malformed('a refund event without a refund');
  return refundChange({
    refundId: refund.merchant_refund_id,
    reference: refund.id,
    status: refund.status,
    amount: money(refund.amount, payment),
  });
}

// ------------------------------------------------------------------ the bank's API and its words

// The bank does a change at most once under the operation's key.
function changeAtBank(path, call, json) {
  return accept(change(...bank(path, { json, headers: { 'idempotency-key': call.idempotencyKey } })));
}

function readAtBank(path, query) {
  return accept(read(...bank(path, { query })));
}

function bank(path, options) {
  const headers = { ...options.headers, authorization: `Bearer ${config.secret('api-key')}`, accept: 'application/json' };
  return [config.require('base-url').replace(/\/+$/, '') + path, { ...options, headers, timeoutMs: timeout() }];
}

function timeout() {
  const setting = (config.get('timeout-ms') ?? '').trim() || '10000';
  if (!/^[1-9][0-9]{0,8}$/.test(setting)) throw refuse.misconfigured('`timeout-ms` is not a number of milliseconds');
  return Number(setting);
}

function accept(answer) {
  if (answer.ok) return answer;
  // A proxy in between answers in its own words.
  const error = parseJson(answer.body)?.error;
  const [code, message] = [error?.code, error?.message].map((word) => (isText(word) ? word : undefined));
  // Not about the payment: the host used one key for two different requests.
  if (code === 'idempotency_key_reused') throw refuse.invalidRequest(code, message, { httpStatus: answer.status });
  throw answer.refusal(code, message);
}

const paymentPath = (reference, operation = '') => `/v1/payments/${pathSegment(reference)}${operation}`;

const STATUS = {
  action_required: 'action-required',
  authorized: 'authorized',
  partially_captured: 'partially-captured',
  captured: 'captured',
  canceled: 'canceled',
  failed: 'failed',
};

const REFUND_STATUS = ['succeeded', 'failed'];

// What the host cannot take ends the call as a trap, so the shape is looked at before anything is handed over: each
// text, each whole number, each list.
function isPayment(value) {
  const { id, merchant_payment_id, status, currency, exponent, captures = [], refunds = [] } = value ?? {};
  return [id, merchant_payment_id, currency].every(isText) && Object.hasOwn(STATUS, status) && isSmall(exponent)
    && [value.authorized, value.captured, value.refunded, value.canceled].every(Number.isSafeInteger)
    && [value.redirect_url, value.decline_code].every(isTextOrNothing)
    && isListOf(captures, (capture) => isText(capture?.id)) && isListOf(refunds, isRefund);
}

function isRefund(value) {
  const { id, merchant_refund_id, amount, status } = value ?? {};
  return isText(id) && isTextOrNothing(merchant_refund_id)
    && Number.isSafeInteger(amount) && REFUND_STATUS.includes(status);
}

const isText = (value) => typeof value === 'string' && value !== '';
const isTextOrNothing = (value) => value === undefined || value === null || typeof value === 'string';
const isTime = (value) => Number.isSafeInteger(value) && value >= 0;
const isSmall = (value) => Number.isInteger(value) && value >= 0 && value <= 255;
const isListOf = (value, is) => Array.isArray(value) && value.every(is);

function paymentOf(answer) {
  const payment = answer.json();
  if (!isPayment(payment)) throw unreadable(answer);
  return payment;
}

// A success of another shape is as unreadable as one that is no JSON: a change may have happened.
const unreadable = (answer) =>
  answer.lost('unreadable_answer', 'the answer has another shape', { httpStatus: answer.status });

function paymentResult(payment, answer) {
  return {
    status: STATUS[payment.status],
    reference: payment.id,
    totals: totals(payment),
    nextAction: payment.redirect_url && {
      tag: 'redirect',
      val: { url: payment.redirect_url, method: 'get', formFields: [] },
    },
    raw: answer.text(),
  };
}

// `unit` lends its currency; the amount is the bank's.
function refundResult(refund, unit, answer) {
  return {
    refundId: refund.merchant_refund_id,
    status: refund.status,
    reference: refund.id,
    amount: money(refund.amount, unit),
    raw: answer?.text(),
  };
}

const money = (minor, { currency, exponent }) => ({ minor, currency, exponent });

const totals = ({ currency, authorized, captured, refunded, canceled }) => ({
  currency, authorized, captured, refunded, canceled,
});
