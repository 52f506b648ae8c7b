// A fake of Stripe that keeps idempotency keys as Stripe does (the package stripe-stateful-mock), on free ports of the
// loopback address, until stdin ends.
//
// It knows charges only. So requests for PaymentIntents are rewritten as requests for charges, and its answers as
// PaymentIntents, by the server that is announced. Nothing about idempotency happens here: keys and credentials go
// through as they came, and the whole body of the original request goes along as metadata, so that the fake notices
// any difference between two requests under one key.
"use strict";

const http = require("http");
const { createExpressApp } = require("stripe-stateful-mock");

require("loglevel").setLevel("silent");

const SOURCES = { pm_visa: "tok_visa", pm_declined: "tok_chargeDeclinedInsufficientFunds" };
const PASSED_ON = ["idempotency-key", "authorization"];

function asCharge(method, path, form, raw) {
  const out = new URLSearchParams();
  if (raw) out.set("metadata[request]", raw);
  const operation = /^\/v1\/payment_intents\/pi_(\w+)(\/\w+)?$/.exec(path);
  if (path === "/v1/payment_intents") {
    out.set("amount", form.get("amount"));
    out.set("currency", form.get("currency"));
    out.set("capture", String(form.get("capture_method") !== "manual"));
    out.set("source", SOURCES[form.get("payment_method")] || form.get("payment_method"));
    return { path: "/v1/charges", body: out };
  }
  if (operation && operation[2] === "/capture") {
    const body = new URLSearchParams({ amount: form.get("amount_to_capture") });
    return { path: `/v1/charges/ch_${operation[1]}/capture`, body };
  }
  if (operation && method === "GET") return { path: `/v1/charges/ch_${operation[1]}`, body: out };
  if (path === "/v1/refunds") {
    out.set("charge", form.get("payment_intent").replace(/^pi_/, "ch_"));
    out.set("amount", form.get("amount"));
    out.set("metadata[oms_refund]", form.get("metadata[oms_refund]"));
    return { path, body: out };
  }
  return { path: "/v1/unknown", body: out };
}

function asIntent(answer) {
  if (answer.object === "charge") {
    const manual = answer.metadata.request.includes("capture_method=manual");
    const received = answer.captured ? answer.amount_captured || answer.amount : 0;
    return {
      id: answer.id.replace(/^ch_/, "pi_"),
      object: "payment_intent",
      amount: answer.amount,
      amount_received: received,
      currency: answer.currency,
      capture_method: manual ? "manual" : "automatic_async",
      status: answer.captured ? "succeeded" : "requires_capture",
      latest_charge: answer,
      metadata: {},
    };
  }
  if (answer.object === "refund") return { ...answer, payment_intent: answer.charge.replace(/^ch_/, "pi_") };
  return answer;
}

function forward(port, original, raw, reply) {
  const url = new URL(original.url, "http://localhost");
  const { path, body } = asCharge(original.method, url.pathname, new URLSearchParams(raw), raw);
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  for (const name of PASSED_ON) if (original.headers[name]) headers[name] = original.headers[name];
  const options = { host: "127.0.0.1", port, path, method: original.method, headers };
  const request = http.request(options, (answer) => {
    let text = "";
    answer.on("data", (chunk) => (text += chunk));
    answer.on("end", () => {
      const passed = {};
      for (const name of ["idempotent-replayed", "original-request", "request-id"]) {
        if (answer.headers[name]) passed[name] = answer.headers[name];
      }
      reply.writeHead(answer.statusCode, { "content-type": "application/json", ...passed });
      reply.end(JSON.stringify(asIntent(JSON.parse(text))));
    });
  });
  if (original.method === "POST") request.write(body.toString());
  request.end();
}

const fake = createExpressApp().listen(0, "127.0.0.1", () => {
  const front = http.createServer((request, reply) => {
    let raw = "";
    request.on("data", (chunk) => (raw += chunk));
    request.on("end", () => forward(fake.address().port, request, raw, reply));
  });
  front.listen(0, "127.0.0.1", () => console.log(`listening on ${front.address().port}`));
});

process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
