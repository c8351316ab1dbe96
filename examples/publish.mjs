// Publish a response's streaming events from Node: npm install redis && node publish.mjs

import { createClient } from "redis";

const client = createClient({ url: process.env.REDIS_URL ?? "redis://localhost:6379" });
await client.connect();
const stream = `${process.env.DELTALOOM_PREFIX ?? "deltaloom"}:deltas`;

const part = { item_id: "msg_1", output_index: 0, content_index: 0 };
/** @type {import("./types/Event.js").Event[]} */
const events = [
  { type: "response.refusal.delta", sequence_number: 1, delta: "I'm sorry,", ...part },
  { type: "response.refusal.delta", sequence_number: 2, delta: " but no.", ...part },
  { type: "response.refusal.done", sequence_number: 3, refusal: "I'm sorry, but no.", ...part },
];

for (const event of events) {
  await client.xAdd(stream, "*", { event: JSON.stringify(event), response_id: "resp_node" });
}
await client.close();
