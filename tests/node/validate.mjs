// Print the findings of AsyncAPI's own parser about documents, one line of JSON for each: node validate.mjs FILE…

import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(file, "utf-8"));
  const streams = document?.channels().all().map((channel) => channel.address()) ?? [];
  const findings = diagnostics.map(({ code, severity }) => ({ code, severity }));
  console.log(JSON.stringify({ streams, findings }));
}
