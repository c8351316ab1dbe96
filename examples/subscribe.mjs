// Print finished texts from Node, in a consumer group: npm install redis && node subscribe.mjs

import { createClient } from "redis";

const client = createClient({ url: process.env.REDIS_URL ?? "redis://localhost:6379" });
await client.connect();
const stream = `${process.env.DELTALOOM_PREFIX ?? "deltaloom"}:assembled`;

try {
  await client.xGroupCreate(stream, "index", "0", { MKSTREAM: true });
} catch {
  // BUSYGROUP: the group exists already
}

let after = "0"; // first the entries that this consumer has not acknowledged yet
while (true) {
  const read = { key: stream, id: after };
  const replies = await client.xReadGroup("index", "index-1", read, { COUNT: 100, BLOCK: 1000 });
  for (const { id, message } of replies?.[0].messages ?? []) {
    /** @type {import("./types/AssembledText.js").AssembledText} */
    const text = JSON.parse(message.__data__);
    console.log(text.response_id, text.kind, text.status, text.integrity, text.text);
    await client.xAck(stream, "index", id);
  }
  after = ">"; // then new entries
}
