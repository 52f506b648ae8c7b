// Stripe's own Node library, with the same jobs as its sister in Python.
"use strict";

const Stripe = require("stripe");

const { webhooks } = new Stripe("sk_test_unused");

function verify(job) {
  const body = Buffer.from(job.verify, "base64");
  try {
    webhooks.constructEvent(body, job.header, job.secret, 300, undefined, job.now * 1000);
  } catch (refused) {
    return `${refused.name}: ${refused.message}`;
  }
  return null;
}

function act(job) {
  if ("sign" in job) {
    return webhooks.generateTestHeaderString({ payload: job.sign, secret: job.secret, timestamp: job.at });
  }
  return verify(job);
}

let input = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (chunk) => (input += chunk));
process.stdin.on("end", () => process.stdout.write(JSON.stringify(JSON.parse(input).map(act))));
