// Call the SDK of openai against each URL of the arguments, and print per URL what the caller got, as JSON.
// The models to call come as JSON from stdin.

import { readFileSync } from "node:fs";

import OpenAI from "openai";

const canary = "canary-7c1f";
const models = JSON.parse(readFileSync(0, "utf-8"));

for (const baseURL of process.argv.slice(2)) {
  const client = new OpenAI({ apiKey: canary, baseURL, maxRetries: 0, defaultQuery: { secret: canary } });
  const results = [];
  for (const model of models) {
    const result = [];
    try {
      const messages = [{ role: "user", content: canary }];
      const found = await client.chat.completions.create({ model, messages, stream: !model.startsWith("whole") });
      if (model.startsWith("whole")) result.push(found);
      else for await (const chunk of found) result.push(chunk);
    } catch (error) {
      result.push(`${error.name} ${error.status} ${error.message}`);
    }
    results.push(result);
  }
  console.log(JSON.stringify(results));
}
