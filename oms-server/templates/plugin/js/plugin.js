// __ID__: a payment plugin for oms.
//
// Every call runs in a fresh instance, so nothing is kept here. `change` sends what changes something: without an answer
// it throws `indeterminate`, never a failure.

import {
  change, config, definePlugin, event, parseJson, pathSegment, paymentChange, read, refuseWebhook, secretBase64,
  verifyStandardWebhook,
} from './oms.js';

export const { descriptor, gateway, webhooks } = definePlugin({ describe, start, refund, sync, receive });

function describe() {
  return {
    id: '__ID__',
    name: '__ID__',
    version: '0.1.0',
    // Whatever is not named here answers `unsupported` by itself.
    features: ['refund', 'partialRefund', 'sync', 'webhooks'],
    configSchema: {
      type: 'object',
      required: ['base-url', 'api-key', 'webhook-secret'],
      properties: {
        'base-url': { type: 'string', format: 'uri' },
        'api-key': { type: 'string', writeOnly: true },
        'webhook-secret': { type: 'string', pattern: '^whsec_', writeOnly: true },
      },
      additionalProperties: false,
    },
    hosts: ['config:base-url'],
  };
}

function start(request) {
  const answer = changeAtGateway('/payments', request.call, {
    // Comes back in webhooks, and finds the payment when the answer to this is lost.
    payment: request.paymentId,
    amount: request.amount.minor,
    currency: request.amount.currency,
    capture: 'automatic',
  });
  return result(answer);
}

function refund(request) {
  const path = `/payments/${pathSegment(request.reference)}/refunds`;
  const body = { refund: request.refundId, amount: request.amount.minor };
  const answer = changeAtGateway(path, request.call, body);
  const made = object(answer);
  return {
    refundId: request.refundId,
    status: ['succeeded', 'failed'].includes(made.status) ? made.status : 'pending',
    reference: text(made.id),
    amount: request.amount,
  };
}

function sync(request) {
  const path = request.reference ? `/payments/${pathSegment(request.reference)}` : '/payments';
  const query = request.reference ? undefined : { payment: request.paymentId };
  const answer = accept(read(url(path), { query, headers: headers() }));
  return { payment: result(answer) };
}

function receive(delivery) {
  // The secret stays in the host. Nothing is read before this has succeeded.
  const signed = verifyStandardWebhook(delivery, secretBase64('webhook-secret'));
  const message = parseJson(delivery.body);
  if (!text(message?.type) || !text(message.id) || !totals(message)) throw refuseWebhook.malformed('not an event');
  return event(signed, {
    kind: message.type,
    reference: message.id,
    paymentId: text(message.payment),
    change: paymentChange({ status: status(message.status), totals: totals(message) }),
  });
}

// ------------------------------------------------------------------ the gateway's API and its words

// The gateway does a change at most once under the operation's key.
function changeAtGateway(path, call, json) {
  return accept(change(url(path), { json, headers: { ...headers(), 'idempotency-key': call.idempotencyKey } }));
}

const url = (path) => config.require('base-url').replace(/\/+$/, '') + path;
const headers = () => ({ authorization: `Bearer ${config.secret('api-key')}` });

function accept(answer) {
  if (answer.ok) return answer;
  // A proxy in between answers in its own words.
  const body = parseJson(answer.body);
  throw answer.refusal(text(body?.code) ?? undefined, text(body?.message) ?? undefined);
}

// A success of another shape is as unreadable as one that is no JSON.
function object(answer) {
  const body = answer.json();
  if (!text(body?.id)) throw answer.lost('unreadable_answer', 'the answer has no id', { httpStatus: answer.status });
  return body;
}

function result(answer) {
  const payment = object(answer);
  const said = totals(payment);
  if (!said) throw answer.lost('unreadable_answer', 'the answer has no totals', { httpStatus: answer.status });
  // A status that this version does not know is no failure.
  return { status: status(payment.status) ?? 'pending', reference: payment.id, totals: said };
}

const STATUS = ['pending', 'captured', 'failed'];
const status = (name) => (STATUS.includes(name) ? name : null);
const text = (value) => (typeof value === 'string' && value !== '' ? value : null);

function totals({ currency, captured, refunded }) {
  const whole = Number.isSafeInteger(captured) && Number.isSafeInteger(refunded);
  return whole && text(currency) ? { currency, captured, refunded } : null;
}
